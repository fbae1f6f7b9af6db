//! Tests of `tests/cluster/lib.sh`, which the scripts of the test cluster share. They start no part of a
//! cluster.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::systems::process::Running;

/// Executes itself again and again while the process that started it lives. The shell passes its own script
/// as `$0`.
const EXECUTES_ITSELF: &str = r#"[ "$PPID" = "$2" ] && exec sh -c "$0" "$0" "$1" "$2""#;

/// Runs `script` with the functions of `lib.sh`, which is its `$0`; `argument` is its `$1`.
fn with_library(state: &Path, script: &str, argument: &str) -> Output {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lib.sh");
    Command::new("bash")
        .env("KCG_STATE", state)
        .args(["-c", &format!(r#". "$0"; {script}"#), library, argument])
        .output()
        .expect("bash must run")
}

/// A starting daemon does this: `setsid` executes `nsenter`, which executes `etcd`. In between the process
/// has no command line, and the scripts once took that for its end.
#[test]
fn a_process_that_executes_another_program_has_not_ended() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let daemon = Command::new("sh")
        .args(["-c", EXECUTES_ITSELF, EXECUTES_ITSELF])
        .arg(state.path().join("data"))
        .arg(std::process::id().to_string())
        .spawn()
        .map(Running)
        .expect("sh must run");
    let output = with_library(
        state.path(),
        r#"for attempt in {1..200}; do is_ours "$1" || die "attempt $attempt: not ours"; done"#,
        &daemon.pid().to_string(),
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_ended_process_and_a_process_of_others_are_not_ours() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let ours = state.path().join("data");
    let mut ended = Command::new("true")
        .arg(&ours)
        .spawn()
        .map(Running)
        .expect("true must run");
    // Nothing has waited for it yet: the process id is still taken.
    let strangers = [ended.pid(), std::process::id()];
    for pid in strangers {
        let output = with_library(
            state.path(),
            r#"wait_gone "$1" 10 && ! is_ours "$1""#,
            &pid.to_string(),
        );
        assert!(output.status.success(), "{pid}: {output:?}");
    }
    ended.0.wait().expect("it must have ended");
}
