//! Why a record failed, and where.

use std::sync::Arc;

/// The step at which a record failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its key or value does not match `spec.decode`.
    Decode,
    /// A transform returned an error or panicked.
    Transform,
    /// A writer rejected it.
    Write,
}

impl Stage {
    /// The name in dead letter headers, metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Transform => "transform",
            Stage::Write => "write",
        }
    }
}

/// What a failure of a writer or a producer means, and so what the worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The record itself causes the failure: the same bytes fail again.
    Record,
    /// The other system is unavailable or busy: the worker retries with backoff.
    Transient,
    /// Needs action by a user: a missing topic or table, a missing permission, a refused login.
    Systemic,
}

impl FailureClass {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Record => "record",
            FailureClass::Transient => "transient",
            FailureClass::Systemic => "systemic",
        }
    }
}

/// A record that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the record in the chunk.
    pub source: usize,
    /// Where it failed.
    pub stage: Stage,
    /// Name of the transform or writer; `key` or `value` for a decoder.
    pub component: Arc<str>,
    /// What is wrong; never contains the key or the value.
    pub message: String,
}

/// A failed record with the number of attempts. It goes to the dead letter topic, is skipped, or waits.
#[derive(Clone, Debug)]
pub struct FailedRecord {
    /// The record in the chunk, and what is wrong with it.
    pub failure: Failure,
    /// Number of attempts so far.
    pub attempts: u32,
}
