//! The topic that a partition belongs to, and partitions of which nothing is read until the user decides.

use super::{AssignedPartition, Position};
use crate::{
    health::{
        problems::{ProblemReporter, Problems},
        snapshot::PausedReason,
    },
    offsets::commit_metadata::{self, MetadataLimit},
    record::topic_id::TopicId,
};

/// Why nothing of a partition is read.
pub struct Parked {
    /// Dropping it would remove the problem from the status.
    _reporter: ProblemReporter,
    /// Committed instead of a position, so that later owners park the partition, too.
    marker: Option<Position>,
}

impl Parked {
    /// Parks a partition because its topic was deleted and created again. `old` is the id of the deleted
    /// topic, if known.
    pub fn recreated(problems: &Problems, old: Option<&TopicId>, message: &str) -> Self {
        let reporter = problems.at(0);
        reporter.failing(1, message);
        reporter.pause(PausedReason::TopicRecreated);
        let marker = old.map(|id| Position {
            offset: 0,
            metadata: commit_metadata::of_topic(Some(id), MetadataLimit::default(), |_| String::new()),
        });
        Self {
            _reporter: reporter,
            marker,
        }
    }
}

impl AssignedPartition {
    /// True if nothing of the partition is read until the user decides.
    pub fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// What to commit of a parked partition, if it is not committed yet.
    pub(super) fn uncommitted_marker(&self) -> Option<Position> {
        let marker = self.parked.as_ref()?.marker.as_ref()?;
        (!self.commit_state.has_committed(marker)).then(|| marker.clone())
    }

    /// The topic that its records and its committed position belong to, if known.
    pub fn topic_id(&self) -> Option<&TopicId> {
        self.commit_state.topic_id.as_ref()
    }

    /// True if a record of the topic with this id continues what the partition has read so far. The first
    /// record decides where nothing is known.
    pub fn continues(&mut self, present: Option<&TopicId>) -> bool {
        match (self.topic_id(), present) {
            (Some(own), Some(present)) => own == present,
            (None, Some(present)) => {
                self.set_topic_id(Some(present.clone()));
                true
            }
            (_, None) => true,
        }
    }

    pub(super) fn set_topic_id(&mut self, topic_id: Option<TopicId>) {
        self.open_chunk.topic_id.clone_from(&topic_id);
        self.commit_state.topic_id = topic_id;
    }
}
