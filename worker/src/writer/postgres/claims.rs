//! What this process knows of the partitions that it has claimed. In: claims, Kafka's confirmations, what was stored. Out: the
//! claim to write with. Pure but for its locks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use crate::{
    offsets::FinishedSet,
    record::{Offset, TopicPartition},
};

/// A partition under one assignment.
#[derive(Debug)]
pub(super) struct Claim {
    assignment: u64,
    /// The number of our claim; None before the first, and after another worker has made one. Held while a batch is
    /// written: batches of a partition wait for each other's row lock anyway, and here they need no connection for it.
    pub owner_epoch: tokio::sync::Mutex<Option<i64>>,
    floor: AtomicI64,
    lost_before: AtomicBool,
    /// Outlives the assignment: what is stored stays stored, whoever has the partition meanwhile.
    stored: Arc<Mutex<FinishedSet>>,
}

impl Claim {
    /// Another worker has made a claim. True the first time: it may take some rounds until the group has decided, and the log
    /// needs it once.
    pub fn lost(&self) -> bool {
        !self.lost_before.swap(true, Ordering::Relaxed)
    }

    /// Kafka has confirmed that everything below is finished.
    pub fn floor(&self) -> Offset {
        self.floor.load(Ordering::Relaxed)
    }

    /// What the database is known to have; nothing at first.
    pub fn stored(&self) -> FinishedSet {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The database has this, in a transaction that is committed.
    pub fn has_stored(&self, finished: FinishedSet) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = finished;
    }
}

/// The claims of all partitions.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<TopicPartition, Arc<Claim>>>);

impl Claims {
    /// The claim of a partition under an assignment; None when a later one has begun.
    pub fn of(&self, partition: &TopicPartition, assignment: u64) -> Option<Arc<Claim>> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = claims.get(partition);
        if let Some(claim) = known.filter(|claim| claim.assignment >= assignment) {
            return (claim.assignment == assignment).then(|| claim.clone());
        }
        let stored = known.map(|earlier| earlier.stored.clone()).unwrap_or_default();
        let claim = Arc::new(Claim {
            assignment,
            owner_epoch: tokio::sync::Mutex::new(None),
            floor: AtomicI64::new(0),
            lost_before: AtomicBool::new(false),
            stored,
        });
        claims.insert(partition.clone(), claim.clone());
        Some(claim)
    }

    /// Kafka has confirmed a commit.
    pub fn committed(&self, partition: &TopicPartition, assignment: u64, offset: Offset) {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claim) = claims
            .get(partition)
            .filter(|claim| claim.assignment == assignment)
        {
            claim.floor.fetch_max(offset, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_assignment_ends_the_claim_of_an_earlier_one() {
        let claims = Claims::default();
        let partition = TopicPartition::new("t", 0);
        let first = claims.of(&partition, 1).unwrap();
        assert!(first.lost() && !first.lost());
        claims.committed(&partition, 1, 7);
        claims.committed(&partition, 1, 5);
        claims.committed(&partition, 2, 9);
        assert_eq!(
            (first.floor(), claims.of(&partition, 1).map(|claim| claim.floor())),
            (7, Some(7))
        );
        assert_eq!(claims.of(&partition, 3).map(|claim| claim.floor()), Some(0));
        assert!(claims.of(&partition, 1).is_none());
    }

    #[test]
    fn what_was_stored_is_known_under_later_assignments() {
        let claims = Claims::default();
        let partition = TopicPartition::new("t", 0);
        let first = claims.of(&partition, 1).unwrap();
        assert_eq!(first.stored(), FinishedSet::default());
        let second = claims.of(&partition, 2).unwrap();
        let mut finished = FinishedSet::default();
        finished.finish_below(9);
        // By a write that was on its way when the next assignment began.
        first.has_stored(finished.clone());
        assert_eq!(second.stored(), finished);
        let other = claims.of(&TopicPartition::new("t", 1), 2).unwrap();
        assert_eq!(other.stored(), FinishedSet::default());
    }
}
