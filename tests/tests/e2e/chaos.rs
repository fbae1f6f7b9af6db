//! Short forms of `make soak`: workers as bare processes, killed, restarted, frozen and cut off; every record is accounted
//! for. They need the cluster's Kafka and nothing else of it. And the checker itself: a worker with a planted bug must be
//! blamed for it.

use anyhow::Result;
use harness::{
    chaos::{self, Faults, SESSION_OF_A_CRASH, Scenario, Site, planted},
    checker::{Guarantee, Ordering},
    env::KafkaEnv,
    local::program,
    world::alone,
};

/// What the worker promises so far, and in which order.
const PROMISES: &[(Guarantee, Ordering)] = &[(Guarantee::AtLeastOnce, Ordering::PerPartition)];

#[tokio::test(flavor = "multi_thread")]
async fn twenty_killed_worker_processes_lose_nothing_and_keep_the_order_of_keys() -> Result<()> {
    let faults = Faults {
        kills: 20,
        ..Faults::default()
    };
    for (guarantee, ordering) in PROMISES {
        let scenario = Scenario {
            session: SESSION_OF_A_CRASH,
            ..scenario("kills", faults, *guarantee, *ordering)
        };
        run(&scenario, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_beyond_its_session_spoils_nothing_when_it_goes_on() -> Result<()> {
    let faults = Faults {
        zombies: 3,
        zombie_seconds: 3,
        ..Faults::default()
    };
    for (guarantee, ordering) in PROMISES {
        let scenario = Scenario {
            session: SESSION_OF_A_CRASH,
            ..scenario("zombies", faults, *guarantee, *ordering)
        };
        run(&scenario, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_restarted_one_after_the_other_neither_lose_nor_repeat_a_record() -> Result<()> {
    let faults = Faults {
        restarts: 5,
        ..Faults::default()
    };
    for (guarantee, ordering) in PROMISES {
        run(&scenario("restarts", faults, *guarantee, *ordering), false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_neither_lose_nor_repeat_a_record() -> Result<()> {
    let faults = Faults {
        cuts: 6,
        ..Faults::default()
    };
    for (guarantee, ordering) in PROMISES {
        run(&scenario("cuts", faults, *guarantee, *ordering), true).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_with_planted_bugs_are_blamed_for_them() -> Result<()> {
    let _alone = alone().await;
    let env = KafkaEnv::read()?;
    let worker = match &env.planted_worker {
        Some(path) => path.clone(),
        // Beside the folder of the profile.
        None => program("kafka-consumer-worker")?
            .ancestors()
            .nth(2)
            .unwrap_or(std::path::Path::new("/"))
            .join("planted/kafka-consumer-worker"),
    };
    let folder = tempfile::tempdir()?;
    let site = Site {
        bootstrap: env.kafka.clone(),
        proxied: None,
        worker,
        folder: folder.path().to_path_buf(),
    };
    let rows = planted::rows(&site, planted::BUGS.iter().filter(|bug| bug.quick)).await?;
    let missed: Vec<_> = rows.iter().filter(|row| !row.passed).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(rows.len() >= 4, "{} planted bugs", rows.len());
    Ok(())
}

fn scenario(name: &str, faults: Faults, guarantee: Guarantee, ordering: Ordering) -> Scenario {
    Scenario {
        guarantee,
        ordering,
        faults,
        ..Scenario::new(name)
    }
}

/// Runs a scenario; its promise must be kept. The workers' logs stay when it was not.
async fn run(scenario: &Scenario, proxied: bool) -> Result<()> {
    let _alone = alone().await;
    let env = KafkaEnv::read()?;
    let folder = tempfile::tempdir()?;
    let site = Site {
        bootstrap: env.kafka.clone(),
        proxied: if proxied { Some(env.proxied()?) } else { None },
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
    // What would have passed with nothing to check.
    assert!(outcome.verdict.arrived > 1000, "{}", outcome.verdict);
    assert!(outcome.verdict.letters > 20, "{}", outcome.verdict);
    Ok(())
}
