//! Another attempt: at failed records that have waited, and at records that a writer may accept later.

use std::sync::Arc;

use tokio::time::Instant;

use super::Lane;
use crate::{
    dead_letter::FailurePolicy,
    processing::{
        batch_part::BatchPart,
        delivery::outcome::{RetryLater, WriteOutcome},
        retry_queue::WaitingRecord,
    },
    record::{
        batch::Batch,
        failure::{FailedRecord, Stage},
    },
};

impl Lane {
    /// Retries a failed record from where it failed: from the transforms on, or only the writers that have
    /// not written it.
    pub(super) async fn retry_failed_records(&self, mut part: BatchPart) -> BatchPart {
        let rejected = |failed_record: &FailedRecord| failed_record.failure.stage == Stage::Write;
        if part.failed_records.iter().all(rejected) {
            part.failed_records.clear();
            part.retry_failed = false;
            part.pending.iter_mut().for_each(|pending| pending.attempts = 0);
            return part;
        }
        let source = part.sources().first().copied().unwrap_or_default();
        let record = Arc::new(part.chunk().single(source as usize));
        let shared = &self.context.shared;
        let batch = shared.pipeline.process(record, &self.context.problems).await;
        BatchPart::new(batch, part.first() + u64::from(source), shared.writers.len())
    }

    /// Leaves in `part` only the outputs that are still to be written.
    pub(super) fn keep_unwritten(&self, part: &mut BatchPart, batch: &Batch, outcomes: &[WriteOutcome]) {
        let repeat = self.may_repeat();
        for (pending, outcome) in part.pending.iter_mut().zip(outcomes) {
            pending.outputs = outcome.left(batch, &pending.outputs, repeat);
        }
    }

    /// Parks the records that a writer may accept later, and those behind them.
    pub(super) fn park_retries(&mut self, part: &mut BatchPart, outcomes: &[WriteOutcome], waits: u32) {
        for source in sources_to_retry(part, outcomes) {
            // The record may already follow an earlier one with the same key.
            let Some(waiting) = part.take(|other| other == source) else {
                continue;
            };
            let followers = self.retry_queue.followers(part, source);
            self.park_retry(waiting, source, followers, outcomes, waits);
        }
    }

    fn park_retry(
        &mut self,
        mut part: BatchPart,
        source: u32,
        followers: Option<BatchPart>,
        outcomes: &[WriteOutcome],
        waits: u32,
    ) {
        let batch = part.batch().clone();
        let reporter = self.context.problems.at(part.offset());
        let mut attempts = 0;
        // A writer that has rejected the record permanently is called again as well: the part still has its
        // outputs.
        for (writer, later) in all_later(outcomes).filter(|(_, later)| batch.source(later.output) == source) {
            part.pending[writer].attempts = later.attempts;
            attempts = attempts.max(later.attempts);
            reporter.failing(later.attempts, &later.message);
        }
        self.retry_queue.park(WaitingRecord {
            part,
            due: Instant::now() + self.context.shared.retry.random_backoff(attempts),
            waits,
            reporter,
            followers: followers.into_iter().collect(),
        });
    }

    /// After a retry in which no record failed. Only the breaker of the dead letter topic parks records for
    /// such a retry.
    pub(super) fn close_dead_letter_breaker(&self, part: &BatchPart) {
        if let FailurePolicy::DeadLetter(queue) = &self.context.shared.policy
            && part.failed_records.is_empty()
            && !part.is_empty()
        {
            queue.close_breaker(part.chunk());
        }
    }
}

/// The outputs to retry, each with the index of its writer.
fn all_later(outcomes: &[WriteOutcome]) -> impl Iterator<Item = (usize, &RetryLater)> {
    outcomes
        .iter()
        .enumerate()
        .flat_map(|(writer, outcome)| outcome.later.iter().map(move |later| (writer, later)))
}

/// The records to retry, ascending. One that was not attempted is among them if it follows no other, because
/// it would be reported as finished otherwise.
fn sources_to_retry(part: &BatchPart, outcomes: &[WriteOutcome]) -> Vec<u32> {
    let later = all_later(outcomes).map(|(_, later)| later.output);
    let first_of_rest = outcomes.iter().filter_map(|outcome| outcome.rest.iter().min());
    let mut sources: Vec<u32> = later
        .chain(first_of_rest.copied())
        .map(|output| part.batch().source(output))
        .collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processing::testing::part;

    #[test]
    fn a_record_that_was_not_attempted_is_never_left_to_be_finished() {
        let part = part(&["a", "b", "c", "d"], 0, 1);
        let later = RetryLater {
            output: 2,
            attempts: 1,
            message: String::new(),
        };
        let outcome = WriteOutcome {
            later: vec![later],
            rest: vec![3, 1],
            ..WriteOutcome::default()
        };
        assert_eq!(sources_to_retry(&part, &[outcome]), [1, 2]);
        assert!(sources_to_retry(&part, &[WriteOutcome::default()]).is_empty());
    }
}
