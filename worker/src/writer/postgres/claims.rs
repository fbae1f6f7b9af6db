//! What this process knows about the partitions that it has claimed. In: claims, offsets that Kafka has
//! confirmed, offsets that were stored. Out: the claim to write with. Pure except for its locks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use crate::sync;
use crate::{
    offsets::FinishedSet,
    record::{Offset, TopicPartition},
};

/// A partition during one task.
#[derive(Debug)]
pub(super) struct Claim {
    task_epoch: u64,
    topic_id: Option<String>,
    /// The number of our claim; `None` before the first claim, and after another worker has claimed the
    /// partition. Locked while a batch is written: batches of a partition wait for the same row lock anyway,
    /// and this way they wait without a connection.
    pub owner_epoch: tokio::sync::Mutex<Option<i64>>,
    floor: AtomicI64,
    lost_before: AtomicBool,
    /// Outlives the assignment: stored offsets stay stored, whoever owns the partition in the meantime. Except
    /// those of a topic that was deleted and created again.
    stored: Arc<Mutex<FinishedSet>>,
}

impl Claim {
    /// Another worker has claimed the partition. Returns true the first time: it may take several rounds
    /// until the group has decided, and the log needs one line.
    pub fn lost(&self) -> bool {
        !self.lost_before.swap(true, Ordering::Relaxed)
    }

    /// The id of the topic, if known.
    pub fn topic_id(&self) -> Option<&str> {
        self.topic_id.as_deref()
    }

    /// Kafka has confirmed that every offset below is finished.
    pub fn floor(&self) -> Offset {
        self.floor.load(Ordering::Relaxed)
    }

    /// The offsets that the database is known to have; empty at first.
    pub fn stored(&self) -> FinishedSet {
        sync::lock(&self.stored).clone()
    }

    /// The database has these offsets, in a committed transaction.
    pub fn has_stored(&self, finished: FinishedSet) {
        *sync::lock(&self.stored) = finished;
    }
}

/// The claims of all partitions.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<TopicPartition, Arc<Claim>>>);

impl Claims {
    /// The claim of a partition under an assignment; `None` if a later assignment has started.
    pub fn of(
        &self,
        partition: &TopicPartition,
        task_epoch: u64,
        topic_id: Option<&str>,
    ) -> Option<Arc<Claim>> {
        let mut claims = sync::lock(&self.0);
        let known = claims.get(partition);
        if let Some(claim) = known.filter(|claim| claim.task_epoch >= task_epoch) {
            return (claim.task_epoch == task_epoch).then(|| claim.clone());
        }
        let is_recreated = |earlier: &Claim| {
            let ids = earlier.topic_id().zip(topic_id);
            ids.is_some_and(|(earlier, id)| earlier != id)
        };
        let same = known.filter(|earlier| !is_recreated(earlier));
        let stored = same.map(|earlier| earlier.stored.clone()).unwrap_or_default();
        let claim = Arc::new(Claim {
            task_epoch,
            topic_id: topic_id.map(str::to_owned),
            owner_epoch: tokio::sync::Mutex::new(None),
            floor: AtomicI64::new(0),
            lost_before: AtomicBool::new(false),
            stored,
        });
        claims.insert(partition.clone(), claim.clone());
        Some(claim)
    }

    /// Kafka has confirmed a commit.
    pub fn committed(&self, partition: &TopicPartition, task_epoch: u64, offset: Offset) {
        let claims = sync::lock(&self.0);
        if let Some(claim) = claims
            .get(partition)
            .filter(|claim| claim.task_epoch == task_epoch)
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
        let first = claims.of(&partition, 1, None).unwrap();
        assert!(first.lost() && !first.lost());
        claims.committed(&partition, 1, 7);
        claims.committed(&partition, 1, 5);
        claims.committed(&partition, 2, 9);
        assert_eq!(
            (
                first.floor(),
                claims.of(&partition, 1, None).map(|claim| claim.floor())
            ),
            (7, Some(7))
        );
        assert_eq!(claims.of(&partition, 3, None).map(|claim| claim.floor()), Some(0));
        assert!(claims.of(&partition, 1, None).is_none());
    }

    #[test]
    fn what_was_stored_is_known_under_later_assignments() {
        let claims = Claims::default();
        let partition = TopicPartition::new("t", 0);
        let first = claims.of(&partition, 1, None).unwrap();
        assert_eq!(first.stored(), FinishedSet::default());
        let second = claims.of(&partition, 2, None).unwrap();
        let mut finished = FinishedSet::default();
        finished.finish_below(9);
        // Stored by a write that was in progress when the next assignment started.
        first.has_stored(finished.clone());
        assert_eq!(second.stored(), finished);
        let other = claims.of(&TopicPartition::new("t", 1), 2, None).unwrap();
        assert_eq!(other.stored(), FinishedSet::default());
    }

    #[test]
    fn what_was_stored_of_a_deleted_topic_does_not_count_for_the_new_one() {
        let claims = Claims::default();
        let partition = TopicPartition::new("t", 0);
        let first = claims.of(&partition, 1, Some("old")).unwrap();
        let mut finished = FinishedSet::default();
        finished.finish_below(9);
        first.has_stored(finished.clone());
        let same = claims.of(&partition, 2, Some("old")).unwrap();
        assert_eq!(same.stored(), finished);
        let unknown = claims.of(&partition, 3, None).unwrap();
        assert_eq!(unknown.stored(), finished);
        let again = claims.of(&partition, 4, Some("old")).unwrap();
        assert_eq!(again.stored(), finished);
        let new = claims.of(&partition, 5, Some("new")).unwrap();
        assert_eq!(new.stored(), FinishedSet::default());
    }
}
