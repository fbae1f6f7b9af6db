//! The document that the operator renders (into a ConfigMap, or into a file in local mode) and the worker reads.
//! Everything optional is resolved here, so that a worker needs nothing but this and the mounted Secrets.

use serde::{Deserialize, Serialize};

use crate::spec::{
    Consumer, Decode, ErrorHandling, Kafka, KafkaConsumerGroupSpec, Processing, Transform, Writer,
};

/// Version of the document; a worker refuses one it does not know.
pub const FORMAT_VERSION: u32 = 1;

/// Seconds of the pod's grace period kept for committing, leaving the group and the last report.
pub const LEAVE_SECONDS: i64 = 5;

/// What one worker must know. Secrets are not in it: references are resolved to files below the directory where
/// they are mounted (`<dir>/<secret name>/<key>`).
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerConfig {
    /// Must be [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// Kafka's group.id.
    pub group_id: String,
    /// Names of the input topics.
    pub topics: Vec<String>,
    /// Connection.
    pub kafka: Kafka,
    /// Reading.
    pub consumer: Consumer,
    /// Guarantee, ordering, batching.
    pub processing: Processing,
    /// Decoders.
    pub decode: Decode,
    /// Transforms; VRL programs from ConfigMaps are inlined as `source`.
    #[serde(default)]
    pub transforms: Vec<Transform>,
    /// Writers.
    pub writers: Vec<Writer>,
    /// Failure policy.
    pub error_handling: ErrorHandling,
    /// Seconds a stopping worker may spend on finishing what it has begun.
    pub drain_seconds: i64,
}

impl WorkerConfig {
    /// Takes what workers need out of a spec. `transforms` must have their ConfigMap references resolved.
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
        }
    }
}

/// The consumer group id in use: the one asked for, or "<namespace>.<name>".
pub fn group_id(namespace: &str, name: &str, spec: &KafkaConsumerGroupSpec) -> String {
    spec.group_id
        .clone()
        .unwrap_or_else(|| format!("{namespace}.{name}"))
}

/// What may change while a worker runs. It lies beside the [`WorkerConfig`] and is read again every second; a missing
/// document means Running.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// True: keep the partitions, read nothing.
    #[serde(default)]
    pub paused: bool,
}
