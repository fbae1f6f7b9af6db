//! Outputs that are written although their batch failed, so that the next attempt sends only the rest. Kept
//! per partition and assignment until the records come again. A crash loses them, and records are then
//! written twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use super::WriteBatch;
use crate::record::{Offset, TopicPartition, batch::OutputRecord};
use crate::sync;

/// An output within its partition: the offset of its record and its number.
pub(super) type OutputId = (Offset, u32);

/// The identity of an output.
pub(super) fn id(record: &OutputRecord<'_>) -> OutputId {
    (record.offset(), record.index)
}

#[derive(Debug, Default)]
struct PartitionWrites {
    task_epoch: u64,
    outputs: HashSet<OutputId>,
}

/// Outputs that are written although their batch failed.
#[derive(Debug, Default)]
pub(super) struct PartialWrites {
    partitions: Mutex<HashMap<TopicPartition, PartitionWrites>>,
}

impl PartialWrites {
    /// Removes and returns the outputs of this batch that are already written.
    pub fn take(&self, batch: &WriteBatch<'_>) -> HashSet<OutputId> {
        let mut partitions = self.partitions();
        // The usual case.
        if partitions.is_empty() {
            return HashSet::new();
        }
        let Some(first) = batch.records().next() else {
            return HashSet::new();
        };
        let partition = first.record.partition();
        let Some(known) = partitions.get_mut(partition) else {
            return HashSet::new();
        };
        // Another assignment may have started at an older offset on purpose.
        if known.task_epoch != batch.task_epoch() {
            partitions.remove(partition);
            return HashSet::new();
        }
        let taken = batch
            .records()
            .map(|record| id(&record))
            .filter(|output| known.outputs.remove(output))
            .collect();
        if known.outputs.is_empty() {
            partitions.remove(partition);
        }
        taken
    }

    /// Remembers written outputs of a failed batch.
    pub fn remember(&self, batch: &WriteBatch<'_>, outputs: impl IntoIterator<Item = OutputId>) {
        let mut outputs = outputs.into_iter().peekable();
        let (Some(first), Some(_)) = (batch.records().next(), outputs.peek()) else {
            return;
        };
        let mut partitions = self.partitions();
        let known = partitions.entry(first.record.partition().clone()).or_default();
        if known.task_epoch != batch.task_epoch() {
            *known = PartitionWrites {
                task_epoch: batch.task_epoch(),
                outputs: HashSet::new(),
            };
        }
        known.outputs.extend(outputs);
    }

    fn partitions(&self) -> MutexGuard<'_, HashMap<TopicPartition, PartitionWrites>> {
        sync::lock(&self.partitions)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, batch::Batch};

    fn batch(partition: i32, task_epoch: u64) -> Batch {
        let mut chunk = Chunk::new(TopicPartition::new("t", partition), task_epoch);
        for offset in 0..4 {
            chunk.push(offset, 0, None, None, []);
        }
        Batch::identity(Arc::new(chunk))
    }

    #[test]
    fn written_outputs_are_skipped_once_even_if_the_next_batch_has_another_size() {
        let partial_writes = PartialWrites::default();
        let batch = batch(0, 1);
        partial_writes.remember(&WriteBatch::new(&batch, &[0, 1, 2, 3]), [(1, 0), (3, 0)]);
        assert_eq!(
            partial_writes.take(&WriteBatch::new(&batch, &[0, 1])),
            HashSet::from([(1, 0)])
        );
        assert_eq!(
            partial_writes.take(&WriteBatch::new(&batch, &[0, 1, 2, 3])),
            HashSet::from([(3, 0)])
        );
        assert!(partial_writes.partitions().is_empty());
    }

    #[test]
    fn another_partition_or_assignment_skips_nothing() {
        let partial_writes = PartialWrites::default();
        let all = [0, 1, 2, 3];
        partial_writes.remember(&WriteBatch::new(&batch(0, 1), &all), [(1, 0)]);
        assert!(
            partial_writes
                .take(&WriteBatch::new(&batch(1, 1), &all))
                .is_empty()
        );
        assert!(
            partial_writes
                .take(&WriteBatch::new(&batch(0, 2), &all))
                .is_empty()
        );
        assert!(partial_writes.partitions().is_empty());
    }
}
