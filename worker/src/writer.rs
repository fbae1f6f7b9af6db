//! Writers: where records go.
//!
//! A writer gets batches with records of one partition each, and answers for every record in them. [`Writer`]
//! is the trait to implement for a custom writer.

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
        failure::FailureClass,
        topic_id::TopicId,
    },
};

/// The records that a writer has to write with one call.
///
/// All of them come from one partition and are in the order of their offsets. A record of the source topic
/// may appear several times, once for each output that a transform made from it, or not at all, if a
/// transform filtered it out. The worker calls a writer again with the records that still have to be written,
/// so the same record may come again in a batch of another size.
///
/// In tests of a custom writer, make one with [`WriteBatch::new`]:
///
/// ```
/// use std::sync::Arc;
///
/// use kafka_consumer_worker::{Batch, Chunk, WriteBatch, record::TopicPartition};
///
/// let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
/// let (offset, timestamp) = (41, 1_700_000_000_000);
/// chunk.push(offset, timestamp, Some(b"key"), Some(b"value"), []);
/// chunk.push(offset + 1, timestamp, Some(b"key"), None, []);
/// let batch = Batch::identity(Arc::new(chunk));
///
/// let write = WriteBatch::new(&batch, &[0, 1]);
/// assert_eq!(write.len(), 2);
/// assert_eq!(write.partition().partition, 3);
/// let values: Vec<_> = write.records().map(|record| record.value).collect();
/// assert_eq!(values, [Some(&b"value"[..]), None]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WriteBatch<'a> {
    batch: &'a Batch,
    selected: &'a [u32],
    transaction: u64,
    after_a_wait: bool,
}

impl<'a> WriteBatch<'a> {
    /// Selects the outputs of `batch` at the indices `selected`. The indices must be in ascending order, and
    /// each must be below [`Batch::len`].
    pub fn new(batch: &'a Batch, selected: &'a [u32]) -> Self {
        Self {
            batch,
            selected,
            transaction: 0,
            after_a_wait: false,
        }
    }

    /// Writes in the transaction with this number.
    pub(crate) fn of_transaction(self, transaction: u64) -> Self {
        Self { transaction, ..self }
    }

    /// With `yes`, the records waited after a rejection, so the reason may be fixed and the writer tries them
    /// again.
    pub(crate) fn after_a_wait(self, yes: bool) -> Self {
        Self {
            after_a_wait: yes,
            ..self
        }
    }

    /// True if records that the writer knows to be rejected may be accepted now.
    pub(crate) fn is_after_a_wait(&self) -> bool {
        self.after_a_wait
    }

    /// The number of the transaction, for writers with transactions that span batches; otherwise 0.
    pub(crate) fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.selected.len()
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    /// The batch that the records are selected from.
    pub(crate) fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// Indices of the records in that batch, ascending.
    pub(crate) fn selected(&self) -> &'a [u32] {
        self.selected
    }

    /// Identifies the run of the partition in this worker process under which the records were read. A later
    /// run of the partition has a larger number: a new run starts with each assignment, and after an aborted
    /// transaction. The number means nothing in other processes.
    pub fn task_epoch(&self) -> u64 {
        self.batch.chunk().task_epoch
    }

    /// The id of the topic, as [`Writer::claim`] gets it.
    pub(crate) fn topic_id(&self) -> Option<&'a str> {
        self.batch.chunk().topic_id.as_ref().map(TopicId::as_str)
    }

    /// The source topic and partition of the records.
    pub fn partition(&self) -> &'a TopicPartition {
        &self.batch.chunk().partition
    }

    /// The records to write, in the order of their offsets. The position of a record in this iterator is what
    /// [`Rejected::position`] refers to.
    ///
    /// `key` and `value` are what the transforms made; `None` is Kafka's null, so a record without a value is
    /// a tombstone. `record` is the record as it was read, with its headers and its timestamp in milliseconds
    /// since 1970 (-1 if it has none). [`OutputRecord::record_id`] identifies a record for idempotent writes.
    pub fn records(&self) -> impl ExactSizeIterator<Item = OutputRecord<'a>> + use<'a> {
        let batch = self.batch;
        self.selected
            .iter()
            .map(move |index| batch.output(*index as usize))
    }
}

/// A record of a batch that the writer did not write, although it wrote the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Position of the record in [`WriteBatch::records`], from 0. Report each position at most once. The
    /// worker ignores positions beyond the end of the batch.
    pub position: usize,
    /// What is wrong with the record, and what to do about it. Status, the log and the headers of the dead
    /// letter show this text, so it must not contain the key or the value.
    pub message: String,
    /// True if the same record may be accepted later. The worker then writes it up to `retry.maxAttempts`
    /// times before it counts as failed. False: it counts as failed at once. What happens to a failed record,
    /// `onExhausted` decides.
    pub retryable: bool,
    /// True if the record may have been written nevertheless, for example after a timeout. With `AtMostOnce`
    /// the worker does not write it again.
    pub in_doubt: bool,
}

/// Why a writer did not write a batch.
///
/// No record is lost, whichever variant the writer returns: the worker calls it again, and commits no offset
/// of these records before they are finished. The one exception is `AtMostOnce`: after
/// [`WriteError::Transient`], [`WriteError::Inconclusive`] or [`WriteError::Fenced`] the worker does not repeat
/// the write, because the records may have been written.
///
/// The message says what is wrong, where, and what to do. Status and the log show it, so it must contain
/// neither payload nor passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The target system refuses the batch because it rejects some of its records, and the writer does not
    /// know which. The worker halves the batch until it has found them; a batch of one record that is
    /// refused counts as a failed record.
    #[error("{0}")]
    Refused(String),
    /// The target system is unavailable or busy. The worker retries indefinitely, with backoff.
    #[error("{0}")]
    Transient(String),
    /// The target system failed while it had the batch, and the cause may be the system or one of the
    /// records. The worker retries with backoff as after [`WriteError::Transient`], and halves the batch when
    /// that does not help. A record that fails alone, `retry.maxAttempts` times, while others are written
    /// counts as a failed record.
    #[error("{0}")]
    Inconclusive(String),
    /// A user has to fix the cause first: the login is refused, a table is missing, the disk is full.
    /// Nothing of the batch was written. The worker retries indefinitely, at longer intervals, and never
    /// sends these records to the dead letter topic.
    #[error("{0}")]
    Systemic(String),
    /// Another worker has claimed the partition since this worker did (see [`Writer::claim`]). Nothing of the
    /// batch was written. The worker retries with backoff, until the consumer group revokes the partition
    /// from the worker that does not own it.
    #[error("{0}")]
    Fenced(String),
}

impl WriteError {
    /// The error of a class.
    pub(crate) fn new(class: FailureClass, message: String) -> Self {
        match class {
            FailureClass::Record => WriteError::Refused(message),
            FailureClass::Transient => WriteError::Transient(message),
            FailureClass::Systemic => WriteError::Systemic(message),
        }
    }

    /// The metric label of the error's class.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            WriteError::Refused(_) => FailureClass::Record.as_str(),
            WriteError::Transient(_) | WriteError::Inconclusive(_) => FailureClass::Transient.as_str(),
            WriteError::Systemic(_) => FailureClass::Systemic.as_str(),
            WriteError::Fenced(_) => "fenced",
        }
    }

    /// The same error with another message.
    #[cfg(feature = "http")]
    pub(crate) fn map_message(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            WriteError::Refused(message) => WriteError::Refused(change(message)),
            WriteError::Transient(message) => WriteError::Transient(change(message)),
            WriteError::Inconclusive(message) => WriteError::Inconclusive(change(message)),
            WriteError::Systemic(message) => WriteError::Systemic(change(message)),
            WriteError::Fenced(message) => WriteError::Fenced(change(message)),
        }
    }
}

/// Writes records to a target system.
///
/// A worker has one writer for each entry in `spec.writers[]`, and calls it concurrently: for several
/// partitions, and if `processing.ordering` is `PerKey` or `Unordered`, for several parts of one partition.
/// With `PerPartition` and `PerKey`, the calls for one partition or key follow one another, in the order of
/// the offsets.
///
/// Delivery is at least once by default, so a writer may get the same record again after an error, a crash or
/// a rebalance. Use [`OutputRecord::record_id`] as a key to make repeated writes harmless.
///
/// The worker counts failures, retries and waits by itself, and its circuit breaker sends one batch at a time
/// while the target system is unavailable. A writer therefore makes one attempt, with a timeout, and reports
/// the result.
///
/// # Example
///
/// ```
/// use std::sync::Mutex;
///
/// use kafka_consumer_worker::{BoxFuture, Rejected, WriteBatch, WriteError, Writer};
///
/// /// Keeps values in memory, by record id.
/// #[derive(Default)]
/// struct Memory {
///     rows: Mutex<Vec<(String, Vec<u8>)>>,
/// }
///
/// impl Writer for Memory {
///     fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
///         Box::pin(async move {
///             let mut rows = self
///                 .rows
///                 .lock()
///                 .map_err(|_| WriteError::Transient("memory: another write panicked".into()))?;
///             let mut rejected = Vec::new();
///             for (position, record) in batch.records().enumerate() {
///                 match record.value {
///                     Some(value) => rows.push((record.record_id(), value.to_vec())),
///                     None => rejected.push(Rejected {
///                         position,
///                         message: "a tombstone has no row: filter it out in a transform".into(),
///                         retryable: false,
///                         in_doubt: false,
///                     }),
///                 }
///             }
///             Ok(rejected)
///         })
///     }
///
///     fn reads_headers(&self) -> bool {
///         false
///     }
/// }
///
/// # use std::sync::Arc;
/// # use futures::FutureExt;
/// # use kafka_consumer_worker::{Batch, Chunk, record::TopicPartition};
/// # let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
/// # chunk.push(41, -1, None, Some(b"value"), []);
/// # chunk.push(42, -1, None, None, []);
/// # let batch = Batch::identity(Arc::new(chunk));
/// # let memory = Memory::default();
/// # let rejected = memory.write(WriteBatch::new(&batch, &[0, 1])).now_or_never().unwrap().unwrap();
/// # assert_eq!(rejected.iter().map(|rejected| rejected.position).collect::<Vec<_>>(), [1]);
/// # assert_eq!(*memory.rows.lock().unwrap(), [("orders-3-41".to_string(), b"value".to_vec())]);
/// ```
pub trait Writer: Send + Sync {
    /// Writes a batch.
    ///
    /// `Ok` means that every record of the batch is written durably, except those in the returned list. The
    /// worker may commit the offsets of the written records at any time after that.
    ///
    /// The worker may drop the future before it completes, for example at shutdown, and the same records come
    /// again later, possibly in batches of another size. The future must not block its thread: use
    /// asynchronous I/O, or `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    ///
    /// A [`WriteError`] means that no record counts as written, even if some were. Its variant decides what
    /// the worker does next.
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>>;

    /// Claims a partition before the worker processes its records, for writers that store offsets in one
    /// transaction with the records (`ExactlyOnce`). Returns the offsets that are finished already; the
    /// worker does not process these records again.
    ///
    /// `task_epoch` is the same number as [`WriteBatch::task_epoch`]. `topic_id` is the id of the topic that
    /// the records come from, if the brokers have topic ids: offsets that were stored with another id belong
    /// to a deleted topic of the same name, and do not count. The default claims nothing and returns an empty
    /// set.
    ///
    /// # Errors
    ///
    /// After an error the worker calls again with backoff, and processes no record of the partition before
    /// that succeeds.
    fn claim<'a>(
        &'a self,
        _partition: &'a TopicPartition,
        _task_epoch: u64,
        _topic_id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FinishedSet, WriteError>> {
        Box::pin(async { Ok(FinishedSet::default()) })
    }

    /// Kafka has confirmed a commit: every record of the partition below `offset` is finished, including
    /// records that were never written because they were filtered, skipped or sent to the dead letter topic.
    /// The worker calls this on its poll thread, so it must not block. The default does nothing.
    fn committed(&self, _partition: &TopicPartition, _task_epoch: u64, _offset: Offset) {}

    /// False if the writer never reads headers. If no writer, transform or dead letter topic needs them, the
    /// worker does not copy headers at all. The default is true.
    fn reads_headers(&self) -> bool {
        true
    }

    /// The number of records since the last call that the writer has left out, because a later record of the
    /// same batch replaces them. The default is 0.
    fn take_merged(&self) -> u64 {
        0
    }

    /// Releases resources. The worker calls this once at shutdown, after the last write. The default does
    /// nothing.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A writer with its name in metrics and dead letters.
#[derive(Clone)]
pub struct NamedWriter {
    /// The name in `spec.writers[]`.
    pub name: Arc<str>,
    /// The writer itself, ready to be called.
    pub writer: Arc<dyn Writer>,
}
