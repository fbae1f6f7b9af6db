//! What a worker is configured to do, as plain values and the parts that were built from them.

use std::time::Duration;

use crds::{
    client_config::Properties,
    spec::{DeliveryGuarantee, OnExhausted, Ordering, StartPosition},
};

use super::memory::MemoryBudget;
use crate::{
    dead_letter::DeadLetterSettings, decode::Decoders, retry::RetryPolicy, transaction::Transactional,
    transform::NamedTransform, writer::NamedWriter,
};

/// Everything the engine must know.
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
    /// Properties of the consumer; contain credentials.
    pub consumer_properties: Properties,
    /// Properties of the producer for dead letters; contain credentials.
    pub producer_properties: Properties,
    /// With ExactlyOnce and a Kafka writer: what transactions are made with.
    pub transactions: Option<Transactional>,
    /// Where partitions without a committed offset start; its timestamp is there when it needs one.
    pub start_position: StartPosition,
    /// Partitions processed at the same time.
    pub concurrency: usize,
    /// How many records go through transforms and writers together.
    pub batch: BatchLimits,
    /// Most records to read per second.
    pub records_per_second: Option<u64>,
    /// How much memory records may take.
    pub memory: MemoryBudget,
    /// When offsets are committed.
    pub guarantee: DeliveryGuarantee,
    /// What may overtake what.
    pub ordering: Ordering,
    /// Time between commits.
    pub commit_interval: Duration,
    /// Checks of keys and values.
    pub decoders: Decoders,
    /// In this order.
    pub transforms: Vec<NamedTransform>,
    /// Every record goes to each of them.
    pub writers: Vec<NamedWriter>,
    /// Backoff of failing writes.
    pub retry: RetryPolicy,
    /// What happens to a record that cannot be processed; DeadLetter only with a topic.
    pub on_exhausted: OnExhausted,
    /// Where failed records go, and how.
    pub dead_letter: Option<DeadLetterSettings>,
    /// How long the transforms may take for one record.
    pub transform_timeout: Duration,
    /// How long a partition may stand still before that is told.
    pub stalled_after: Duration,
    /// How long a stopping worker may work on what it has begun.
    pub drain: Duration,
}

/// Limits of one batch; it is closed by whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most records.
    pub max_records: usize,
    /// Most bytes; a single larger record makes a batch of its own.
    pub max_bytes: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
}

impl Settings {
    /// True when anything looks at headers: a transform, a writer, or dead letters, which are copies.
    pub fn read_headers(&self) -> bool {
        self.on_exhausted == OnExhausted::DeadLetter
            || self
                .transforms
                .iter()
                .any(|named| named.transform.reads_headers())
            || self.writers.iter().any(|named| named.writer.reads_headers())
    }
}
