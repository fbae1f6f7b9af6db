//! With shell scripts in place of workers.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn recipe(dir: &std::path::Path, script: &str) -> Recipe {
    let program = dir.join("worker.sh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    Recipe {
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
    crew: &mut Crew,
    recipe: &Recipe,
    wanted: usize,
    done: impl Fn(&Crew, &[String]) -> bool,
) -> Vec<String> {
    let mut words = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done(crew, &words) {
        assert!(Instant::now() < deadline, "{words:?}");
        words.extend(crew.tick(recipe, wanted));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    words
}

#[tokio::test]
async fn workers_start_and_stop_when_their_standard_input_closes() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "cat >/dev/null");
    let mut crew = Crew::default();
    crew.tick(&recipe, 2);
    assert_eq!(crew.alive(), 2);
    let words = until(&mut crew, &recipe, 0, |crew, _| crew.alive() == 0).await;
    assert_eq!(words, Vec::<String>::new(), "an orderly stop is not worth a word");
}

#[tokio::test]
async fn a_dead_worker_is_told_with_its_last_words_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(
        dir.path(),
        "echo \"$GREETING\" >&2; echo '2026-01-01T00:00:00Z ERROR no such table' >&2; exit 2",
    );
    let mut crew = Crew::default();
    let words = until(&mut crew, &recipe, 1, |_, words| {
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
        crew.places[0].slot("1"),
        Slot::Waiting { current: true, .. }
    ));
    assert!(matches!(
        crew.places[0].slot("2"),
        Slot::Waiting { current: false, .. }
    ));
}

#[tokio::test]
async fn a_program_that_is_missing_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(dir.path(), "");
    recipe.program = dir.path().join("missing");
    let mut crew = Crew::default();
    let words = crew.tick(&recipe, 1);
    assert!(
        words[0].contains("cannot start") && words[0].contains("missing"),
        "{words:?}"
    );
    assert_eq!(crew.alive(), 0);
}

#[tokio::test]
async fn a_new_version_replaces_each_worker() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(dir.path(), "cat >/dev/null");
    let mut crew = Crew::default();
    crew.tick(&recipe, 2);
    recipe.version = "2".into();
    let renewed = |crew: &Crew, _: &[String]| {
        crew.places
            .iter()
            .all(|place| place.slot("2") == Slot::Running { current: true })
    };
    until(&mut crew, &recipe, 2, renewed).await;
    assert_eq!(crew.alive(), 2);
    crew.kill();
}

#[tokio::test]
async fn a_worker_that_does_not_stop_is_killed_and_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(dir.path(), "exec sleep 1000");
    recipe.patience = Duration::from_millis(50);
    let mut crew = Crew::default();
    crew.tick(&recipe, 1);
    let words = until(&mut crew, &recipe, 0, |crew, _| crew.alive() == 0).await;
    assert!(
        words[0].contains("signal 9") && words[0].contains("read again"),
        "{words:?}"
    );
}
