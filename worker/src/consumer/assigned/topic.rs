//! The topic that a partition belongs to, and a position that does not exist any more: the topic was deleted and
//! created again, or the position is out of range.

use jiff::Timestamp;

use super::{
    AssignedPartition,
    parked::{OutOfRange, Parked},
    position::Position,
};
use crate::{
    health::snapshot::SkippedRange,
    record::{Offset, topic_id::TopicId},
};

impl AssignedPartition {
    /// True if records of the partition are taken: it is neither draining nor parked.
    pub fn is_read(&self) -> bool {
        !self.is_draining() && !self.is_parked()
    }

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

    /// True if it is parked because its topic was deleted and created again.
    pub fn waits_for_decision(&self) -> bool {
        self.parked.as_ref().is_some_and(Parked::is_recreated)
    }

    /// Parks the partition, because the position where it was read is out of range.
    pub fn park_out_of_range(&mut self, offset: Offset, message: &str) {
        self.out_of_range = None;
        self.parked = Some(Parked::out_of_range(&self.problems, offset, message));
    }

    /// librdkafka found its position out of range, and continues at the first record. Records before the
    /// position may still be in its queue. A position behind the run has nothing of it.
    pub fn was_out_of_range(&mut self, offset: Offset) {
        if self.bounded_end().is_some_and(|end| offset >= end) {
            return;
        }
        self.out_of_range = Some(offset);
        self.is_past_range = false;
    }

    /// The position that was out of range, until it is known what that meant.
    pub fn out_of_range_at(&self) -> Option<Offset> {
        self.out_of_range
    }

    /// True if the position was out of range, and the record at `offset` is one that librdkafka continues
    /// with, not one that it had read before.
    pub fn continues_at(&mut self, offset: Offset) -> bool {
        let Some(at) = self.out_of_range else {
            return false;
        };
        let past = offset >= at || self.cursor.is_new_or_above(offset);
        self.is_past_range |= past;
        past
    }

    /// The position that was out of range, once a record from behind it has arrived.
    pub fn past_range(&self) -> Option<Offset> {
        self.out_of_range.filter(|_| self.is_past_range)
    }

    /// Continues at `end`. What lies before is not read.
    pub fn skip_to(&mut self, end: Offset) {
        self.out_of_range = None;
        self.skipped_to = Some(end);
        self.seek_to(end);
    }

    /// After a skip: everything below the end counts as read, so that it is committed.
    pub fn finish_skip(&mut self) {
        if let Some(end) = self.skipped_to
            && self.is_idle()
            && self.pending_seek().is_none()
        {
            self.read_up_to(end);
            self.skipped_to = None;
        }
    }

    /// Retention has removed the records from `from` on, and those that are left start at `to`. Returns how
    /// many they were, or a higher number: not every offset has a record.
    pub fn was_removed_unread(&mut self, from: Offset, to: Offset) -> u64 {
        self.skipped_by_retention = Some(SkippedRange {
            from_offset: from,
            to_offset: to,
            time: Timestamp::now(),
        });
        to.abs_diff(from)
    }

    /// What it meant, from the first and the end offset as of the last fetch. These may be older than the
    /// position; then nothing is known yet.
    pub fn resolve_out_of_range(&mut self, first: Offset, end: Offset) -> Option<OutOfRange> {
        let at = self.out_of_range?;
        let meaning = if first > at {
            let (at, first) = self.within_bound(at, first);
            if at >= first {
                self.out_of_range = None;
                return None;
            }
            OutOfRange::Removed {
                records: self.was_removed_unread(at, first),
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
        self.open_chunk.set_topic_id(topic_id.as_ref());
        self.commit_state.topic_id = topic_id;
    }
}
