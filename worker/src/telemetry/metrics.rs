//! The `kcg_worker_*` metrics, counted per chunk and never per record. Handles of partitions are taken at their assignment
//! and removed when they move; the few labels of writers and transforms are looked up for every batch.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry},
};

use crate::{
    record::TopicPartition,
    snapshot::{PausedReason, Phase, Snapshot},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: Arc<str>,
    partition: i32,
}

macro_rules! labels {
    ($($name:ident { $($label:ident: $kind:ty),+ })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: $kind),+ }
    )+};
}

labels! {
    WriterLabels { writer: Arc<str> }
    WriteErrorLabels { writer: Arc<str>, class: &'static str }
    TransformLabels { transform: Arc<str> }
    FailureLabels { stage: &'static str, component: Arc<str> }
    KindLabels { kind: &'static str }
    ReasonLabels { reason: &'static str }
    PhaseLabels { phase: &'static str }
    CodeLabels { code: &'static str }
}

/// Histograms of seconds per chunk, 10 µs to 2.6 s: CPU work.
#[derive(Clone, Copy)]
struct CpuSeconds;

impl MetricConstructor<Histogram> for CpuSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
    }
}

/// Histograms of seconds per batch, 0.5 ms to 65 s: systems behind writers, up to and past their timeouts.
#[derive(Clone, Copy)]
struct WriteSeconds;

impl MetricConstructor<Histogram> for WriteSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
    }
}

const PAUSED_REASONS: [PausedReason; 6] = [
    PausedReason::Paused,
    PausedReason::WriterUnavailable,
    PausedReason::DeadLetterUnavailable,
    PausedReason::DeadLetterBreakerOpen,
    PausedReason::RecordFailed,
    PausedReason::OldestUnfinished,
];

/// Metrics of one assigned partition.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    labels: PartitionLabels,
    records_in: Counter,
    bytes_in: Counter,
    records_done: Counter,
    in_flight: Gauge,
    lag: OnceLock<Gauge>,
    lags: Family<PartitionLabels, Gauge>,
}

impl PartitionMetrics {
    /// A chunk was read.
    pub fn received(&self, records: usize, bytes: usize) {
        self.records_in.inc_by(records as u64);
        self.bytes_in.inc_by(bytes as u64);
    }

    /// Records are finished: written, dead-lettered, filtered out or skipped.
    pub fn done(&self, records: usize) {
        self.records_done.inc_by(records as u64);
    }

    /// How things are now. An unknown lag shows no series at all, because it is not 0.
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
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    records_in: Family<PartitionLabels, Counter>,
    bytes_in: Family<PartitionLabels, Counter>,
    records_done: Family<PartitionLabels, Counter>,
    lag: Family<PartitionLabels, Gauge>,
    in_flight: Family<PartitionLabels, Gauge>,
    written: Family<WriterLabels, Counter>,
    given_up: Family<WriterLabels, Counter>,
    write_errors: Family<WriteErrorLabels, Counter>,
    retries: Family<WriterLabels, Counter>,
    write_seconds: Family<WriterLabels, Histogram, WriteSeconds>,
    filtered: Family<TransformLabels, Counter>,
    transform_seconds: Family<TransformLabels, Histogram, CpuSeconds>,
    decode_seconds: Histogram,
    batch_records: Histogram,
    failures: Family<FailureLabels, Counter>,
    dead_lettered: Family<FailureLabels, Counter>,
    skipped: Counter,
    commits: Counter,
    commit_errors: Family<CodeLabels, Counter>,
    last_commit: Gauge<f64, AtomicU64>,
    rebalances: Family<KindLabels, Counter>,
    assigned: Gauge,
    paused_partitions: Family<ReasonLabels, Gauge>,
    stalled_partitions: Gauge,
    phase: Family<PhaseLabels, Gauge>,
    poll_age: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kcg_worker");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the worker", version);
        let r = &mut registry;
        Self(Arc::new(Inner {
            records_in: add(r, "records_in", "Records read"),
            bytes_in: add(r, "bytes_in", "Bytes of keys, values and headers read"),
            records_done: add(
                r,
                "records_done",
                "Records finished: written, dead-lettered, filtered or skipped",
            ),
            lag: add(
                r,
                "lag_records",
                "Records from the first unfinished one to the end of the partition",
            ),
            in_flight: add(r, "in_flight_records", "Records read and not finished"),
            written: add(r, "records_written", "Records that a writer has confirmed"),
            given_up: add(
                r,
                "records_given_up",
                "Records that may be lost, because AtMostOnce never repeats a write that may have happened",
            ),
            write_errors: add(r, "write_errors", "Attempts to write that failed, by class"),
            retries: add(
                r,
                "retries",
                "Attempts to write that repeat one that failed; a batch that is halved is not repeated",
            ),
            write_seconds: family(
                r,
                "write_seconds",
                "Time of one attempt to write a batch",
                WriteSeconds,
            ),
            filtered: add(r, "filtered", "Records that a transform left out"),
            transform_seconds: family(
                r,
                "transform_seconds",
                "Time of a transform for one chunk",
                CpuSeconds,
            ),
            decode_seconds: register(
                r,
                "decode_seconds",
                "Time of the decoders for one chunk",
                CpuSeconds.new_metric(),
            ),
            batch_records: register(
                r,
                "batch_records",
                "Records per chunk",
                Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            ),
            failures: add(r, "failures", "Records that failed, by stage and component"),
            dead_lettered: add(r, "dead_lettered", "Records confirmed in the dead letter topic"),
            skipped: add(r, "skipped", "Failed records dropped by onExhausted Skip"),
            commits: add(r, "commits", "Commits of offsets"),
            commit_errors: add(r, "commit_errors", "Commits that Kafka refused, by its answer"),
            last_commit: add(r, "last_commit_timestamp_seconds", "Time of the last commit"),
            rebalances: add(r, "rebalances", "Times that partitions came or went"),
            assigned: add(r, "assigned_partitions", "Partitions assigned to this worker"),
            paused_partitions: add(r, "paused_partitions", "Partitions held back, by reason"),
            stalled_partitions: add(
                r,
                "stalled_partitions",
                "Partitions that make no progress although there is something to do",
            ),
            phase: add(r, "phase", "1 for what the worker is doing"),
            poll_age: add(r, "poll_age_seconds", "Time since the poll thread last ran"),
            registry,
        }))
    }

    /// Metrics of a partition, from its assignment on.
    pub fn partition(&self, partition: &TopicPartition) -> PartitionMetrics {
        let labels = labels_of(partition);
        PartitionMetrics {
            records_in: self.0.records_in.get_or_create_owned(&labels),
            bytes_in: self.0.bytes_in.get_or_create_owned(&labels),
            records_done: self.0.records_done.get_or_create_owned(&labels),
            in_flight: self.0.in_flight.get_or_create_owned(&labels),
            lag: OnceLock::new(),
            lags: self.0.lag.clone(),
            labels,
        }
    }

    /// Removes a partition that has moved to another worker.
    pub fn forget(&self, partition: &TopicPartition) {
        let labels = labels_of(partition);
        for family in [&self.0.records_in, &self.0.bytes_in, &self.0.records_done] {
            family.remove(&labels);
        }
        for family in [&self.0.in_flight, &self.0.lag] {
            family.remove(&labels);
        }
    }

    /// A chunk of `records` records goes to decoders, transforms and writers.
    pub fn batch(&self, records: usize) {
        self.0.batch_records.observe(records as f64);
    }

    /// The decoders took `time` for a chunk.
    pub fn decoded(&self, time: Duration) {
        self.0.decode_seconds.observe(time.as_secs_f64());
    }

    /// A transform took `time` for a chunk and left out `filtered` records.
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

    /// A writer took `time` for one attempt, whatever came of it.
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

    /// With AtMostOnce, a write of `records` records failed and is not repeated.
    pub fn given_up(&self, name: &Arc<str>, records: usize) {
        self.0
            .given_up
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc_by(records as u64);
    }

    /// An attempt to write failed and is repeated or given up; `class` is record, transient or systemic.
    pub fn write_failed(&self, name: &Arc<str>, class: &'static str) {
        self.0
            .write_errors
            .get_or_create(&WriteErrorLabels {
                writer: name.clone(),
                class,
            })
            .inc();
    }

    /// An attempt to write is repeated.
    pub fn retried(&self, name: &Arc<str>) {
        self.0
            .retries
            .get_or_create(&WriterLabels { writer: name.clone() })
            .inc();
    }

    /// A record failed, whatever is done with it then.
    pub fn failure(&self, stage: &'static str, component: &Arc<str>) {
        self.0
            .failures
            .get_or_create(&FailureLabels {
                stage,
                component: component.clone(),
            })
            .inc();
    }

    /// A failed record is confirmed in the dead letter topic.
    pub fn dead_lettered(&self, stage: &'static str, component: &Arc<str>) {
        self.0
            .dead_lettered
            .get_or_create(&FailureLabels {
                stage,
                component: component.clone(),
            })
            .inc();
    }

    /// Failed records were dropped because the resource says Skip.
    pub fn skipped(&self, records: u64) {
        self.0.skipped.inc_by(records);
    }

    /// A commit was answered; `refused` is the error it was refused with.
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

    /// Partitions came or went; `kind` is assigned, revoked or lost.
    pub fn rebalanced(&self, kind: &'static str) {
        self.0.rebalances.get_or_create(&KindLabels { kind }).inc();
    }

    /// The reasons why partitions are held back, one for each that is.
    pub fn paused_partitions(&self, reasons: impl Iterator<Item = PausedReason>) {
        let mut counts = [0; PAUSED_REASONS.len()];
        for reason in reasons {
            for (known, count) in PAUSED_REASONS.iter().zip(&mut counts) {
                *count += i64::from(*known == reason);
            }
        }
        for (reason, count) in PAUSED_REASONS.iter().zip(counts) {
            self.0
                .paused_partitions
                .get_or_create(&ReasonLabels {
                    reason: reason.as_str(),
                })
                .set(count);
        }
    }

    /// Everything as OpenMetrics text; `snapshot` and `poll_age` are copied in first.
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

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register(registry, name, help, M::default())
}

fn family<L, C>(registry: &mut Registry, name: &str, help: &str, constructor: C) -> Family<L, Histogram, C>
where
    L: Clone + std::hash::Hash + Eq,
    C: Clone,
    Family<L, Histogram, C>: Metric,
{
    register(registry, name, help, Family::new_with_constructor(constructor))
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
mod tests {
    use super::*;

    fn text(metrics: &Metrics, snapshot: &Snapshot) -> String {
        metrics.encode(snapshot, Duration::from_millis(1500)).unwrap()
    }

    #[test]
    fn what_the_engine_tells_is_in_the_text() {
        let metrics = Metrics::new();
        metrics
            .partition(&TopicPartition::new("orders", 3))
            .received(7, 700);
        metrics.written(&"pg".into(), 5);
        metrics.write_failed(&"pg".into(), "transient");
        metrics.dead_lettered("decode", &"value".into());
        metrics.transformed(&"clean".into(), Duration::from_millis(1), 2);
        metrics.retried(&"pg".into());
        metrics.committed(Some("RebalanceInProgress"));
        metrics.rebalanced("revoked");
        metrics.paused_partitions([PausedReason::RecordFailed].into_iter());
        let text = text(&metrics, &Snapshot::default());
        for line in [
            "kcg_worker_records_in_total{topic=\"orders\",partition=\"3\"} 7",
            "kcg_worker_bytes_in_total{topic=\"orders\",partition=\"3\"} 700",
            "kcg_worker_records_written_total{writer=\"pg\"} 5",
            "kcg_worker_write_errors_total{writer=\"pg\",class=\"transient\"} 1",
            "kcg_worker_dead_lettered_total{stage=\"decode\",component=\"value\"} 1",
            "kcg_worker_filtered_total{transform=\"clean\"} 2",
            "kcg_worker_retries_total{writer=\"pg\"} 1",
            "kcg_worker_commit_errors_total{code=\"RebalanceInProgress\"} 1",
            "kcg_worker_rebalances_total{kind=\"revoked\"} 1",
            "kcg_worker_paused_partitions{reason=\"RecordFailed\"} 1",
            "kcg_worker_paused_partitions{reason=\"Paused\"} 0",
            "kcg_worker_paused_partitions{reason=\"DeadLetterBreakerOpen\"} 0",
            "kcg_worker_stalled_partitions 0",
            "kcg_worker_poll_age_seconds 1.5",
            "kcg_worker_phase{phase=\"Joining\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_unknown_lag_has_no_series_and_a_known_one_may_be_zero() {
        let metrics = Metrics::new();
        let partition = metrics.partition(&TopicPartition::new("orders", 3));
        partition.state(None, 2);
        let before = text(&metrics, &Snapshot::default());
        assert!(
            before.contains("kcg_worker_in_flight_records{topic=\"orders\",partition=\"3\"} 2"),
            "{before}"
        );
        assert!(!before.contains("kcg_worker_lag_records{"), "{before}");
        partition.state(Some(0), 0);
        let after = text(&metrics, &Snapshot::default());
        assert!(
            after.contains("kcg_worker_lag_records{topic=\"orders\",partition=\"3\"} 0"),
            "{after}"
        );
    }

    #[test]
    fn a_partition_that_moved_leaves_no_series_behind() {
        let metrics = Metrics::new();
        let partition = TopicPartition::new("orders", 3);
        let handle = metrics.partition(&partition);
        handle.received(1, 1);
        handle.state(Some(5), 1);
        metrics.forget(&partition);
        handle.state(Some(4), 0);
        let text = text(&metrics, &Snapshot::default());
        assert!(!text.contains("topic=\"orders\""), "{text}");
    }
}
