//! Failed records of a part: dead letter topic, skip or park, as `onExhausted` says. Then the report that the
//! rest of the part is finished.

use tokio::time::Instant;

use super::Lane;
use crate::{
    dead_letter::{BreakerRefusal, DeadLetters, Exceeded, FailurePolicy, NotWritten},
    health::{problems::ProblemReporter, snapshot::PausedReason},
    processing::{batch_part::BatchPart, messages::TaskEvent, retry_queue::WaitingRecord},
    record::{Offset, failure::FailedRecord},
    seeded_bugs::seeded_bug,
    transaction::TransactionFailure,
};

impl Lane {
    /// Parks the records that have failed already and have to wait, and those behind them, before anything is
    /// written.
    pub(super) fn park_before_writing(&mut self, part: &mut BatchPart, waits: u32) {
        if part.failed_records.is_empty() {
            return;
        }
        let context = self.context.clone();
        match &context.shared.policy {
            FailurePolicy::Stop => self.park(part, 0, Park::stopped(waits, false)),
            FailurePolicy::DeadLetter(queue) => {
                let refusal = refusal(part, |positions| {
                    queue.would_refuse(part.chunk(), part.len(), positions)
                });
                if let Some((source, limit)) = refusal {
                    let first = first_failed_from(&part.failed_records, source);
                    self.park(part, first, Park::breaker_open(waits, false, limit));
                }
            }
            FailurePolicy::Skip => {}
        }
    }

    /// Applies the failure policy to the failed records, and reports the records that are finished.
    pub(super) async fn finish(
        &mut self,
        mut part: BatchPart,
        transaction: u64,
        waits: u32,
        given_up: u64,
        reporter: &ProblemReporter,
    ) -> Result<(), TransactionFailure> {
        let context = self.context.clone();
        let (mut dead_lettered, mut skipped) = (0, given_up);
        if seeded_bug("failed-records-finished") {
            part.failed_records.clear();
        }
        match &context.shared.policy {
            policy if part.failed_records.is_empty() => policy.passed(part.chunk(), part.len()),
            FailurePolicy::Stop => self.park(&mut part, 0, Park::stopped(waits, true)),
            FailurePolicy::DeadLetter(queue) => {
                let (written, dropped) = self
                    .write_dead_letters(queue, &mut part, transaction, waits, reporter)
                    .await?;
                dead_lettered = written;
                skipped += dropped;
            }
            FailurePolicy::Skip => skipped += self.skip(&mut part),
        }
        if !part.is_empty() {
            self.report_finished(&part, transaction, dead_lettered, skipped);
        }
        Ok(())
    }

    /// Writes the failed records to the dead letter topic up to the first one that its breaker refuses, and
    /// parks the rest, and those that the topic refuses for good. Returns how many it has written and dropped.
    async fn write_dead_letters(
        &mut self,
        queue: &DeadLetters,
        part: &mut BatchPart,
        transaction: u64,
        waits: u32,
        reporter: &ProblemReporter,
    ) -> Result<(u64, u64), TransactionFailure> {
        let context = self.context.clone();
        let shared = &context.shared;
        let refusal = refusal(part, |positions| queue.admit(part.chunk(), part.len(), positions));
        let mut failed_records = std::mem::take(&mut part.failed_records);
        if let Some((source, _)) = refusal {
            let first = first_failed_from(&failed_records, source);
            part.failed_records = failed_records.split_off(first);
        }
        let records: Vec<_> = failed_records
            .iter()
            .map(|failed_record| (part.chunk().record(failed_record.failure.source), failed_record))
            .collect();
        let not_written = queue
            .write(&records, transaction, waits > 0, &shared.retry, reporter)
            .await?;
        let NotWritten { stopped, dropped } = not_written;
        for (index, FailedRecord { failure, .. }) in failed_records.iter().enumerate() {
            // Counted when it is parked.
            if stopped.iter().any(|(at, _)| *at == index) {
                continue;
            }
            let stage = failure.stage.as_str();
            shared.metrics.failure(stage, &failure.component);
            if !dropped.contains(&index) {
                shared.metrics.dead_lettered(stage, &failure.component);
            }
        }
        shared.metrics.dead_letters_dropped(dropped.len() as u64);
        let written = (failed_records.len() - stopped.len() - dropped.len()) as u64;
        let stopped: Vec<FailedRecord> = stopped
            .into_iter()
            .map(|(index, message)| {
                let mut failed_record = failed_records[index].clone();
                failed_record.failure.message = format!("{message}; {}", failed_record.failure.message);
                failed_record
            })
            .collect();
        // Together, because a record that is not marked as failed would be reported as finished.
        part.failed_records.splice(0..0, stopped);
        match refusal {
            Some((_, limit)) => self.park(part, 0, Park::breaker_open(waits, true, limit)),
            None => self.park(part, 0, Park::stopped(waits, true)),
        }
        Ok((written, dropped.len() as u64))
    }

    /// Drops the failed records. Returns how many.
    fn skip(&self, part: &mut BatchPart) -> u64 {
        let metrics = &self.context.shared.metrics;
        let failed_records = std::mem::take(&mut part.failed_records);
        self.log(
            "skipped failing records; the first error",
            part,
            &failed_records[0],
            failed_records.len(),
        );
        for FailedRecord { failure, .. } in &failed_records {
            metrics.failure(failure.stage.as_str(), &failure.component);
        }
        let skipped = failed_records.len() as u64;
        metrics.skipped(skipped);
        skipped
    }

    fn report_finished(&self, part: &BatchPart, transaction: u64, dead_lettered: u64, skipped: u64) {
        let event = TaskEvent::Finished {
            partition: self.context.partition.clone(),
            task_epoch: self.context.task_epoch,
            transaction,
            finished: part.finished(),
            dead_lettered,
            skipped,
        };
        // The poll loop outlives its lanes unless it has failed. Then no offset is committed any more.
        let _ = self.context.events.send(event);
    }

    /// Parks the failed records of a part from the one at index `first` on.
    fn park(&mut self, part: &mut BatchPart, first: usize, reason: Park) {
        let repeat = self.may_repeat();
        while let Some(failed_record) = part.failed_records.get(first).cloned() {
            let source = failed_record.failure.source as u32;
            let Some(mut failed) = part.take(|other| other == source) else {
                // A failure of a record that is not in the part is impossible. It must not cause an endless
                // loop either.
                part.failed_records.remove(first);
                continue;
            };
            failed.retry_failed = true;
            let followers = if reason.written {
                self.retry_queue.written_followers(part, source, repeat)
            } else {
                self.retry_queue.followers(part, source)
            };
            let reporter = self.report_parked(part, &failed_record, failed.offset(), &reason);
            self.has_parked_failure = true;
            let failure = &failed_record.failure;
            self.context
                .shared
                .metrics
                .failure(failure.stage.as_str(), &failure.component);
            self.retry_queue.park(WaitingRecord {
                part: failed,
                due: Instant::now() + self.context.shared.retry.max,
                waits: reason.waits,
                reporter,
                followers: followers.into_iter().collect(),
            });
        }
    }

    /// Logs the first wait of a record, and reports every wait in status.
    fn report_parked(
        &self,
        part: &BatchPart,
        failed_record: &FailedRecord,
        offset: Offset,
        reason: &Park,
    ) -> ProblemReporter {
        let (prefix, failure) = (&reason.prefix, &failed_record.failure);
        if reason.waits == 0 {
            self.log(
                &format!("{prefix}stopped at a failing record"),
                part,
                failed_record,
                1,
            );
        }
        let reporter = self.context.problems.at(offset);
        let message = format!(
            "{prefix}{}@{offset}: {} {}: {}",
            self.context.partition,
            failure.stage.as_str(),
            failure.component,
            failure.message
        );
        reporter.failing(failed_record.attempts.max(reason.waits + 1), &message);
        reporter.pause(reason.paused_reason);
        reporter
    }

    fn log(&self, what: &str, part: &BatchPart, failed_record: &FailedRecord, records: usize) {
        let failure = &failed_record.failure;
        tracing::warn!(
            partition = %self.context.partition,
            offset = part.chunk().record(failure.source).offset,
            stage = failure.stage.as_str(),
            component = %failure.component,
            records,
            "{what}: {}",
            failure.message
        );
    }
}

/// How to park failed records.
struct Park {
    paused_reason: PausedReason,
    /// How the message begins.
    prefix: String,
    /// How many times the records have waited before.
    waits: u32,
    /// True when the records of the part that have not failed are written.
    written: bool,
}

impl Park {
    /// Because of `onExhausted: Stop`.
    fn stopped(waits: u32, written: bool) -> Self {
        Self {
            paused_reason: PausedReason::RecordFailed,
            prefix: String::new(),
            waits,
            written,
        }
    }

    /// Because the breaker of the dead letter topic is open.
    fn breaker_open(waits: u32, written: bool, limit: Exceeded) -> Self {
        Self {
            paused_reason: PausedReason::DeadLetterBreakerOpen,
            prefix: format!("the dead letter breaker is open, {limit}: "),
            waits,
            written,
        }
    }
}

/// The first failed record of the part that must not go to the dead letter topic, and why. `ask` gets the
/// positions of the failed records within the part.
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

/// Index of the first failure of the record `source` or a later one.
fn first_failed_from(failed_records: &[FailedRecord], source: usize) -> usize {
    failed_records.partition_point(|failed_record| failed_record.failure.source < source)
}
