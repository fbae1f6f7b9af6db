//! The `KafkaConsumerGroup` spec: what a user asks for. Only users write it; the operator never changes it,
//! except that it sets `replicas` once through `/scale`. The rustdoc here is the user reference: it becomes
//! the descriptions in the CRD, and every rule sits beside the field that it guards.
//!
//! This file uses the files of its folder. Among those, `writer` uses `transform`, `kafka` and `references`;
//! `transform` uses `fields` and `references`; `kafka` uses `client_config`; `processing` and `errors` use
//! `bounds`.

pub mod bounds;
pub mod checks;
pub mod client_config;
pub mod errors;
pub mod fields;
pub mod kafka;
pub mod processing;
pub mod references;
pub mod scaling;
pub mod transform;
pub mod worker;
pub mod writer;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use client_config::group_protocol_rule;

pub use checks::*;
pub use client_config::*;
pub use errors::*;
pub use fields::*;
pub use kafka::*;
pub use processing::*;
pub use references::*;
pub use scaling::*;
pub use transform::*;
pub use worker::*;
pub use writer::*;

const GROUP_ID_PATTERN: &str = "^[a-zA-Z0-9._-]+$";
const TOPIC_PATTERN: &str = "^[a-zA-Z0-9._-]+$";

/// CEL rules that apply to groups with ExactlyOnce start with this.
const NOT_EXACTLY_ONCE: &str = "!has(self.processing) || !has(self.processing.deliveryGuarantee) || self.processing.deliveryGuarantee != 'ExactlyOnce'";

/// Desired state: which topics to consume, how to transform each record, where to write it, and with which
/// delivery guarantee.
#[allow(clippy::duplicated_attributes)] // Columns share types and priorities.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "kafka-consumer.dev",
    version = "v1alpha1",
    kind = "KafkaConsumerGroup",
    plural = "kafkaconsumergroups",
    shortname = "kcg",
    category = "kafka",
    namespaced,
    status = "crate::status::KafkaConsumerGroupStatus",
    derive = "PartialEq",
    doc = "KafkaConsumerGroup is a Kafka consumer group that the operator runs as a Deployment of workers. The workers read records from topics, transform them, and write them to one or more destinations.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.groupState",
        description = "State of the consumer group as the broker sees it"
    ),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(
        name = "Partitions",
        type_ = "integer",
        json_path = ".status.partitions.total"
    ),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Group", type_ = "string", json_path = ".status.groupId", priority = 1),
    printcolumn(
        name = "Recommended",
        type_ = "integer",
        json_path = ".status.scaling.recommendedReplicas",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.groupId) == has(oldSelf.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)")
        .message("groupId cannot be changed, added or removed after creation, because committed offsets belong to it; create a new KafkaConsumerGroup instead"),
    validation = Rule::new("!has(self.errorHandling) || !has(self.errorHandling.deadLetter) || !self.topics.exists(t, t.name == self.errorHandling.deadLetter.topic)")
        .message("errorHandling.deadLetter.topic is also an input topic, which would consume its own dead letters indefinitely; use another topic, for example '<topic>.dlq'"),
    validation = Rule::new("!self.writers.exists(w, has(w.kafka) && self.topics.exists(t, t.name == w.kafka.topic))")
        .message("a Kafka writer writes to an input topic, which would loop indefinitely; write to another topic"),
    validation = Rule::new("!has(self.errorHandling) || !has(self.errorHandling.deadLetter) || !self.writers.exists(w, has(w.kafka) && w.kafka.topic == self.errorHandling.deadLetter.topic)")
        .message("errorHandling.deadLetter.topic is also the topic of a Kafka writer, which would mix dead letters with outputs; use another topic, for example '<topic>.dlq'"),
    validation = Rule::new("self.writers.all(w, !has(w.kafka) || self.writers.exists_one(o, has(o.kafka) && o.kafka.topic == w.kafka.topic))")
        .message("two Kafka writers write to the same topic, which would contain every record twice; remove one of them, or use another topic"),
    validation = Rule::new("!has(self.transforms) || size(self.transforms) == 0 || self.transforms[0].type != 'Fields' || (has(self.decode) && has(self.decode.value) && has(self.decode.value.type) && self.decode.value.type == 'Json')")
        .message("the first transform is of type Fields, which reads JSON; set decode: {value: {type: Json}}"),
    validation = Rule::new("self.writers.all(w, !has(w.file)) || (has(self.worker) && has(self.worker.volumeMounts) && self.writers.all(w, !has(w.file) || self.worker.volumeMounts.exists(m, w.file.directory == m.mountPath || w.file.directory.startsWith(m.mountPath + '/'))))")
        .message(FILE_NEEDS_VOLUME_MESSAGE),
    validation = Rule::new(format!("{NOT_EXACTLY_ONCE} || (size(self.writers) == 1 && self.writers[0].type in ['Kafka', 'Postgres'])"))
        .message("deliveryGuarantee ExactlyOnce needs exactly one writer, of type Kafka or Postgres, because only these can store records and offsets in one transaction; use one such writer, or AtLeastOnce"),
    validation = Rule::new(format!("{NOT_EXACTLY_ONCE} || !has(self.consumer) || !has(self.consumer.isolationLevel) || self.consumer.isolationLevel == 'ReadCommitted'"))
        .message("deliveryGuarantee ExactlyOnce needs consumer.isolationLevel ReadCommitted, because records of aborted transactions must not be processed; remove isolationLevel, or use AtLeastOnce"),
    validation = Rule::new(group_protocol_rule()).message(GROUP_PROTOCOL_MESSAGE)
)]
pub struct KafkaConsumerGroupSpec {
    /// Whether the group consumes. Takes precedence over every scaling setting. Default: Running.
    ///
    /// - Running: workers consume.
    /// - Paused: workers stay in the group and keep their partitions, but read nothing.
    /// - Stopped: no workers run and the group is empty. Committed offsets stay.
    #[serde(default)]
    pub desired_state: DesiredState,

    /// Kafka consumer group id (group.id). It cannot be changed, added or removed after creation.
    /// status.groupId shows the value in use. Default: `<namespace>.<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Kafka does not limit the length of a group id; this is the limit of its topic names.
    #[schemars(length(min = 1, max = 249), regex(pattern = GROUP_ID_PATTERN))]
    pub group_id: Option<String>,

    /// Topics to consume. Their names must be unique.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub topics: Vec<Topic>,

    /// Connection to the Kafka cluster: brokers, TLS, SASL and client properties.
    pub kafka: Kafka,

    /// How workers read records: start position, isolation level and group protocol.
    #[serde(default)]
    pub consumer: Consumer,

    /// Delivery guarantee, ordering, concurrency, batching and rate limit.
    #[serde(default)]
    pub processing: Processing,

    /// How workers decode keys and values before the transforms run.
    #[serde(default)]
    pub decode: Decode,

    /// Transforms, run in this order. Each one turns a record into zero, one or several records. Default:
    /// none; records are written as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub transforms: Vec<Transform>,

    /// Where records are written. A record is finished, and its offset may be committed, when every writer
    /// has confirmed it.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub writers: Vec<Writer>,

    /// What happens to records that fail: retries, dead letter topic, timeouts.
    #[serde(default)]
    pub error_handling: ErrorHandling,

    /// Number of workers. Read only when scaling.mode is Manual; kubectl scale, an HPA or KEDA set it through
    /// the scale subresource. The operator never runs more workers than there are partitions, because the
    /// others would idle. Default: with mode Manual, the operator sets it once. In other modes it shows the
    /// number that the operator has chosen; another value is ignored, with a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// How many workers the operator runs.
    #[serde(default)]
    pub scaling: Scaling,

    /// Settings of the worker pods: image, resources, volumes, scheduling and grace period.
    #[serde(default)]
    pub worker: Worker,
}

/// Values of `spec.desiredState`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, schemars::JsonSchema)]
pub enum DesiredState {
    #[default]
    Running,
    Paused,
    Stopped,
}

/// A topic to consume.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topic {
    /// Name of the topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = TOPIC_PATTERN))]
    pub name: String,
    /// If set, the operator creates the topic if it does not exist, and adds partitions if it has fewer than
    /// requested. The operator never removes partitions and never deletes a topic. Default: the operator does
    /// not create or change the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<TopicProvision>,
}

/// How the operator creates a topic.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicProvision {
    /// Number of partitions. The operator adds partitions to an existing topic that has fewer.
    #[schemars(range(min = 1, max = 10000))]
    pub partitions: i32,
    /// Replicas of each partition. Applies at creation only. Default: the broker's
    /// default.replication.factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32767))]
    pub replication_factor: Option<i32>,
    /// Topic configuration, for example {"retention.ms": "86400000"}. Applies at creation only. Default: the
    /// broker's defaults.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub config: std::collections::BTreeMap<String, String>,
}
