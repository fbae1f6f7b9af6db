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
mod event;
mod gate;
mod rejected_records;
mod transactor;

pub use self::rejected_records::RejectedRecords;
pub(crate) use self::{
    event::{Cause, Event, TransactionFailure},
    gate::Gate,
    transactor::{Command, Transactor},
};
use std::sync::Arc;

use crate::kafka::producer::Producer;

/// The producer of the writer and of dead letters, and the records that the broker is known to reject.
#[derive(Clone)]
pub struct Transactional {
    /// Sends only inside transactions.
    pub producer: Producer,
    /// Shared with the writer.
    pub rejected_records: Arc<RejectedRecords>,
}
