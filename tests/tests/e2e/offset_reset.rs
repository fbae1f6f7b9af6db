//! KafkaOffsetResets of one group, as a user creates them: a dry run, what is refused, a reset that stops the
//! group and starts it again, and one during which the operator is killed.

use anyhow::{Context, Result, ensure};
use crds::KafkaOffsetReset;
use crds::offset_reset::ResetPhase;
use harness::{
    Load, World, scenario_alone,
    systems::kubernetes::{identities, summary},
    until,
};
use kube::{Api, Resource};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

const PARTITIONS: i32 = 4;
const RECORDS: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn offset_resets_are_planned_refused_and_applied_once_also_if_the_operator_is_killed() -> Result<()> {
    scenario_alone("reset", async |world| {
        let input = world.topic("orders", PARTITIONS).await?;
        let output = world.topic("copy", PARTITIONS).await?;
        Load::new(&input, "first", 0..PARTITIONS)
            .produce(&world.kafka, RECORDS)
            .await?;
        let group = json!({
            "topics": [{"name": input}],
            "scaling": {"maxReplicas": 2},
            "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
        });
        // It is given time, because its group may be applied later.
        let nobody = json!({"groupRef": {"name": "nobody"}, "to": {"type": "Earliest"}, "dryRun": true});
        create(world, "nobody", nobody).await?;
        world.apply_group("orders", group).await?;
        world.until_ready("orders", 2).await?;
        let id = world.group_id("orders");
        world.kafka.until_drained(&id, &input).await?;
        let committed = world.kafka.committed(&id, &input).await?;
        let workers = identities(&world.workers("orders").await?);
        let generation = world.group("orders").await?.metadata.generation;

        println!("  a dry run while the group runs");
        let past = json!({"type": "Timestamp", "timestamp": "2020-01-01T00:00:00Z"});
        let planned = reset(world, "look", json!({"to": past, "dryRun": true})).await?;
        let status = planned.status.context("a status")?;
        let totals = status.totals.context("totals")?;
        println!("  {}", status.message.unwrap_or_default());
        assert_eq!(
            (totals.partitions, totals.again, totals.skipped),
            (PARTITIONS, RECORDS as i64, 0)
        );
        for partition in &status.partitions {
            assert_eq!(
                partition.committed,
                committed.get(&partition.partition).copied(),
                "{partition:?}"
            );
            assert_eq!((partition.new, partition.log_start), (0, 0), "{partition:?}");
            assert!(partition.record_time.is_some(), "{partition:?}");
        }
        assert_eq!(world.kafka.committed(&id, &input).await?, committed);
        let shown = world
            .kubectl(&["get", "kor"], None)
            .await?
            .ok("kubectl get kor")?;
        println!("{shown}");

        println!("  what is refused");
        let earliest = json!({"type": "Earliest"});
        for (name, changes, reason, says) in [
            ("running", json!({}), "GroupNotStopped", "stopGroup: true"),
            (
                "typo",
                json!({"topics": [{"topic": "retruns"}], "dryRun": true}),
                "TopicNotInGroup",
                &*input,
            ),
        ] {
            let mut spec = json!({"to": earliest});
            harness::systems::kubernetes::merge(&mut spec, changes);
            create(world, name, spec).await?;
            refused(world, name, reason, says).await?;
        }
        let patch = json!({"spec": {"dryRun": false}}).to_string();
        let output_of_patch = world
            .kubectl(&["patch", "kor", "look", "--type=merge", "-p", &patch], None)
            .await?;
        assert!(
            !output_of_patch.success && output_of_patch.stderr.contains("cannot be changed"),
            "{output_of_patch:?}"
        );
        assert_eq!(
            identities(&world.workers("orders").await?),
            workers,
            "nothing has disturbed the group"
        );

        println!("  a reset that stops the group and starts it again");
        let again = reset(world, "again", json!({"to": earliest, "stopGroup": true})).await?;
        let status = again.status.context("a status")?;
        println!("  {}", status.message.unwrap_or_default());
        assert_eq!(status.totals.map(|totals| totals.again), Some(RECORDS as i64));
        world.until_ready("orders", 2).await?;
        world.kafka.until_drained(&id, &input).await?;
        until_copied(world, &output, 2 * RECORDS as usize).await?;
        let events = world
            .kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"], None)
            .await?
            .ok("kubectl get events")?;
        for reason in [
            "OffsetsReset",
            "OffsetReset",
            "Stopping",
            "DryRun",
            "GroupNotStopped",
        ] {
            assert!(events.contains(reason), "{reason} is not among {events}");
        }

        println!("  an operator that is killed while another program keeps the group from being empty");
        let before = world.kafka.committed(&id, &input).await?;
        let other = join(world, &id, &input)?;
        let shift = json!({"type": "Shift", "by": -10});
        let tail = json!({"to": shift, "stopGroup": true, "ttlSecondsAfterFinished": 3600});
        create(world, "tail", tail).await?;
        until("the reset waits for the other member, and names it", async || {
            let status = get(world, "tail").await?.status.unwrap_or_default();
            let message = status.message.unwrap_or_default();
            ensure!(
                status.phase == Some(ResetPhase::Stopping) && message.contains("someone-else"),
                "{:?} {message}",
                status.phase
            );
            Ok(())
        })
        .await?;
        let held = world.until_condition("orders", "Ready", "False").await?;
        assert_eq!(held.reason, "OffsetReset", "{held:?}");
        let stalled = world.until_condition("orders", "Stalled", "False").await?;
        println!("  {}: {}; Stalled: {}", held.reason, held.message, stalled.reason);
        // What an operator leaves that is killed between the storage of a plan and its commit. The spec would give
        // another plan.
        create(world, "stored", json!({"to": shift, "stopGroup": true})).await?;
        let stored_at = before.get(&0).context("an offset")? - 5;
        store_plan(world, "stored", &input, stored_at).await?;
        let operator = world.kill_operator(false).await?;
        world.until_operator_is_back(&operator).await?;
        drop(other);
        let stored = until_ended(world, get(world, "stored").await?).await?;
        let status = stored.status.context("a status")?;
        assert_eq!(status.phase, Some(ResetPhase::Succeeded), "{:?}", status.message);
        assert_eq!(status.partitions.len(), 1, "{:?}", status.partitions);
        let tail = until_ended(world, get(world, "tail").await?).await?;
        let status = tail.status.context("a status")?;
        assert_eq!(status.phase, Some(ResetPhase::Succeeded), "{:?}", status.message);
        for partition in &status.partitions {
            let committed = match partition.partition {
                0 => Some(stored_at),
                other => before.get(&other).copied(),
            };
            assert_eq!(
                (partition.committed, partition.difference),
                (committed, Some(-10)),
                "{partition:?}"
            );
        }
        world.until_ready("orders", 2).await?;
        world.kafka.until_drained(&id, &input).await?;
        until_copied(
            world,
            &output,
            2 * RECORDS as usize + 5 + 10 * PARTITIONS as usize,
        )
        .await?;
        refused(world, "nobody", "GroupNotFound", "groupRef.name").await?;
        let group = world.group("orders").await?;
        assert_eq!(
            group.metadata.generation,
            generation,
            "the spec was not touched: {}",
            summary(&group)
        );
        let shown = world
            .kubectl(&["get", "kor", "-o", "wide"], None)
            .await?
            .ok("kubectl get kor")?;
        println!("{shown}");
        Ok(())
    })
    .await
}

async fn create(world: &World, name: &str, changes: Value) -> Result<KafkaOffsetReset> {
    let mut spec = json!({"groupRef": {"name": "orders"}});
    harness::systems::kubernetes::merge(&mut spec, changes);
    let manifest = json!({
        "apiVersion": KafkaOffsetReset::api_version(&()), "kind": "KafkaOffsetReset",
        "metadata": {"name": name}, "spec": spec,
    });
    world.apply(&manifest.to_string()).await?;
    get(world, name).await
}

/// Creates a reset and waits until it has succeeded, as a user does.
async fn reset(world: &World, name: &str, changes: Value) -> Result<KafkaOffsetReset> {
    create(world, name, changes).await?;
    let resource = format!("kor/{name}");
    let wait = ["wait", "--for=condition=Complete", "--timeout=120s", &resource];
    let waited = world.kubectl(&wait, None).await?;
    let reset = get(world, name).await?;
    ensure!(waited.success, "{}: {:?}", waited.stderr, reset.status);
    Ok(reset)
}

async fn get(world: &World, name: &str) -> Result<KafkaOffsetReset> {
    let api: Api<KafkaOffsetReset> = Api::namespaced(world.kube.clone(), &world.namespace);
    Ok(api.get(name).await?)
}

async fn until_ended(world: &World, reset: KafkaOffsetReset) -> Result<KafkaOffsetReset> {
    let name = reset.metadata.name.context("a name")?;
    until(&format!("{name} has ended"), async || {
        let reset = get(world, &name).await?;
        let phase = reset.status.as_ref().and_then(|status| status.phase);
        ensure!(phase.is_some_and(ResetPhase::is_final), "{:?}", reset.status);
        Ok(reset)
    })
    .await
}

/// A reset that has failed, or will, with this reason and message.
async fn refused(world: &World, name: &str, reason: &str, says: &str) -> Result<()> {
    let refused = until_ended(world, get(world, name).await?).await?;
    let (condition, message) = failure(&refused)?;
    println!("  {condition}: {message}");
    assert_eq!(condition, reason, "{message}");
    assert!(message.contains(says), "{message}");
    Ok(())
}

/// Stores a plan for one partition, as the operator does before it commits.
async fn store_plan(world: &World, name: &str, topic: &str, offset: i64) -> Result<()> {
    let partition = json!({
        "topic": topic, "partition": 0, "committed": offset + 5, "new": offset, "difference": -5,
        "logStart": 0, "end": offset + 5,
    });
    let totals = json!({"partitions": 1, "changed": 1, "again": 5, "skipped": 0});
    let status = json!({"phase": "Resetting", "partitions": [partition], "totals": totals});
    let patch = json!({"status": status}).to_string();
    let arguments = [
        "patch",
        "kor",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    world
        .kubectl(&arguments, None)
        .await?
        .ok("kubectl patch")
        .map(drop)
}

/// Reason and message of condition Failed.
fn failure(reset: &KafkaOffsetReset) -> Result<(String, String)> {
    let status = reset.status.as_ref().context("a status")?;
    let mut conditions = status.conditions.iter();
    let failed = conditions
        .find(|condition| condition.type_ == "Failed" && condition.status == "True")
        .with_context(|| format!("not failed: {status:?}"))?;
    Ok((failed.reason.clone(), failed.message.clone()))
}

/// Exactly this many records have been copied.
async fn until_copied(world: &World, output: &str, records: usize) -> Result<()> {
    until(&format!("{records} records are copied"), async || {
        let copied = world.kafka.read_all(output).await?.len();
        ensure!(copied == records, "{copied}");
        Ok(())
    })
    .await
}

/// Another program that is a member of the group until it is dropped, and commits nothing.
fn join(world: &World, group: &str, topic: &str) -> Result<Member> {
    let mut config = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", world.env.kafka.as_str()),
        ("group.id", group),
        ("client.id", "someone-else"),
        ("enable.auto.commit", "false"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ] {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[topic])?;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let _ = consumer.poll(std::time::Duration::from_millis(100));
        }
    });
    Ok(Member {
        stop: Some(stop),
        thread: Some(thread),
    })
}

struct Member {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
