//! `spec.errorHandling`: what happens to records that fail, and to partitions that make no progress.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// What happens to records that fail. The worker retries failures of connected systems (writer down, login
/// refused, table missing) indefinitely; they never send a record to the dead letter topic.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.onExhausted) || self.onExhausted != 'DeadLetter' || has(self.deadLetter)")
        .message("onExhausted DeadLetter needs deadLetter.topic; set it, or use onExhausted Stop or Skip"),
    validation = Rule::new("!has(self.deadLetter) || !has(self.deadLetter.breaker) || !has(self.onExhausted) || self.onExhausted == 'DeadLetter'")
        .message("deadLetter.breaker works only with onExhausted DeadLetter; remove the breaker, or set onExhausted DeadLetter")
)]
pub struct ErrorHandling {
    /// How the worker retries failed writes.
    #[serde(default)]
    pub retry: Retry,
    /// What the worker does with a record that it cannot process. Default: DeadLetter if deadLetter is set,
    /// otherwise Stop.
    ///
    /// - DeadLetter: write the record to deadLetter.topic and continue.
    /// - Stop: the partition waits at the record, and status reports it.
    /// - Skip: drop the record and count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
    /// The dead letter topic for failed records. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Maximum time that the transforms may take for one record, in seconds. A record that takes longer is a
    /// failed record, and onExhausted applies to it; the other records of its batch are processed. A running
    /// transform cannot be interrupted, so the worker abandons its thread, which keeps running, and
    /// continues. The worker restarts when more than 8 such threads still run although their records are
    /// finished. A transform of type Custom that emits nothing before it has seen the whole batch must
    /// process processing.batch.maxRecords records within this time. Default: 60.
    #[serde(default = "transform_timeout")]
    #[schemars(range(min = *bounds::TRANSFORM_TIMEOUT_SECONDS.start(), max = *bounds::TRANSFORM_TIMEOUT_SECONDS.end()))]
    pub transform_timeout_seconds: i32,
    /// Time, in seconds, after which a partition counts as stalled if it has work to do and its finished
    /// offset has not moved. status.stalledPartitions and condition Consuming report stalled partitions;
    /// there is no other effect. Must be longer than the slowest batch takes. Default: 300.
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
    /// The policy in use, with the default resolved.
    pub fn policy(&self) -> OnExhausted {
        self.on_exhausted.unwrap_or(if self.dead_letter.is_some() {
            OnExhausted::DeadLetter
        } else {
            OnExhausted::Stop
        })
    }
}

/// Exponential backoff: the worker waits initialBackoffMilliseconds and doubles the wait up to
/// maxBackoffSeconds. Each wait varies by jitterPercent, so that workers that failed together do not retry
/// together.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.maxBackoffSeconds) || !has(self.initialBackoffMilliseconds) || self.maxBackoffSeconds * 1000 >= self.initialBackoffMilliseconds")
        .message("maxBackoffSeconds is shorter than initialBackoffMilliseconds; raise it, or start with a shorter wait")
)]
pub struct Retry {
    /// Maximum number of attempts for a record that a writer rejects with a transient error; then onExhausted
    /// applies. The worker does not retry permanent errors (a violated constraint, a document that does not
    /// parse). Default: 5.
    #[serde(default = "max_attempts")]
    #[schemars(range(min = *bounds::RETRY_MAX_ATTEMPTS.start(), max = *bounds::RETRY_MAX_ATTEMPTS.end()))]
    pub max_attempts: i32,
    /// Wait before the first retry, in milliseconds. Default: 200.
    #[serde(default = "initial_backoff")]
    #[schemars(range(min = *bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS.start(), max = *bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS.end()))]
    pub initial_backoff_milliseconds: i32,
    /// Maximum wait between attempts, in seconds, jitter included. Default: 30.
    #[serde(default = "max_backoff")]
    #[schemars(range(min = *bounds::RETRY_MAX_BACKOFF_SECONDS.start(), max = *bounds::RETRY_MAX_BACKOFF_SECONDS.end()))]
    pub max_backoff_seconds: i32,
    /// Random variation of each wait, in percent of the wait. It makes a wait shorter or longer, but never
    /// longer than maxBackoffSeconds, so the longest waits only become shorter. Default: 20.
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

/// Values of `errorHandling.onExhausted`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnExhausted {
    DeadLetter,
    Stop,
    Skip,
}

/// The dead letter topic. The worker writes a failed record to it byte for byte, with headers that state its
/// origin and the error, and commits the record's offset only after the broker has confirmed the copy.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetter {
    /// Name of the topic. It is in the same Kafka cluster and must not be an input topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Which headers a dead letter gets, so that tools made for other systems can read them. Default: Native.
    ///
    /// - Native: kafka-consumer.dev/*, all text.
    /// - Connect: __connect.errors.*, as Kafka Connect writes them.
    /// - Spring: kafka_dlt-*, as Spring for Apache Kafka writes them, numbers in binary.
    #[serde(default)]
    pub header_style: HeaderStyle,
    /// What the worker does with a failed record whose dead letter the topic refuses in every form: too large
    /// even without value and headers, for example. Before that, the worker writes what the topic accepts,
    /// with headers that say what is missing. Default: Stop.
    ///
    /// - Stop: the partition waits at the record, and status reports it.
    /// - Drop: drop the record, log it and count it.
    #[serde(default)]
    pub on_refused: OnRefused,
    /// If set, the operator creates the topic, with as many partitions as the largest input topic. Default:
    /// the operator does not create the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<DeadLetterProvision>,
    /// Limits of the dead letter breaker. If set, and too many records of a partition fail, the partition
    /// waits at the next failing record instead of writing it to the dead letter topic, because the records
    /// are then not the cause. The worker retries that record every retry.maxBackoffSeconds and continues
    /// when it succeeds. A changed spec restarts the workers and resets the counts. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<DeadLetterBreaker>,
}

/// How many records of one partition may fail. Both limits apply.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetterBreaker {
    /// Maximum number of consecutive failed records. Default: 1000.
    #[serde(default = "max_consecutive")]
    #[schemars(range(min = *bounds::BREAKER_MAX_CONSECUTIVE.start(), max = *bounds::BREAKER_MAX_CONSECUTIVE.end()))]
    pub max_consecutive: i32,
    /// Maximum share of failed records among the last 10,000 records, in percent. Applies after 100 records.
    /// 100 disables this limit. Default: 50.
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

/// Values of `errorHandling.deadLetter.headerStyle`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HeaderStyle {
    #[default]
    Native,
    Connect,
    Spring,
}

/// Values of `errorHandling.deadLetter.onRefused`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnRefused {
    #[default]
    Stop,
    Drop,
}

/// How the operator creates the dead letter topic.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetterProvision {
    /// Replicas of each partition. Applies at creation only. Default: the broker's
    /// default.replication.factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32767))]
    pub replication_factor: Option<i32>,
    /// Topic configuration, for example {"retention.ms": "1209600000"}. Applies at creation only. Default:
    /// the broker's defaults.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub config: std::collections::BTreeMap<String, String>,
}
