//! Brokers of a cluster of three that are stopped, killed and frozen while a group runs in local mode: the
//! process that asks Kafka for facts and starts the workers goes on, and so do the records.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    Env, Kafka, Load, alone,
    systems::{
        brokers::Brokers,
        local::{Process, program},
    },
    until_within,
    verify::{check::check_records, load},
};
use serde_json::json;
use tempfile::TempDir;

/// Longer than the brokers take to notice that one of them is frozen.
const FROZEN: Duration = Duration::from_secs(12);
const DOWN: Duration = Duration::from_secs(5);
/// Records go on well before; a busy machine gets time.
const RECOVERED: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn local_mode_survives_the_loss_of_each_broker() -> Result<()> {
    let _alone = alone().await;
    let env = Env::read()?;
    let brokers = Brokers::start(&env).await?;
    let kafka = Kafka::new(&brokers.bootstrap);
    let (input, output) = ("orders", "shipped");
    for topic in [input, output] {
        kafka.create_topic(topic, 4).await?;
    }
    let folder = TempDir::new()?;
    let file = folder.path().join("orders.yaml");
    let manifest = json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": "orders"},
        "spec": {
            "kafka": {"bootstrapServers": brokers.bootstrap.split(',').collect::<Vec<_>>()},
            "topics": [{"name": input}],
            "decode": {"value": {"type": "Json"}},
            "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
            "writers": [{"name": "shipped", "type": "Kafka", "kafka": {"topic": output}}],
            "processing": {"deliveryGuarantee": "ExactlyOnce", "commitIntervalMilliseconds": 200},
        },
    });
    std::fs::write(&file, serde_json::to_vec(&manifest)?)?;
    let file = file.display().to_string();
    let mut local = Process::start(
        &program("kafka-consumer-operator")?,
        &["local", "-f", &file, "--max-workers", "2"],
    )?;
    local.until_prints("orders: 2 workers").await?;
    let running = Load::new(input, "faults", 0..4).start(&kafka, 200)?;
    let group = "default.orders";
    for (fault, end, number) in [
        ("stop", "start", 1),
        ("kill", "start", 2),
        ("freeze", "thaw", 3),
        ("kill", "start", 1),
        ("stop", "start", 3),
    ] {
        brokers.fault(fault, number).await?;
        tokio::time::sleep(if fault == "freeze" { FROZEN } else { DOWN }).await;
        brokers.fault(end, number).await?;
        let sent = running.sent();
        let what = format!("records go on after {fault} of broker {number}");
        until_within(RECOVERED, &what, async || {
            let committed: i64 = kafka.committed(group, input).await?.values().sum();
            ensure!(committed as u64 > sent, "{committed} of {sent} are committed");
            Ok(())
        })
        .await?;
        local.check()?;
    }
    let ledger = running.stop().await?;
    kafka.until_drained(group, input).await?;
    local.until_prints("lag 0").await?;
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");
    assert!(
        !printed.contains("exit code"),
        "no worker ended unexpectedly:\n{printed}"
    );
    let records = kafka.read_all(output).await?;
    let verdict = check_records(&ledger, &records)?;
    println!("  {verdict}");
    assert!(verdict.complete(), "{verdict}");
    assert_eq!(verdict.duplicates(), 0, "{verdict}");
    Ok(())
}
