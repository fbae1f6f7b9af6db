//! The `KafkaOffsetReset` resource: a change of a group's committed offsets that happens once. Users write the
//! spec, which cannot be changed; the operator writes the status.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most partitions of one reset: the plan of all of them must fit into one resource.
pub const MAX_PARTITIONS: usize = 4096;

/// What to change, and where to.
#[allow(clippy::duplicated_attributes)] // Columns share types and priorities.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "kafka-consumer.dev",
    version = "v1alpha1",
    kind = "KafkaOffsetReset",
    plural = "kafkaoffsetresets",
    shortname = "kor",
    category = "kafka",
    namespaced,
    status = "KafkaOffsetResetStatus",
    derive = "PartialEq",
    doc = "KafkaOffsetReset sets the committed offsets of a KafkaConsumerGroup once: to the start, the end, a time, given offsets, or by a number of records back or forth. With dryRun it only shows what would change.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.groupRef.name"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to.type"),
    printcolumn(name = "DryRun", type_ = "boolean", json_path = ".spec.dryRun"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Partitions",
        type_ = "integer",
        json_path = ".status.totals.changed",
        description = "Partitions whose commit changes"
    ),
    printcolumn(
        name = "Again",
        type_ = "integer",
        json_path = ".status.totals.again",
        description = "Offsets that will be read again"
    ),
    printcolumn(
        name = "Skipped",
        type_ = "integer",
        json_path = ".status.totals.skipped",
        description = "Offsets that will not be read"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
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
        .message("a KafkaOffsetReset cannot be changed, because it happens once; create another one"),
    validation = Rule::new("self.to.type != 'Offsets' || !has(self.topics)")
        .message("topics is not allowed with to.type Offsets: to.offsets lists the partitions")
)]
pub struct KafkaOffsetResetSpec {
    /// The KafkaConsumerGroup, in the same namespace.
    pub group_ref: GroupReference,
    /// Where the group is to continue.
    pub to: ResetTarget,
    /// Topics and partitions to reset. Default: all partitions of all topics of the group. Not allowed with
    /// to.type Offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topic".to_string()]))]
    pub topics: Vec<ResetTopic>,
    /// Only show what would change, in status.partitions. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// Stop the workers of the group, reset, and start them again. Otherwise the group must be stopped
    /// (desiredState: Stopped), because Kafka sets offsets only for a group without members. The operator does
    /// not change desiredState for this. Default: false.
    #[serde(default)]
    pub stop_group: bool,
    /// Seconds after which the operator deletes this resource, counted from its end. Default: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// A KafkaConsumerGroup in the same namespace.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupReference {
    /// Name of the KafkaConsumerGroup.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The position to set.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(self.type == 'Timestamp') == has(self.timestamp)")
        .message("timestamp is required with type Timestamp, and not allowed with other types"),
    validation = Rule::new("(self.type == 'Offsets') == has(self.offsets)")
        .message("offsets is required with type Offsets, and not allowed with other types"),
    validation = Rule::new("(self.type == 'Shift') == has(self.by)")
        .message("by is required with type Shift, and not allowed with other types"),
    validation = Rule::new("!has(self.by) || self.by != 0").message("by is 0, which changes nothing; use a negative number to read records again, a positive number to skip some")
)]
pub struct ResetTarget {
    /// Kind of position.
    ///
    /// - Earliest: the first record that Kafka still has.
    /// - Latest: the end. Records that are there now are not read.
    /// - Timestamp: the first record at or after the time in timestamp; the end, if there is none.
    /// - Offsets: the offsets in offsets. Partitions that it does not list stay as they are.
    /// - Shift: by offsets from the committed offset, see by.
    #[serde(rename = "type")]
    pub kind: ResetType,
    /// Time, RFC 3339, for example "2026-01-31T00:00:00Z". Required with type Timestamp, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub timestamp: Option<Timestamp>,
    /// One offset per partition. Required with type Offsets, not allowed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub offsets: Option<Vec<PartitionOffset>>,
    /// Number of offsets to move by: negative to read records again, positive to skip some. Required with type
    /// Shift, not allowed otherwise. Kafka may need offsets for markers of transactions, and compaction removes
    /// records, so this can be fewer records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
}

/// Values of `to.type`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ResetType {
    Earliest,
    Latest,
    Timestamp,
    Offsets,
    Shift,
}

/// The offset of one partition.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionOffset {
    /// Name of the topic.
    #[schemars(length(min = 1, max = 249))]
    pub topic: String,
    /// Number of the partition, from 0.
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// Offset of the next record to read.
    #[schemars(range(min = 0))]
    pub offset: i64,
}

/// A topic of the group, or some of its partitions.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResetTopic {
    /// Name of the topic.
    #[schemars(length(min = 1, max = 249))]
    pub topic: String,
    /// Numbers of partitions, from 0. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4096), inner(range(min = 0)))]
    pub partitions: Vec<i32>,
}

/// What was planned and done.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KafkaOffsetResetStatus {
    /// How far it is. Succeeded and Failed are final. To cancel, delete the resource.
    ///
    /// - Pending: the group does not exist yet or its spec has not been checked yet, or Kafka cannot be reached,
    ///   or another reset of the group is first.
    /// - Stopping: waits until the group has no members.
    /// - Resetting: the plan is stored and is being committed.
    /// - Succeeded: the offsets are committed; with dryRun: the plan is complete.
    /// - Failed: nothing was changed, or the message says what was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ResetPhase>,
    /// One sentence: what happens, what was done, or why not and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Conditions: Complete, Failed. Wait with `kubectl wait --for=condition=Complete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Kafka consumer group id whose offsets are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// When the operator first looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What else to know of the plan, such as partitions that it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Sums over status.partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<ResetTotals>,
    /// What the stored plan was made for. It is committed nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_for: Option<PlannedFor>,
    /// The plan, one entry per partition. It is stored before anything is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PlannedPartition>,
}

/// How far a reset is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ResetPhase {
    Pending,
    Stopping,
    Resetting,
    Succeeded,
    Failed,
}

impl ResetPhase {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for ResetPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Sums over the partitions of a plan.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResetTotals {
    /// Partitions in the plan.
    pub partitions: i32,
    /// Partitions whose commit changes: its offset, or only its metadata (clearsMetadata).
    pub changed: i32,
    /// Offsets that will be read again.
    pub again: i64,
    /// Offsets that will not be read. Without a committed offset, counted from the first offset that Kafka has.
    pub skipped: i64,
}

/// The group and the Kafka cluster of a plan.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedFor {
    /// UID of the KafkaConsumerGroup.
    pub group_uid: String,
    /// Id of the Kafka cluster. Absent if the operator did not know it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// spec.kafka.bootstrapServers of the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_servers: Vec<String>,
}

/// What happens to one partition.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPartition {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// Committed offset before the reset. Absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// Offset that is set.
    pub new: i64,
    /// new minus committed. Absent if nothing was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<i64>,
    /// The commit before the reset also lists finished records above its offset, or belongs to another topic
    /// with this name. The new commit says neither, so it is made even if the offset stays. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clears_metadata: bool,
    /// First offset that Kafka still has.
    pub log_start: i64,
    /// End of the partition.
    pub end: i64,
    /// Time of the record at the new offset. Absent if there is no record yet, or its time is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_time: Option<Time>,
    /// What else to know, such as why the new offset is not the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
