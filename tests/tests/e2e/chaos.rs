//! Short forms of `make soak`: workers as bare processes, killed, restarted, frozen and disconnected; every
//! record is accounted for. They need only Kafka and PostgreSQL of the cluster. And a test of the checker: it
//! must find the bug of a worker with a seeded bug.

use anyhow::Result;
use harness::{
    alone, beside_others,
    chaos::{self, SESSION_OF_A_CRASH, Scenario, Site, seeded_bugs},
    systems::{env::KafkaEnv, local::program},
    verify::checker::{Guarantee, Ordering, Sink},
};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_killed_worker_processes_lose_nothing_and_keep_the_order_of_partitions() -> Result<()> {
    run(&kills(20, Guarantee::AtLeastOnce, Ordering::PerPartition)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_keep_the_order_of_keys_with_per_key_ordering() -> Result<()> {
    run(&kills(6, Guarantee::AtLeastOnce, Ordering::PerKey)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_lose_nothing_with_unordered_processing() -> Result<()> {
    run(&kills(6, Guarantee::AtLeastOnce, Ordering::Unordered)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_repeat_nothing_with_at_most_once() -> Result<()> {
    run(&kills(6, Guarantee::AtMostOnce, Ordering::PerPartition)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_session_timeout_corrupts_nothing_when_it_resumes() -> Result<()> {
    let mut scenario = Scenario::new("zombies");
    scenario.session = SESSION_OF_A_CRASH;
    scenario.faults.zombies = 3;
    scenario.faults.zombie_seconds = 3;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_worker_processes_neither_loses_nor_repeats_a_record() -> Result<()> {
    let mut scenario = Scenario::new("restarts");
    scenario.faults.restarts = 5;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_neither_lose_nor_repeat_a_record() -> Result<()> {
    let mut scenario = Scenario::new("cuts");
    scenario.faults.cuts = 6;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_neither_lose_nor_repeat_a_record_with_exactly_once() -> Result<()> {
    run(&kills(6, Guarantee::ExactlyOnce, Ordering::PerPartition)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_are_exactly_once_with_per_key_ordering() -> Result<()> {
    run(&kills(6, Guarantee::ExactlyOnce, Ordering::PerKey)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_aborted_from_outside_neither_lose_nor_repeat_a_record() -> Result<()> {
    run(&aborts(Sink::Kafka)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_within_a_transaction_repeats_nothing_when_it_resumes() -> Result<()> {
    let mut scenario = Scenario::new("zombies");
    scenario.guarantee = Guarantee::ExactlyOnce;
    scenario.session = SESSION_OF_A_CRASH;
    scenario.faults.zombies = 2;
    scenario.faults.zombie_seconds = 3;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_worker_processes_is_exactly_once() -> Result<()> {
    let mut scenario = Scenario::new("restarts");
    scenario.guarantee = Guarantee::ExactlyOnce;
    scenario.faults.restarts = 4;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_processes_neither_lose_nor_repeat_a_row_with_exactly_once() -> Result<()> {
    let mut scenario = kills(6, Guarantee::ExactlyOnce, Ordering::PerPartition);
    scenario.sink = Sink::Postgres;
    run(&scenario).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_postgresql_ends_neither_lose_nor_repeat_a_row() -> Result<()> {
    run(&aborts(Sink::Postgres)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_the_bugs_of_workers_with_seeded_bugs() -> Result<()> {
    let _alone = alone().await;
    let env = KafkaEnv::read()?;
    let worker = match &env.seeded_worker {
        Some(path) => path.clone(),
        // Next to the folder of the profile.
        None => program("kafka-consumer-worker")?
            .ancestors()
            .nth(2)
            .unwrap_or(std::path::Path::new("/"))
            .join("seeded/kafka-consumer-worker"),
    };
    let folder = tempfile::tempdir()?;
    let site = Site {
        bootstrap: env.kafka.clone(),
        proxied: None,
        broker: None,
        brokers: None,
        postgres: Some(env.postgres()?),
        worker,
        folder: folder.path().to_path_buf(),
    };
    let rows = seeded_bugs::rows(&site, seeded_bugs::BUGS.iter().filter(|bug| bug.quick)).await?;
    let missed: Vec<_> = rows.iter().filter(|row| !row.passed).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(rows.len() >= 4, "{} seeded bugs", rows.len());
    Ok(())
}

fn kills(kills: u32, guarantee: Guarantee, ordering: Ordering) -> Scenario {
    let mut scenario = Scenario::new("kills");
    (scenario.guarantee, scenario.ordering) = (guarantee, ordering);
    scenario.session = SESSION_OF_A_CRASH;
    scenario.faults.kills = kills;
    scenario
}

fn aborts(sink: Sink) -> Scenario {
    let mut scenario = Scenario::new("aborts");
    (scenario.guarantee, scenario.sink) = (Guarantee::ExactlyOnce, sink);
    // At this rate some aborts hit a transaction that is still empty; once, six of six did.
    scenario.faults.fences = 16;
    scenario
}

/// Runs a scenario; its promise must be kept. The workers' logs are kept if it was not.
async fn run(scenario: &Scenario) -> Result<()> {
    let _beside_others = beside_others().await;
    let env = KafkaEnv::read()?;
    let folder = tempfile::tempdir()?;
    let site = Site {
        bootstrap: env.kafka.clone(),
        proxied: match scenario.faults.cuts {
            0 => None,
            _ => Some(env.proxied()?),
        },
        postgres: match scenario.sink {
            Sink::Kafka => None,
            Sink::Postgres => Some(env.postgres()?),
        },
        broker: None,
        brokers: None,
        worker: match &env.worker {
            Some(path) => path.clone(),
            None => program("kafka-consumer-worker")?,
        },
        folder: folder.path().to_path_buf(),
    };
    let outcome = chaos::run(&site, scenario).await?;
    let kept = outcome.kept();
    if kept.is_err() {
        let _ = folder.keep();
    }
    kept?;
    // Fails if the run had nothing to check.
    assert!(outcome.verdict.arrived > 1000, "{}", outcome.verdict);
    assert!(outcome.verdict.letters > 20, "{}", outcome.verdict);
    Ok(())
}
