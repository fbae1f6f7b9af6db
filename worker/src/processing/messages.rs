//! What the poll loop and the tasks of its partitions send each other. Data, no logic.

use std::ops::Range;

use crate::{
    offsets::Sequence,
    record::{Chunk, TopicPartition},
    transaction,
};

/// Records that the poll loop has dispatched to a partition's task.
pub(crate) struct DispatchedChunk {
    pub chunk: Chunk,
    /// Sequence number of the chunk's first record.
    pub first: Sequence,
}

/// What a task reports to the poll loop.
pub(crate) enum TaskEvent {
    /// These records are finished.
    Finished {
        partition: TopicPartition,
        task_epoch: u64,
        /// Number of the transaction that the records were written in; 0 without transactions.
        transaction: u64,
        finished: FinishedRecords,
        dead_lettered: u64,
        skipped: u64,
    },
    /// The task has ended and sends no more events.
    Ended {
        partition: TopicPartition,
        task_epoch: u64,
    },
    /// An event of the transaction.
    Transaction(transaction::Event),
}

/// Finished records of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FinishedRecords {
    /// A run of consecutive records.
    Run(Range<Sequence>),
    /// The records at these indices of a chunk whose first record has this sequence number.
    Some(Sequence, Vec<u32>),
}

impl FinishedRecords {
    /// Number of records.
    pub fn len(&self) -> usize {
        match self {
            FinishedRecords::Run(run) => (run.end - run.start) as usize,
            FinishedRecords::Some(_, sources) => sources.len(),
        }
    }

    /// As runs of sequence numbers.
    pub fn runs(&self) -> Vec<Range<Sequence>> {
        match self {
            FinishedRecords::Run(run) => vec![run.clone()],
            FinishedRecords::Some(first, sources) => sources
                .chunk_by(|left, right| left + 1 == *right)
                .map(|run| first + u64::from(run[0])..first + u64::from(run[0]) + run.len() as u64)
                .collect(),
        }
    }
}
