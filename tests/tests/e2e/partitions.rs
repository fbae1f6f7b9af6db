//! A topic gets more partitions while records flow.

use anyhow::{Result, ensure};
use harness::{Load, scenario, systems::kubernetes::identities, until, verify::check::check_records};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_get_workers_and_lose_no_record_written_before_their_discovery() -> Result<()> {
    scenario("partitions", async |world| {
        let input = world.topic("orders", 6).await?;
        let output = world.topic("copy", 6).await?;
        world
            .apply_group(
                "orders",
                json!({
                    "topics": [{"name": input}],
                    "decode": {"value": {"type": "Json"}},
                    // Later partitions start at their first record, whatever this setting is.
                    "consumer": {"startPosition": {"type": "Latest"}},
                    "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
                }),
            )
            .await?;
        world.until_ready("orders", 6).await?;
        let before = identities(&world.workers("orders").await?);

        let running = Load::new(&input, "growth", 0..6).start(&world.kafka, 500)?;
        until("records flow", async || {
            ensure!(running.sent() > 500, "{} sent", running.sent());
            Ok(())
        })
        .await?;
        world.kafka.grow_topic(&input, 9).await?;
        // At once: neither the operator nor the workers can have seen the new partitions.
        let added = Load::new(&input, "growth", 6..9)
            .produce(&world.kafka, 3000)
            .await?;

        world.until_ready("orders", 9).await?;
        let ledger = running.stop().await?.and(added);
        let group_id = world.group_id("orders");
        world.kafka.until_drained(&group_id, &input).await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        println!("  {verdict}");
        assert!(verdict.complete(), "{verdict}");
        assert_eq!(
            verdict.duplicates(),
            0,
            "nothing crashed, so nothing is written twice: {verdict}"
        );

        let after = identities(&world.workers("orders").await?);
        assert_eq!(after.len(), 9);
        for (pod, restarts) in &before {
            assert_eq!(
                after.get(pod),
                Some(restarts),
                "{pod} was replaced or restarted: {after:?}"
            );
        }
        let owners: std::collections::BTreeSet<_> = world
            .describe_group(&group_id)
            .await?
            .into_iter()
            .filter_map(|partition| partition.consumer)
            .collect();
        assert_eq!(owners.len(), 9, "every worker has a partition");
        Ok(())
    })
    .await
}
