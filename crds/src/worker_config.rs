//! The document that the operator renders (into a ConfigMap, or into a file in local mode) and the worker
//! reads. All defaults are resolved here, so that a worker needs only this document and the mounted Secrets.

use serde::{Deserialize, Serialize};

use crate::spec::{
    Consumer, Decode, ErrorHandling, Kafka, KafkaConsumerGroupSpec, Processing, Transform, Writer,
};

/// Version of the document. A worker rejects a version that it does not know.
pub const FORMAT_VERSION: u32 = 1;

/// Seconds of the pod's grace period that are reserved for committing, leaving the group and the last status
/// report.
pub const LEAVE_SECONDS: i64 = 5;

/// Configuration of one worker. It contains no secrets: references point to files below the mount path of
/// Secrets (`<dir>/<secret name>/<key>`).
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerConfig {
    /// Must be [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// Kafka consumer group id (group.id).
    pub group_id: String,
    /// Names of the input topics.
    pub topics: Vec<String>,
    /// Connection to the Kafka cluster.
    pub kafka: Kafka,
    /// How the worker reads records.
    pub consumer: Consumer,
    /// Delivery guarantee, ordering, concurrency, batching and rate limit.
    pub processing: Processing,
    /// Decoders of keys and values.
    pub decode: Decode,
    /// Transforms; VRL programs from ConfigMaps are inlined as `source`.
    #[serde(default)]
    pub transforms: Vec<Transform>,
    /// Writers.
    pub writers: Vec<Writer>,
    /// What happens to records that fail.
    pub error_handling: ErrorHandling,
    /// Seconds that a stopping worker has to finish its records in flight.
    pub drain_seconds: i64,
    /// The part of the log to process, after which the worker ends. Absent: it runs until it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
}

/// A bounded part of the log. The worker is an ordinary member of the consumer group, but it reads only these
/// partitions, each from its committed offset, and nothing at or beyond `to`. It ends with code 0 when every
/// partition, and not only its own, is committed up to `to`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Until {
    /// The partitions. Each one is listed once.
    pub partitions: Vec<BoundedPartition>,
    /// Most records per second of this worker. Absent: only the limit of `processing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<i32>,
}

/// The offsets of one partition, `from <= to`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoundedPartition {
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic that the offsets are of, as Kafka prints it. Absent if the brokers have no topic ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Number of the partition.
    pub partition: i32,
    /// First offset. The worker starts here if the group has no committed offset.
    pub from: i64,
    /// First offset that is not part of it.
    pub to: i64,
}

/// Exit codes of a worker with [`WorkerConfig::until`], beside 0 (finished) and those of every worker.
pub mod exit_code {
    /// The worker was stopped before the end. Another one continues from the committed offsets.
    pub const UNFINISHED: u8 = 6;
    /// A topic was deleted or created again, so the offsets no longer fit. Running again cannot help.
    pub const PLAN_OUTDATED: u8 = 7;
}

impl WorkerConfig {
    /// Builds the configuration from a spec. The ConfigMap references of `transforms` must be resolved.
    pub fn from_spec(
        namespace: &str,
        name: &str,
        spec: &KafkaConsumerGroupSpec,
        transforms: Vec<Transform>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            namespace: namespace.into(),
            name: name.into(),
            group_id: group_id(namespace, name, spec),
            topics: spec.topics.iter().map(|topic| topic.name.clone()).collect(),
            kafka: spec.kafka.clone(),
            consumer: spec.consumer.clone(),
            processing: spec.processing.clone(),
            decode: spec.decode.clone(),
            transforms,
            writers: spec.writers.clone(),
            error_handling: spec.error_handling.clone(),
            drain_seconds: spec.worker.termination_grace_period_seconds - LEAVE_SECONDS,
            until: None,
        }
    }
}

/// The consumer group id in use: `spec.groupId`, or `<namespace>.<name>`.
pub fn group_id(namespace: &str, name: &str, spec: &KafkaConsumerGroupSpec) -> String {
    spec.group_id
        .clone()
        .unwrap_or_else(|| format!("{namespace}.{name}"))
}

/// Settings that may change while a worker runs. The document lies beside the [`WorkerConfig`], and the
/// worker rereads it every second. A missing document means Running.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// If true, the worker keeps its partitions and reads nothing.
    #[serde(default)]
    pub paused: bool,
}
