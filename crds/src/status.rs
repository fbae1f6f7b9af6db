//! The `KafkaConsumerGroup` status: what is. Every field has one writer: the operator writes all of them but
//! `workers`, of which each worker writes its own entry by server-side apply; the operator only removes entries of
//! pods that are gone.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Condition types, each with the question it answers.
pub mod condition {
    /// Spec accepted, Kafka answers, every partition has a live owner, and progress is made or there is nothing to do?
    pub const READY: &str = "Ready";
    /// Is the spec, with everything it refers to, usable?
    pub const ACCEPTED: &str = "Accepted";
    /// Do the brokers answer, with these credentials?
    pub const KAFKA_REACHABLE: &str = "KafkaReachable";
    /// Is the lag complete and fresh?
    pub const LAG_KNOWN: &str = "LagKnown";
    /// Are all wanted worker pods ready?
    pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";
    /// Do the workers make progress?
    pub const CONSUMING: &str = "Consuming";
    /// Is the number of workers smaller than the mode asks for?
    pub const SCALING_LIMITED: &str = "ScalingLimited";
    /// kstatus: is a change still being rolled out?
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: does something need a human?
    pub const STALLED: &str = "Stalled";
}

/// What is really going on, judged from the broker's view of the group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KafkaConsumerGroupStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Accepted, KafkaReachable, LagKnown, WorkersAvailable, Consuming, ScalingLimited, Reconciling,
    /// Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The consumer group id in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// State of the group as the broker tells it: Stable, PreparingRebalance, CompletingRebalance, Empty, Dead; with
    /// groupProtocol Consumer also Reconciling: partitions are on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_state: Option<String>,
    /// Selector of the worker pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Workers wanted now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Worker pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Worker pods that run the latest configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Image the workers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_image: Option<String>,
    /// Input topics and their partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub topics: Vec<TopicStatus>,
    /// Partitions of all input topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionsStatus>,
    /// Records not yet committed. Absent when unknown; unknown never means 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// The last decision about the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Partitions that make no progress although there is something to do, those that have waited longest; partitions.stalled
    /// counts all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub stalled_partitions: Vec<StalledPartition>,
    /// One entry per worker, written by the worker itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub workers: Vec<WorkerStatus>,
}

/// An input topic.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Name of the topic.
    pub name: String,
    /// Number of partitions. Absent: the topic does not exist or is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
}

/// Partitions of all input topics.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PartitionsStatus {
    /// All of them.
    pub total: i32,
    /// Those that have an owner, in the broker's view. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<i32>,
    /// Those that make no progress although there is something to do (errorHandling.stalledAfterSeconds), as the workers
    /// tell. Absent: no worker tells anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<i32>,
}

/// A partition that makes no progress although there is something to do.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StalledPartition {
    /// Topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// Offset of the first record that is not finished. Absent: none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// When it made progress last.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Attempts so far at what lastError tells of.
    pub attempts: i32,
    /// What holds it back: as pausedReason of a worker, or NoProgress when nothing is known.
    pub reason: String,
    /// What went wrong last, at most 200 bytes; begins with "offset n:" when it went wrong at a later record than the one
    /// at offset. Absent: nothing is known to have gone wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Why a partition is not read on, from the least grave reason to the gravest: of several, the greatest is told. Last come
/// those that need a human, before them those that last, then the one that is over soon. A worker that has both a slow
/// transform and a failed record must not say now one and now the other.
///
/// In status it is a word, so that a worker may know reasons that the operator does not.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PausedReason {
    /// Later records are finished, so many that reading on makes no sense before the oldest one is.
    OldestUnfinished,
    /// The resource says Paused.
    Paused,
    /// A transform shows no sign of life.
    TransformSlow,
    /// A writer does not take batches.
    WriterUnavailable,
    /// The dead letter topic does not take records.
    DeadLetterUnavailable,
    /// Too many records fail for all of them to go to the dead letter topic.
    DeadLetterBreakerOpen,
    /// `onExhausted: Stop` met a record that fails.
    RecordFailed,
}

impl PausedReason {
    /// All of them, the gravest last.
    pub const ALL: [Self; 7] = [
        Self::OldestUnfinished,
        Self::Paused,
        Self::TransformSlow,
        Self::WriterUnavailable,
        Self::DeadLetterUnavailable,
        Self::DeadLetterBreakerOpen,
        Self::RecordFailed,
    ];

    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OldestUnfinished => "OldestUnfinished",
            Self::Paused => "Paused",
            Self::TransformSlow => "TransformSlow",
            Self::WriterUnavailable => "WriterUnavailable",
            Self::DeadLetterUnavailable => "DeadLetterUnavailable",
            Self::DeadLetterBreakerOpen => "DeadLetterBreakerOpen",
            Self::RecordFailed => "RecordFailed",
        }
    }

    /// The reason of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// True when something is wrong. A pause is asked for; and a record that takes long holds back only what would fill the
    /// memory, which comes and goes.
    pub fn hinders(self) -> bool {
        !matches!(self, Self::OldestUnfinished | Self::Paused)
    }

    /// True when it does not get better by itself.
    pub fn needs_human(self) -> bool {
        matches!(self, Self::DeadLetterBreakerOpen | Self::RecordFailed)
    }
}

/// Records between the committed offsets and the ends of the partitions.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// Sum over all partitions, in records.
    pub total: i64,
    /// Largest of a single partition, in records.
    pub max: i64,
    /// The partition with the largest lag, "topic-partition".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_partition: Option<String>,
    /// When it was read; refreshed at least every minute while it changes.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub as_of: Timestamp,
}

/// The last decision about the number of workers.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Workers that the mode asks for, before limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_replicas: Option<i32>,
    /// What kept it from that: None, Partitions, MinReplicas, MaxReplicas, Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<String>,
    /// The decision in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What one worker tells about itself. Written by that worker only, at most every 15 seconds.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Name of the pod.
    pub name: String,
    /// Partitions assigned to it.
    pub assigned: i32,
    /// Records finished since it started.
    pub records_total: i64,
    /// Records written to the dead letter topic since it started.
    pub dead_lettered_total: i64,
    /// Records skipped since it started.
    #[serde(default)]
    pub skipped_total: i64,
    /// Records not yet read by it, over its partitions. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Records read and not yet finished.
    pub in_flight: i64,
    /// The unfinished record that has waited longest, "topic-partition@offset since time".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_in_flight: Option<String>,
    /// Why reading is held back; of several partitions the gravest, which is the first of these: RecordFailed,
    /// DeadLetterBreakerOpen, DeadLetterUnavailable, WriterUnavailable, TransformSlow, Paused, OldestUnfinished (later
    /// records are finished, so many that the first unfinished one is waited for). Absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    /// Partitions assigned to it that make no progress although there is something to do.
    #[serde(default)]
    pub stalled: i32,
    /// Those of them that have waited longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub stalled_partitions: Vec<StalledPartition>,
    /// The error behind pausedReason, else the last of any kind; at most 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the worker wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub reported_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_known_by_name_and_those_that_need_a_human_are_the_gravest() {
        assert!(PausedReason::ALL.is_sorted());
        for reason in PausedReason::ALL {
            assert_eq!(PausedReason::named(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(PausedReason::named("NoProgress"), None);
        let graver = |a: fn(PausedReason) -> bool| PausedReason::ALL.map(a).is_sorted();
        assert!(graver(PausedReason::needs_human) && graver(PausedReason::hinders));
    }
}
