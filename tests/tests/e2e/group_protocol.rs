//! Groups whose assignment the broker makes (KIP-848): scaled, and changed to this protocol and back while
//! records flow. One test uses the embedded broker and needs no cluster.

use anyhow::{Result, ensure};
use harness::{
    Load, World, beside_others, scenario,
    systems::{consumer_groups, kubernetes::summary},
    until,
    verify::{check::check_records, load::RunningLoad},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::local_mode;

const PARTITIONS: i32 = 6;
/// Records per second over all partitions.
const RATE: u64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_broker_assignment_is_scaled_under_load_and_loses_nothing() -> Result<()> {
    scenario("kip848", async |world| {
        let (input, output) = start_group(world, "Consumer", 1).await?;
        let running = Load::new(&input, "scaling", 0..PARTITIONS).start(&world.kafka, RATE)?;
        for workers in [3, 2] {
            world
                .patch_group("orders", json!({"spec": {"replicas": workers}}))
                .await?;
            world.until_ready("orders", workers).await?;
            flows(world, &running, "scaled").await?;
            until("status agrees with the broker", async || {
                let group = world.group("orders").await?;
                let status = group.status.clone().unwrap_or_default();
                ensure!(
                    status.group_state.as_deref() == Some("Stable"),
                    "{}",
                    summary(&group)
                );
                let assigned = status
                    .partitions
                    .as_ref()
                    .and_then(|partitions| partitions.assigned);
                ensure!(assigned == Some(PARTITIONS), "{}", summary(&group));
                let members = consumer_groups::members(&world.env, &world.group_id("orders")).await?;
                ensure!(members.len() == workers as usize, "{members:?}");
                Ok(())
            })
            .await?;
        }
        let types = consumer_groups::types(&world.env, &world.group_id("orders")).await?;
        assert_eq!(types, ["Consumer"], "the group must have the configured protocol");
        nothing_lost(world, running, &input, &output).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_group_changes_its_protocol_and_back_and_loses_nothing() -> Result<()> {
    scenario("protocols", async |world| {
        let (input, output) = start_group(world, "Classic", 3).await?;
        let running = Load::new(&input, "changes", 0..PARTITIONS).start(&world.kafka, RATE)?;
        for protocol in ["Consumer", "Classic"] {
            world
                .patch_group(
                    "orders",
                    json!({"spec": {"consumer": {"groupProtocol": protocol}}}),
                )
                .await?;
            world.until_ready("orders", 3).await?;
            flows(world, &running, protocol).await?;
            until(&format!("the group is {protocol}"), async || {
                let types = consumer_groups::types(&world.env, &world.group_id("orders")).await?;
                ensure!(types == [protocol], "{types:?}");
                Ok(())
            })
            .await?;
            world.until_ready("orders", 3).await?;
        }
        nothing_lost(world, running, &input, &output).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_assigns_a_consumer_protocol_group_that_is_scaled_under_load() -> Result<()> {
    let _beside_others = beside_others().await;
    let folder = TempDir::new()?;
    let manifest = |replicas: i32| {
        local_mode::group(json!({
            "topics": [{"name": "orders", "provision": {"partitions": 4}}],
            "consumer": {"groupProtocol": "Consumer"},
            "decode": {"value": {"type": "Json"}},
            "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": "copy"}}],
            "scaling": {"mode": "Manual"},
            "replicas": replicas,
        }))
    };
    let file = local_mode::write(&folder, "orders.yaml", &manifest(1))?;
    let mut local = local_mode::start(&["-f", &file, "--embedded-kafka", "--max-workers", "3"])?;
    let kafka = local_mode::embedded(&mut local).await?;
    let running = Load::new("orders", "scaled", 0..4).start(&kafka, 300)?;
    for replicas in [3, 2] {
        local_mode::write(&folder, "orders.yaml", &manifest(replicas))?;
        local.until_prints(&format!("orders: {replicas} workers")).await?;
        let sent = running.sent() + 1500;
        until(
            &format!("{replicas} workers have committed {sent} records"),
            async || {
                let committed: i64 = kafka.committed("default.orders", "orders").await?.values().sum();
                ensure!(committed as u64 >= sent, "{committed} are committed");
                Ok(())
            },
        )
        .await?;
    }
    let ledger = running.stop().await?;
    kafka.until_drained("default.orders", "orders").await?;
    let verdict = check_records(&ledger, &kafka.read_all("copy").await?)?;
    println!("  {verdict}");
    assert!(verdict.complete(), "{verdict}");
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");
    Ok(())
}

/// A group that copies; returns its topics.
async fn start_group(world: &World, protocol: &str, workers: i32) -> Result<(String, String)> {
    let input = world.topic("orders", PARTITIONS).await?;
    let output = world.topic("copy", PARTITIONS).await?;
    world
        .apply_group("orders", group(&input, &output, protocol, workers))
        .await?;
    world.until_ready("orders", workers).await?;
    Ok((input, output))
}

fn group(input: &str, output: &str, protocol: &str, workers: i32) -> Value {
    json!({
        "topics": [{"name": input}],
        "consumer": {"groupProtocol": protocol},
        "processing": {"batch": {"maxRecords": 50, "lingerMilliseconds": 10}},
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
        "scaling": {"mode": "Manual"},
        "replicas": workers,
    })
}

/// Waits until the load has produced some seconds' worth of records, so that each change meets work in
/// flight.
async fn flows(world: &World, running: &RunningLoad, what: &str) -> Result<()> {
    let from = running.sent();
    until(&format!("records flow after the change ({what})"), async || {
        ensure!(running.sent() > from + 5 * RATE, "{} sent", running.sent());
        Ok(())
    })
    .await?;
    world
        .until_condition("orders", "Consuming", "True")
        .await
        .map(drop)
}

async fn nothing_lost(world: &World, running: RunningLoad, input: &str, output: &str) -> Result<()> {
    let ledger = running.stop().await?;
    world
        .kafka
        .until_drained(&world.group_id("orders"), input)
        .await?;
    let verdict = check_records(&ledger, &world.kafka.read_all(output).await?)?;
    println!("  {verdict}");
    assert!(verdict.complete(), "{verdict}");
    Ok(())
}
