//! Partition counts of the producer's topics, and partitions for records without keys. Requests counts from
//! the brokers; only callers of [`Producer::partition_count`] wait for that, a send never does.

use std::{
    collections::HashMap,
    sync::{
        Mutex as StdMutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::error::RDKafkaErrorCode;
use tokio::{sync::Mutex, time::Instant};

use super::{
    ProduceRecord, Producer, SendError, classify, no_client,
    partitioner::{self, KeylessRun, Partitioner},
};
use crate::sync;

/// How long a partition count is valid. Topics rarely grow, and a stale count has small effects: a dead
/// letter goes to a partition that the broker chose, and new partitions get no large batches yet.
const PARTITION_COUNT_TTL: Duration = Duration::from_secs(30);
/// Timeout of one metadata request. An idle broker answers in milliseconds, a broker that fails over in a few
/// seconds.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Partition counts, and the partitioner that uses them.
#[derive(Default)]
pub(super) struct Partitions {
    counts: Mutex<HashMap<String, (Instant, i32)>>,
    /// True while a background task requests a count.
    counting: AtomicBool,
    partitioner: StdMutex<Partitioner>,
}

impl Partitions {
    /// Removes a wrong count. While a request for counts is running, nothing is removed: the answer is newer,
    /// or the next send reports the wrong count again.
    pub fn forget(&self, topic: &str) {
        if let Ok(mut counts) = self.counts.try_lock() {
            counts.remove(topic);
        }
    }

    fn partitioner(&self) -> MutexGuard<'_, Partitioner> {
        sync::lock(&self.partitioner)
    }
}

/// Runs and their partitions. They count as in flight until this is dropped.
pub(super) struct Placed<'a> {
    known: &'a Partitions,
    pub runs: Vec<(KeylessRun<'a>, usize)>,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if !self.runs.is_empty() {
            let mut partitioner = self.known.partitioner();
            for (run, partition) in &self.runs {
                partitioner.answered(run.topic, *partition);
            }
        }
    }
}

impl Producer {
    /// Number of partitions of a topic, at most 30 s old.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, SendError> {
        // The lock is held during the request, so that many callers make one request.
        let mut counts = self.shared.partitions.counts.lock().await;
        if let Some((at, count)) = counts.get(topic)
            && at.elapsed() < PARTITION_COUNT_TTL
        {
            return Ok(*count);
        }
        let client = self.shared.of(0).client().map_err(no_client)?;
        let name = topic.to_string();
        let count = tokio::task::spawn_blocking(move || client.partition_count(&name, METADATA_TIMEOUT))
            .await
            .unwrap_or(Err(RDKafkaErrorCode::Interrupted))
            .map_err(|code| classify::error(topic, code, self.problem().as_deref()))?;
        counts.insert(topic.to_string(), (Instant::now(), count));
        Ok(count)
    }

    /// Chooses partitions for records that may go to any partition. If the partition count of a topic is not
    /// known yet, librdkafka chooses.
    pub(super) fn place<'a>(
        &'a self,
        transaction: u64,
        records: &[ProduceRecord<'a>],
        positions: &[usize],
    ) -> Placed<'a> {
        let transaction = self.is_transactional().then_some(transaction);
        let known = &self.shared.partitions;
        let mut runs = Vec::new();
        for run in partitioner::runs(records, positions) {
            if let Some(count) = self.known_partitions(run.topic) {
                let partition = known.partitioner().choose(run.topic, count, transaction);
                runs.push((run, partition));
            }
        }
        Placed { known, runs }
    }

    /// Number of partitions of a topic, if known. Never waits: a background task requests a count that is
    /// missing or old.
    fn known_partitions(&self, topic: &str) -> Option<usize> {
        let partitions = &self.shared.partitions;
        // Locked: another task requests a count.
        let known = partitions.counts.try_lock().ok()?.get(topic).copied();
        let fresh = known.is_some_and(|(at, _)| at.elapsed() < PARTITION_COUNT_TTL);
        if !fresh && !partitions.counting.swap(true, Ordering::Relaxed) {
            let (producer, topic) = (self.clone(), topic.to_string());
            tokio::spawn(async move {
                // The sender gets the error from librdkafka.
                let _ = producer.partition_count(&topic).await;
                producer
                    .shared
                    .partitions
                    .counting
                    .store(false, Ordering::Relaxed);
            });
        }
        known.and_then(|(_, count)| usize::try_from(count).ok())
    }
}
