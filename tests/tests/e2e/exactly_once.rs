//! ExactlyOnce with a Kafka writer beyond crashes (chaos.rs tests those): records that the broker rejects, a
//! missing dead letter topic, a record that waits while others of its partition continue.

use anyhow::{Result, ensure};
use harness::{
    Ledger, Load, Message, World, scenario, systems::kubernetes::summary, until, verify::check::check_records,
};
use serde_json::{Value, json};

/// The output topic accepts no larger record batch.
const MAX_MESSAGE: usize = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_broker_rejects_become_dead_letters_in_the_transaction_of_the_others() -> Result<()>
{
    scenario("eos-refused", async |world| {
        let input = world.topic("orders", 2).await?;
        let dead = world.topic("dlq", 2).await?;
        let output = world.topic_name("copy");
        let limit = MAX_MESSAGE.to_string();
        world
            .kafka
            .create_topic_with(&output, 2, &[("max.message.bytes", &limit)])
            .await?;
        let letters = json!({"deadLetter": {"topic": dead}});
        world
            .apply_group("orders", copy(&input, &output, letters))
            .await?;
        world.until_ready("orders", 2).await?;

        let before = Load::new(&input, "before", 0..2)
            .produce(&world.kafka, 2000)
            .await?;
        let large = [0, 1].map(|partition| Message {
            partition: Some(partition),
            key: Some(b"large".to_vec()),
            value: Some(incompressible().into_bytes()),
            ..Message::default()
        });
        world.kafka.produce(&input, large).await?;
        let after = Load::new(&input, "after", 0..2)
            .produce(&world.kafka, 2000)
            .await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;

        once(world, &[before, after], &output).await?;
        let letters = world.kafka.read_all(&dead).await?;
        assert_eq!(letters.len(), 2, "one dead letter for each rejected record");
        for letter in &letters {
            let message = letter
                .header("kafka-consumer.dev/error-message")
                .unwrap_or_default();
            assert!(message.contains("max.message.bytes"), "{message}");
        }
        until("status counts the dead letters once", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            let counted: i64 = status
                .workers
                .iter()
                .map(|worker| worker.dead_lettered_total)
                .sum();
            ensure!(counted == 2, "{counted} counted; {}", summary(&group));
            Ok(())
        })
        .await?;
        let committed = world
            .workers_metric("orders", "kcg_worker_transactions_total")
            .await?;
        assert!(committed > 0.0);
        world.until_ready("orders", 2).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_stays_invisible_until_its_missing_dead_letter_topic_appears() -> Result<()> {
    scenario("eos-no-dlq", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        let dead = world.topic_name("dlq");
        let letters = json!({"deadLetter": {"topic": dead}, "retry": {"maxBackoffSeconds": 2}});
        let mut spec = copy(&input, &output, letters);
        spec["scaling"] = json!({"partitionsPerWorker": 2});
        world.apply_group("orders", spec).await?;
        world.until_ready("orders", 1).await?;

        let poison = Message {
            partition: Some(0),
            value: Some(b"a poison record".to_vec()),
            ..Message::default()
        };
        world.kafka.produce(&input, [poison]).await?;
        let ledger = Load::new(&input, "good", 0..2)
            .produce(&world.kafka, 1000)
            .await?;
        let condition = until(
            "status shows that the dead letter topic is unavailable",
            async || {
                let condition = world.until_condition("orders", "Consuming", "False").await?;
                ensure!(condition.reason == "DeadLetterUnavailable", "{condition:?}");
                ensure!(condition.message.contains(&dead), "{condition:?}");
                Ok(condition)
            },
        )
        .await?;
        println!("  {}", condition.message);
        let group_id = world.group_id("orders");
        let committed = world.kafka.committed(&group_id, &input).await?;
        assert_eq!(
            committed.get(&0),
            Some(&0),
            "nothing is committed past the record"
        );

        world.kafka.create_topic(&dead, 2).await?;
        world.kafka.until_drained(&group_id, &input).await?;
        once(world, &[ledger], &output).await?;
        let letters = world.kafka.read_all(&dead).await?;
        assert_eq!(letters.len(), 1, "{letters:?}");
        world.until_condition("orders", "Consuming", "True").await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_finished_out_of_order_are_not_repeated_when_workers_restart() -> Result<()> {
    scenario("eos-waiting", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        let waiting = json!({"onExhausted": "Stop", "retry": {"maxBackoffSeconds": 1}});
        let mut spec = copy(&input, &output, waiting);
        spec["processing"]["ordering"] = json!("PerKey");
        spec["transforms"] =
            json!([{"name": "strict", "type": "Vrl", "vrl": {"source": ".sequence = int!(.sequence)"}}]);
        world.apply_group("orders", spec.clone()).await?;
        world.until_ready("orders", 2).await?;

        // Its partition continues with other keys, up to the records that were read when it failed.
        let before = Load::new(&input, "before", 0..2)
            .produce(&world.kafka, 1000)
            .await?;
        let poison = json!({"run": "repaired", "key": "poison", "sequence": "0"}).to_string();
        let poison = Message {
            partition: Some(0),
            key: Some(b"poison".to_vec()),
            value: Some(poison.into_bytes()),
            ..Message::default()
        };
        let place = world.kafka.produce(&input, [poison]).await?[0].offset;
        let after = Load::new(&input, "after", 0..2)
            .produce(&world.kafka, 1000)
            .await?;
        until("status shows that a record failed", async || {
            let condition = world.until_condition("orders", "Consuming", "False").await?;
            ensure!(condition.reason == "RecordFailed", "{condition:?}");
            Ok(())
        })
        .await?;
        let group_id = world.group_id("orders");
        until("everything before the record is committed", async || {
            let committed = world.kafka.committed(&group_id, &input).await?;
            ensure!(committed.get(&0) == Some(&place), "{committed:?}");
            Ok(())
        })
        .await?;
        for pod in world.workers("orders").await? {
            world.kill_worker(&kube::ResourceExt::name_any(&pod)).await?;
        }
        world.until_condition("orders", "Consuming", "False").await?;

        spec["transforms"][0]["vrl"]["source"] = json!(".sequence = to_int!(.sequence)");
        world.apply_group("orders", spec).await?;
        world.kafka.until_drained(&group_id, &input).await?;
        let repaired = Ledger::counted("repaired", [("poison".into(), 1)]);
        once(world, &[before, after, repaired], &output).await
    })
    .await
}

/// A group that decodes JSON and copies it exactly once.
fn copy(input: &str, output: &str, error_handling: Value) -> Value {
    json!({
        "topics": [{"name": input}],
        "processing": {"deliveryGuarantee": "ExactlyOnce", "commitIntervalMilliseconds": 200},
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
        "errorHandling": error_handling,
    })
}

/// For a `read_committed` consumer, every record of the ledgers is in the topic once and in order.
async fn once(world: &World, ledgers: &[Ledger], output: &str) -> Result<()> {
    let records = world.kafka.read_all(output).await?;
    for ledger in ledgers {
        let verdict = check_records(ledger, &records)?;
        println!("  {}: {verdict}", ledger.run);
        assert!(verdict.complete() && verdict.duplicates() == 0, "{verdict}");
    }
    Ok(())
}

/// JSON that exceeds the limit of the topic, also compressed.
fn incompressible() -> String {
    let mut random: u64 = 1;
    let letters = std::iter::repeat_with(|| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        char::from(b'0' + (random >> 33) as u8 % 64)
    });
    json!({"run": "large", "pad": letters.take(3 * MAX_MESSAGE).collect::<String>()}).to_string()
}
