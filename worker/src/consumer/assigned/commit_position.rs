//! What an assigned partition has to commit: the offset of the first unfinished record, and in the commit's
//! metadata the out-of-order completions above it, by this worker or by an earlier owner. Pure.

use std::ops::Range;

use super::{
    AssignedPartition,
    position::{MAX_DISPATCHED, Position},
};
use crate::{
    offsets::commit_metadata::{self, MetadataLimit},
    record::Offset,
    seeded_bugs::{now_and_then, seeded_bug},
};

impl AssignedPartition {
    /// The position to commit, if it is new.
    pub fn uncommitted(&self) -> Option<Position> {
        if self.discarded {
            return None;
        }
        let position = match self.dispatcher.to_commit() {
            Some(offset) => offset.map(|offset| (offset, String::new())),
            None => self
                .tracker
                .committable()
                .map(|offset| (offset, self.metadata(self.metadata_limit, offset))),
        };
        let (mut offset, mut metadata) = position?;
        if seeded_bug("commit-maximum") {
            let finished = self.tracker.ahead(usize::MAX);
            offset = finished.last().map_or(offset, |range| range.end);
            metadata.clear();
        }
        if seeded_bug("commit-offset-plus-one") {
            offset += 1;
        }
        if seeded_bug("commit-goes-back") && now_and_then(7) {
            offset = 0;
        }
        let position = Position { offset, metadata };
        let known = self.committed.as_ref() == Some(&position) || self.lists_more(offset);
        (!known).then_some(position)
    }

    /// True when the committed metadata lists everything that is finished, but is longer than the brokers
    /// accept now. Then nothing is new, and another commit would only list less.
    fn lists_more(&self, offset: Offset) -> bool {
        let full = MetadataLimit::default();
        let at = self
            .committed
            .as_ref()
            .filter(|committed| committed.offset == offset);
        self.metadata_limit != full
            && at.is_some_and(|committed| committed.metadata == self.metadata(full, offset))
    }

    fn metadata(&self, metadata_limit: MetadataLimit, offset: Offset) -> String {
        if !self.lists_out_of_order {
            return String::new();
        }
        if seeded_bug("finished-ahead-invented") {
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
            &self.out_of_order(metadata_limit.ranges()),
        )
    }

    /// The out-of-order completions above the watermark: by this worker, and by an earlier owner where the
    /// cursor has not passed.
    fn out_of_order(&self, limit: usize) -> Vec<Range<Offset>> {
        let mut ranges = self.tracker.ahead(limit);
        for unread in self.cursor.unread_finished() {
            if let Some(last) = ranges.last_mut().filter(|last| last.end == unread.start) {
                last.end = unread.end;
            } else if ranges.len() < limit {
                ranges.push(unread);
            }
        }
        ranges
    }

    /// True when the metadata of a commit can list all out-of-order completions. If not, a transaction must
    /// not be committed.
    pub fn metadata_fits(&self) -> bool {
        let Some(offset) = self.tracker.committable() else {
            return true;
        };
        let ranges = self.out_of_order(self.metadata_limit.ranges() + 1);
        commit_metadata::decode(
            offset,
            &commit_metadata::encode(self.metadata_limit, offset, &ranges),
        )
        .is_ok_and(|listed| listed == ranges)
    }

    /// True when its transaction has to stay open. One record at a time only shortens the list of
    /// out-of-order completions, so a commit can carry it, unless the brokers accept less than when the list
    /// was committed. Then a commit can carry it only once the partition has passed enough of it.
    pub fn must_stay_open(&self) -> bool {
        self.one_at_a_time && self.uncommitted().is_some() && !self.metadata_fits()
    }

    /// Sets the limit for the metadata that lists out-of-order completions.
    pub fn limit_metadata(&mut self, metadata_limit: MetadataLimit) {
        self.metadata_limit = metadata_limit;
        if !self.one_at_a_time {
            self.limit_dispatch();
        }
    }

    /// Ends one-at-a-time dispatch once the partition has passed all out-of-order completions. Returns true
    /// if the partition dispatches normally after the call.
    pub fn end_one_at_a_time(&mut self) -> bool {
        if self.one_at_a_time && self.out_of_order(1).is_empty() {
            self.one_at_a_time = false;
            self.limit_dispatch();
        }
        !self.one_at_a_time
    }

    /// With transactions, limits the dispatched records to what the metadata can list, see
    /// [`MAX_DISPATCHED`]. A single chunk may exceed the limit, except where the brokers accept less metadata
    /// than the default: with a short list, a large chunk would often be too much.
    fn limit_dispatch(&mut self) {
        let full = MetadataLimit::default();
        let most = MAX_DISPATCHED * self.metadata_limit.ranges() / full.ranges();
        let metered = self.dispatcher.limit_to(most, self.tracker.oldest_sequence());
        let short = metered && self.metadata_limit != full;
        self.max_chunk = if short { most.max(1) } else { usize::MAX };
    }

    /// True when records wait for a commit before they can be dispatched.
    pub fn waits_for_commit(&self) -> bool {
        !self.ended && self.dispatcher.needs_commit()
    }

    /// A commit of this position is in flight.
    pub fn committing(&mut self, position: Position) {
        self.committing = Some(position);
        self.dispatcher.committing();
    }

    /// Length of the metadata in the commit in flight. None without a commit or without metadata.
    pub fn committing_metadata(&self) -> Option<usize> {
        let position = self.committing.as_ref()?;
        Some(position.metadata.len()).filter(|length| *length > 0)
    }

    /// The coordinator has answered a commit: with the committed offset, or with None if the commit failed.
    /// Returns the offset if it is newly committed by this epoch.
    pub fn commit_answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        self.dispatcher.answered(committed);
        // This may be the answer to a commit of an earlier epoch, which says nothing about this one.
        let ours = self.committing.take();
        let position = ours.filter(|position| Some(position.offset) == committed)?;
        let offset = position.offset;
        self.committed = Some(position);
        Some(offset)
    }
}
