//! What an assigned partition has to commit: the offset of the first record that is not finished, and in the commit's metadata
//! what is finished above it, by us or by an earlier owner. Pure.

use std::ops::Range;

use super::{Assigned, MAX_HANDED_ON};
use crate::{
    offsets::ahead,
    planted::{now_and_then, planted},
    record::Offset,
};

/// What to commit: the offset, and what is finished above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: Offset,
    pub metadata: String,
}

impl Assigned {
    /// What to commit, if there is anything new.
    pub fn uncommitted(&self) -> Option<Position> {
        if self.void {
            return None;
        }
        let position = match self.handover.to_commit() {
            Some(offset) => offset.map(|offset| (offset, String::new())),
            None => self
                .tracker
                .committable()
                .map(|offset| (offset, self.metadata(offset))),
        };
        let (mut offset, mut metadata) = position?;
        if planted("commit-maximum") {
            let ahead = self.tracker.ahead(usize::MAX);
            offset = ahead.last().map_or(offset, |range| range.end);
            metadata.clear();
        }
        if planted("commit-offset-plus-one") {
            offset += 1;
        }
        if planted("commit-goes-back") && now_and_then(7) {
            offset = 0;
        }
        let position = Position { offset, metadata };
        (self.committed.as_ref() != Some(&position)).then_some(position)
    }

    fn metadata(&self, offset: Offset) -> String {
        if !self.ahead {
            return String::new();
        }
        if planted("finished-ahead-invented") {
            // The record at the offset itself is never in there.
            return ahead::encode(offset, std::slice::from_ref(&(offset + 1..offset + 4)));
        }
        ahead::encode(offset, &self.finished_ahead(ahead::MAX_RANGES))
    }

    /// What is finished above the watermark: by us, and by an earlier owner where we have not read yet.
    fn finished_ahead(&self, limit: usize) -> Vec<Range<Offset>> {
        let mut ranges = self.tracker.ahead(limit);
        for range in &self.finished {
            let unread = range.start.max(self.read_to)..range.end;
            if unread.is_empty() {
                continue;
            }
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
        let ranges = self.finished_ahead(ahead::MAX_RANGES + 1);
        ahead::decode(offset, &ahead::encode(offset, &ranges)).is_ok_and(|told| told == ranges)
    }

    /// Goes on as usual once everything that was finished ahead is passed. True if it does, or never did otherwise.
    pub fn relax(&mut self) -> bool {
        if self.cautious && self.finished_ahead(1).is_empty() {
            self.cautious = false;
            self.handover.limit_to(MAX_HANDED_ON, self.tracker.span());
        }
        !self.cautious
    }

    /// True when records wait for a commit before they may be handed on.
    pub fn waits_for_commit(&self) -> bool {
        !self.ended && self.handover.waits()
    }

    /// A commit of this position is on its way.
    pub fn committing(&mut self, position: Position) {
        self.committing = Some(position);
        self.handover.committing();
    }

    /// A commit was answered: with the offset it has committed, or not at all. Gives back the offset if it is news of this
    /// epoch.
    pub fn commit_answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        self.handover.answered(committed);
        // The answer to a commit of an earlier epoch may come now; it says nothing of ours.
        let ours = self.committing.take();
        let position = ours.filter(|position| Some(position.offset) == committed)?;
        let offset = position.offset;
        self.committed = Some(position);
        Some(offset)
    }
}
