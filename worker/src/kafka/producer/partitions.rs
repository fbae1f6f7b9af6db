//! How many partitions the producer's topics have, and which of them records without a key go to. Asks brokers; a send never
//! waits for that, only who wants to know a count.

use std::{
    collections::HashMap,
    sync::{
        Mutex as StdMutex, MutexGuard, PoisonError,
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

/// How long a partition count is trusted: growing a topic is rare, and a stale count only means that a dead letter goes
/// to a partition that the broker chose, and that new partitions get no large batches yet.
const PARTITION_COUNT_TTL: Duration = Duration::from_secs(30);
/// For one metadata request; an idle broker answers in milliseconds, one that fails over in a few seconds.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of topics.
#[derive(Default)]
pub(super) struct Partitions {
    counts: Mutex<HashMap<String, (Instant, i32)>>,
    /// A count is being asked for, by nobody who waits for it.
    counting: AtomicBool,
    spread: StdMutex<Partitioner>,
}

impl Partitions {
    /// The count of this topic was wrong. While somebody asks for one, nothing is forgotten: the answer is a newer one, or the
    /// next send tells again.
    pub fn forget(&self, topic: &str) {
        if let Ok(mut counts) = self.counts.try_lock() {
            counts.remove(topic);
        }
    }

    fn spread(&self) -> MutexGuard<'_, Partitioner> {
        self.spread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TimedPipeline and their partitions; in flight while this lives.
pub(super) struct Placed<'a> {
    known: &'a Partitions,
    pub runs: Vec<(KeylessRun<'a>, usize)>,
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if !self.runs.is_empty() {
            let mut spread = self.known.spread();
            for (run, partition) in &self.runs {
                spread.landed(run.topic, *partition);
            }
        }
    }
}

impl Producer {
    /// Number of partitions of a topic, at most 30 s old.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, SendError> {
        // Held while asking, so that many callers make one request.
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

    /// Chooses partitions for records that may go to any; those of a topic whose partitions are not known yet are left to
    /// librdkafka.
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
                let partition = known.spread().choose(run.topic, count, transaction);
                runs.push((run, partition));
            }
        }
        Placed { known, runs }
    }

    /// Number of partitions of a topic, as far as it is known. Never waits: what is not known, or old, is asked for meanwhile.
    fn known_partitions(&self, topic: &str) -> Option<usize> {
        let partitions = &self.shared.partitions;
        // Held by somebody who asks.
        let known = partitions.counts.try_lock().ok()?.get(topic).copied();
        let fresh = known.is_some_and(|(at, _)| at.elapsed() < PARTITION_COUNT_TTL);
        if !fresh && !partitions.counting.swap(true, Ordering::Relaxed) {
            let (producer, topic) = (self.clone(), topic.to_string());
            tokio::spawn(async move {
                // Whoever sends gets the error from librdkafka.
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
