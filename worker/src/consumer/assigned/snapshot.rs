//! What status shows of an assigned partition: its offsets, the oldest record in flight, and why reading is
//! paused. Changes nothing but the metrics of the partition.

use super::AssignedPartition;
use crate::{
    health::{
        problems::Problem,
        snapshot::{OldestRecord, PartitionSnapshot, PausedReason},
    },
    record::Offset,
};

impl AssignedPartition {
    /// What status shows, and the error that belongs to the reason, also while no record is in flight. `end`
    /// is the end offset of the partition, if known; in a bounded run its end counts instead. `outage` is what keeps transactions from being
    /// committed.
    pub fn snapshot(
        &self,
        paused: bool,
        end: Option<Offset>,
        outage: Option<&Problem>,
    ) -> (PartitionSnapshot, Option<String>) {
        let (at, problem) = match (self.problems.most_severe(), outage) {
            (Some((_, own)), Some(outage)) if outage.paused_reason > own.paused_reason => {
                (None, outage.clone())
            }
            (Some((offset, own)), _) => (Some(offset), own),
            (None, outage) => (None, outage.cloned().unwrap_or_default()),
        };
        let watermark = self.tracker.committable();
        let oldest = self
            .tracker
            .oldest()
            .zip(self.chunks_in_flight.front())
            .map(|(offset, chunk)| OldestRecord {
                offset,
                since: chunk.since,
                attempts: problem.attempts,
                last_error: problem.last_error.clone(),
                // A problem carries the offset of the first record of its work, so one at this offset or
                // below is about this record, too.
                error_offset: at.filter(|at| *at > offset),
            });
        let lag = self
            .bounded_end()
            .or(end)
            .zip(watermark)
            .map(|(end, watermark)| (end - watermark).max(0));
        self.metrics.state(lag, self.in_flight());
        let far_ahead = (self.fetch_paused && self.is_far_ahead()).then_some(PausedReason::OldestUnfinished);
        let shown = PartitionSnapshot {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            assignment_epoch: self.assignment_epoch,
            committed: self.commit_state.committed_offset(),
            watermark,
            lag,
            in_flight: self.in_flight() as u64,
            oldest,
            paused_reason: problem
                .paused_reason
                .max(paused.then_some(PausedReason::Paused))
                .max(far_ahead),
            stalled_since: None,
            skipped_by_retention: self.skipped_by_retention.clone(),
        };
        (shown, problem.last_error)
    }
}
