//! Whose failure a failure of the compiler's process is.

use super::*;

#[tokio::test]
async fn a_process_that_fails_is_a_failure_of_its_program_and_one_that_does_not_start_of_all() {
    let says = |programs: &Programs, source| match programs.verdict(source) {
        Verdict::Unknown(why) => why,
        other => panic!("{other:?}"),
    };
    // It does not know the subcommand, so it ends without a verdict.
    let ends = Arc::new(Programs::isolated("/bin/false".into()));
    ends.prepare_all("default", vec![".a = 1".into()]).await;
    assert!(says(&ends, ".a = 1").contains("does not run: "));
    assert!(says(&ends, ".b = 1").contains("still compiles it"));
    let missing = Arc::new(Programs::isolated("/does/not/exist".into()));
    missing.prepare_all("default", vec![".a = 1".into()]).await;
    for source in [".a = 1", ".b = 1"] {
        assert!(says(&missing, source).contains("does not run: cannot run"));
    }
}
