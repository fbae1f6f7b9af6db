//! The dead letter breakers of the worker's partitions; there are none if the resource configures none. In:
//! chunks with their failed records. Out: the first record that must not be written to the dead letter topic.
//! All tasks of the worker share them and use them once per chunk.

use std::{collections::HashMap, sync::Mutex};

use super::breaker::{Breaker, Exceeded, Limits};
use crate::{
    record::{Chunk, TopicPartition},
    sync,
};

/// A record that the breaker does not let into the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerRefusal {
    /// Its index among the failed records.
    pub index: usize,
    /// The limit that it would exceed.
    pub limit: Exceeded,
}

/// One breaker per partition. A new assignment gets a new breaker, because the cause of earlier failures may
/// be fixed.
pub(super) struct PartitionBreakers {
    limits: Limits,
    partitions: Mutex<HashMap<TopicPartition, (u64, Breaker)>>,
}

impl PartitionBreakers {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            partitions: Mutex::default(),
        }
    }

    /// Counts `records` records of `chunk`; those at the positions `failed` (ascending) failed. Stops before
    /// the first record that must not be written, and returns it.
    pub fn admit(&self, chunk: &Chunk, records: usize, failed: &[usize]) -> Option<BreakerRefusal> {
        self.with(chunk, |breaker| admit(breaker, records, failed))
    }

    /// Returns what [`PartitionBreakers::admit`] would return, without counting.
    pub fn would_refuse(&self, chunk: &Chunk, records: usize, failed: &[usize]) -> Option<BreakerRefusal> {
        self.with(chunk, |breaker| admit(&mut breaker.clone(), records, failed))
    }

    /// The refused record was processed: resets the breaker of its partition.
    pub fn close(&self, chunk: &Chunk) {
        self.with(chunk, Breaker::close);
    }

    fn with<R>(&self, chunk: &Chunk, change: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut partitions = sync::lock(&self.partitions);
        let fresh = || (chunk.task_epoch, Breaker::new(self.limits));
        let entry = partitions.entry(chunk.partition.clone()).or_insert_with(fresh);
        if entry.0 != chunk.task_epoch {
            *entry = fresh();
        }
        change(&mut entry.1)
    }
}

fn admit(breaker: &mut Breaker, records: usize, failed: &[usize]) -> Option<BreakerRefusal> {
    let mut at = 0;
    for (index, position) in failed.iter().enumerate() {
        breaker.passed((position - at) as u64);
        if let Err(limit) = breaker.failed() {
            return Some(BreakerRefusal { index, limit });
        }
        at = position + 1;
    }
    breaker.passed((records - at) as u64);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(partition: i32, task_epoch: u64) -> Chunk {
        Chunk::new(TopicPartition::new("orders", partition), task_epoch)
    }

    fn breakers(consecutive: u64) -> PartitionBreakers {
        PartitionBreakers::new(Limits {
            consecutive,
            percent: 100,
        })
    }

    fn refused(
        breakers: &PartitionBreakers,
        chunk: &Chunk,
        records: usize,
        failed: &[usize],
    ) -> Option<usize> {
        breakers
            .admit(chunk, records, failed)
            .map(|refusal| failed[refusal.index])
    }

    #[test]
    fn the_first_record_over_the_limit_is_refused_across_chunks() {
        let breakers = breakers(3);
        let orders = chunk(0, 1);
        assert_eq!(refused(&breakers, &orders, 10, &[1, 2, 4, 8, 9]), None);
        assert_eq!(refused(&breakers, &orders, 10, &[0, 1, 2]), Some(1));
        // Asking again gives the same answer, asking in advance counts nothing, and another partition has
        // another breaker.
        let before = breakers.would_refuse(&orders, 9, &[2, 3]);
        assert_eq!(before.map(|refusal| refusal.index), None);
        assert_eq!(refused(&breakers, &orders, 9, &[0, 1]), Some(0));
        assert_eq!(refused(&breakers, &chunk(1, 1), 10, &[0, 1, 2]), None);
        breakers.close(&orders);
        assert_eq!(refused(&breakers, &orders, 8, &[0, 1, 2, 3]), Some(3));
    }

    #[test]
    fn a_chunk_without_failures_resets_the_consecutive_count() {
        let breakers = breakers(2);
        let orders = chunk(0, 1);
        assert_eq!(refused(&breakers, &orders, 2, &[0, 1]), None);
        assert_eq!(refused(&breakers, &orders, 2, &[]), None);
        assert_eq!(refused(&breakers, &orders, 2, &[0, 1]), None);
        assert_eq!(refused(&breakers, &orders, 2, &[0, 1]), Some(0));
    }

    #[test]
    fn a_new_assignment_starts_with_a_closed_breaker() {
        let breakers = breakers(1);
        assert_eq!(refused(&breakers, &chunk(0, 1), 2, &[0, 1]), Some(1));
        assert_eq!(refused(&breakers, &chunk(0, 2), 2, &[0]), None);
    }
}
