//! Why a record failed, and at which step.

use std::sync::Arc;

/// The step at which a record failed. It is shown in dead letter headers, metrics and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Key or value do not have the format that `spec.decode` names.
    Decode,
    /// A transform returned an error or panicked.
    Transform,
    /// A writer rejected the record.
    Write,
}

impl Stage {
    /// The name in dead letter headers, metrics and status: `decode`, `transform` or `write`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Transform => "transform",
            Stage::Write => "write",
        }
    }
}

/// A record that failed, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the record in its [`Chunk`](super::Chunk).
    pub source: usize,
    /// The step at which it failed.
    pub stage: Stage,
    /// Name of the transform or writer; "key" or "value" for a decoder.
    pub component: Arc<str>,
    /// What is wrong. It is shown in dead letter headers, status and logs, so it must never contain the
    /// payload.
    pub message: String,
}

/// A failed record with its number of attempts. `onExhausted` decides what happens to it: dead letter topic,
/// skip or stop.
#[derive(Clone, Debug)]
pub struct FailedRecord {
    /// Which record of the chunk failed, and why.
    pub failure: Failure,
    /// Number of attempts, all of which failed.
    pub attempts: u32,
}
