//! What an assigned partition has to commit: the offset of the first record that is not finished, and in the commit's metadata
//! what is finished above it, by us or by an earlier owner. Pure.

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
    /// What to commit, if there is anything new.
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
            let ahead = self.tracker.ahead(usize::MAX);
            offset = ahead.last().map_or(offset, |range| range.end);
            metadata.clear();
        }
        if seeded_bug("commit-offset-plus-one") {
            offset += 1;
        }
        if seeded_bug("commit-goes-back") && now_and_then(7) {
            offset = 0;
        }
        let position = Position { offset, metadata };
        let known = self.committed.as_ref() == Some(&position) || self.tells_more(offset);
        (!known).then_some(position)
    }

    /// True when what is committed tells all that is finished, in a text for which there is no room any more: nothing is new,
    /// and a commit would only tell less.
    fn tells_more(&self, offset: Offset) -> bool {
        let full = MetadataLimit::default();
        let at = self
            .committed
            .as_ref()
            .filter(|committed| committed.offset == offset);
        self.metadata_limit != full
            && at.is_some_and(|committed| committed.metadata == self.metadata(full, offset))
    }

    fn metadata(&self, metadata_limit: MetadataLimit, offset: Offset) -> String {
        if !self.ahead {
            return String::new();
        }
        if seeded_bug("finished-ahead-invented") {
            // The record at the offset itself is never in there.
            return commit_metadata::encode(
                metadata_limit,
                offset,
                std::slice::from_ref(&(offset + 1..offset + 4)),
            );
        }
        commit_metadata::encode(
            metadata_limit,
            offset,
            &self.finished_ahead(metadata_limit.ranges()),
        )
    }

    /// What is finished above the watermark: by us, and by an earlier owner where we have not read yet.
    fn finished_ahead(&self, limit: usize) -> Vec<Range<Offset>> {
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

    /// True when a commit can tell everything that is finished. If not, a transaction must not be committed.
    pub fn fits(&self) -> bool {
        let Some(offset) = self.tracker.committable() else {
            return true;
        };
        let ranges = self.finished_ahead(self.metadata_limit.ranges() + 1);
        commit_metadata::decode(
            offset,
            &commit_metadata::encode(self.metadata_limit, offset, &ranges),
        )
        .is_ok_and(|told| told == ranges)
    }

    /// True when its transaction has to go on. One record after the other only makes less of what is to be told, so a commit
    /// can tell it, unless brokers take less than when it was committed: then only once enough of it is passed.
    pub fn must_go_on(&self) -> bool {
        self.one_at_a_time && self.uncommitted().is_some() && !self.fits()
    }

    /// From now on there is so much room for telling what is finished ahead.
    pub fn limit_metadata(&mut self, metadata_limit: MetadataLimit) {
        self.metadata_limit = metadata_limit;
        if !self.one_at_a_time {
            self.limit();
        }
    }

    /// Goes on as usual once everything that was finished ahead is passed. True if it does, or never did otherwise.
    pub fn relax(&mut self) -> bool {
        if self.one_at_a_time && self.finished_ahead(1).is_empty() {
            self.one_at_a_time = false;
            self.limit();
        }
        !self.one_at_a_time
    }

    /// With transactions, lets as many records be with the lanes as there is room for, see [`MAX_DISPATCHED`]. A chunk alone may
    /// have more, but not where brokers take little: with short texts it would often be too many.
    fn limit(&mut self) {
        let full = MetadataLimit::default();
        let most = MAX_DISPATCHED * self.metadata_limit.ranges() / full.ranges();
        let metered = self.dispatcher.limit_to(most, self.tracker.oldest_sequence());
        let short = metered && self.metadata_limit != full;
        self.max_chunk = if short { most.max(1) } else { usize::MAX };
    }

    /// True when records wait for a commit before they may be handed on.
    pub fn waits_for_commit(&self) -> bool {
        !self.ended && self.dispatcher.waits()
    }

    /// A commit of this position is on its way.
    pub fn committing(&mut self, position: Position) {
        self.committing = Some(position);
        self.dispatcher.committing();
    }

    /// Length of the metadata in the commit that is on its way; None without any.
    pub fn committing_metadata(&self) -> Option<usize> {
        let position = self.committing.as_ref()?;
        Some(position.metadata.len()).filter(|length| *length > 0)
    }

    /// A commit was answered: with the offset it has committed, or not at all. Gives back the offset if it is news of this
    /// epoch.
    pub fn commit_answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        self.dispatcher.answered(committed);
        // The answer to a commit of an earlier epoch may come now; it says nothing of ours.
        let ours = self.committing.take();
        let position = ours.filter(|position| Some(position.offset) == committed)?;
        let offset = position.offset;
        self.committed = Some(position);
        Some(offset)
    }
}
