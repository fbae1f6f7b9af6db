//! Exactly once with the Kafka writer. A worker writes its records, its dead letters and its offsets in one
//! transaction after another. Lanes write inside the [`Gate`], which assigns them to a transaction. When a
//! transaction ends, lanes that enter from then on write in the next one. Once all lanes of the ended
//! transaction have left, the records they have finished are exactly those written in it; until then the poll
//! loop holds back what lanes of the next one report. The ended transaction is committed while lanes write in
//! the next one, and the next one is committed only after it. The poll loop decides when
//! (`consumer/transactions.rs`); the [`Transactor`] makes the calls, on threads that may block.
//!
//! A single write cannot be undone. A record that is not confirmed therefore fails its transaction, and the
//! next one with it. Both are aborted, and the worker reads the partitions again from the committed offsets.

mod client;
mod gate;
mod rejected_records;
mod transactor;

pub use self::rejected_records::RejectedRecords;
pub(crate) use self::{
    gate::Gate,
    transactor::{Command, Transactor},
};
use std::sync::Arc;

use crate::{health::snapshot::PausedReason, kafka::producer::Producer, record::failure::FailureClass};

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
    /// The writer is unavailable until someone fixes something.
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

/// The producer of the writer and of dead letters, and the records that the broker is known to reject.
#[derive(Clone)]
pub struct Transactional {
    /// Sends only inside transactions.
    pub producer: Producer,
    /// Shared with the writer.
    pub rejected_records: Arc<RejectedRecords>,
}
