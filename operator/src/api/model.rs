//! What is known of the groups, as the API shows it. Plain data. A value that is not known is null, and
//! `unknown` says why; it is never 0.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crds::spec::DesiredState;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::unknown::Unknown;
use crate::kafka::model::GroupKey;

/// All groups at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub as_of: Timestamp,
    pub role: Role,
    pub groups: BTreeMap<GroupKey, Arc<Group>>,
}

/// What the program that answers does for the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub enum Role {
    /// It has just started and knows nothing yet.
    Starting,
    /// It runs the groups as processes of this machine.
    Local,
    /// The operator that reconciles the groups.
    Leader,
    /// An operator that waits to take over. It knows only what the status of each resource says.
    Standby,
}

/// One group with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Group {
    #[serde(flatten)]
    pub summary: Summary,
    /// The state of the group, one condition per question. The names and reasons are those of the resource.
    pub conditions: Vec<Condition>,
    /// Input topics.
    pub topics: Vec<Topic>,
    /// Names of the writers, in their order.
    pub writers: Vec<String>,
    /// Dead letter topic, if the group has one.
    pub dead_letter_topic: Option<String>,
    /// Where the resource comes from, for example a file.
    pub origin: String,
    /// Name of the Deployment of the workers; null in local mode.
    pub deployment: Option<String>,
    #[serde(skip)]
    pub partitions: Vec<Partition>,
    #[serde(skip)]
    pub workers: Vec<Worker>,
    #[serde(skip)]
    pub listed: Listed,
}

/// The group as lists show it, as JSON. Made once for all streams: it needs more memory than the group.
#[derive(Debug, Default)]
pub struct Listed(OnceLock<Value>);

impl Listed {
    pub fn of(group: &Group) -> &Value {
        let value = || serde_json::to_value(&group.summary).unwrap_or_default();
        group.listed.0.get_or_init(value)
    }
}

/// A copy may be changed, so it starts empty.
impl Clone for Listed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// It says nothing that the group does not say.
impl PartialEq for Listed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An input topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Topic {
    pub name: String,
    /// Number of partitions; null if the topic does not exist or was not read yet.
    pub partitions: Option<i32>,
}

/// One group in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Summary {
    pub namespace: String,
    pub name: String,
    /// Consumer group id in Kafka.
    pub group_id: String,
    pub labels: BTreeMap<String, String>,
    /// `Running`, `Paused` or `Stopped`, as requested.
    #[cfg_attr(feature = "api", schema(value_type = Option<String>))]
    pub desired_state: Option<DesiredState>,
    /// Condition Ready.
    pub ready: Truth,
    /// Reason of condition Ready.
    pub reason: String,
    /// What is wrong and what to do, or what is going well.
    pub message: String,
    /// Number of workers that run.
    pub workers: Option<usize>,
    /// Number of workers that should run.
    pub workers_desired: Option<usize>,
    /// Why this number of workers should run.
    pub workers_reason: String,
    /// Partitions of all input topics.
    pub partitions: Option<i32>,
    /// Number of partitions that make no progress although they have work to do.
    pub stalled: Option<usize>,
    /// Records between the committed offsets and the ends of the partitions.
    pub lag: Option<i64>,
    /// Records that producers add, per second.
    pub in_per_second: Option<f64>,
    /// Records that the workers finish, per second.
    pub done_per_second: Option<f64>,
    /// Seconds until the lag is 0 if both rates stay as they are.
    pub catch_up_seconds: Option<f64>,
    /// Records finished since this program started; in a cluster, since its workers started.
    pub finished_total: Option<u64>,
    /// Records written to the dead letter topic, since the same time.
    pub dead_lettered_total: Option<u64>,
    /// Dead letters of the last minute.
    pub dead_letters_per_minute: Option<u64>,
    /// Records skipped, since the same time.
    pub skipped_total: Option<u64>,
    /// Why a field above is null.
    #[cfg_attr(feature = "api", schema(value_type = BTreeMap<String, String>))]
    pub unknown: Unknown,
}

impl Summary {
    pub fn key(&self) -> GroupKey {
        GroupKey::new(&self.namespace, &self.name)
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub enum Truth {
    False,
    Unknown,
    True,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Condition {
    #[serde(rename = "type")]
    #[cfg_attr(feature = "api", schema(value_type = String))]
    pub kind: Cow<'static, str>,
    pub status: Truth,
    pub reason: String,
    pub message: String,
    /// Time of the last change of `status`.
    #[cfg_attr(feature = "api", schema(value_type = String, format = DateTime))]
    pub last_transition_time: Timestamp,
}

/// One partition of an input topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
    /// Worker that it is assigned to; null if it is assigned to none.
    pub worker: Option<String>,
    /// Offset that the group reads next after a restart: the committed one, or the start of the partition.
    pub committed: Option<i64>,
    /// End offset.
    pub end: Option<i64>,
    /// Records between the two.
    pub lag: Option<i64>,
    pub in_per_second: Option<f64>,
    pub done_per_second: Option<f64>,
    pub catch_up_seconds: Option<f64>,
    /// Records that the worker has read and not yet finished.
    pub in_flight: Option<u64>,
    /// The oldest of them, and the problem of the partition.
    pub oldest: Option<Oldest>,
    /// Why the worker does not read the partition; null if it reads.
    pub paused_reason: Option<String>,
    /// Set if the partition has work to do and makes no progress: the time of its last progress.
    #[cfg_attr(feature = "api", schema(value_type = Option<String>, format = DateTime))]
    pub stalled_since: Option<Timestamp>,
    /// Why a field above is null.
    #[cfg_attr(feature = "api", schema(value_type = BTreeMap<String, String>))]
    pub unknown: Unknown,
}

/// The oldest unfinished record of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Oldest {
    pub offset: i64,
    #[cfg_attr(feature = "api", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Number of attempts so far at the operation that `lastError` describes.
    pub attempts: u32,
    pub last_error: Option<String>,
    /// Offset of the later record that the error belongs to; null if it belongs to this record.
    pub error_offset: Option<i64>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Worker {
    pub name: String,
    /// `Joining`, `Consuming`, `Draining` or `Stopped`; null if the worker has not answered yet.
    pub phase: Option<String>,
    pub partitions: Option<usize>,
    pub in_flight: Option<u64>,
    pub finished_total: Option<u64>,
    pub dead_lettered_total: Option<u64>,
    pub skipped_total: Option<u64>,
    /// Number of times that it has exited without being asked to, in a row.
    pub exits: Option<u32>,
    #[cfg_attr(feature = "api", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    pub last_error: Option<String>,
    /// Why a field above is null.
    #[cfg_attr(feature = "api", schema(value_type = BTreeMap<String, String>))]
    pub unknown: Unknown,
}

/// Something that happened to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub struct Event {
    #[cfg_attr(feature = "api", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: EventKind,
    #[cfg_attr(feature = "api", schema(value_type = String))]
    pub reason: Cow<'static, str>,
    pub message: String,
}

/// Severity of an event, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "api", derive(utoipa::ToSchema))]
pub enum EventKind {
    Normal,
    Warning,
}
