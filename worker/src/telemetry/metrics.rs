//! The `kcg_worker_*` metrics, counted per chunk and never per record. A partition's handles are created when
//! it is assigned and removed when it moves. The few labels of writers and transforms are looked up for every
//! batch.

mod families;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use self::families::{
    CodeLabels, FailureLabels, Families, KindLabels, OutcomeLabels, PartitionLabels, PhaseLabels,
    ReasonLabels, TransformLabels, WriteErrorLabels, WriterLabels,
};
use crate::{
    health::snapshot::{PausedReason, Phase, Snapshot},
    record::TopicPartition,
};

/// Metrics of one assigned partition.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    labels: PartitionLabels,
    records_consumed: Counter,
    bytes_in: Counter,
    records_finished: Counter,
    in_flight: Gauge,
    lag: OnceLock<Gauge>,
    lags: Family<PartitionLabels, Gauge>,
}

impl PartitionMetrics {
    /// A chunk was read.
    pub fn received(&self, records: usize, bytes: usize) {
        self.records_consumed.inc_by(records as u64);
        self.bytes_in.inc_by(bytes as u64);
    }

    /// Records are finished: written, dead-lettered, filtered out or skipped.
    pub fn done(&self, records: usize) {
        self.records_finished.inc_by(records as u64);
    }

    /// Sets the gauges. An unknown lag has no series, because it is not 0.
    pub fn state(&self, lag: Option<i64>, in_flight: usize) {
        self.in_flight.set(in_flight as i64);
        if let Some(lag) = lag {
            self.lag
                .get_or_init(|| self.lags.get_or_create_owned(&self.labels))
                .set(lag);
        }
    }
}

/// All metrics of the worker; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A new registry, with everything at zero.
    pub fn new() -> Self {
        Self(Arc::new(Families::new()))
    }

    /// Metrics of a partition that was assigned.
    pub fn partition(&self, partition: &TopicPartition) -> PartitionMetrics {
        let labels = labels_of(partition);
        PartitionMetrics {
            records_consumed: self.0.records_consumed.get_or_create_owned(&labels),
            bytes_in: self.0.bytes_in.get_or_create_owned(&labels),
            records_finished: self.0.records_finished.get_or_create_owned(&labels),
            in_flight: self.0.in_flight.get_or_create_owned(&labels),
            lag: OnceLock::new(),
            lags: self.0.lag.clone(),
            labels,
        }
    }

    /// Removes the series of a partition that has moved to another worker.
    pub fn forget(&self, partition: &TopicPartition) {
        let labels = labels_of(partition);
        for family in [
            &self.0.records_consumed,
            &self.0.bytes_in,
            &self.0.records_finished,
        ] {
            family.remove(&labels);
        }
        for family in [&self.0.in_flight, &self.0.lag] {
            family.remove(&labels);
        }
    }

    /// A chunk of `records` records was passed to decoders, transforms and writers.
    pub fn batch(&self, records: usize) {
        self.0.batch_records.observe(records as f64);
    }

    /// The decoders took `time` for a chunk.
    pub fn decoded(&self, time: Duration) {
        self.0.decode_seconds.observe(time.as_secs_f64());
    }

    /// A transform took `time` for a chunk and filtered out `filtered` records.
    pub fn transformed(&self, name: &Arc<str>, time: Duration, filtered: usize) {
        let labels = TransformLabels {
            transform: name.clone(),
        };
        self.0
            .transform_seconds
            .get_or_create(&labels)
            .observe(time.as_secs_f64());
        self.0.filtered.get_or_create(&labels).inc_by(filtered as u64);
    }

    /// This many threads with transforms that took too long are still running.
    pub fn abandoned(&self, threads: usize) {
        self.0.abandoned.set(threads as i64);
    }

    /// A writer took `time` for one attempt, whatever its result.
    pub fn wrote(&self, name: &Arc<str>, time: Duration) {
        self.0
            .write_seconds
            .get_or_create(&WriterLabels { writer: name.clone() })
            .observe(time.as_secs_f64());
    }

    /// A writer has confirmed `records` records.
    pub fn written(&self, name: &Arc<str>, records: usize) {
        self.0
            .written
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc_by(records as u64);
    }

    /// A writer has left out `records` records, because later ones of the same batch replace them.
    pub fn merged(&self, name: &Arc<str>, records: u64) {
        self.0
            .merged
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc_by(records);
    }

    /// With AtMostOnce, a write of `records` records failed and is not retried.
    pub fn given_up(&self, name: &Arc<str>, records: usize) {
        self.0
            .given_up
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc_by(records as u64);
    }

    /// An attempt to write failed; `class` is record, transient, systemic or fenced.
    pub fn write_failed(&self, name: &Arc<str>, class: &'static str) {
        self.0
            .write_errors
            .get_or_create(&WriteErrorLabels {
                writer: name.clone(),
                class,
            })
            .inc();
    }

    /// The breaker of a writer opened or closed.
    pub fn writer_breaker_open(&self, name: &Arc<str>, open: bool) {
        self.0
            .writer_breaker_open
            .get_or_create(&WriterLabels { writer: name.clone() })
            .set(open.into());
    }

    /// A failed attempt to write is retried.
    pub fn retried(&self, name: &Arc<str>) {
        self.0
            .retries
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc();
    }

    /// A record failed, whatever `onExhausted` does with it.
    pub fn failure(&self, stage: &'static str, component: &Arc<str>) {
        self.0
            .failures
            .get_or_create(&FailureLabels {
                stage,
                component: component.clone(),
            })
            .inc();
    }

    /// The broker has confirmed a failed record in the dead letter topic.
    pub fn dead_lettered(&self, stage: &'static str, component: &Arc<str>) {
        self.0
            .dead_lettered
            .get_or_create(&FailureLabels {
                stage,
                component: component.clone(),
            })
            .inc();
    }

    /// Failed records were dropped because the dead letter topic refuses them and `onRefused` is Drop.
    pub fn dead_letters_dropped(&self, records: u64) {
        self.0.dead_letters_dropped.inc_by(records);
    }

    /// Failed records were dropped because `onExhausted` is Skip.
    pub fn skipped(&self, records: u64) {
        self.0.skipped.inc_by(records);
    }

    /// Kafka answered a commit; `refused` is its error if it refused the commit.
    pub fn committed(&self, refused: Option<&'static str>) {
        match refused {
            None => {
                self.0.commits.inc();
                self.0
                    .last_commit
                    .set(Timestamp::now().as_millisecond() as f64 / 1000.0);
            }
            Some(code) => {
                self.0.commit_errors.get_or_create(&CodeLabels { code }).inc();
            }
        }
    }

    /// A transaction ended; `outcome` is committed or aborted.
    pub fn transaction(&self, outcome: &'static str) {
        self.0
            .transactions
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A rebalance changed the partitions; `kind` is assigned, revoked or lost.
    pub fn rebalanced(&self, kind: &'static str) {
        self.0.rebalances.get_or_create(&KindLabels { kind }).inc();
    }

    /// Retention has removed records before they were read. The series stays when the partition moves.
    pub fn removed_unread(&self, partition: &TopicPartition, records: u64) {
        self.0
            .removed_unread
            .get_or_create_owned(&labels_of(partition))
            .inc_by(records);
    }

    /// A topic was deleted and created again while its partitions were assigned.
    pub fn topic_recreated(&self) {
        self.0.topics_recreated.inc();
    }

    /// Counts the paused partitions; `reasons` has one entry for each.
    pub fn paused_partitions(&self, reasons: impl Iterator<Item = PausedReason>) {
        let mut counts = [0; PausedReason::ALL.len()];
        for reason in reasons {
            for (known, count) in PausedReason::ALL.iter().zip(&mut counts) {
                *count += i64::from(*known == reason);
            }
        }
        for (reason, count) in PausedReason::ALL.iter().zip(counts) {
            self.0
                .paused_partitions
                .get_or_create(&ReasonLabels {
                    reason: reason.as_str(),
                })
                .set(count);
        }
    }

    /// All metrics as OpenMetrics text. `snapshot` and `poll_age` are copied into gauges first.
    pub fn encode(&self, snapshot: &Snapshot, poll_age: Duration) -> Result<String, std::fmt::Error> {
        self.copy(snapshot);
        self.0.poll_age.set(poll_age.as_secs_f64());
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    fn copy(&self, snapshot: &Snapshot) {
        let inner = &self.0;
        inner.assigned.set(snapshot.partitions.len() as i64);
        let stalled = snapshot
            .partitions
            .iter()
            .filter(|partition| partition.stalled_since.is_some());
        inner.stalled_partitions.set(stalled.count() as i64);
        for (phase, name) in [
            (Phase::Joining, "Joining"),
            (Phase::Consuming, "Consuming"),
            (Phase::Draining, "Draining"),
            (Phase::Stopped, "Stopped"),
        ] {
            inner
                .phase
                .get_or_create(&PhaseLabels { phase: name })
                .set((snapshot.phase == phase).into());
        }
    }
}

fn labels_of(partition: &TopicPartition) -> PartitionLabels {
    PartitionLabels {
        topic: partition.topic.clone(),
        partition: partition.partition,
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
