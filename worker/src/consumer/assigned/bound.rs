//! An assigned partition of a bounded run: what its bounds mean for the records that arrive, and for the last commit.

use super::{AssignedPartition, bounded_read::BoundedRead};
use crate::record::Offset;

impl AssignedPartition {
    /// False for a record outside of the bounds. Records that arrive before a seek is done say nothing of the end.
    pub fn admits(&mut self, offset: Offset) -> bool {
        if self.cursor.pending_seek().is_some() {
            return true;
        }
        let Some(bound) = &mut self.bound else { return true };
        let admitted = bound.admits(offset);
        if let Some(from) = bound.seek_from(offset) {
            self.seek_to(from);
        }
        self.end_if_read_out();
        admitted
    }

    /// The log ends at this offset for now. Returns true if the partition has to be read from there again, because
    /// the client's position is one too far.
    pub fn log_ends(&mut self, offset: Offset) -> bool {
        if self.cursor.pending_seek().is_some() {
            return true;
        }
        let Some(bound) = &mut self.bound else {
            return false;
        };
        bound.log_ends(offset);
        if self.is_read_out() {
            self.end_if_read_out();
            return false;
        }
        self.seek_to(offset);
        true
    }

    fn end_if_read_out(&mut self) {
        if self.is_read_out() && !self.is_draining() {
            self.dispatch();
        }
    }

    /// True if everything below the end of the bounds was read, so that nothing more is read.
    pub fn is_read_out(&self) -> bool {
        self.bound.as_ref().is_some_and(BoundedRead::is_read_out)
    }

    /// Lets the next commit cover the end of the bounds once all records before are finished. The last offsets
    /// may belong to no record: to markers and aborted records of transactions, or to records that compaction or
    /// retention has removed.
    pub fn finish_bound(&mut self) {
        let Some(bound) = &self.bound else { return };
        if bound.is_read_out() && self.is_idle() && !self.has_ended() {
            let end = bound.end();
            self.cursor.pass(end);
            self.tracker.deliver_end(end);
        }
    }

    /// True if the end of the bounds is committed, or there is nothing in them. Always false without bounds.
    pub fn is_finished(&self) -> bool {
        let committed = self.commit_state.committed_offset();
        self.bound
            .as_ref()
            .is_some_and(|bound| bound.is_finished(committed))
    }

    /// True if only the commit is left to do.
    pub fn waits_for_last_commit(&self) -> bool {
        self.is_read_out() && self.in_flight() == 0 && !self.is_finished()
    }

    /// The part of these offsets that the run would have read.
    pub(super) fn within_bound(&self, from: Offset, to: Offset) -> (Offset, Offset) {
        self.bound
            .as_ref()
            .map_or((from, to), |bound| bound.clamp(from, to))
    }

    /// Where the run ends for this partition, instead of the end of the log.
    pub fn bounded_end(&self) -> Option<Offset> {
        self.bound.as_ref().map(BoundedRead::end)
    }
}

#[cfg(test)]
mod tests;
