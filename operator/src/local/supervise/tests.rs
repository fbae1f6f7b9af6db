//! Worker processes, with shell scripts instead of workers.

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
        bounded: false,
        share_stdout: false,
        stop_timeout: Duration::from_secs(30),
    }
}

/// Ticks until `done`. The scripts take milliseconds, so a minute means a failure.
async fn until(
    workers: &mut WorkerProcesses,
    command: &WorkerCommand,
    wanted: usize,
    done: impl Fn(&WorkerProcesses, &[String]) -> bool,
) -> Vec<String> {
    let mut messages = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done(workers, &messages) {
        assert!(Instant::now() < deadline, "{messages:?}");
        messages.extend(workers.tick(command, wanted));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    messages
}

#[tokio::test]
async fn workers_start_and_stop_when_their_standard_input_closes() {
    let dir = tempfile::tempdir().unwrap();
    let command = command(dir.path(), "cat >/dev/null");
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 2);
    assert_eq!(workers.alive(), 2);
    let messages = until(&mut workers, &command, 0, |workers, _| workers.alive() == 0).await;
    assert_eq!(messages, Vec::<String>::new(), "a clean stop causes no message");
    assert!(workers.take_dead().is_empty(), "they have left the group");
}

#[tokio::test]
async fn an_exited_worker_is_reported_with_its_last_lines_and_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let command = command(
        dir.path(),
        "echo \"$KCW_STARTED_AT\" >\"$0.started\"; echo \"$GREETING\" >&2; echo '2026-01-01T00:00:00Z ERROR no such table' >&2; exit 2",
    );
    let mut workers = WorkerProcesses::default();
    let messages = until(&mut workers, &command, 1, |_, messages| {
        messages.iter().any(|message| message.contains("exit code"))
    })
    .await;
    let message = messages.join("\n");
    assert!(
        messages[0].starts_with("orders-0: ") && messages[0].ends_with("ERROR no such table"),
        "{message}"
    );
    assert!(
        message.contains("orders-0 ended with exit code 2\n  | hello"),
        "{message}"
    );
    assert!(message.contains("restarting in 1 s"), "{message}");
    // What it has printed may contain records, which events must not have.
    assert_eq!(
        workers.take_exits(),
        ["orders-0 ended with exit code 2; restarting in 1 s; the terminal shows its last lines"]
    );
    assert!(workers.take_exits().is_empty());
    // Whoever looks for its member in Kafka finds this process and no other.
    let started = std::fs::read_to_string(dir.path().join("worker.sh.started")).unwrap();
    let started: i64 = started.trim().parse().unwrap();
    assert_eq!(workers.take_dead(), [DeadProcess::exact("orders-0", started)]);
    assert!(workers.take_dead().is_empty());
    assert!(matches!(
        workers.slots[0].state("1"),
        SlotState::Waiting { current: true, .. }
    ));
    assert!(matches!(
        workers.slots[0].state("2"),
        SlotState::Waiting { current: false, .. }
    ));
}

#[tokio::test]
async fn a_missing_program_is_reported_and_retried() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "");
    command.program = dir.path().join("missing");
    let mut workers = WorkerProcesses::default();
    let messages = workers.tick(&command, 1);
    assert!(
        messages[0].contains("cannot start") && messages[0].contains("missing"),
        "{messages:?}"
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
    let replaced = |workers: &WorkerProcesses, _: &[String]| {
        workers
            .slots
            .iter()
            .all(|slot| slot.state("2") == SlotState::Running { current: true })
    };
    until(&mut workers, &command, 2, replaced).await;
    assert_eq!(workers.alive(), 2);
    workers.kill();
}

#[tokio::test]
async fn a_worker_that_does_not_stop_is_killed_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "exec sleep 1000");
    command.stop_timeout = Duration::from_millis(50);
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 1);
    let messages = until(&mut workers, &command, 0, |workers, _| workers.alive() == 0).await;
    assert!(
        messages[0].contains("signal 9") && messages[0].contains("read again"),
        "{messages:?}"
    );
    assert_eq!(workers.take_dead().len(), 1);
}

#[tokio::test]
async fn bounded_workers_that_end_by_themselves_are_not_restarted() {
    for code in [0, 7] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path(), &format!("echo x >>\"$0.starts\"; exit {code}"));
        command.bounded = true;
        let mut workers = WorkerProcesses::default();
        let mut ends = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while ends.is_empty() {
            assert!(Instant::now() < deadline);
            workers.tick(&command, 1);
            ends = workers.take_ends();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(ends, [code]);
        workers.tick(&command, 1);
        assert_eq!(workers.alive(), 0);
        assert!(workers.take_dead().is_empty(), "it has left the group");
        let starts = std::fs::read_to_string(dir.path().join("worker.sh.starts")).unwrap();
        assert_eq!(starts.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_bounded_worker_that_is_stopped_before_its_end_causes_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), "cat >/dev/null; exit 6");
    command.bounded = true;
    let mut workers = WorkerProcesses::default();
    workers.tick(&command, 1);
    let messages = until(&mut workers, &command, 0, |workers, _| workers.alive() == 0).await;
    assert_eq!(messages, Vec::<String>::new());
    assert!(workers.take_dead().is_empty() && workers.take_ends().is_empty());
}
