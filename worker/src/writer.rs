//! Writers: where records go. A writer gets a batch of one partition at a time and answers for every record in it.

pub mod breaker;

pub mod blackhole;
mod covered_offsets;
pub mod file;
#[cfg(feature = "http")]
pub mod http;
pub mod kafka;
mod lines;
mod partial_writes;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod stdout;

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{
    offsets::FinishedSet,
    record::{
        Offset, TopicPartition,
        batch::{Batch, OutputRecord},
    },
};

/// Part of a batch: the outputs a writer is to write now.
#[derive(Clone, Copy, Debug)]
pub struct WriteBatch<'a> {
    batch: &'a Batch,
    selected: &'a [u32],
    transaction: u64,
    after_a_wait: bool,
}

impl<'a> WriteBatch<'a> {
    /// Selects the outputs of `batch` at the indices `selected`, ascending.
    pub fn new(batch: &'a Batch, selected: &'a [u32]) -> Self {
        Self {
            batch,
            selected,
            transaction: 0,
            after_a_wait: false,
        }
    }

    /// To be written in the transaction of this number.
    pub(crate) fn of_transaction(self, transaction: u64) -> Self {
        Self { transaction, ..self }
    }

    /// With `yes`: what was refused has waited for somebody to mend the cause.
    pub(crate) fn after_a_wait(self, yes: bool) -> Self {
        Self {
            after_a_wait: yes,
            ..self
        }
    }

    /// True when what was refused before may be taken now.
    pub(crate) fn is_after_a_wait(&self) -> bool {
        self.after_a_wait
    }

    /// Number of the transaction, for writers whose transactions span batches; else 0.
    pub(crate) fn transaction(&self) -> u64 {
        self.transaction
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.selected.len()
    }

    /// True when there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    /// What the outputs are of.
    pub(crate) fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// Indices of the outputs in it, ascending.
    pub(crate) fn selected(&self) -> &'a [u32] {
        self.selected
    }

    /// The assignment under which the records were read.
    pub fn epoch(&self) -> u64 {
        self.batch.chunk().epoch
    }

    /// The partition of the records.
    pub fn partition(&self) -> &'a TopicPartition {
        &self.batch.chunk().partition
    }

    /// The records in order; all are of one partition.
    pub fn records(&self) -> impl ExactSizeIterator<Item = OutputRecord<'a>> + use<'a> {
        let batch = self.batch;
        self.selected
            .iter()
            .map(move |index| batch.output(*index as usize))
    }
}

/// A record that the writer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Position in the [`WriteBatch`].
    pub position: usize,
    /// What is wrong; never contains the payload.
    pub message: String,
    /// True when the same record may be accepted later: it is tried again up to `retry.maxAttempts` times.
    pub retryable: bool,
    /// True when it may have been written all the same: with AtMostOnce it is not tried again.
    pub in_doubt: bool,
}

/// Why a batch was not written. In every case the engine calls again; nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Records of the batch are at fault, and it is not known which: the engine halves the batch to find them.
    #[error("{0}")]
    Refused(String),
    /// The system behind the writer is away or busy: tried again with backoff, without end.
    #[error("{0}")]
    Transient(String),
    /// Somebody has to mend something (login refused, table missing, disk full): tried again slowly, without end,
    /// never dead-lettered.
    #[error("{0}")]
    Systemic(String),
    /// Nothing was written, because another worker has claimed the partition since this one did: tried again with backoff.
    /// The group takes the partition away from the one that does not belong to it any more.
    #[error("{0}")]
    Fenced(String),
}

impl WriteError {
    /// Its class, as a metric label.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            WriteError::Refused(_) => "record",
            WriteError::Transient(_) => "transient",
            WriteError::Systemic(_) => "systemic",
            WriteError::Fenced(_) => "fenced",
        }
    }
}

/// A writer, called for several partitions at once, and without the order of partitions (`processing.ordering`) for several
/// parts of one partition at once.
pub trait Writer: Send + Sync {
    /// Writes the batch. `Ok` means that every record that is not in the answer is written durably. A batch may come again
    /// after an error or a crash, then possibly cut differently.
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>>;

    /// Takes over a partition at the beginning of an assignment: for writers that store offsets in one transaction with what
    /// they write (`ExactlyOnce`). The answer says which records need no work any more. Called again after an error.
    fn claim<'a>(
        &'a self,
        _partition: &'a TopicPartition,
        _epoch: u64,
    ) -> BoxFuture<'a, Result<FinishedSet, WriteError>> {
        Box::pin(async { Ok(FinishedSet::default()) })
    }

    /// Kafka has confirmed a commit of this assignment: all records below `offset` are finished, also those that were never
    /// written.
    fn committed(&self, _partition: &TopicPartition, _epoch: u64, _offset: Offset) {}

    /// False when the writer never looks at headers. When nobody does, they are not read.
    fn reads_headers(&self) -> bool {
        true
    }

    /// Called once at shutdown after the last write.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A writer with its name in metrics and dead letters.
#[derive(Clone)]
pub struct NamedWriter {
    /// Its name in the resource.
    pub name: Arc<str>,
    /// Ready to be called.
    pub writer: Arc<dyn Writer>,
}
