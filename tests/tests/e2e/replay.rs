//! A KafkaReplay of a running group, as a user creates it: a dry run, what is refused, and a replay of a part of the
//! log by two workers, during which a worker and the operator are killed, and one that is cancelled.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use crds::KafkaReplay;
use crds::names::REPLAY_LABEL;
use crds::replay::ReplayPhase;
use harness::{
    Load, World, scenario_alone,
    systems::kubernetes::{identities, merge, pod_ready},
    until,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, Resource};
use serde_json::{Value, json};

const PARTITIONS: i32 = 4;
/// In each partition.
const RECORDS: i64 = 400;
/// The part that is replayed, in each partition.
const FROM: i64 = 100;
const TO: i64 = 300;
/// Fast enough for the test, and slow enough to be interrupted.
const RATE: i64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_processes_its_part_of_the_log_beside_the_group_also_after_kills() -> Result<()> {
    scenario_alone("replay", async |world| {
        let input = world.topic("orders", PARTITIONS).await?;
        let output = world.topic("copy", PARTITIONS).await?;
        let all = RECORDS * i64::from(PARTITIONS);
        Load::new(&input, "first", 0..PARTITIONS)
            .produce(&world.kafka, all as u64)
            .await?;
        let ends = world.kafka.end_offsets(&input).await?;
        assert!(ends.values().all(|end| *end == RECORDS), "{ends:?}");
        let group = json!({
            "topics": [{"name": input}],
            "scaling": {"maxReplicas": 2},
            "writers": [
                {"name": "copy", "type": "Kafka", "kafka": {"topic": output}},
                {"name": "nothing", "type": "Blackhole"},
            ],
        });
        world.apply_group("orders", group).await?;
        world.until_ready("orders", 2).await?;
        let id = world.group_id("orders");
        world.kafka.until_drained(&id, &input).await?;
        let committed = world.kafka.committed(&id, &input).await?;
        let workers = identities(&world.workers("orders").await?);
        let generation = world.group("orders").await?.metadata.generation;
        let written = world.kafka.end_offsets(&output).await?;

        println!("  a dry run, and what is refused");
        let past = json!({"type": "Timestamp", "timestamp": "2020-01-01T00:00:00Z"});
        create(world, "look", json!({"from": past, "dryRun": true})).await?;
        create(world, "typo", json!({"writers": ["cpoy"]})).await?;
        let look = until_ended(world, "look").await?.status.context("a status")?;
        println!("  {}", look.message.unwrap_or_default());
        let totals = look.totals.context("totals")?;
        assert_eq!((look.phase, totals.records), (Some(ReplayPhase::Succeeded), all));
        for planned in &look.partitions {
            assert_eq!((planned.from, planned.to), (0, RECORDS), "{planned:?}");
            assert!(
                planned.from_time.is_some() && planned.topic_id.is_some(),
                "{planned:?}"
            );
        }
        assert_eq!(look.job_name, None);
        let typo = until_ended(world, "typo").await?.status.context("a status")?;
        let message = typo.message.unwrap_or_default();
        assert_eq!(typo.phase, Some(ReplayPhase::Failed), "{message}");
        assert!(message.contains("it has copy, nothing"), "{message}");

        println!("  a replay of the middle, during which a worker and the operator are killed");
        let part = json!({
            "from": offsets(&input, FROM), "to": offsets(&input, TO),
            "writers": ["copy"], "workers": 2, "recordsPerSecond": RATE,
        });
        create(world, "middle", part).await?;
        let running = until("some records are processed", async || {
            let status = get(world, "middle").await?.status.unwrap_or_default();
            let totals = status.totals.clone().unwrap_or_default();
            ensure!(
                status.phase == Some(ReplayPhase::Running) && totals.processed > 0,
                "{:?} {:?} {totals:?}",
                status.phase,
                status.message
            );
            Ok(status)
        })
        .await?;
        let replay_id = running.group_id.context("a group id")?;
        assert!(
            replay_id.starts_with(&format!("{id}.replay.middle.")),
            "{replay_id}"
        );
        assert_eq!(running.workers, Some(2));
        let pods = until("both workers of the replay run", async || {
            let pods = world.pods(&format!("{REPLAY_LABEL}=middle")).await?;
            ensure!(
                pods.iter().filter(|pod| pod_ready(pod)).count() == 2,
                "{:?}",
                identities(&pods)
            );
            Ok(pods)
        })
        .await?;
        let victim = pods[0].metadata.name.clone().context("a name")?;
        // Fails if the worker has ended already.
        world.kill_worker(&victim).await?;
        // Its successor takes over in 20 s, when the lease has expired.
        let operator = world.kill_operator(false).await?;
        world.until_operator_is_back(&operator).await?;
        let shown = world.kubectl(&["get", "krp", "-o", "wide"], None).await?;
        println!("{}", shown.ok("kubectl get krp")?);

        println!("  the end");
        let done = until_ended(world, "middle").await?.status.context("a status")?;
        println!("  {}", done.message.clone().unwrap_or_default());
        assert_eq!(done.phase, Some(ReplayPhase::Succeeded), "{:?}", done.message);
        let totals = done.totals.context("totals")?;
        let wanted = (TO - FROM) * i64::from(PARTITIONS);
        assert_eq!(
            (totals.records, totals.processed, totals.percent),
            (wanted, wanted, 100)
        );
        assert!(done.notes.is_empty(), "{:?}", done.notes);
        assert_replayed(world, &input, &output, &written).await?;

        println!("  the group has seen nothing of it");
        assert_eq!(world.kafka.committed(&id, &input).await?, committed);
        assert_eq!(identities(&world.workers("orders").await?), workers);
        assert_eq!(world.group("orders").await?.metadata.generation, generation);
        // The broker shows no group that was deleted, or one that is Dead.
        let left = world.kafka.group(&replay_id).await?;
        assert!(
            left.is_none_or(|(state, _)| state == "Dead"),
            "{replay_id} was not deleted"
        );
        assert_published(world).await?;

        println!("  a replay that is deleted while it runs, at the moment when its Job replaces a pod");
        cancel(world).await
    })
    .await
}

async fn assert_published(world: &World) -> Result<()> {
    let line = r#"jsonpath={range .items[*]}{.involvedObject.kind}/{.reason}{"\n"}{end}"#;
    let events = ["get", "events", "-o", line];
    let events = world.kubectl(&events, None).await?.ok("kubectl get events")?;
    let events: BTreeSet<&str> = events.lines().map(str::trim).collect();
    for event in [
        "KafkaReplay/DryRun",
        "KafkaReplay/WriterNotInGroup",
        "KafkaReplay/Started",
        "KafkaConsumerGroup/ReplayStarted",
        "KafkaReplay/Replayed",
        "KafkaConsumerGroup/Replayed",
    ] {
        assert!(events.contains(event), "{event} is not among {events:?}");
    }
    Ok(())
}

/// Nothing may be left of it: a pod that starts after the consumer group was deleted would process everything again.
async fn cancel(world: &World) -> Result<()> {
    let slow = json!({"writers": ["nothing"], "recordsPerSecond": RATE});
    create(world, "cancelled", slow).await?;
    let replay_id = until("some records are processed", async || {
        let status = get(world, "cancelled").await?.status.unwrap_or_default();
        let processed = status.totals.unwrap_or_default().processed;
        ensure!(processed > 0, "{:?} {:?}", status.phase, status.message);
        status.group_id.context("a group id")
    })
    .await?;
    let selector = format!("{REPLAY_LABEL}=cancelled");
    let pods: Api<Pod> = Api::namespaced(world.kube.clone(), &world.namespace);
    let replays: Api<KafkaReplay> = Api::namespaced(world.kube.clone(), &world.namespace);
    let worker = world.pods(&selector).await?;
    let worker = worker.first().and_then(|pod| pod.metadata.name.clone());
    let parameters = DeleteParams::default();
    pods.delete(&worker.context("a pod")?, &parameters).await?;
    replays.delete("cancelled", &parameters).await?;
    until("its pods and its consumer group are gone", async || {
        let pods = world.pods(&selector).await?;
        ensure!(pods.is_empty(), "{:?}", identities(&pods));
        let left = world.kafka.group(&replay_id).await?;
        ensure!(
            left.as_ref().is_none_or(|(state, _)| state == "Dead"),
            "{replay_id}: {left:?}"
        );
        Ok(())
    })
    .await
}

/// Every record of the part was written once more, and none outside of it.
async fn assert_replayed(
    world: &World,
    input: &str,
    output: &str,
    written: &BTreeMap<i32, i64>,
) -> Result<()> {
    let (mut wanted, mut others) = (BTreeSet::new(), BTreeSet::new());
    for record in world.kafka.read_all(input).await? {
        let value = record.json()?.to_string();
        match (FROM..TO).contains(&record.offset) {
            true => wanted.insert(value),
            false => others.insert(value),
        };
    }
    ensure!(
        wanted.len() as i64 == (TO - FROM) * i64::from(PARTITIONS),
        "values differ"
    );
    let mut replayed = BTreeMap::<String, usize>::new();
    for record in world.kafka.read_all(output).await? {
        let before = written.get(&record.partition).copied().unwrap_or(0);
        if record.offset >= before {
            *replayed.entry(record.json()?.to_string()).or_default() += 1;
        }
    }
    let outside = replayed.keys().filter(|value| others.contains(*value)).count();
    assert_eq!(outside, 0, "records outside of the bounds were replayed");
    let missing = wanted
        .iter()
        .filter(|value| !replayed.contains_key(*value))
        .count();
    assert_eq!(missing, 0, "records of the part were not replayed");
    let twice = replayed.values().filter(|times| **times > 1).count();
    println!(
        "  {} records, {twice} of them more than once, because a worker was killed",
        replayed.len()
    );
    Ok(())
}

/// The same offset in each partition.
fn offsets(topic: &str, offset: i64) -> Value {
    let of = |partition| json!({"topic": topic, "partition": partition, "offset": offset});
    json!({"type": "Offsets", "offsets": (0..PARTITIONS).map(of).collect::<Vec<_>>()})
}

async fn create(world: &World, name: &str, changes: Value) -> Result<()> {
    let mut spec = json!({"groupRef": {"name": "orders"}, "from": {"type": "Earliest"}});
    merge(&mut spec, changes);
    let manifest = json!({
        "apiVersion": KafkaReplay::api_version(&()), "kind": "KafkaReplay",
        "metadata": {"name": name}, "spec": spec,
    });
    world.apply(&manifest.to_string()).await
}

async fn get(world: &World, name: &str) -> Result<KafkaReplay> {
    let api: Api<KafkaReplay> = Api::namespaced(world.kube.clone(), &world.namespace);
    Ok(api.get(name).await?)
}

async fn until_ended(world: &World, name: &str) -> Result<KafkaReplay> {
    until(&format!("{name} has ended"), async || {
        let replay = get(world, name).await?;
        let phase = replay.status.as_ref().and_then(|status| status.phase);
        ensure!(phase.is_some_and(ReplayPhase::is_final), "{:?}", replay.status);
        Ok(replay)
    })
    .await
}
