//! `spec.processing` and `spec.decode`: delivery guarantee, ordering, batching, decoders.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// Delivery guarantee, ordering, concurrency, batching and rate limit.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.deliveryGuarantee) || self.deliveryGuarantee != 'ExactlyOnce' || !has(self.ordering) || self.ordering != 'Unordered'")
        .message("deliveryGuarantee ExactlyOnce needs an order, because out-of-order completions do not fit into a transaction's offsets; use ordering PerPartition or PerKey, or AtLeastOnce")
)]
pub struct Processing {
    /// When the worker commits the offset of a record. Default: AtLeastOnce.
    ///
    /// - AtLeastOnce: after every writer, or the dead letter topic, has confirmed the record. After a crash,
    ///   workers may write records again; no record is lost.
    /// - AtMostOnce: before the record goes to transforms and writers. The worker never repeats a write that
    ///   may have happened. After a crash or an outage, records may be missing; no record is written twice.
    /// - ExactlyOnce: in the same transaction as the written records. Neither a crash nor a frozen worker
    ///   loses or repeats a record. With a Kafka writer, dead letters are part of the transaction, and
    ///   consumers of the output must use isolation.level read_committed. Needs exactly one writer, of type
    ///   Kafka or Postgres, isolationLevel ReadCommitted, and an ordering other than Unordered.
    #[serde(default)]
    pub delivery_guarantee: DeliveryGuarantee,
    /// In which order the worker writes the records of a partition. Default: PerPartition.
    ///
    /// - PerPartition: in the order of their offsets, one batch at a time.
    /// - PerKey: only records with the same key keep their order. The worker splits batches over several
    ///   lanes, and a record that waits for a retry delays only records with the same key. Records without a
    ///   key have no order.
    /// - Unordered: like PerKey, without any order.
    ///
    /// With PerKey and Unordered, the worker stores out-of-order completions above the committed offset in
    /// the metadata of the commit, so that a restart does not repeat them.
    #[serde(default)]
    pub ordering: Ordering,
    /// Number of batches that one worker writes at the same time. With ordering PerPartition, each of them
    /// belongs to a different partition. With PerKey and Unordered, the worker splits each batch into this
    /// many parts, and writes this many parts, of any partition, at the same time. If it is not set: 4, but
    /// 16 with AtLeastOnce or AtMostOnce, ordering PerPartition and writers of type Kafka only, because brokers
    /// take many batches at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *bounds::CONCURRENCY.start(), max = *bounds::CONCURRENCY.end()))]
    pub concurrency: Option<i32>,
    /// How many records of a partition go through transforms and writers together. A batch is closed by the
    /// limit that it reaches first.
    #[serde(default)]
    pub batch: Batch,
    /// Interval between commits of finished offsets, in milliseconds. The worker also commits when a
    /// partition moves and at shutdown. A shorter interval means fewer repeated records after a crash. With
    /// ExactlyOnce and a Kafka writer it is the length of a transaction, and so the delay until consumers see
    /// the written records; 100 to 1000 is sensible. Default: 1000.
    #[serde(default = "commit_interval")]
    #[schemars(range(min = *bounds::COMMIT_INTERVAL_MILLISECONDS.start(), max = *bounds::COMMIT_INTERVAL_MILLISECONDS.end()))]
    pub commit_interval_milliseconds: i32,
    /// Maximum number of records that one worker reads per second, to protect the systems behind the writers.
    /// After a pause the worker may read up to one second's worth at once. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *bounds::RECORDS_PER_SECOND.start(), max = *bounds::RECORDS_PER_SECOND.end()))]
    pub records_per_second: Option<i32>,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            delivery_guarantee: DeliveryGuarantee::default(),
            ordering: Ordering::default(),
            concurrency: None,
            batch: Batch::default(),
            commit_interval_milliseconds: commit_interval(),
            records_per_second: None,
        }
    }
}

fn commit_interval() -> i32 {
    1000
}

/// Values of `processing.deliveryGuarantee`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DeliveryGuarantee {
    #[default]
    AtLeastOnce,
    AtMostOnce,
    ExactlyOnce,
}

/// Values of `processing.ordering`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Ordering {
    #[default]
    PerPartition,
    PerKey,
    Unordered,
}

/// Limits of one batch. A batch is closed by the limit that it reaches first.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Maximum number of records in a batch. Default: 1000.
    #[serde(default = "max_records")]
    #[schemars(range(min = *bounds::BATCH_MAX_RECORDS.start(), max = *bounds::BATCH_MAX_RECORDS.end()))]
    pub max_records: i32,
    /// Maximum size of a batch, in bytes of keys, values and headers. A single larger record becomes a batch
    /// by itself. Default: 1048576 (1 MiB).
    #[serde(default = "max_bytes")]
    #[schemars(range(min = *bounds::BATCH_MAX_BYTES.start(), max = *bounds::BATCH_MAX_BYTES.end()))]
    pub max_bytes: i32,
    /// How long every batch that is not full waits for more records, in milliseconds: larger values make
    /// fewer and larger writes. If it is not set, a batch waits only while its partition has others in
    /// process, at most 50 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *bounds::BATCH_LINGER_MILLISECONDS.start(), max = *bounds::BATCH_LINGER_MILLISECONDS.end()))]
    pub linger_milliseconds: Option<i32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_records: max_records(),
            max_bytes: max_bytes(),
            linger_milliseconds: None,
        }
    }
}

fn max_records() -> i32 {
    1000
}

fn max_bytes() -> i32 {
    1024 * 1024
}

/// How workers decode keys and values. A record that cannot be decoded is a failed record
/// (spec.errorHandling).
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decode {
    /// Decoder of the record's key.
    #[serde(default)]
    pub key: Decoder,
    /// Decoder of the record's value.
    #[serde(default)]
    pub value: Decoder,
}

/// A decoder.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decoder {
    /// Kind of decoder. Null keys and values are not decoded. Default: Bytes.
    ///
    /// - Bytes: keep the bytes as they are.
    /// - String: require UTF-8.
    /// - Json: require exactly one JSON document.
    #[serde(rename = "type", default)]
    pub kind: DecoderType,
}

/// Values of `decode.value.type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DecoderType {
    #[default]
    Bytes,
    String,
    Json,
}
