//! Orders to consume: JSON documents with their key and a sequence number per key, and the ledger of those
//! that the broker has acknowledged. The records of a key stay in one partition, so their order can be
//! checked. A record that the broker rejects fails the test; it never leaves a gap in the ledger.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use crate::systems::kafka::{Kafka, Message, flush, send};

/// A kind of load: its topic and the name of its run.
#[derive(Clone, Debug)]
pub struct Load {
    topic: String,
    run: String,
    partitions: Range<i32>,
    keys_per_partition: u64,
}

impl Load {
    /// Records of the run `run` for these partitions of a topic.
    pub fn new(topic: &str, run: &str, partitions: Range<i32>) -> Self {
        Self {
            topic: topic.into(),
            run: run.into(),
            partitions,
            keys_per_partition: 20,
        }
    }

    /// Record number `number` of this load: round-robin over the partitions, and over the keys within a
    /// partition.
    fn record(&self, number: u64) -> (String, u64, Message) {
        let width = self.partitions.len() as u64;
        let partition = self.partitions.start + (number % width) as i32;
        let turn = number / width;
        let key = format!("{partition}-{}", turn % self.keys_per_partition);
        let sequence = turn / self.keys_per_partition;
        let value = order(&self.run, &key, sequence);
        let message = Message {
            partition: Some(partition),
            key: Some(key.clone().into_bytes()),
            value: Some(value.to_string().into_bytes()),
            ..Message::default()
        };
        (key, sequence, message)
    }

    fn ledger(&self, count: u64) -> Ledger {
        let mut keys: BTreeMap<String, u64> = BTreeMap::new();
        for number in 0..count {
            let width = self.partitions.len() as u64;
            let partition = self.partitions.start + (number % width) as i32;
            let key = format!("{partition}-{}", number / width % self.keys_per_partition);
            *keys.entry(key).or_default() += 1;
        }
        Ledger::counted(&self.run, keys)
    }

    /// Writes `count` records as fast as the broker accepts them.
    pub async fn produce(&self, kafka: &Kafka, count: u64) -> Result<Ledger> {
        kafka
            .produce(&self.topic, (0..count).map(|number| self.record(number).2))
            .await?;
        Ok(self.ledger(count))
    }

    /// Writes records at this rate until stopped.
    pub fn start(self, kafka: &Kafka, per_second: u64) -> Result<RunningLoad> {
        let producer = kafka.producer()?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (stop.clone(), sent.clone());
        let task = tokio::spawn(async move {
            let mut deliveries = Vec::new();
            let started = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
                while (deliveries.len() as u64) < due {
                    let message = self.record(deliveries.len() as u64).2;
                    deliveries.push(send(&producer, &self.topic, &message).await?);
                }
                counter.store(deliveries.len() as u64, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let count = deliveries.len() as u64;
            let producer = tokio::task::spawn_blocking(move || flush(&producer).map(|()| producer)).await??;
            for delivery in deliveries {
                delivery
                    .await?
                    .map_err(|(error, _)| error)
                    .context("a record was not written")?;
            }
            drop(producer);
            Ok(self.ledger(count))
        });
        Ok(RunningLoad { stop, sent, task })
    }
}

/// A load that runs until it is stopped.
pub struct RunningLoad {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Result<Ledger>>,
}

impl RunningLoad {
    /// Records passed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the load. The ledger has every record that the broker has acknowledged, which are all.
    pub async fn stop(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// The value of an input record. It follows from run, key and sequence number.
pub fn order(run: &str, key: &str, sequence: u64) -> Value {
    let quantity = sequence % 7 + 1;
    let cents = sequence % 977 * 10 + key.len() as u64;
    json!({
        "id": format!("{run}/{key}/{sequence}"), "run": run, "key": key, "sequence": sequence,
        "quantity": quantity, "cents": cents, "status": "new", "note": "to be dropped",
    })
}

/// A VRL program that turns [`order`] into [`shipped`].
pub const SHIP: &str = "
.total = int!(.quantity) * int!(.cents)
.status = upcase(string!(.status))
del(.note)
del(.quantity)
del(.cents)
";

/// The result of [`SHIP`] for [`order`].
pub fn shipped(run: &str, key: &str, sequence: u64) -> Value {
    let order = order(run, key, sequence);
    let total = order["quantity"].as_u64().unwrap_or_default() * order["cents"].as_u64().unwrap_or_default();
    json!({"id": order["id"], "run": run, "key": key, "sequence": sequence, "total": total, "status": "NEW"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_counts_what_the_load_writes() {
        let load = Load {
            keys_per_partition: 2,
            ..Load::new("t", "r", 6..9)
        };
        let mut keys: BTreeMap<String, u64> = BTreeMap::new();
        for number in 0..100 {
            let (key, sequence, message) = load.record(number);
            let next = keys.entry(key.clone()).or_default();
            assert_eq!(sequence, *next, "{key}");
            *next += 1;
            assert!((6..9).contains(&message.partition.unwrap()));
        }
        assert_eq!(load.ledger(100), Ledger::counted("r", keys));
        assert_eq!(load.ledger(100).total(), 100);
    }
}
