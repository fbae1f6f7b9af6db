//! The metric families: names, help texts, labels and buckets.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Metric, Registry},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabels {
    pub topic: Arc<str>,
    pub partition: i32,
}

macro_rules! labels {
    ($($name:ident { $($label:ident: $kind:ty),+ })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub $label: $kind),+ }
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
    OutcomeLabels { outcome: &'static str }
}

/// Histograms of seconds per chunk, 10 µs to 2.6 s: CPU work.
#[derive(Clone, Copy)]
pub(super) struct CpuSeconds;

impl MetricConstructor<Histogram> for CpuSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
    }
}

/// Histograms of seconds per batch, 0.5 ms to 65 s: systems behind writers, up to and past their timeouts.
#[derive(Clone, Copy)]
pub(super) struct WriteSeconds;

impl MetricConstructor<Histogram> for WriteSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
    }
}

/// Every metric of the worker, registered.
pub(super) struct Families {
    pub registry: Registry,
    pub records_consumed: Family<PartitionLabels, Counter>,
    pub bytes_in: Family<PartitionLabels, Counter>,
    pub records_finished: Family<PartitionLabels, Counter>,
    pub lag: Family<PartitionLabels, Gauge>,
    pub in_flight: Family<PartitionLabels, Gauge>,
    pub written: Family<WriterLabels, Counter>,
    pub merged: Family<WriterLabels, Counter>,
    pub given_up: Family<WriterLabels, Counter>,
    pub write_errors: Family<WriteErrorLabels, Counter>,
    pub retries: Family<WriterLabels, Counter>,
    pub writer_breaker_open: Family<WriterLabels, Gauge>,
    pub write_seconds: Family<WriterLabels, Histogram, WriteSeconds>,
    pub filtered: Family<TransformLabels, Counter>,
    pub transform_seconds: Family<TransformLabels, Histogram, CpuSeconds>,
    pub abandoned: Gauge,
    pub decode_seconds: Histogram,
    pub batch_records: Histogram,
    pub failures: Family<FailureLabels, Counter>,
    pub dead_lettered: Family<FailureLabels, Counter>,
    pub dead_letters_dropped: Counter,
    pub skipped: Counter,
    pub commits: Counter,
    pub commit_errors: Family<CodeLabels, Counter>,
    pub last_commit: Gauge<f64, AtomicU64>,
    pub transactions: Family<OutcomeLabels, Counter>,
    pub rebalances: Family<KindLabels, Counter>,
    pub topics_recreated: Counter,
    pub removed_unread: Family<PartitionLabels, Counter>,
    pub assigned: Gauge,
    pub paused_partitions: Family<ReasonLabels, Gauge>,
    pub stalled_partitions: Gauge,
    pub phase: Family<PhaseLabels, Gauge>,
    pub poll_age: Gauge<f64, AtomicU64>,
}

impl Families {
    /// In a new registry, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kcg_worker");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the worker", version);
        let r = &mut registry;
        Self {
            records_consumed: add(r, "records_consumed", "Records read"),
            bytes_in: add(r, "bytes_in", "Bytes of keys, values and headers read"),
            records_finished: add(
                r,
                "records_finished",
                "Records finished: written, dead-lettered, filtered or skipped",
            ),
            lag: add(
                r,
                "lag_records",
                "Records from the first unfinished one to the end of the partition",
            ),
            in_flight: add(r, "in_flight_records", "Records read and not finished"),
            written: add(r, "records_written", "Records that a writer has confirmed"),
            merged: add(
                r,
                "records_merged",
                "Records that a later record of the same key and batch has replaced before the database got them",
            ),
            given_up: add(
                r,
                "records_given_up",
                "Records that may be lost, because AtMostOnce never repeats a write that may have happened",
            ),
            write_errors: add(r, "write_errors", "Failed attempts to write, by class"),
            retries: add(
                r,
                "retries",
                "Attempts that repeat a failed one; halving a batch is not a retry",
            ),
            writer_breaker_open: add(
                r,
                "writer_breaker_open",
                "1 while the system behind a writer is unavailable, so that one batch at a time tries it and the others wait",
            ),
            write_seconds: family(
                r,
                "write_seconds",
                "Time of one attempt to write a batch",
                WriteSeconds,
            ),
            filtered: add(r, "filtered", "Records that a transform filtered out"),
            transform_seconds: family(
                r,
                "transform_seconds",
                "Time of a transform for one chunk",
                CpuSeconds,
            ),
            abandoned: add(
                r,
                "transforms_abandoned",
                "Abandoned transform runs: they exceeded the limit and are still running",
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
            failures: add(r, "failures", "Failed records, by stage and component"),
            dead_lettered: add(r, "dead_lettered", "Records confirmed in the dead letter topic"),
            dead_letters_dropped: add(
                r,
                "dead_letters_dropped",
                "Failed records dropped, because the dead letter topic refuses them and onRefused is Drop",
            ),
            skipped: add(r, "skipped", "Failed records dropped by onExhausted Skip"),
            commits: add(r, "commits", "Offset commits"),
            commit_errors: add(r, "commit_errors", "Commits that Kafka refused, by error code"),
            last_commit: add(r, "last_commit_timestamp_seconds", "Time of the last commit"),
            transactions: add(
                r,
                "transactions",
                "Transactions with ExactlyOnce and a Kafka writer, by outcome",
            ),
            rebalances: add(r, "rebalances", "Rebalance events of this worker, by kind"),
            topics_recreated: add(
                r,
                "topics_recreated",
                "Times that this worker found a topic deleted and created again while it had partitions of it",
            ),
            removed_unread: add(
                r,
                "records_removed_unread",
                "Records that retention removed before they were read; also counts offsets without a record",
            ),
            assigned: add(r, "assigned_partitions", "Partitions assigned to this worker"),
            paused_partitions: add(r, "paused_partitions", "Paused partitions, by reason"),
            stalled_partitions: add(
                r,
                "stalled_partitions",
                "Partitions that make no progress although there is work to do",
            ),
            phase: add(r, "phase", "1 for the current phase of the worker"),
            poll_age: add(
                r,
                "poll_age_seconds",
                "Time since the thread that polls Kafka last ran",
            ),
            registry,
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
