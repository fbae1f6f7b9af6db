//! VRL programs that take all memory, all time or all stack, compiled as the operator does it: in processes
//! of the real program.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use operator::compiler::{Programs, Verdict};

fn programs() -> Arc<Programs> {
    Arc::new(Programs::isolated(PathBuf::from(env!(
        "CARGO_BIN_EXE_kafka-consumer-operator"
    ))))
}

async fn verdict(programs: &Arc<Programs>, source: &str) -> Verdict {
    programs.prepare_all("default", vec![source.into()]).await;
    programs.verdict(source)
}

fn slow(variant: usize) -> String {
    format!(".x{variant} = {}.y{}", "to_string!(".repeat(40), ")".repeat(40))
}

#[tokio::test]
async fn hostile_programs_are_invalid_and_say_why() {
    let programs = programs();
    let doubling: String = (0..40).map(|i| format!(".a{i} = .\n")).collect();
    let variables = format!("a = [1]\n{}.x = a", "a = [a, a]\n".repeat(60));
    let deep = format!(".x = {}1{}", "[".repeat(600), "]".repeat(600));
    let deepest = format!(".x = {}1{}", "(".repeat(130_000), ")".repeat(130_000));
    let renames: String = (0..2000).map(|i| format!(".new_{i} = del(.old_{i})\n")).collect();
    for (source, part) in [
        (&*doubling, "MiB of memory"),
        (&variables, "MiB of memory"),
        (&deep, "512 levels deep in line 1"),
        (&deepest, "512 levels deep in line 1"),
        (&renames, "CPU time"),
        (".a = to_flot!(.b)", "undefined function"),
        (&"#".repeat(300_000), "262144 are allowed"),
    ] {
        match verdict(&programs, source).await {
            Verdict::Invalid(message) => assert!(message.contains(part), "{message}"),
            other => panic!("{}: {other:?}", &source[..10]),
        }
    }
    let good = verdict(&programs, ".amount = to_float!(.amount)").await;
    assert_eq!(good, Verdict::Valid);
}

#[tokio::test]
async fn a_quick_program_does_not_wait_for_slow_ones() {
    let programs = programs();
    let hostile: Vec<String> = (1..7).map(slow).collect();
    for source in hostile.clone() {
        let programs = programs.clone();
        tokio::spawn(async move { programs.prepare_all("default", vec![source]).await });
    }
    assert_eq!(verdict(&programs, ".a = 1").await, Verdict::Valid);
    let known = hostile
        .iter()
        .filter(|source| !matches!(programs.verdict(source), Verdict::Unknown(_)));
    assert!(known.count() < hostile.len());
}

#[tokio::test]
async fn a_program_does_not_wait_for_many_of_another_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compiler");
    std::fs::write(&path, "#!/bin/sh\nsleep 0.2\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Arc::new(Programs::isolated(path));
    let many: Vec<String> = (0..20).map(|n| format!(".x = {n}")).collect();
    for source in many.clone() {
        let programs = programs.clone();
        tokio::spawn(async move { programs.prepare_all("hostile", vec![source]).await });
    }
    tokio::task::yield_now().await;
    // One that both have: the last one of the other namespace.
    let both = many[19].clone();
    programs
        .prepare_all("shop", vec![".a = 1".into(), both.clone()])
        .await;
    assert_eq!(programs.verdict(".a = 1"), Verdict::Valid);
    assert_eq!(programs.verdict(&both), Verdict::Valid);
    let known = many
        .iter()
        .filter(|source| programs.verdict(source) == Verdict::Valid);
    let known = known.count();
    assert!(known <= 5, "{known} of the others came first");
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_leaves_the_verdict_open() {
    let programs = Arc::new(Programs::isolated("/does/not/exist".into()));
    assert!(matches!(verdict(&programs, ".a = 1").await, Verdict::Unknown(_)));
}

#[tokio::test]
async fn only_a_crash_or_two_timeouts_of_the_compiler_refuse_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let ends = |name: &str, how: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{how}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Arc::new(Programs::isolated(path))
    };
    match verdict(&ends("crash", "kill -SEGV $$"), ".a = 1").await {
        Verdict::Invalid(message) => assert!(message.contains("crashes the compiler"), "{message}"),
        other => panic!("{other:?}"),
    }
    // The kernel kills processes when memory is used up, whatever they do.
    // A process that hangs is killed and tried once more: a busy machine is slow too.
    let within = std::time::Duration::from_secs(2);
    let hangs = |name: &str, how: &str| {
        ends(name, how);
        Arc::new(Programs::isolated_within(folder.path().join(name), within))
    };
    let once = "test -e $0.ran && exit 0\ntouch $0.ran\nexec sleep 600";
    assert_eq!(verdict(&hangs("once", once), ".a = 1").await, Verdict::Valid);
    match verdict(&hangs("always", "exec sleep 600"), ".a = 1").await {
        Verdict::Invalid(message) => assert!(message.contains("too slow to compile"), "{message}"),
        other => panic!("{other:?}"),
    }
    for (name, how) in [
        ("killed", "kill -KILL $$"),
        ("other", "exit 101"),
        ("failed", "exit 12"),
    ] {
        let found = verdict(&ends(name, how), ".a = 1").await;
        let says_why = matches!(&found, Verdict::Unknown(why) if why.contains("compiler does not run: "));
        assert!(says_why, "{name}: {found:?}");
    }
}
