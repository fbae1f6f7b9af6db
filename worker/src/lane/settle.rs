//! What becomes of the failed records of a unit: dead letters, skipped, or made to wait; then the report that the unit is
//! finished.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Lane;
use crate::{
    dead_letter::{DeadLetters, Exceeded, FailurePolicy, Letter},
    parked::{Retry, Waiting},
    partition::Report,
    planted::planted,
    progress::Progress,
    snapshot::PausedReason,
    transaction::Spoiled,
    unit::Unit,
};

impl Lane {
    /// `onExhausted: Stop`, and an open breaker: the failed records of a unit wait. `before_writing`: and what comes after
    /// them with them. `why` begins the message.
    pub(super) fn stop_at_failures(
        &mut self,
        unit: &mut Unit,
        waits: u32,
        before_writing: bool,
        reason: PausedReason,
        why: &str,
    ) {
        while let Some(letter) = unit.letters.first().cloned() {
            let source = letter.failure.source as u32;
            let Some(mut failed) = unit.take(|other| other == source) else {
                // A failure of a record that is not in the unit cannot be; it must not make an endless loop either.
                unit.letters.remove(0);
                continue;
            };
            failed.letters.clear();
            let followers = match before_writing {
                true => self.parked.followers(unit, source).into_iter().collect(),
                false => VecDeque::new(),
            };
            if waits == 0 {
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
            progress.failing(letter.attempts.max(waits + 1), &message);
            progress.hold(reason);
            self.stopped = true;
            self.context.shared.metrics.failure(stage, component);
            self.parked.park(Waiting {
                unit: failed,
                retry: Retry::Process,
                due: Instant::now() + self.context.shared.retry.max,
                waits,
                progress,
                followers,
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
                self.stop_at_failures(&mut unit, waits, false, PausedReason::RecordFailed, "");
            }
            FailurePolicy::DeadLetter(queue) => {
                let mut letters = std::mem::take(&mut unit.letters);
                let refusal = admit(queue, &unit, &letters);
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
                for Letter { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                    shared
                        .metrics
                        .dead_lettered(failure.stage.as_str(), &failure.component);
                }
                if let Some((_, limit)) = refusal {
                    let why = format!("the dead letter breaker is open, {limit}: ");
                    let reason = PausedReason::DeadLetterBreakerOpen;
                    self.stop_at_failures(&mut unit, waits, false, reason, &why);
                }
            }
            FailurePolicy::Skip => {
                let letters = std::mem::take(&mut unit.letters);
                skipped += letters.len() as u64;
                self.log("skipped", &unit, &letters[0], letters.len());
                for Letter { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                }
                shared.metrics.skipped(letters.len() as u64);
            }
        }
        if unit.is_empty() {
            return Ok(());
        }
        let report = Report::Done {
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

    fn log(&self, what: &str, unit: &Unit, letter: &Letter, records: usize) {
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

    /// What failed behind a record that made the breaker wait failed before that was mended: it is processed again, at once.
    pub(super) fn process_anew(&mut self, unit: &mut Unit) {
        while let Some(source) = unit.letters.first().map(|letter| letter.failure.source as u32) {
            let Some(mut failed) = unit.take(|other| other == source) else {
                unit.letters.remove(0);
                continue;
            };
            failed.letters.clear();
            let followers = self.parked.followers(unit, source);
            self.parked.park(Waiting {
                retry: Retry::Process,
                due: Instant::now(),
                waits: 0,
                progress: self.context.troubles.at(failed.offset()),
                followers: followers.into_iter().collect(),
                unit: failed,
            });
        }
    }
}

/// The first failed record of the unit that must not go to the dead letter topic, and why.
fn admit(queue: &DeadLetters, unit: &Unit, letters: &[Letter]) -> Option<(usize, Exceeded)> {
    let mut failed: Vec<usize> = letters.iter().map(|letter| letter.failure.source).collect();
    failed.dedup();
    let sources = unit.sources();
    let position = |source: &usize| sources.partition_point(|other| (*other as usize) < *source);
    let positions: Vec<usize> = failed.iter().map(position).collect();
    let refusal = queue.admit(unit.chunk(), unit.len(), &positions)?;
    Some((failed[refusal.index], refusal.limit))
}

/// A record that became several outputs fails once per writer. Letters of records that have left the unit go with them.
pub(super) fn add_letter(unit: &mut Unit, letter: Letter) {
    let failure = &letter.failure;
    let known = |known: &Letter| {
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
