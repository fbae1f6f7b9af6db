//! What is committed of a partition, and what to commit next: the offset of the first unfinished record, and
//! in the commit's metadata the out-of-order completions above it, by this worker or by an earlier owner.
//! Pure.

use std::ops::Range;

use super::{position::Position, read_cursor::ReadCursor};
use crate::{
    offsets::{
        Tracker,
        commit_metadata::{self, MetadataLimit},
    },
    record::{Offset, topic_id::TopicId},
    seeded_bugs::{now_and_then, seeded_bug},
};

/// The commits of one partition during one task.
pub struct CommitState {
    /// Committed by this worker during this task, or the committed position where reading started again.
    committed: Option<Position>,
    /// In the commit in flight.
    committing: Option<Position>,
    /// Commits list the out-of-order completions: finished records above the committed offset.
    lists_out_of_order: bool,
    /// Limit for the metadata of commits.
    pub metadata_limit: MetadataLimit,
    /// The topic that the offsets belong to, if known.
    pub topic_id: Option<TopicId>,
}

impl CommitState {
    /// Reading starts at `committed`, if the partition is read again.
    pub fn new(committed: Option<Position>, lists_out_of_order: bool) -> Self {
        Self {
            committed,
            committing: None,
            lists_out_of_order,
            metadata_limit: MetadataLimit::default(),
            topic_id: None,
        }
    }

    /// The committed offset, if this task knows it.
    pub fn committed_offset(&self) -> Option<Offset> {
        self.committed.as_ref().map(|position| position.offset)
    }

    /// The position to commit, if it is new. `dispatched` is `Dispatcher::to_commit`: with AtMostOnce the
    /// offset that the dispatcher wants committed, if any; otherwise None, and the tracker decides.
    pub fn uncommitted(
        &self,
        tracker: &Tracker,
        cursor: &ReadCursor,
        dispatched: Option<Option<Offset>>,
    ) -> Option<Position> {
        let position = match dispatched {
            Some(offset) => offset.map(|offset| (offset, self.only_topic())),
            None => committable(tracker, cursor).map(|offset| {
                (
                    offset,
                    self.metadata(tracker, cursor, self.metadata_limit, offset),
                )
            }),
        };
        let (mut offset, mut metadata) = position?;
        if seeded_bug("commit-maximum") {
            let finished = tracker.out_of_order(usize::MAX);
            offset = finished.last().map_or(offset, |range| range.end);
            metadata = self.only_topic();
        }
        if seeded_bug("commit-offset-plus-one") {
            offset += 1;
        }
        if seeded_bug("commit-goes-back") && now_and_then(7) {
            offset = 0;
        }
        let position = Position { offset, metadata };
        let known = self.committed.as_ref() == Some(&position) || self.lists_more(tracker, cursor, offset);
        (!known).then_some(position)
    }

    /// True when the committed metadata lists everything that is finished, but is longer than the brokers
    /// accept now. Then nothing is new, and another commit would only list less.
    fn lists_more(&self, tracker: &Tracker, cursor: &ReadCursor, offset: Offset) -> bool {
        let full = MetadataLimit::default();
        let at = self
            .committed
            .as_ref()
            .filter(|committed| committed.offset == offset);
        self.metadata_limit != full
            && at.is_some_and(|committed| committed.metadata == self.metadata(tracker, cursor, full, offset))
    }

    fn metadata(
        &self,
        tracker: &Tracker,
        cursor: &ReadCursor,
        metadata_limit: MetadataLimit,
        offset: Offset,
    ) -> String {
        self.of_topic(metadata_limit, |left| self.ranges(tracker, cursor, left, offset))
    }

    /// Metadata that lists nothing.
    fn only_topic(&self) -> String {
        self.of_topic(self.metadata_limit, |_| String::new())
    }

    fn of_topic(
        &self,
        metadata_limit: MetadataLimit,
        ranges: impl FnOnce(MetadataLimit) -> String,
    ) -> String {
        commit_metadata::of_topic(self.topic_id.as_ref(), metadata_limit, ranges)
    }

    fn ranges(
        &self,
        tracker: &Tracker,
        cursor: &ReadCursor,
        metadata_limit: MetadataLimit,
        offset: Offset,
    ) -> String {
        if !self.lists_out_of_order {
            return String::new();
        }
        if seeded_bug("out-of-order-completions-invented") {
            // The metadata never contains the record at the offset itself.
            return commit_metadata::encode(
                metadata_limit,
                offset,
                std::slice::from_ref(&(offset + 1..offset + 4)),
            );
        }
        commit_metadata::encode(
            metadata_limit,
            offset,
            &out_of_order_above(tracker, cursor, metadata_limit.ranges(), offset),
        )
    }

    /// True when the metadata of a commit can list all out-of-order completions. If not, a transaction must
    /// not be committed.
    pub fn metadata_fits(&self, tracker: &Tracker, cursor: &ReadCursor) -> bool {
        let Some(offset) = committable(tracker, cursor) else {
            return true;
        };
        let ranges = out_of_order_above(tracker, cursor, self.metadata_limit.ranges() + 1, offset);
        let text = self.of_topic(self.metadata_limit, |left| {
            commit_metadata::encode(left, offset, &ranges)
        });
        commit_metadata::decode(offset, &text).is_ok_and(|listed| listed == ranges)
    }

    /// True if this position is the committed one.
    pub fn has_committed(&self, position: &Position) -> bool {
        self.committed.as_ref() == Some(position)
    }

    /// Nothing is committed any more.
    pub fn forget_committed(&mut self) {
        self.committed = None;
    }

    /// A commit of this position is in flight.
    pub fn start(&mut self, position: Position) {
        self.committing = Some(position);
    }

    /// Length of the metadata in the commit in flight. None without a commit or without metadata.
    pub fn committing_metadata(&self) -> Option<usize> {
        let position = self.committing.as_ref()?;
        Some(position.metadata.len()).filter(|length| *length > 0)
    }

    /// The coordinator has answered a commit: with the committed offset, or with None if the commit failed.
    /// Returns the offset if it is newly committed by this task.
    pub fn answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        // This may be the answer to a commit of an earlier task, which says nothing about this one.
        let ours = self.committing.take();
        let position = ours.filter(|position| Some(position.offset) == committed)?;
        let offset = position.offset;
        self.committed = Some(position);
        Some(offset)
    }
}

/// The offset below which everything is finished. Where the watermark has reached records that an earlier owner has
/// finished, it is their end: the metadata cannot list what begins at the offset itself.
fn committable(tracker: &Tracker, cursor: &ReadCursor) -> Option<Offset> {
    let watermark = tracker.committable()?;
    let mut unread = cursor.unread_finished();
    let reached = unread.find(|range| range.start <= watermark && watermark < range.end);
    Some(reached.map_or(watermark, |range| range.end))
}

/// The same as [`out_of_order`] above an offset that [`committable`] returned.
fn out_of_order_above(
    tracker: &Tracker,
    cursor: &ReadCursor,
    limit: usize,
    offset: Offset,
) -> Vec<Range<Offset>> {
    let mut ranges = out_of_order(tracker, cursor, limit + 1);
    ranges.retain(|range| range.start > offset);
    ranges.truncate(limit);
    ranges
}

/// The out-of-order completions above the watermark: by this worker, and by an earlier owner where the
/// cursor has not passed.
pub fn out_of_order(tracker: &Tracker, cursor: &ReadCursor, limit: usize) -> Vec<Range<Offset>> {
    let mut ranges = tracker.out_of_order(limit);
    for unread in cursor.unread_finished() {
        if let Some(last) = ranges.last_mut().filter(|last| last.end == unread.start) {
            last.end = unread.end;
        } else if ranges.len() < limit {
            ranges.push(unread);
        }
    }
    ranges
}
