//! Exactly once with the Kafka writer: what the lanes of a worker write, its dead letters and its offsets go into one
//! transaction after the other. Lanes write inside of the [`Gate`], which says of what transaction. To end one, those who enter
//! from then on write in the next, and when those of the ended one have left, what they have finished is exactly what was
//! written in it: the poll loop holds back what is reported of the next until then. The ended one is committed while the next is
//! being written, and that only after it. The poll loop decides when (`consumer/transact.rs`); the [`Transactor`] makes the
//! calls, on threads that may block.
//!
//! Nothing that was written can be taken back alone: a record that is not confirmed spoils the transaction, and with it the next.
//! Then both are aborted, and the partitions are read again from what is committed.

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

/// Takes the events of transactions; the poll loop puts them into its own queue, behind the completions that came before.
pub(crate) type Reporter = Arc<dyn Fn(Event) + Send + Sync>;

/// What became of the transaction.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nobody writes in the transaction that was to be ended any more.
    Drained,
    /// It is committed.
    Committed,
    /// It cannot be committed any more. From a lane, or from the commit.
    Failed(TransactionFailure),
    /// Everything that was not committed is aborted, and the next one has begun; the gate is closed.
    Aborted,
    /// There cannot be a transaction for now; it is tried again.
    Unavailable(String),
    /// There can, again.
    Recovered,
}

/// Why a transaction cannot be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionFailure {
    pub message: String,
    pub cause: Cause,
    /// What status shows while it goes on.
    pub reason: PausedReason,
}

/// What is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Partitions have moved to another worker: nobody's fault.
    Moved,
    /// The broker has refused a record: known by now, or found out before the next transaction.
    Record,
    /// The broker takes less metadata with offsets: known by now.
    TooLong,
    /// Writing does not work for now.
    Unavailable,
    /// Writing does not work until somebody mends something.
    Systemic,
}

impl TransactionFailure {
    /// By the writer, or by a call.
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

/// The producer of the writer and of dead letters, and what it is known to be refused.
#[derive(Clone)]
pub struct Transactional {
    /// Sends inside of transactions only.
    pub producer: Producer,
    /// Shared with the writer.
    pub rejected_records: Arc<RejectedRecords>,
}
