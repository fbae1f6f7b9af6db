//! Tests of what the scripts of the test cluster have in common, `tests/cluster/lib.sh`. They start nothing of a cluster.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::systems::process::Running;

/// Becomes itself again and again, for as long as the process that started it lives. The shell passes itself on as `$0`.
const BECOMES_ITSELF: &str = r#"[ "$PPID" = "$2" ] && exec sh -c "$0" "$0" "$1" "$2""#;

/// Runs `script` with the functions of `lib.sh`, which is its `$0`; `argument` is its `$1`.
fn with_library(state: &Path, script: &str, argument: &str) -> Output {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lib.sh");
    Command::new("bash")
        .env("KCG_STATE", state)
        .args(["-c", &format!(r#". "$0"; {script}"#), library, argument])
        .output()
        .expect("bash runs")
}

/// What a daemon does while it starts: `setsid` becomes `nsenter` becomes `etcd`. In between it has no command line, and
/// a look at that moment was taken for its end.
#[test]
fn a_process_on_its_way_from_one_program_to_the_next_has_not_ended() {
    let state = tempfile::tempdir().expect("a folder");
    let daemon = Command::new("sh")
        .args(["-c", BECOMES_ITSELF, BECOMES_ITSELF])
        .arg(state.path().join("data"))
        .arg(std::process::id().to_string())
        .spawn()
        .map(Running)
        .expect("sh runs");
    let output = with_library(
        state.path(),
        r#"for look in {1..200}; do is_ours "$1" || die "look $look: not ours"; done"#,
        &daemon.pid().to_string(),
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_process_that_has_ended_or_is_somebody_elses_is_not_ours() {
    let state = tempfile::tempdir().expect("a folder");
    let ours = state.path().join("data");
    let mut ended = Command::new("true")
        .arg(&ours)
        .spawn()
        .map(Running)
        .expect("true runs");
    // Not collected yet: the process id is still taken.
    let strangers = [ended.pid(), std::process::id()];
    for pid in strangers {
        let output = with_library(
            state.path(),
            r#"wait_gone "$1" 10 && ! is_ours "$1""#,
            &pid.to_string(),
        );
        assert!(output.status.success(), "{pid}: {output:?}");
    }
    ended.0.wait().expect("it has ended");
}
