//! [`Settings`]: the configuration of a worker as plain values.

use std::time::Duration;

use crds::{
    client_config::Properties,
    spec::{DeliveryGuarantee, OnExhausted, OnOffsetOutOfRange, OnTopicRecreated, Ordering},
    worker_config::Until,
};

use super::memory::MemoryBudget;
use crate::{dead_letter::DeadLetterSettings, retry::RetryPolicy};

/// The configuration of a worker as plain values. What is built from the document is in [`super::Parts`].
#[derive(Clone)]
pub struct Settings {
    /// Name of this worker, unique in the group.
    pub worker_name: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// Kafka's group.id.
    pub group_id: String,
    /// Input topics.
    pub topics: Vec<String>,
    /// Properties of the consumer, including credentials.
    pub consumer_properties: Properties,
    /// Properties of the producer for dead letters, including credentials.
    pub producer_properties: Properties,
    /// The start time of `consumer.startPosition`, in milliseconds since 1970.
    pub start_time: Option<i64>,
    /// What to do with a topic that was deleted and created again.
    pub on_topic_recreated: OnTopicRecreated,
    /// Where to continue when the position of a partition is out of range.
    pub on_offset_out_of_range: OnOffsetOutOfRange,
    /// The part of the log to process, after which the worker ends.
    pub until: Option<Until>,
    /// Number of partitions processed at the same time.
    pub concurrency: usize,
    /// How many records are transformed and written together.
    pub batch: BatchLimits,
    /// Maximum number of records to read per second.
    pub records_per_second: Option<u64>,
    /// How much memory records may use.
    pub memory: MemoryBudget,
    /// The delivery guarantee, which decides when offsets are committed.
    pub guarantee: DeliveryGuarantee,
    /// Which records must stay in order.
    pub ordering: Ordering,
    /// Time between commits.
    pub commit_interval: Duration,
    /// Attempts and backoff of failing writes.
    pub retry: RetryPolicy,
    /// What happens to a record that cannot be processed. It is DeadLetter only if `dead_letter` is set.
    pub on_exhausted: OnExhausted,
    /// The dead letter topic and its headers and limits.
    pub dead_letter: Option<DeadLetterSettings>,
    /// How long the transforms may take for one record.
    pub transform_timeout: Duration,
    /// How long a partition with work to do may make no progress before it is reported as stalled.
    pub stalled_after: Duration,
    /// How long a stopping worker may work on the records in flight.
    pub drain: Duration,
}

/// Limits of one batch. The first limit that is reached closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Maximum number of records.
    pub max_records: usize,
    /// Maximum size in bytes. A single larger record is a batch by itself.
    pub max_bytes: usize,
    /// How long every batch that is not full waits for more records. None: only while its partition has others
    /// in process.
    pub linger: Option<Duration>,
}
