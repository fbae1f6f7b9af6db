//! A worker process that is killed: its partitions continue on the other worker long before the broker misses
//! it, with Kafka's default session timeout and both group protocols. Local mode, so it needs only the Kafka
//! of the cluster; `kills.rs` has the same for pods.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use harness::{
    Kafka, Load, alone,
    systems::{consumer_groups, env::Env, kafka::Record, local_workers::LocalWorker},
    until,
    verify::{check::check_records, load::RunningLoad},
};
use serde_json::json;
use tempfile::TempDir;

use crate::local_mode::{group, start, write};

const PARTITIONS: i32 = 4;
const KILLS: u64 = 3;
/// Records per second over all partitions of a group.
const RATE: u64 = 300;
const BATCH: u64 = 20;

/// Kafka's default session timeout, for both protocols, in milliseconds. Without the removal, the partitions of
/// a killed worker stand still for as long.
const SESSION: i64 = 45_000;

/// What one kill may repeat: records that are read and not finished (at most four batches), and those that are
/// finished and not committed (commits are due every 200 ms; a second's worth of the load), for each of the
/// two partitions of the killed worker. Twice, because it may just have taken over the other two.
const REPEATED_BY_ONE_KILL: u64 = 2 * 2 * (4 * BATCH + RATE / PARTITIONS as u64);

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_killed_worker_continue_long_before_the_default_session_timeout() -> Result<()> {
    let _alone = alone().await;
    let env = Env::read()?;
    let kafka = Kafka::new(&env.kafka);
    let folder = TempDir::new()?;
    let mut groups = Vec::new();
    for protocol in ["Classic", "Consumer"] {
        groups.push(Group::create(&env, &kafka, &folder, protocol).await?);
    }
    let files: Vec<&str> = groups.iter().flat_map(|group| ["-f", &group.file]).collect();
    let mut local = start(&[&files[..], &["--max-workers", "2"]].concat())?;
    for group in &groups {
        group.until_all_continue(&kafka, "at the start").await?;
    }
    for kill in 1..=KILLS {
        for group in &mut groups {
            let victim = format!("{}-{}", group.name, kill % 2);
            let worker = until(&format!("{victim} has partitions"), async || {
                let worker = LocalWorker::find(&local, &victim)?;
                let assigned = worker.assigned()?;
                ensure!(assigned == PARTITIONS as u64 / 2, "{assigned} partitions");
                Ok(worker)
            })
            .await?;
            group.kills.push(milliseconds()?);
            worker.kill().await?;
            local
                .until_prints(&format!("{victim} was killed by signal 9"))
                .await?;
            group.until_all_continue(&kafka, "after a kill").await?;
        }
    }
    for group in &mut groups {
        group.check(&kafka).await?;
    }
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");
    for group in &groups {
        let removed = printed.lines().filter(|line| {
            line.contains(&format!("{}-", group.name)) && line.contains("removed from the consumer group")
        });
        assert_eq!(
            removed.count() as u64,
            KILLS,
            "the dead members and no others:\n{printed}"
        );
        kafka
            .delete_topics(&[group.input.clone(), group.output.clone()])
            .await?;
    }
    Ok(())
}

/// A group that copies, and its load.
struct Group {
    name: String,
    group_id: String,
    input: String,
    output: String,
    file: String,
    load: Option<RunningLoad>,
    /// When its workers were killed.
    kills: Vec<i64>,
}

impl Group {
    async fn create(env: &Env, kafka: &Kafka, folder: &TempDir, protocol: &str) -> Result<Self> {
        let name = format!("dead-{}", protocol.to_lowercase());
        let unique = folder
            .path()
            .file_name()
            .and_then(|name| name.to_str())
            .context("no name")?;
        let group_id = format!("{name}{unique}");
        let (input, output) = (format!("{group_id}.in"), format!("{group_id}.out"));
        kafka.create_topic(&input, PARTITIONS).await?;
        let broker_time = [("message.timestamp.type", "LogAppendTime")];
        kafka.create_topic_with(&output, PARTITIONS, &broker_time).await?;
        if protocol == "Consumer" {
            // The broker of the tests has shorter ones.
            let defaults = "consumer.session.timeout.ms=45000,consumer.heartbeat.interval.ms=5000";
            consumer_groups::configure(env, &group_id, defaults).await?;
        }
        let mut resource = group(json!({
            "groupId": group_id,
            "topics": [{"name": input}],
            "kafka": {"bootstrapServers": [env.kafka]},
            "consumer": {"groupProtocol": protocol},
            "processing": {"batch": {"maxRecords": BATCH, "lingerMilliseconds": 10}},
            "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
        }));
        resource["metadata"]["name"] = json!(name);
        let file = write(folder, &format!("{name}.yaml"), &resource)?;
        let load = Load::new(&input, &name, 0..PARTITIONS).start(kafka, RATE)?;
        Ok(Self {
            name,
            group_id,
            input,
            output,
            file,
            load: Some(load),
            kills: Vec::new(),
        })
    }

    /// Until each partition has been committed past its position of now.
    async fn until_all_continue(&self, kafka: &Kafka, when: &str) -> Result<()> {
        let before = kafka.committed(&self.group_id, &self.input).await?;
        until(
            &format!("{}: all partitions continue {when}", self.name),
            async || {
                let now = kafka.committed(&self.group_id, &self.input).await?;
                for partition in 0..PARTITIONS {
                    let (was, is) = (before.get(&partition), now.get(&partition));
                    ensure!(is > was, "partition {partition} stays at {is:?}");
                }
                Ok(())
            },
        )
        .await
    }

    async fn check(&mut self, kafka: &Kafka) -> Result<()> {
        let ledger = self.load.take().context("stopped twice")?.stop().await?;
        kafka.until_drained(&self.group_id, &self.input).await?;
        let records = kafka.read_all(&self.output).await?;
        let pauses = pauses(&records, &self.kills)?;
        println!("  {}: partitions stood still for up to {pauses:?} ms", self.name);
        ensure!(
            pauses.iter().all(|pause| *pause < SESSION),
            "the session timeout has passed"
        );
        let verdict = check_records(&ledger, &records)?;
        println!("  {}: {verdict}", self.name);
        assert!(verdict.complete(), "{verdict}");
        assert!(verdict.duplicates() <= KILLS * REPEATED_BY_ONE_KILL, "{verdict}");
        Ok(())
    }
}

fn milliseconds() -> Result<i64> {
    Ok(i64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(),
    )?)
}

/// The longest pause of a partition after each kill, in milliseconds. Records that the killed worker had sent
/// may still arrive, so the first record after the kill says nothing.
fn pauses(records: &[Record], kills: &[i64]) -> Result<Vec<i64>> {
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in records {
        let value = record.json()?;
        let key = value["key"].as_str().context("no key")?;
        // The key starts with the partition of the input.
        let partition = key.split('-').next().unwrap_or_default().to_string();
        let time = record.timestamp.context("no timestamp")?;
        times.entry(partition).or_default().push(time);
    }
    ensure!(
        times.len() == PARTITIONS as usize,
        "records of {:?}",
        times.keys()
    );
    let mut pauses = vec![0; kills.len()];
    for times in times.values_mut() {
        times.sort_unstable();
        for pause in times.windows(2) {
            // Of the last kill before the end of the pause.
            if let Some(kill) = kills.iter().rposition(|killed| *killed < pause[1]) {
                pauses[kill] = pauses[kill].max(pause[1] - pause[0]);
            }
        }
    }
    Ok(pauses)
}
