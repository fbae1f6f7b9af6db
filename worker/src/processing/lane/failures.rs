//! What becomes of the failed records of a unit: dead letters, skipped, or made to wait; then the report that the unit is
//! finished.

use tokio::time::Instant;

use super::Lane;
use crate::{
    dead_letter::{Exceeded, FailurePolicy, Refusal},
    health::{problems::Progress, snapshot::PausedReason},
    processing::{batch_part::Unit, messages::TaskEvent, retry_queue::Waiting},
    record::failure::FailedRecord,
    seeded_bugs::planted,
    transaction::Spoiled,
};

impl Lane {
    /// Keeps from being written what comes behind a record that is known to have failed and has to wait.
    pub(super) fn hold_before_writing(&mut self, unit: &mut Unit, waits: u32) {
        if unit.letters.is_empty() {
            return;
        }
        let context = self.context.clone();
        let refusal = match &context.shared.policy {
            FailurePolicy::DeadLetter(queue) => refusal(unit, |positions| {
                queue.would_refuse(unit.chunk(), unit.len(), positions)
            }),
            _ => None,
        };
        match (&context.shared.policy, refusal) {
            (FailurePolicy::Stop, _) => self.hold(unit, 0, Hold::stopped(waits, false)),
            (_, Some((source, limit))) => {
                let first = unit
                    .letters
                    .partition_point(|letter| letter.failure.source < source);
                self.hold(unit, first, Hold::open(waits, false, limit));
            }
            _ => {}
        }
    }

    /// Lets failed records of a unit wait, from the letter at `first` on.
    fn hold(&mut self, unit: &mut Unit, first: usize, hold: Hold) {
        let written = hold.written;
        let repeat = self.may_repeat();
        while let Some(letter) = unit.letters.get(first).cloned() {
            let source = letter.failure.source as u32;
            let Some(mut failed) = unit.take(|other| other == source) else {
                // A failure of a record that is not in the unit cannot be; it must not make an endless loop either.
                unit.letters.remove(first);
                continue;
            };
            failed.again = true;
            let followers = match written {
                true => self.parked.written_followers(unit, source, repeat),
                false => self.parked.followers(unit, source),
            };
            let why = &hold.why;
            if hold.waits == 0 {
                self.log(&format!("{why}stopped"), unit, &letter, 1);
            }
            let failure = &letter.failure;
            let (stage, component) = (failure.stage.as_str(), &failure.component);
            let offset = failed.offset();
            let progress = self.context.troubles.at(offset);
            let partition = &self.context.partition;
            let message = format!(
                "{why}{partition}@{offset}: {stage} {component}: {}",
                failure.message
            );
            progress.failing(letter.attempts.max(hold.waits + 1), &message);
            progress.hold(hold.reason);
            self.stopped = true;
            self.context.shared.metrics.failure(stage, component);
            self.parked.park(Waiting {
                unit: failed,
                due: Instant::now() + self.context.shared.retry.max,
                waits: hold.waits,
                progress,
                followers: followers.into_iter().collect(),
            });
        }
    }

    /// Does with the failed records what the resource says, and reports the unit as finished.
    pub(super) async fn settle(
        &mut self,
        mut unit: Unit,
        transaction: u64,
        waits: u32,
        given_up: u64,
        progress: &Progress,
    ) -> Result<(), Spoiled> {
        let context = self.context.clone();
        let shared = &context.shared;
        let (mut dead_lettered, mut skipped) = (0, given_up);
        if planted("failed-records-finished") {
            unit.letters.clear();
        }
        match &shared.policy {
            policy if unit.letters.is_empty() => policy.passed(unit.chunk(), unit.len()),
            FailurePolicy::Stop => {
                self.hold(&mut unit, 0, Hold::stopped(waits, true));
            }
            FailurePolicy::DeadLetter(queue) => {
                let refusal = refusal(&unit, |positions| {
                    queue.admit(unit.chunk(), unit.len(), positions)
                });
                let mut letters = std::mem::take(&mut unit.letters);
                if let Some((source, _)) = refusal {
                    let at = letters.partition_point(|letter| letter.failure.source < source);
                    unit.letters = letters.split_off(at);
                }
                let records: Vec<_> = letters
                    .iter()
                    .map(|letter| (unit.chunk().record(letter.failure.source), letter))
                    .collect();
                queue
                    .write(&records, transaction, &shared.retry, progress)
                    .await?;
                dead_lettered = letters.len() as u64;
                for FailedRecord { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                    shared
                        .metrics
                        .dead_lettered(failure.stage.as_str(), &failure.component);
                }
                if let Some((_, limit)) = refusal {
                    self.hold(&mut unit, 0, Hold::open(waits, true, limit));
                }
            }
            FailurePolicy::Skip => {
                let letters = std::mem::take(&mut unit.letters);
                skipped += letters.len() as u64;
                self.log("skipped", &unit, &letters[0], letters.len());
                for FailedRecord { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                }
                shared.metrics.skipped(letters.len() as u64);
            }
        }
        if unit.is_empty() {
            return Ok(());
        }
        let report = TaskEvent::Done {
            partition: context.partition.clone(),
            epoch: context.epoch,
            transaction,
            finished: unit.finished(),
            dead_lettered,
            skipped,
        };
        // The poll loop outlives its lanes except when it has failed; then nothing is committed any more anyway.
        let _ = context.reports.send(report);
        Ok(())
    }

    fn log(&self, what: &str, unit: &Unit, letter: &FailedRecord, records: usize) {
        let failure = &letter.failure;
        tracing::warn!(
            partition = %self.context.partition,
            offset = unit.chunk().record(failure.source).offset,
            stage = failure.stage.as_str(),
            component = %failure.component,
            records,
            "{what} at a record that fails: {}",
            failure.message
        );
    }
}

/// How failed records are made to wait.
struct Hold {
    reason: PausedReason,
    /// How the message begins.
    why: String,
    /// Times they have waited before.
    waits: u32,
    /// What of the unit has not failed is written.
    written: bool,
}

impl Hold {
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
fn refusal(unit: &Unit, ask: impl FnOnce(&[usize]) -> Option<Refusal>) -> Option<(usize, Exceeded)> {
    let mut failed: Vec<usize> = unit.letters.iter().map(|letter| letter.failure.source).collect();
    failed.dedup();
    let sources = unit.sources();
    let position = |source: &usize| sources.partition_point(|other| (*other as usize) < *source);
    let positions: Vec<usize> = failed.iter().map(position).collect();
    let refusal = ask(&positions)?;
    Some((failed[refusal.index], refusal.limit))
}

/// A record that became several outputs fails once per writer. Letters of records that have left the unit go with them.
pub(super) fn add_letter(unit: &mut Unit, letter: FailedRecord) {
    let failure = &letter.failure;
    let known = |known: &FailedRecord| {
        known.failure.source == failure.source && known.failure.component == failure.component
    };
    if !unit.contains(failure.source as u32) || unit.letters.iter().any(known) {
        return;
    }
    let at = unit
        .letters
        .partition_point(|other| other.failure.source <= failure.source);
    unit.letters.insert(at, letter);
}
