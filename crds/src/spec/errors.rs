//! `spec.errorHandling`: what happens to records that fail.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// What happens to records that fail. Failures of the systems around (writer down, login refused, table missing) are
/// retried without end and never reach the dead letter topic.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.onExhausted) || self.onExhausted != 'DeadLetter' || has(self.deadLetter)")
        .message("onExhausted DeadLetter needs deadLetter.topic; set it, or use onExhausted Stop or Skip"),
    validation = Rule::new("!has(self.deadLetter) || !has(self.deadLetter.breaker) || !has(self.onExhausted) || self.onExhausted == 'DeadLetter'")
        .message("deadLetter.breaker works only with onExhausted DeadLetter; remove the breaker, or set onExhausted DeadLetter")
)]
pub struct ErrorHandling {
    /// Retries of a failing write.
    #[serde(default)]
    pub retry: Retry,
    /// What to do with a record that cannot be processed. DeadLetter: write it to deadLetter.topic and go on. Stop: the
    /// partition waits at the record and says so in status. Skip: drop the record and count it. Absent: DeadLetter when
    /// deadLetter is set, else Stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
    /// Where failed records go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Longest time that the transforms may take for one record, in seconds. A record that takes longer has failed in its
    /// transform, and onExhausted says what becomes of it; the others of its batch pass. Code cannot be stopped from
    /// outside: it is left alone, and when more than 8 such runs of records that are finished still go on, the worker restarts. A transform of type
    /// Custom that emits nothing before it has seen the whole batch must be faster than this with
    /// processing.batch.maxRecords records.
    #[serde(default = "transform_timeout")]
    #[schemars(range(min = *bounds::TRANSFORM_TIMEOUT_SECONDS.start(), max = *bounds::TRANSFORM_TIMEOUT_SECONDS.end()))]
    pub transform_timeout_seconds: i32,
    /// A partition that has something to do and whose finished offset has not moved for so many seconds counts as stalled:
    /// shown in status.stalledPartitions and by condition Consuming. Nothing else follows from it. Must be longer than
    /// the slowest batch takes.
    #[serde(default = "stalled_after")]
    #[schemars(range(min = *bounds::STALLED_AFTER_SECONDS.start(), max = *bounds::STALLED_AFTER_SECONDS.end()))]
    pub stalled_after_seconds: i32,
}

impl Default for ErrorHandling {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            on_exhausted: None,
            dead_letter: None,
            transform_timeout_seconds: transform_timeout(),
            stalled_after_seconds: stalled_after(),
        }
    }
}

fn transform_timeout() -> i32 {
    60
}

fn stalled_after() -> i32 {
    300
}

impl ErrorHandling {
    /// The policy in force, with the default resolved.
    pub fn policy(&self) -> OnExhausted {
        self.on_exhausted.unwrap_or(if self.dead_letter.is_some() {
            OnExhausted::DeadLetter
        } else {
            OnExhausted::Stop
        })
    }
}

/// Exponential backoff: initialBackoffMilliseconds, doubled up to maxBackoffSeconds, each wait varied by jitterPercent, so
/// that workers that failed together do not try again together.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts for one record that its writer refuses in a way that may pass, before onExhausted. Errors that cannot
    /// pass (a constraint, a document that does not parse) are not repeated.
    #[serde(default = "max_attempts")]
    #[schemars(range(min = *bounds::RETRY_MAX_ATTEMPTS.start(), max = *bounds::RETRY_MAX_ATTEMPTS.end()))]
    pub max_attempts: i32,
    /// First wait, in milliseconds.
    #[serde(default = "initial_backoff")]
    #[schemars(range(min = *bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS.start(), max = *bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS.end()))]
    pub initial_backoff_milliseconds: i32,
    /// Longest wait, in seconds, however it is varied.
    #[serde(default = "max_backoff")]
    #[schemars(range(min = *bounds::RETRY_MAX_BACKOFF_SECONDS.start(), max = *bounds::RETRY_MAX_BACKOFF_SECONDS.end()))]
    pub max_backoff_seconds: i32,
    /// How much each wait is varied, in percent of it: up and down, but never beyond maxBackoffSeconds. The longest waits only
    /// become shorter.
    #[serde(default = "jitter")]
    #[schemars(range(min = *bounds::RETRY_JITTER_PERCENT.start(), max = *bounds::RETRY_JITTER_PERCENT.end()))]
    pub jitter_percent: i32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: max_attempts(),
            initial_backoff_milliseconds: initial_backoff(),
            max_backoff_seconds: max_backoff(),
            jitter_percent: jitter(),
        }
    }
}

fn max_attempts() -> i32 {
    5
}

fn initial_backoff() -> i32 {
    200
}

fn max_backoff() -> i32 {
    30
}

fn jitter() -> i32 {
    20
}

/// See `errorHandling.onExhausted`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnExhausted {
    DeadLetter,
    Stop,
    Skip,
}

/// The dead letter topic. A failed record goes there byte for byte, with headers that say where it came from and why;
/// its offset is committed only after the broker has confirmed the copy.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetter {
    /// Name of the topic, in the same cluster.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Which headers a dead letter gets, so that tools made for other systems can read them. Native: kafka-consumer.dev/*,
    /// all text. Connect: __connect.errors.*, as Kafka Connect writes them. Spring: kafka_dlt-*, as Spring for Apache Kafka
    /// writes them, numbers in binary.
    #[serde(default)]
    pub header_style: HeaderStyle,
    /// Present: the operator creates the topic, with as many partitions as the largest input topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<DeadLetterProvision>,
    /// Present: a partition of which too many records fail waits at the next one that fails instead of writing it to the
    /// dead letter topic, because then the cause is not the records. It is tried again every retry.maxBackoffSeconds
    /// and goes on when it passes; a changed spec, which restarts the workers, begins anew. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<DeadLetterBreaker>,
}

/// How many records of one partition may fail; both limits hold.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetterBreaker {
    /// Most failed records in a row.
    #[serde(default = "max_consecutive")]
    #[schemars(range(min = *bounds::BREAKER_MAX_CONSECUTIVE.start(), max = *bounds::BREAKER_MAX_CONSECUTIVE.end()))]
    pub max_consecutive: i32,
    /// Most failed records in percent of the last 10,000, judged from 100 records on. 100 means no limit of this kind.
    #[serde(default = "max_ratio")]
    #[schemars(range(min = *bounds::BREAKER_MAX_RATIO_PERCENT.start(), max = *bounds::BREAKER_MAX_RATIO_PERCENT.end()))]
    pub max_ratio_percent: i32,
}

impl Default for DeadLetterBreaker {
    fn default() -> Self {
        Self {
            max_consecutive: max_consecutive(),
            max_ratio_percent: max_ratio(),
        }
    }
}

fn max_consecutive() -> i32 {
    1000
}

fn max_ratio() -> i32 {
    50
}

/// See `errorHandling.deadLetter.headerStyle`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HeaderStyle {
    #[default]
    Native,
    Connect,
    Spring,
}

/// How the dead letter topic is created.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetterProvision {
    /// Replicas of each partition. Absent: the broker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32767))]
    pub replication_factor: Option<i32>,
    /// Topic configuration at creation, for example {"retention.ms": "1209600000"}.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub config: std::collections::BTreeMap<String, String>,
}
