//! The first steps of a user: install with Helm, apply a group, look at it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use harness::{
    Load, scenario_alone,
    systems::{consumer_groups, kubernetes::summary},
    until,
    verify::{check::check_records, load},
};
use serde_json::{Value, json};

/// Number of records; it need not be divisible by 6 partitions x 20 keys, because the ledger counts per key.
const RECORDS: u64 = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_helm_install_and_one_apply_bring_100000_records_transformed_to_kafka_and_postgresql() -> Result<()>
{
    scenario_alone("install", async |world| {
        let input = world.topic("orders", 6).await?;
        let output = world.topic("shipped", 6).await?;
        let ledger = Load::new(&input, "first", 0..6).produce(&world.kafka, RECORDS).await?;

        let database = world.postgres().await?;
        let table = world.table_name("orders");
        let columns = "id text primary key, run text, key text, sequence bigint, total bigint, status text";
        database.create_table(&table, columns).await?;
        world.apply_secret("warehouse", &[("url", &world.env.variable("POSTGRES_URL")?)]).await?;

        world
            .apply_group(
                "orders",
                json!({
                    "topics": [{"name": input}],
                    "decode": {"value": {"type": "Json"}},
                    "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
                    "writers": [
                        {"name": "shipped", "type": "Kafka", "kafka": {"topic": output}},
                        {"name": "warehouse", "type": "Postgres", "postgres": {
                            "connection": {"secretName": "warehouse", "key": "url"},
                            "table": table, "keyColumns": ["id"],
                        }},
                    ],
                }),
            )
            .await?;
        world.until_ready("orders", 6).await?;
        let group_id = world.group_id("orders");
        world.kafka.until_drained(&group_id, &input).await?;

        // Every record, in both places, with the values that the program computes.
        let arrived = world.kafka.read_all(&output).await?;
        let verdict = check_records(&ledger, &arrived)?;
        println!("  Kafka: {verdict}");
        assert!(verdict.complete(), "{verdict}");
        for record in &arrived {
            let value = record.json()?;
            assert_eq!(value, expected(&value), "{}@{}", record.partition, record.offset);
            assert_eq!(record.key.as_deref(), value["key"].as_str().map(str::as_bytes), "the key is kept");
        }
        let rows = database
            .client
            .query(&format!("select id, run, key, sequence, total, status from {table}"), &[])
            .await?;
        assert_eq!(rows.len() as u64, ledger.total(), "one row per record");
        for row in &rows {
            let value = json!({
                "id": row.get::<_, String>(0), "run": row.get::<_, String>(1), "key": row.get::<_, String>(2),
                "sequence": row.get::<_, i64>(3), "total": row.get::<_, i64>(4), "status": row.get::<_, String>(5),
            });
            assert_eq!(value, expected(&value));
        }
        database.client.batch_execute(&format!("drop table {table}")).await?;

        // Kafka's own tool agrees: six members with a partition each, no lag.
        let partitions = world.describe_group(&group_id).await?;
        assert_eq!(partitions.len(), 6, "{partitions:?}");
        assert!(partitions.iter().all(|partition| partition.lag == Some(0)), "{partitions:?}");
        let owners: BTreeSet<_> = partitions.iter().filter_map(|partition| partition.consumer.as_deref()).collect();
        assert_eq!(owners.len(), 6, "{partitions:?}");
        assert_eq!(consumer_groups::members(&world.env, &group_id).await?.len(), 6);

        // The status agrees too, once workers and operator have reported.
        let pods: BTreeSet<String> = world.workers("orders").await?.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        until("status shows six workers, all records and no lag", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            let names: BTreeSet<String> = status.workers.iter().map(|worker| worker.name.clone()).collect();
            let done: i64 = status.workers.iter().map(|worker| worker.records_total).sum();
            ensure!(names == pods, "{names:?}, but the pods are {pods:?}");
            ensure!(done == RECORDS as i64, "records in status: {done}");
            ensure!(status.workers.iter().all(|worker| worker.assigned == 1), "{:?}", status.workers);
            ensure!(status.lag.as_ref().is_some_and(|lag| lag.total == 0), "{}", summary(&group));
            ensure!(status.partitions.as_ref().is_some_and(|partitions| partitions.total == 6 && partitions.assigned == Some(6)), "{}", summary(&group));
            ensure!(status.group_state.as_deref() == Some("Stable"), "{}", summary(&group));
            Ok(())
        })
        .await?;

        // And the output that a user sees.
        let text = world.kubectl(&["get", "kcg"], None).await?.ok("kubectl get kcg")?;
        println!("{text}");
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let header = lines.next().unwrap_or_default();
        assert_eq!(header, ["NAME", "READY", "REASON", "STATE", "WORKERS", "DESIRED", "PARTITIONS", "LAG", "AGE"]);
        let row = lines.next().unwrap_or_default();
        assert_eq!(row.len(), header.len(), "every column has a value: {text}");
        assert_eq!((row[0], row[1]), ("orders", "True"));
        assert_eq!(row[3..8], ["Stable", "6", "6", "6", "0"]);
        let wide = world.kubectl(&["get", "kcg", "-o", "wide"], None).await?.ok("kubectl get kcg -o wide")?;
        assert!(wide.contains(&group_id), "{wide}");
        let described = world.kubectl(&["describe", "kcg", "orders"], None).await?.ok("kubectl describe")?;
        for part in ["Conditions:", "Ready", "Accepted", "KafkaReachable", "LagKnown", "WorkersAvailable", "Consuming", "Events:"] {
            assert!(described.contains(part), "{part} is missing in:\n{described}");
        }
        Ok(())
    })
    .await
}

/// The result of the transform for the order with the run, key and sequence number of `value`.
fn expected(value: &Value) -> Value {
    load::shipped(
        value["run"].as_str().unwrap_or_default(),
        value["key"].as_str().unwrap_or_default(),
        value["sequence"].as_u64().unwrap_or_default(),
    )
}
