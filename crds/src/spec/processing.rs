//! `spec.processing` and `spec.decode`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// Delivery guarantee, ordering, concurrency and batching.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.deliveryGuarantee) || self.deliveryGuarantee != 'ExactlyOnce' || !has(self.ordering) || self.ordering != 'Unordered'")
        .message("deliveryGuarantee ExactlyOnce needs an order, because what is finished out of order would not fit into a transaction's offsets; use ordering PerPartition or PerKey, or AtLeastOnce")
)]
pub struct Processing {
    /// AtLeastOnce: a record's offset is committed only after every writer (or the dead letter topic) has confirmed it;
    /// after a crash records may be written again, none is lost. AtMostOnce: offsets are committed before records are
    /// handed to transforms and writers, and a write that may have happened is never repeated; after a crash or an
    /// outage records may be missing, none is written twice. ExactlyOnce: what is written and the offsets are stored in one
    /// transaction, so that neither a crash nor a frozen worker loses or repeats a record; with a Kafka writer consumers
    /// must read with isolation.level read_committed, and dead letters are part of the transaction. Needs exactly one
    /// writer, of type Kafka or Postgres, isolationLevel ReadCommitted, and an ordering other than Unordered.
    #[serde(default)]
    pub delivery_guarantee: DeliveryGuarantee,
    /// PerPartition: the records of a partition are written in the order of their offsets, one batch at a time. PerKey: only
    /// the records of a partition with the same key keep their order; batches are split over several lanes, and a record
    /// that waits for a retry holds back its own key only. Records without a key have no order. Unordered: as PerKey,
    /// without any order. With PerKey and Unordered, what is finished above the committed offset is kept in the commit's
    /// metadata, so that a restart does not repeat it.
    #[serde(default)]
    pub ordering: Ordering,
    /// Batches that one worker writes at the same time: of different partitions with ordering PerPartition, of any with
    /// PerKey and Unordered, where each batch is split into as many parts.
    #[serde(default = "concurrency")]
    #[schemars(range(min = *bounds::CONCURRENCY.start(), max = *bounds::CONCURRENCY.end()))]
    pub concurrency: i32,
    /// How many records of a partition go through transforms and writers together.
    #[serde(default)]
    pub batch: Batch,
    /// Time between commits of finished offsets, in milliseconds. Offsets are also committed when a partition moves and
    /// at shutdown. Shorter means fewer records again after a crash. With ExactlyOnce and a Kafka writer it is the length
    /// of a transaction, and so how late others see what is written; 100 to 1000 make sense.
    #[serde(default = "commit_interval")]
    #[schemars(range(min = *bounds::COMMIT_INTERVAL_MILLISECONDS.start(), max = *bounds::COMMIT_INTERVAL_MILLISECONDS.end()))]
    pub commit_interval_milliseconds: i32,
    /// Most records that one worker reads per second, to spare what is behind the writers; after a pause up to one second's
    /// worth at once. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *bounds::RECORDS_PER_SECOND.start(), max = *bounds::RECORDS_PER_SECOND.end()))]
    pub records_per_second: Option<i32>,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            delivery_guarantee: DeliveryGuarantee::default(),
            ordering: Ordering::default(),
            concurrency: concurrency(),
            batch: Batch::default(),
            commit_interval_milliseconds: commit_interval(),
            records_per_second: None,
        }
    }
}

fn concurrency() -> i32 {
    4
}

fn commit_interval() -> i32 {
    1000
}

/// See `processing.deliveryGuarantee`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DeliveryGuarantee {
    #[default]
    AtLeastOnce,
    AtMostOnce,
    ExactlyOnce,
}

/// See `processing.ordering`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Ordering {
    #[default]
    PerPartition,
    PerKey,
    Unordered,
}

/// Limits of one batch; it is closed by whichever is reached first.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Most records in a batch.
    #[serde(default = "max_records")]
    #[schemars(range(min = *bounds::BATCH_MAX_RECORDS.start(), max = *bounds::BATCH_MAX_RECORDS.end()))]
    pub max_records: i32,
    /// Most bytes of keys, values and headers in a batch; a single larger record makes a batch of its own.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = *bounds::BATCH_MAX_BYTES.start(), max = *bounds::BATCH_MAX_BYTES.end()))]
    pub max_bytes: i32,
    /// How long a batch that is not full waits for more records, in milliseconds.
    #[serde(default = "linger")]
    #[schemars(range(min = *bounds::BATCH_LINGER_MILLISECONDS.start(), max = *bounds::BATCH_LINGER_MILLISECONDS.end()))]
    pub linger_milliseconds: i32,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_records: max_records(),
            max_bytes: max_bytes(),
            linger_milliseconds: linger(),
        }
    }
}

fn max_records() -> i32 {
    1000
}

fn max_bytes() -> i32 {
    1024 * 1024
}

fn linger() -> i32 {
    50
}

/// How keys and values are decoded. A record that does not decode is a failed record (`spec.errorHandling`).
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decode {
    /// The record's key.
    #[serde(default)]
    pub key: Decoder,
    /// The record's value.
    #[serde(default)]
    pub value: Decoder,
}

/// A decoder.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decoder {
    /// Bytes: as they are. String: must be UTF-8. Json: must be one JSON document. Null keys and values are left alone.
    #[serde(rename = "type", default)]
    pub kind: DecoderType,
}

/// See `decode.value.type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DecoderType {
    #[default]
    Bytes,
    String,
    Json,
}
