//! The topic that a partition belongs to, and a position that does not exist any more: the topic was deleted and
//! created again, or the position is out of range.

use super::{
    AssignedPartition,
    parked::{OutOfRange, Parked},
    position::Position,
};
use crate::record::{Offset, topic_id::TopicId};

impl AssignedPartition {
    /// True if nothing of the partition is read until the user decides.
    pub fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// What to commit instead of a position: nothing, or the marker of a parked partition. None: the position.
    pub(super) fn instead_of_position(&self) -> Option<Option<Position>> {
        let marker = self.parked.as_ref()?.instead_of_position()?;
        Some(
            marker
                .filter(|marker| !self.commit_state.has_committed(marker))
                .cloned(),
        )
    }

    /// The marker of a parked partition is not committed any more.
    pub fn commit_marker_again(&mut self) {
        if self.parked.as_ref().is_some_and(Parked::has_marker) {
            self.commit_state.forget_committed();
        }
    }

    /// Parks the partition, because the position where it was read is out of range.
    pub fn park_out_of_range(&mut self, offset: Offset, message: &str) {
        self.parked = Some(Parked::out_of_range(&self.problems, offset, message));
    }

    /// The position was out of range, and reading continues at the first record.
    pub fn was_out_of_range(&mut self, offset: Offset) {
        self.out_of_range = Some(offset);
    }

    /// The position that was out of range, until it is known what that meant.
    pub fn out_of_range_at(&self) -> Option<Offset> {
        self.out_of_range
    }

    /// What it meant, from the first and the end offset as of the last fetch. These may be older than the
    /// position; then nothing is known yet.
    pub fn resolve_out_of_range(&mut self, first: Offset, end: Offset) -> Option<OutOfRange> {
        let at = self.out_of_range?;
        let meaning = if first > at {
            OutOfRange::Removed {
                records: first.abs_diff(at),
            }
        } else if at > end {
            OutOfRange::BehindTheEnd
        } else {
            return None;
        };
        self.out_of_range = None;
        Some(meaning)
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
