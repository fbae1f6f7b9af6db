//! The `KafkaConsumerGroup` status: the observed state. Every field has one writer. The operator writes all
//! fields except `workers`: each worker writes its own entry of that list by server-side apply, and the
//! operator only removes entries of pods that no longer exist.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Condition types, each with the question that it answers.
pub mod condition {
    /// Is the spec accepted, is Kafka reachable, is every partition assigned to a live worker, and do the
    /// workers make progress or have nothing to do?
    pub const READY: &str = "Ready";
    /// Are the spec and everything it references valid?
    pub const ACCEPTED: &str = "Accepted";
    /// Do the brokers respond, with the credentials of the spec?
    pub const KAFKA_REACHABLE: &str = "KafkaReachable";
    /// Is the lag complete and up to date?
    pub const LAG_KNOWN: &str = "LagKnown";
    /// Are all desired worker pods ready?
    pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";
    /// Do the workers make progress?
    pub const CONSUMING: &str = "Consuming";
    /// Is the number of workers smaller than the mode asks for?
    pub const SCALING_LIMITED: &str = "ScalingLimited";
    /// kstatus: is the operator still rolling out a change?
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: does something need action by a user?
    pub const STALLED: &str = "Stalled";
}

/// Observed state, based on the broker's view of the consumer group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KafkaConsumerGroupStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Accepted, KafkaReachable, LagKnown, WorkersAvailable, Consuming, ScalingLimited,
    /// Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Operator that serves this resource, as "namespace/lease". Others that watch it as well leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Kafka consumer group id in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Id of the Kafka cluster. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// State of the consumer group as the broker reports it: Stable, PreparingRebalance, CompletingRebalance,
    /// Empty or Dead. With groupProtocol Consumer also Reconciling: the broker is moving partitions between
    /// workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_state: Option<String>,
    /// Label selector of the worker pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Desired number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Number of worker pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Number of worker pods that run the latest configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Image of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_image: Option<String>,
    /// Input topics and their partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub topics: Vec<TopicStatus>,
    /// Partitions of all input topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionsStatus>,
    /// Records that are not yet committed. Absent if not known; an unknown lag is never shown as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// Last decision about the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Partitions that make no progress although they have work to do. At most 16, those that have waited
    /// longest; partitions.stalled counts all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub stalled_partitions: Vec<StalledPartition>,
    /// Records that retention removed before they were read: the last range of each partition, at most 64, the
    /// latest. Stays until the topic leaves the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub skipped_by_retention: Vec<SkippedByRetention>,
    /// Workers, at most 32: those with the most severe problem first. The operator writes them when a reason
    /// changes, and otherwise less often the more groups there are. If workers push their reports, one entry
    /// per worker, which that worker writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub workers: Vec<WorkerStatus>,
    /// Totals over all workers, also those that are not in workers. Absent if no worker runs, and if workers
    /// push their reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_totals: Option<WorkerTotals>,
}

/// Totals over all workers.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerTotals {
    /// Number of workers with a report that is at most two minutes old.
    pub reporting: i32,
    /// Number of ready workers that do not answer when the operator reads their report.
    pub silent: i32,
    /// One of the silent workers, and why it has no report. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_reason: Option<String>,
    /// Number of records that these workers have finished since each of them started.
    pub records_total: i64,
    /// Number of records that they have written to the dead letter topic.
    pub dead_lettered_total: i64,
    /// Number of records that they have skipped.
    pub skipped_total: i64,
    /// Number of records that they have read and not yet finished.
    pub in_flight: i64,
}

/// An input topic.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Name of the topic.
    pub name: String,
    /// Number of partitions. Absent if the topic does not exist or is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Id of the topic. A topic that is deleted and created again under the same name has another one. Absent
    /// if not known, and with brokers that have no topic ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Partitions of all input topics.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PartitionsStatus {
    /// Number of partitions.
    pub total: i32,
    /// Number of partitions that are assigned to a worker, in the broker's view. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<i32>,
    /// Number of partitions that make no progress although they have work to do
    /// (errorHandling.stalledAfterSeconds), as the workers report it. Absent if no worker reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<i32>,
}

/// A partition that makes no progress although it has work to do.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StalledPartition {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// Offset of the first record that is not finished. Absent if the worker has read none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Time of the last progress.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Number of attempts so far at the operation that lastError describes.
    pub attempts: i32,
    /// Why the partition makes no progress: one of the values of a worker's pausedReason, or NoProgress if
    /// the cause is not known.
    pub reason: String,
    /// Last error, at most 200 bytes. Starts with "offset n:" if the error belongs to a later record than the
    /// one at offset. Absent if no error is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl StalledPartition {
    /// For lists of which only a part is shown: those that stalled first come first.
    pub fn oldest_first(&self, other: &Self) -> Ordering {
        (self.since, &self.topic, self.partition).cmp(&(other.since, &other.topic, other.partition))
    }
}

/// Records of a partition that retention removed before a worker read them.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SkippedByRetention {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// First offset that was not read.
    pub from_offset: i64,
    /// First offset that was left, where reading continued or after it.
    pub to_offset: i64,
    /// Time at which the worker passed these offsets.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
}

impl SkippedByRetention {
    /// For lists of which only a part is shown: the latest come first.
    pub fn latest_first(&self, other: &Self) -> Ordering {
        (other.time, &self.topic, self.partition).cmp(&(self.time, &other.topic, other.partition))
    }
}

/// Why the worker has stopped reading a partition, from the least severe reason to the most severe one. If
/// several reasons apply, status shows the most severe one, so that a worker with both a slow transform and a
/// failed record does not alternate between the two. Reasons that need action come last, before them those
/// that persist, and before these the one that passes soon.
///
/// In status it is a string, so that a worker may report reasons that the operator does not know.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PausedReason {
    /// The worker has finished later records up to its limit, so it waits for the oldest unfinished one
    /// before it reads more.
    OldestUnfinished,
    /// `spec.desiredState` is Paused.
    Paused,
    /// A transform does not respond.
    TransformSlow,
    /// A writer does not accept batches.
    WriterUnavailable,
    /// The dead letter topic does not accept records.
    DeadLetterUnavailable,
    /// Too many records fail, so the breaker keeps them out of the dead letter topic.
    DeadLetterBreakerOpen,
    /// A record failed, and `onExhausted` is Stop.
    RecordFailed,
    /// The offset is out of range, and `consumer.onOffsetOutOfRange` is Stop.
    OffsetOutOfRange,
    /// The topic was deleted and created again, and `consumer.onTopicRecreated` is Stop.
    TopicRecreated,
}

impl PausedReason {
    /// All reasons, the most severe one last.
    pub const ALL: [Self; 9] = [
        Self::OldestUnfinished,
        Self::Paused,
        Self::TransformSlow,
        Self::WriterUnavailable,
        Self::DeadLetterUnavailable,
        Self::DeadLetterBreakerOpen,
        Self::RecordFailed,
        Self::OffsetOutOfRange,
        Self::TopicRecreated,
    ];

    /// Name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OldestUnfinished => "OldestUnfinished",
            Self::Paused => "Paused",
            Self::TransformSlow => "TransformSlow",
            Self::WriterUnavailable => "WriterUnavailable",
            Self::DeadLetterUnavailable => "DeadLetterUnavailable",
            Self::DeadLetterBreakerOpen => "DeadLetterBreakerOpen",
            Self::RecordFailed => "RecordFailed",
            Self::OffsetOutOfRange => "OffsetOutOfRange",
            Self::TopicRecreated => "TopicRecreated",
        }
    }

    /// The reason with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// True if something is wrong. A pause is intended, and a slow record only delays records that would
    /// otherwise fill the memory, which passes.
    pub fn is_problem(self) -> bool {
        !matches!(self, Self::OldestUnfinished | Self::Paused)
    }

    /// True if the partition does not recover without action by a user.
    pub fn needs_action(self) -> bool {
        matches!(
            self,
            Self::DeadLetterBreakerOpen | Self::RecordFailed | Self::OffsetOutOfRange | Self::TopicRecreated
        )
    }
}

/// Records between the committed offsets and the ends of the partitions.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// Sum over all partitions, in records.
    pub total: i64,
    /// Largest lag of a single partition, in records.
    pub max: i64,
    /// Partition with the largest lag, as "topic-partition".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_partition: Option<String>,
    /// Time at which the operator read the lag. Updated at least every minute while the lag changes.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub as_of: Timestamp,
}

/// Last decision about the number of workers.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Number of workers that the scaling mode asks for, before limits. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_replicas: Option<i32>,
    /// What limits the number of workers: None, Partitions, MinReplicas, MaxReplicas or Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// Explanation of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// State of one worker, as it reports it.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Name of the pod.
    pub name: String,
    /// Number of partitions assigned to the worker.
    pub assigned: i32,
    /// Number of records finished since the worker started.
    pub records_total: i64,
    /// Number of records written to the dead letter topic since the worker started.
    pub dead_lettered_total: i64,
    /// Number of records skipped since the worker started.
    #[serde(default)]
    pub skipped_total: i64,
    /// Number of records of its partitions that the worker has not read yet. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Number of records that the worker has read and not yet finished.
    pub in_flight: i64,
    /// Unfinished record that has waited longest, as "topic-partition@offset since time".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_in_flight: Option<String>,
    /// Why the worker does not read one or more of its partitions. If several reasons apply, the most severe
    /// one is shown, in this order: TopicRecreated, OffsetOutOfRange, RecordFailed, DeadLetterBreakerOpen,
    /// DeadLetterUnavailable, WriterUnavailable, TransformSlow, Paused, OldestUnfinished (too many later
    /// records are finished already, so the worker waits for the first unfinished one). Absent if the worker
    /// reads all of its partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    /// Number of its partitions that make no progress although they have work to do.
    #[serde(default)]
    pub stalled: i32,
    /// Stalled partitions of this worker. At most 8, those that have waited longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub stalled_partitions: Vec<StalledPartition>,
    /// Records of its partitions that retention removed before the worker read them: the last range of each
    /// partition, at most 8, the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub skipped_by_retention: Vec<SkippedByRetention>,
    /// Error behind pausedReason, otherwise the last error of any kind. At most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Time at which the operator read the report, or the worker wrote it. If the operator reads it, the time
    /// stays while nothing else in the entry changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub reported_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_known_by_name_and_those_that_need_action_are_the_most_severe() {
        assert!(PausedReason::ALL.is_sorted());
        for reason in PausedReason::ALL {
            assert_eq!(PausedReason::named(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(PausedReason::named("NoProgress"), None);
        let sorted = |a: fn(PausedReason) -> bool| PausedReason::ALL.map(a).is_sorted();
        assert!(sorted(PausedReason::needs_action) && sorted(PausedReason::is_problem));
    }
}
