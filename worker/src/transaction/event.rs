//! What happens to a transaction, and why it may fail.

use std::sync::Arc;

use crate::{health::snapshot::PausedReason, record::failure::FailureClass};

/// Receives the events of transactions. The poll loop puts them into its own queue, behind the completions
/// that came before.
pub(crate) type Reporter = Arc<dyn Fn(Event) + Send + Sync>;

/// What happened to the transaction.
#[derive(Debug)]
pub(crate) enum Event {
    /// No lane writes in the ended transaction any more.
    Drained,
    /// The ended transaction is committed.
    Committed,
    /// The transaction cannot be committed any more. Sent by a lane or by the commit.
    Failed(TransactionFailure),
    /// Everything uncommitted is aborted, and the next transaction has started; the gate is closed.
    Aborted,
    /// A transaction is not possible at the moment; the transactor retries.
    Unavailable(String),
    /// Transactions are possible again.
    Recovered,
}

/// Why a transaction cannot be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionFailure {
    pub message: String,
    pub cause: Cause,
    /// The reason that status shows meanwhile.
    pub reason: PausedReason,
}

/// What causes the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Partitions have moved to another worker. That is no error.
    Moved,
    /// The broker has rejected a record. The worker knows which one, or finds out before the next
    /// transaction.
    Record,
    /// The broker accepts less metadata with offsets. The worker knows the limit by now.
    TooLong,
    /// The writer is unavailable for now.
    Unavailable,
    /// The writer is unavailable until a user fixes the cause.
    Systemic,
}

impl TransactionFailure {
    /// A failure of the writer or of a call.
    pub fn new(cause: Cause, message: String) -> Self {
        Self {
            message,
            cause,
            reason: PausedReason::WriterUnavailable,
        }
    }
}

impl Cause {
    /// The metric label of the class that the writer's failure counts as.
    pub fn class(self) -> &'static str {
        let class = match self {
            Cause::Record => FailureClass::Record,
            Cause::Systemic => FailureClass::Systemic,
            Cause::Moved | Cause::TooLong | Cause::Unavailable => FailureClass::Transient,
        };
        class.as_str()
    }
}
