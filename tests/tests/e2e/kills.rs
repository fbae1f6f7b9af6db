//! Crashes and rolling restarts under load.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::{
    Load, World, scenario,
    systems::kubernetes::{identities, pod_ready},
    until,
    verify::check::check_records,
};
use kube::ResourceExt;
use serde_json::{Value, json};

const PARTITIONS: i32 = 6;
const KILLS: u64 = 30;
/// Records per second over all partitions.
const RATE: u64 = 600;
const BATCH: u64 = 50;

/// What one crash may repeat, per partition: records that are read and not finished (at most four batches),
/// and records that are finished and not committed: commits are due every 200 ms, and a rebalance delays
/// them, counted as a second's worth of the load. Twice, because the killed worker may just have taken over
/// the partition of a worker killed before. All kills together stay well below the number of records, so the
/// test detects a worker that commits nothing.
const REPEATED_BY_ONE_KILL: u64 = 2 * (4 * BATCH + RATE / PARTITIONS as u64);

/// The group misses a killed member after this time. With the default of 45 s most partitions would have no
/// owner while workers are killed, and the kills would hit idle ones.
const SESSION_OF_A_CRASH: &str = "6000";

/// The default. A worker that gets no CPU for 6 s is a crash to the group, and a crash may repeat records;
/// this test is only about clean stops.
const SESSION_OF_A_CLEAN_STOP: &str = "45000";

#[tokio::test(flavor = "multi_thread")]
async fn thirty_killed_workers_lose_no_record_and_repeat_only_what_was_in_flight() -> Result<()> {
    scenario("kills", async |world| {
        let (input, output) = start_group(world, SESSION_OF_A_CRASH).await?;
        let running = Load::new(&input, "kills", 0..PARTITIONS).start(&world.kafka, RATE)?;
        let mut random = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos() as u64;
        println!("  seed {random}");
        for kill in 0..KILLS {
            let victim = until(&format!("a worker to kill ({kill} so far)"), async || {
                let mut ready = world.workers("orders").await?;
                ready.retain(pod_ready);
                ensure!(ready.len() >= 3, "only {} workers are ready", ready.len());
                random = next(random);
                ready
                    .get((random >> 33) as usize % ready.len())
                    .map(ResourceExt::name_any)
                    .context("no worker")
            })
            .await?;
            world.kill_worker(&victim).await?;
            random = next(random);
            tokio::time::sleep(Duration::from_millis(500 + (random >> 33) % 1500)).await;
        }
        world.until_ready("orders", PARTITIONS).await?;
        crash_and_expect_the_removal_of_its_member(world).await?;
        world.until_ready("orders", PARTITIONS).await?;
        let ledger = running.stop().await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        println!(
            "  after {KILLS} kills: {verdict} ({} a kill)",
            verdict.duplicates() / KILLS
        );
        assert!(verdict.complete(), "{verdict}");
        let bound = (KILLS + 1) * REPEATED_BY_ONE_KILL;
        assert!(
            verdict.duplicates() <= bound,
            "more than {bound} duplicates: {verdict}"
        );
        until("status no longer lists the killed workers", async || {
            let status = world.group("orders").await?.status.unwrap_or_default();
            let pods: Vec<String> = world
                .workers("orders")
                .await?
                .iter()
                .map(ResourceExt::name_any)
                .collect();
            let mut names: Vec<String> = status.workers.into_iter().map(|worker| worker.name).collect();
            names.sort();
            ensure!(names == pods, "status has {names:?}, the pods are {pods:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_neither_loses_nor_repeats_a_record() -> Result<()> {
    scenario("rolling", async |world| {
        let (input, output) = start_group(world, SESSION_OF_A_CLEAN_STOP).await?;
        let before = identities(&world.workers("orders").await?);
        let running = Load::new(&input, "rolling", 0..PARTITIONS).start(&world.kafka, RATE)?;
        world
            .patch_group(
                "orders",
                json!({"spec": {"worker": {"annotations": {"example.com/restarted": "once"}}}}),
            )
            .await?;
        until("every worker was replaced", async || {
            let workers = world.workers("orders").await?;
            let now = identities(&workers);
            ensure!(now.keys().all(|pod| !before.contains_key(pod)), "{now:?}");
            ensure!(
                now.len() == PARTITIONS as usize && workers.iter().all(pod_ready),
                "{now:?}"
            );
            Ok(())
        })
        .await?;
        world.until_ready("orders", PARTITIONS).await?;
        let ledger = running.stop().await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        println!("  after a rolling restart: {verdict}");
        assert!(verdict.complete(), "{verdict}");
        assert_eq!(verdict.duplicates(), 0, "{verdict}");
        Ok(())
    })
    .await
}

/// The kubelet reports the end of a container, and only then. The pods that were killed before have vanished,
/// so the broker had to miss their members.
async fn crash_and_expect_the_removal_of_its_member(world: &World) -> Result<()> {
    let workers = world.workers("orders").await?;
    let victim = workers.first().context("no worker")?.name_any();
    world.crash_worker(&victim).await?;
    until(&format!("the member of {victim} is removed"), async || {
        let arguments = [
            "get",
            "events",
            "--field-selector=reason=DeadWorkerRemoved",
            "-o",
            "yaml",
        ];
        let events = world.kubectl(&arguments, None).await?.ok("kubectl get events")?;
        ensure!(
            events.contains(&format!("worker {victim} ended (exit code 137)")),
            "{events}"
        );
        Ok(())
    })
    .await
}

/// A group that copies; returns its topics.
async fn start_group(world: &World, session: &str) -> Result<(String, String)> {
    let input = world.topic("orders", PARTITIONS).await?;
    let output = world.topic("copy", PARTITIONS).await?;
    world
        .apply_group("orders", group(&input, &output, session))
        .await?;
    world.until_ready("orders", PARTITIONS).await?;
    Ok((input, output))
}

fn group(input: &str, output: &str, session: &str) -> Value {
    json!({
        "topics": [{"name": input}],
        "kafka": {"clientConfig": {"session.timeout.ms": session, "heartbeat.interval.ms": "1000"}},
        "processing": {"batch": {"maxRecords": BATCH, "lingerMilliseconds": 10}},
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
    })
}

/// Knuth's linear congruential generator: workers and times differ in every run, and the test prints the
/// seed.
fn next(random: u64) -> u64 {
    random
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407)
}
