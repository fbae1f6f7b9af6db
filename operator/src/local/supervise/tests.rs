//! With shell scripts in place of workers.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn command(dir: &std::path::Path, script: &str) -> WorkerCommand {
    let program = dir.join("worker.sh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    WorkerCommand {
        program,
        name: "orders".into(),
        folder: dir.into(),
        env: vec![("GREETING".into(), "hello".into())],
        version: "1".into(),
        share_stdout: false,
        patience: Duration::from_secs(30),
    }
}

/// Ticks until `done`; the scripts take milliseconds, so minutes mean that something is broken.
async fn until(
    workers: &mut WorkerProcesses,
    command: &WorkerCommand,
    wanted: usize,
    done: impl Fn(&WorkerProcesses, &[String]) -> bool,
) -> Vec<String> {
    let mut words = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done(workers, &words) {
        assert!(Instant::now() < deadline, "{words:?}");
        words.extend(workers.tick(command, wanted));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    words
}

#[tokio::test]
async fn workers_start_and_stop_when_their_standard_input_closes() {
    let dir = tempfile::tempdir().unwrap();
    let command = command(dir.path(), "cat >/dev/null");
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 2);
    assert_eq!(workers.alive(), 2);
    let words = until(&mut workers, &command, 0, |workers, _| workers.alive() == 0).await;
    assert_eq!(words, Vec::<String>::new(), "an orderly stop is not worth a word");
}

#[tokio::test]
async fn a_dead_worker_is_told_with_its_last_words_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let command = command(
        dir.path(),
        "echo \"$GREETING\" >&2; echo '2026-01-01T00:00:00Z ERROR no such table' >&2; exit 2",
    );
    let mut workers = WorkerProcesses::default();
    let words = until(&mut workers, &command, 1, |_, words| {
        words.iter().any(|said| said.contains("exit code"))
    })
    .await;
    let said = words.join("\n");
    assert!(
        words[0].starts_with("orders-0: ") && words[0].ends_with("ERROR no such table"),
        "{said}"
    );
    assert!(
        said.contains("orders-0 ended with exit code 2\n  | hello"),
        "{said}"
    );
    assert!(said.contains("started again in 1 s"), "{said}");
    assert!(matches!(
        workers.places[0].slot("1"),
        Slot::Waiting { current: true, .. }
    ));
    assert!(matches!(
        workers.places[0].slot("2"),
        Slot::Waiting { current: false, .. }
    ));
}

#[tokio::test]
async fn a_program_that_is_missing_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "");
    command.program = dir.path().join("missing");
    let mut workers = WorkerProcesses::default();
    let words = workers.tick(&command, 1);
    assert!(
        words[0].contains("cannot start") && words[0].contains("missing"),
        "{words:?}"
    );
    assert_eq!(workers.alive(), 0);
}

#[tokio::test]
async fn a_new_version_replaces_each_worker() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "cat >/dev/null");
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 2);
    command.version = "2".into();
    let renewed = |workers: &WorkerProcesses, _: &[String]| {
        workers
            .places
            .iter()
            .all(|place| place.slot("2") == Slot::Running { current: true })
    };
    until(&mut workers, &command, 2, renewed).await;
    assert_eq!(workers.alive(), 2);
    workers.kill();
}

#[tokio::test]
async fn a_worker_that_does_not_stop_is_killed_and_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "exec sleep 1000");
    command.patience = Duration::from_millis(50);
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 1);
    let words = until(&mut workers, &command, 0, |workers, _| workers.alive() == 0).await;
    assert!(
        words[0].contains("signal 9") && words[0].contains("read again"),
        "{words:?}"
    );
}
