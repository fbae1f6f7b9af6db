//! The `KafkaReplay` resource: a bounded part of the log that runs through a group's pipeline once more. Users
//! write the spec, which cannot be changed; the operator writes the status.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::offset_reset::{GroupReference, PartitionOffset, PlannedFor, ResetTopic};

/// Most partitions of one replay: the plan of all of them must fit into one resource.
pub const MAX_PARTITIONS: usize = 4096;

/// What to replay, and how.
#[allow(clippy::duplicated_attributes)] // Columns share types and priorities.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "kafka-consumer.dev",
    version = "v1alpha1",
    kind = "KafkaReplay",
    plural = "kafkareplays",
    shortname = "krp",
    category = "kafka",
    namespaced,
    status = "KafkaReplayStatus",
    derive = "PartialEq",
    doc = "KafkaReplay runs a part of the log through the transforms and writers of a KafkaConsumerGroup once more, from a start to an end, in a Job beside the group. It does not touch the offsets of the group. With dryRun it only shows the plan.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.groupRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Percent",
        type_ = "integer",
        json_path = ".status.totals.percent",
        description = "Offsets that are processed, of all offsets"
    ),
    printcolumn(
        name = "Records",
        type_ = "integer",
        json_path = ".status.totals.records",
        description = "Offsets to process"
    ),
    printcolumn(
        name = "Rate",
        type_ = "integer",
        json_path = ".status.recordsPerSecond",
        description = "Offsets per second"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "DryRun", type_ = "boolean", json_path = ".spec.dryRun", priority = 1),
    printcolumn(
        name = "Ends",
        type_ = "string",
        json_path = ".status.estimatedCompletionTime",
        description = "When it is expected to end",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self == oldSelf")
        .message("a KafkaReplay cannot be changed, because it happens once; create another one"),
    validation = Rule::new("(self.from.type != 'Offsets' && self.to.type != 'Offsets') || !has(self.topics)")
        .message("topics is not allowed with type Offsets in from or to: the offsets list the partitions"),
    validation = Rule::new("!has(self.from.timestamp) || !has(self.to.timestamp) || self.from.timestamp < self.to.timestamp")
        .message("from.timestamp must be before to.timestamp")
)]
pub struct KafkaReplaySpec {
    /// The KafkaConsumerGroup, in the same namespace. Its topics, transforms, writers, error handling and worker
    /// settings are used as they are when the replay starts. Its desiredState does not matter.
    pub group_ref: GroupReference,
    /// The first records to process.
    pub from: ReplayFrom,
    /// Where it ends: the first records that are not processed. Default: the end at the time of planning.
    #[serde(default)]
    pub to: ReplayTo,
    /// Topics and partitions to replay. Default: all partitions of all topics of the group. Not allowed with type
    /// Offsets in from or to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topic".to_string()]))]
    pub topics: Vec<ResetTopic>,
    /// Names of the writers of the group that get the records. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub writers: Vec<String>,
    /// Most records per second of all workers of the replay together, to protect the systems behind the writers
    /// and the running group. processing.recordsPerSecond of the group also applies to each worker. Default: no
    /// other limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub records_per_second: Option<i32>,
    /// Number of workers. More than there are partitions to replay are not started. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub workers: i32,
    /// Only show what would be replayed, in status.partitions. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// Seconds after which the operator deletes this resource and its Job, counted from its end. Default: it
    /// stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

fn one() -> i32 {
    1
}

/// Where a replay starts.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(self.type == 'Timestamp') == has(self.timestamp)")
        .message("timestamp is required with type Timestamp, and not allowed with other types"),
    validation = Rule::new("(self.type == 'Offsets') == has(self.offsets)")
        .message("offsets is required with type Offsets, and not allowed with other types")
)]
pub struct ReplayFrom {
    /// Kind of position.
    ///
    /// - Earliest: the first record that Kafka still has.
    /// - Timestamp: the first record at or after the time in timestamp.
    /// - Offsets: the offsets in offsets. Partitions that it does not list are not replayed.
    #[serde(rename = "type")]
    pub kind: ReplayFromType,
    /// Time, RFC 3339, for example "2026-01-31T00:00:00Z". Required with type Timestamp, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub timestamp: Option<Timestamp>,
    /// The first offset of each partition. Required with type Offsets, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub offsets: Option<Vec<PartitionOffset>>,
}

/// Values of `from.type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ReplayFromType {
    Earliest,
    Timestamp,
    Offsets,
}

/// Where a replay ends. Records at this position and after it are not processed.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(self.type == 'Timestamp') == has(self.timestamp)")
        .message("timestamp is required with type Timestamp, and not allowed with other types"),
    validation = Rule::new("(self.type == 'Offsets') == has(self.offsets)")
        .message("offsets is required with type Offsets, and not allowed with other types")
)]
pub struct ReplayTo {
    /// Kind of position.
    ///
    /// - Latest: the end at the time of planning. Records that arrive later are not processed.
    /// - Timestamp: the first record at or after the time in timestamp; the end, if there is none.
    /// - Offsets: the offsets in offsets. Partitions that it does not list are not replayed.
    #[serde(rename = "type")]
    pub kind: ReplayToType,
    /// Time, RFC 3339, for example "2026-01-31T01:00:00Z". Required with type Timestamp, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub timestamp: Option<Timestamp>,
    /// For each partition, the offset after the last one. Required with type Offsets, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub offsets: Option<Vec<PartitionOffset>>,
}

impl Default for ReplayTo {
    fn default() -> Self {
        Self {
            kind: ReplayToType::Latest,
            timestamp: None,
            offsets: None,
        }
    }
}

/// Values of `to.type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ReplayToType {
    Latest,
    Timestamp,
    Offsets,
}

/// What was planned, and how far it is.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KafkaReplayStatus {
    /// How far it is. Succeeded and Failed are final. To cancel, delete the resource.
    ///
    /// - Pending: the group does not exist yet, or Kafka cannot be reached.
    /// - Planned: the plan is stored, and the workers are being started.
    /// - Running: the workers process records.
    /// - Succeeded: every record of the plan is processed; with dryRun: the plan is complete.
    /// - Failed: the message says why. Records may have been processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ReplayPhase>,
    /// One sentence: what happens, what was done, or why not and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Conditions: Complete, Failed. Wait with `kubectl wait --for=condition=Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// metadata.generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Kafka consumer group id of the replay. The operator deletes the consumer group at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Name of the Job with the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// Number of workers that are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<i32>,
    /// When the operator first looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When it is expected to end at the present rate. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<Time>,
    /// Offsets per second during the last minute. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<i64>,
    /// What else to know of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Sums over status.partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<ReplayTotals>,
    /// What the stored plan was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_for: Option<PlannedFor>,
    /// The plan, one entry per partition. It is stored before the workers start, and its bounds never change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<ReplayPartition>,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ReplayPhase {
    Pending,
    Planned,
    Running,
    Succeeded,
    Failed,
}

impl ReplayPhase {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for ReplayPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Sums over the partitions of a plan. Kafka may need offsets for markers of transactions, and compaction removes
/// records, so these can be fewer records.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReplayTotals {
    /// Partitions in the plan.
    pub partitions: i32,
    /// Partitions that are finished.
    pub finished: i32,
    /// Offsets to process.
    pub records: i64,
    /// Offsets that are processed.
    pub processed: i64,
    /// Processed offsets of all, in percent, rounded down.
    pub percent: i32,
}

/// One partition of a plan.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReplayPartition {
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic. Absent if the brokers do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Number of the partition.
    pub partition: i32,
    /// First offset to process.
    pub from: i64,
    /// First offset that is not processed. Nothing is processed if it is from.
    pub to: i64,
    /// Offset up to which everything is processed. Absent: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// Time of the record at from. Absent if its time is not known, or nothing is to be processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Time>,
    /// What else to know, such as why an offset is not the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl ReplayPartition {
    /// Offsets to process.
    pub fn records(&self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether nothing is left to process.
    pub fn is_finished(&self) -> bool {
        self.from >= self.to || self.position.is_some_and(|position| position >= self.to)
    }
}
