//! What becomes of the failed records of a unit: dead letters, skipped, or made to wait; then the report that the unit is
//! finished.

use tokio::time::Instant;

use super::Lane;
use crate::{
    dead_letter::{BreakerRefusal, Exceeded, FailurePolicy},
    health::{problems::ProblemReporter, snapshot::PausedReason},
    processing::{batch_part::BatchPart, messages::TaskEvent, retry_queue::WaitingRecord},
    record::failure::FailedRecord,
    seeded_bugs::seeded_bug,
    transaction::TransactionFailure,
};

impl Lane {
    /// Keeps from being written what comes behind a record that is known to have failed and has to wait.
    pub(super) fn park_before_writing(&mut self, part: &mut BatchPart, waits: u32) {
        if part.failed_records.is_empty() {
            return;
        }
        let context = self.context.clone();
        let refusal = match &context.shared.policy {
            FailurePolicy::DeadLetter(queue) => refusal(part, |positions| {
                queue.would_refuse(part.chunk(), part.len(), positions)
            }),
            _ => None,
        };
        match (&context.shared.policy, refusal) {
            (FailurePolicy::Stop, _) => self.park(part, 0, Park::stopped(waits, false)),
            (_, Some((source, limit))) => {
                let first = part
                    .failed_records
                    .partition_point(|failed_record| failed_record.failure.source < source);
                self.park(part, first, Park::open(waits, false, limit));
            }
            _ => {}
        }
    }

    /// Lets failed records of a unit wait, from the letter at `first` on.
    fn park(&mut self, part: &mut BatchPart, first: usize, reason: Park) {
        let written = reason.written;
        let repeat = self.may_repeat();
        while let Some(failed_record) = part.failed_records.get(first).cloned() {
            let source = failed_record.failure.source as u32;
            let Some(mut failed) = part.take(|other| other == source) else {
                // A failure of a record that is not in the unit cannot be; it must not make an endless loop either.
                part.failed_records.remove(first);
                continue;
            };
            failed.again = true;
            let followers = match written {
                true => self.retry_queue.written_followers(part, source, repeat),
                false => self.retry_queue.followers(part, source),
            };
            let why = &reason.why;
            if reason.waits == 0 {
                self.log(&format!("{why}stopped"), part, &failed_record, 1);
            }
            let failure = &failed_record.failure;
            let (stage, component) = (failure.stage.as_str(), &failure.component);
            let offset = failed.offset();
            let reporter = self.context.problems.at(offset);
            let partition = &self.context.partition;
            let message = format!(
                "{why}{partition}@{offset}: {stage} {component}: {}",
                failure.message
            );
            reporter.failing(failed_record.attempts.max(reason.waits + 1), &message);
            reporter.hold(reason.reason);
            self.stopped = true;
            self.context.shared.metrics.failure(stage, component);
            self.retry_queue.park(WaitingRecord {
                part: failed,
                due: Instant::now() + self.context.shared.retry.max,
                waits: reason.waits,
                reporter,
                followers: followers.into_iter().collect(),
            });
        }
    }

    /// Does with the failed records what the resource says, and reports the unit as finished.
    pub(super) async fn finish(
        &mut self,
        mut part: BatchPart,
        transaction: u64,
        waits: u32,
        given_up: u64,
        reporter: &ProblemReporter,
    ) -> Result<(), TransactionFailure> {
        let context = self.context.clone();
        let shared = &context.shared;
        let (mut dead_lettered, mut skipped) = (0, given_up);
        if seeded_bug("failed-records-finished") {
            part.failed_records.clear();
        }
        match &shared.policy {
            policy if part.failed_records.is_empty() => policy.passed(part.chunk(), part.len()),
            FailurePolicy::Stop => {
                self.park(&mut part, 0, Park::stopped(waits, true));
            }
            FailurePolicy::DeadLetter(queue) => {
                let refusal = refusal(&part, |positions| {
                    queue.admit(part.chunk(), part.len(), positions)
                });
                let mut failed_records = std::mem::take(&mut part.failed_records);
                if let Some((source, _)) = refusal {
                    let at =
                        failed_records.partition_point(|failed_record| failed_record.failure.source < source);
                    part.failed_records = failed_records.split_off(at);
                }
                let records: Vec<_> = failed_records
                    .iter()
                    .map(|failed_record| (part.chunk().record(failed_record.failure.source), failed_record))
                    .collect();
                queue
                    .write(&records, transaction, &shared.retry, reporter)
                    .await?;
                dead_lettered = failed_records.len() as u64;
                for FailedRecord { failure, .. } in &failed_records {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                    shared
                        .metrics
                        .dead_lettered(failure.stage.as_str(), &failure.component);
                }
                if let Some((_, limit)) = refusal {
                    self.park(&mut part, 0, Park::open(waits, true, limit));
                }
            }
            FailurePolicy::Skip => {
                let failed_records = std::mem::take(&mut part.failed_records);
                skipped += failed_records.len() as u64;
                self.log("skipped", &part, &failed_records[0], failed_records.len());
                for FailedRecord { failure, .. } in &failed_records {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                }
                shared.metrics.skipped(failed_records.len() as u64);
            }
        }
        if part.is_empty() {
            return Ok(());
        }
        let event = TaskEvent::Finished {
            partition: context.partition.clone(),
            epoch: context.epoch,
            transaction,
            finished: part.finished(),
            dead_lettered,
            skipped,
        };
        // The poll loop outlives its lanes except when it has failed; then nothing is committed any more anyway.
        let _ = context.events.send(event);
        Ok(())
    }

    fn log(&self, what: &str, part: &BatchPart, failed_record: &FailedRecord, records: usize) {
        let failure = &failed_record.failure;
        tracing::warn!(
            partition = %self.context.partition,
            offset = part.chunk().record(failure.source).offset,
            stage = failure.stage.as_str(),
            component = %failure.component,
            records,
            "{what} at a record that fails: {}",
            failure.message
        );
    }
}

/// How failed records are made to wait.
struct Park {
    reason: PausedReason,
    /// How the message begins.
    why: String,
    /// Times they have waited before.
    waits: u32,
    /// What of the unit has not failed is written.
    written: bool,
}

impl Park {
    /// By `onExhausted: Stop`.
    fn stopped(waits: u32, written: bool) -> Self {
        Self {
            reason: PausedReason::RecordFailed,
            why: String::new(),
            waits,
            written,
        }
    }

    /// By an open breaker of the dead letter topic.
    fn open(waits: u32, written: bool, limit: Exceeded) -> Self {
        Self {
            reason: PausedReason::DeadLetterBreakerOpen,
            why: format!("the dead letter breaker is open, {limit}: "),
            waits,
            written,
        }
    }
}

/// The first failed record of the unit that must not go to the dead letter topic, and why. `ask` gets the positions of the
/// failed ones in the unit.
fn refusal(
    part: &BatchPart,
    ask: impl FnOnce(&[usize]) -> Option<BreakerRefusal>,
) -> Option<(usize, Exceeded)> {
    let mut failed: Vec<usize> = part
        .failed_records
        .iter()
        .map(|failed_record| failed_record.failure.source)
        .collect();
    failed.dedup();
    let sources = part.sources();
    let position = |source: &usize| sources.partition_point(|other| (*other as usize) < *source);
    let positions: Vec<usize> = failed.iter().map(position).collect();
    let refusal = ask(&positions)?;
    Some((failed[refusal.index], refusal.limit))
}

/// A record that became several outputs fails once per writer. Letters of records that have left the unit go with them.
pub(super) fn add_failed_record(part: &mut BatchPart, failed_record: FailedRecord) {
    let failure = &failed_record.failure;
    let known = |known: &FailedRecord| {
        known.failure.source == failure.source && known.failure.component == failure.component
    };
    if !part.contains(failure.source as u32) || part.failed_records.iter().any(known) {
        return;
    }
    let at = part
        .failed_records
        .partition_point(|other| other.failure.source <= failure.source);
    part.failed_records.insert(at, failed_record);
}
