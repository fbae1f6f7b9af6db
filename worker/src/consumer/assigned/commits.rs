//! The commits of an assigned partition: what its tracker, cursor and dispatcher mean for the position to
//! commit, and what the limit of the metadata means for what may be dispatched.

use super::{
    AssignedPartition,
    commit_state::out_of_order,
    position::{MAX_DISPATCHED, Position},
};
use crate::{offsets::commit_metadata::MetadataLimit, record::Offset};

impl AssignedPartition {
    /// The position to commit, if it is new.
    pub fn uncommitted(&self) -> Option<Position> {
        if self.life.is_discarded() {
            return None;
        }
        if let Some(instead) = self.instead_of_position() {
            return instead;
        }
        // Behind the last record of a bounded run, the tracker knows more than the dispatcher.
        let dispatched = self
            .dispatcher
            .to_commit()
            .filter(|_| !(self.is_read_out() && self.in_flight() == 0));
        self.commit_state
            .uncommitted(&self.tracker, &self.cursor, dispatched)
    }

    /// True when the metadata of a commit can list all out-of-order completions. If not, a transaction must
    /// not be committed.
    pub fn metadata_fits(&self) -> bool {
        self.commit_state.metadata_fits(&self.tracker, &self.cursor)
    }

    /// True when its transaction has to stay open. One record at a time only shortens the list of
    /// out-of-order completions, so a commit can carry it, unless the brokers accept less than when the list
    /// was committed. Then a commit can carry it only once the partition has passed enough of it.
    pub fn must_stay_open(&self) -> bool {
        self.one_at_a_time && self.uncommitted().is_some() && !self.metadata_fits()
    }

    /// Sets the limit for the metadata that lists out-of-order completions.
    pub fn limit_metadata(&mut self, metadata_limit: MetadataLimit) {
        self.commit_state.metadata_limit = metadata_limit;
        if !self.one_at_a_time {
            self.limit_dispatch();
        }
    }

    /// Ends one-at-a-time dispatch once the partition has passed all out-of-order completions. Returns true
    /// if the partition dispatches normally after the call.
    pub fn end_one_at_a_time(&mut self) -> bool {
        if self.one_at_a_time && out_of_order(&self.tracker, &self.cursor, 1).is_empty() {
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
        let most = MAX_DISPATCHED * self.commit_state.metadata_limit.ranges() / full.ranges();
        let metered = self.dispatcher.limit_to(most, self.tracker.oldest_sequence());
        let short = metered && self.commit_state.metadata_limit != full;
        self.max_chunk = if short { most.max(1) } else { usize::MAX };
    }

    /// True when records wait for a commit before they can be dispatched.
    pub fn waits_for_commit(&self) -> bool {
        !self.life.has_ended() && self.dispatcher.needs_commit()
    }

    /// A commit of this position is in flight.
    pub fn committing(&mut self, position: Position) {
        self.commit_state.start(position);
        self.dispatcher.committing();
    }

    /// Length of the metadata in the commit in flight. None without a commit or without metadata.
    pub fn committing_metadata(&self) -> Option<usize> {
        self.commit_state.committing_metadata()
    }

    /// The coordinator has answered a commit: with the committed offset, or with None if the commit failed.
    /// Returns the offset if it is newly committed by this task.
    pub fn commit_answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        self.dispatcher.answered(committed);
        self.commit_state.answered(committed)
    }
}
