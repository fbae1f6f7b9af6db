//! Writes outputs with one writer until each output is written, rejected or to be retried later. While the
//! system behind the writer is unavailable, the delivery retries indefinitely with backoff, together with all
//! other deliveries of the writer ([`WriterBreaker`]). It halves a batch that the writer refuses as a whole, and
//! one that fails while others are written (`narrowing`).
//! Cancel-safe in the sense of at-least-once: a dropped call may have written some outputs.

mod narrowing;
pub mod outcome;

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use self::outcome::{RejectedRecord, RetryLater, WriteOutcome};
use crate::retry;
use crate::{
    health::{problems::ProblemReporter, snapshot::PausedReason},
    processing::batch_part::PendingWrite,
    record::{
        batch::Batch,
        failure::{Failure, Stage},
    },
    retry::{RetryPolicy, UNAVAILABLE_AFTER},
    telemetry::Metrics,
    transaction::{Cause, TransactionFailure},
    writer::{
        NamedWriter, Rejected, WriteBatch, WriteError,
        breaker::{FailedCall, Pass, WriterBreaker},
    },
};

/// What to do when a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryMode {
    /// Return the records to be retried, so that the lane continues with other records meanwhile.
    Requeue,
    /// The same, and also return everything behind them that is not written yet, because it must not overtake
    /// them. Waiting for them here would take a lane from other partitions.
    RequeueWithFollowers,
    /// Never repeat a write that may have happened.
    Never,
    /// Stop at the first failure that is not the failure of a single record: the writes belong to a
    /// transaction, which has failed then.
    AbortTransaction,
}

/// Where and how to write.
pub(crate) struct Delivery<'a> {
    pub writer: &'a NamedWriter,
    pub breaker: &'a WriterBreaker,
    pub batch: &'a Batch,
    /// Number of the transaction, with [`RetryMode::AbortTransaction`].
    pub transaction: u64,
    /// The records were rejected before and have waited: the writer may accept them now.
    pub after_a_wait: bool,
    pub retry_mode: RetryMode,
    pub retry: &'a RetryPolicy,
    pub reporter: &'a ProblemReporter,
    pub metrics: &'a Metrics,
}

/// Outputs to write with one call, in order, and how often they were attempted.
#[derive(Default)]
struct Attempt {
    outputs: Vec<u32>,
    attempts: u32,
    /// Number of answers that the writer had given before these outputs failed inconclusively.
    answers: Option<u64>,
    /// Inconclusive failures of exactly these outputs since others were written.
    failures: u32,
    /// Set if the attempt only finds out whether the system works.
    probe: Option<Probe>,
}

/// An attempt that finds out whether the system works.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// Outputs of one record that are written before their turn, with their place on the stack.
    Early(usize),
    /// An output that is written already.
    Again,
}

/// What a delivery keeps between its calls of the writer.
struct DeliveryState {
    /// The earliest outputs are on top. This keeps the order of the offsets while batches are halved.
    stack: Vec<Attempt>,
    /// Number of attempts before their turn.
    probes: usize,
    /// The output that was written last.
    last_written: Option<u32>,
    outage: WriterOutage,
    outcome: WriteOutcome,
}

impl Delivery<'_> {
    /// Writes the pending outputs.
    pub async fn run(&self, pending: &PendingWrite) -> WriteOutcome {
        if pending.outputs.is_empty() {
            return WriteOutcome::default();
        }
        let mut state = DeliveryState {
            stack: vec![Attempt {
                outputs: pending.outputs.clone(),
                attempts: pending.attempts,
                ..Attempt::default()
            }],
            probes: 0,
            last_written: None,
            outage: WriterOutage::default(),
            outcome: WriteOutcome::default(),
        };
        while let Some(mut attempt) = state.stack.pop() {
            let waiting = |error: &str| wait_for_writer(self.reporter, state.outage.failures, error);
            let pass = self.breaker.admit(waiting).await;
            if self.is_superfluous(&attempt, &pass) {
                drop(pass);
                self.return_probe(attempt, &mut state);
                continue;
            }
            attempt.attempts += 1;
            match self.call_writer(&attempt).await {
                Ok(_) if matches!(attempt.probe, Some(Probe::Again)) => {
                    pass.answered();
                    state.outage = WriterOutage::default();
                }
                Ok(rejected) => {
                    pass.answered();
                    self.on_written(attempt, rejected, &mut state).await;
                }
                // The breaker stays closed: a failed transaction stops all lanes anyway, and a lane that
                // waited inside of the transaction would delay its end.
                Err(error) if self.retry_mode == RetryMode::AbortTransaction => {
                    state.outcome.failure = Some(self.transaction_failure(&error));
                    return state.outcome;
                }
                Err(WriteError::Refused(message)) => {
                    pass.answered();
                    self.on_batch_refused(attempt, message, &mut state);
                }
                Err(WriteError::Inconclusive(message)) if self.is_narrowing() => {
                    self.on_inconclusive(attempt, message, pass, &mut state).await;
                }
                Err(error) => self.on_unavailable(attempt, &error, pass, &mut state).await,
            }
        }
        state.outcome
    }

    async fn call_writer(&self, attempt: &Attempt) -> Result<Vec<Rejected>, WriteError> {
        let started = Instant::now();
        let batch = WriteBatch::new(self.batch, &attempt.outputs)
            .of_transaction(self.transaction)
            .after_a_wait(self.after_a_wait);
        let result = self.writer.writer.write(batch).await;
        self.metrics.wrote(&self.writer.name, started.elapsed());
        result
    }

    /// The writer has written all outputs except the rejected ones.
    async fn on_written(&self, mut attempt: Attempt, rejected: Vec<Rejected>, state: &mut DeliveryState) {
        state.outage = WriterOutage::default();
        self.reporter.recovered();
        let written = attempt.outputs.len() - rejected.len();
        self.metrics.written(&self.writer.name, written);
        let merged = self.writer.writer.take_merged();
        if merged > 0 {
            self.metrics.merged(&self.writer.name, merged);
        }
        let is_rejected = |at: &usize| rejected.iter().any(|rejected| rejected.position == *at);
        let last = (0..attempt.outputs.len()).rev().find(|at| !is_rejected(at));
        state.last_written = last.map(|at| attempt.outputs[at]).or(state.last_written);
        // A probe is written again in its turn. What the writer rejects counts only then: it must not be
        // handled before the outputs that come first.
        if attempt.probe.is_some() {
            return self.return_probe(attempt, state);
        }
        let (retry_here, in_doubt) = self.sort_rejected(&attempt, rejected, &mut state.outcome);
        if in_doubt > 0 {
            self.give_up_in_doubt(&attempt, in_doubt, &mut state.outcome)
                .await;
        }
        if !(retry_here.is_empty() && state.outcome.later.is_empty()) {
            self.metrics.write_failed(&self.writer.name, "record");
            self.metrics.retried(&self.writer.name);
        }
        if !retry_here.is_empty() {
            tokio::time::sleep(self.retry.random_backoff(attempt.attempts)).await;
            attempt.outputs.retain(|output| retry_here.contains(output));
            state.stack.push(attempt);
        }
        if self.retry_mode == RetryMode::RequeueWithFollowers && !state.outcome.later.is_empty() {
            let rest = state.stack.drain(..).flat_map(|attempt| attempt.outputs);
            state.outcome.rest.extend(rest);
        }
    }

    /// Puts rejected records into the outcome, except those to retry in this delivery, which it returns
    /// together with the number of records in doubt.
    fn sort_rejected(
        &self,
        attempt: &Attempt,
        rejected: Vec<Rejected>,
        outcome: &mut WriteOutcome,
    ) -> (HashSet<u32>, usize) {
        let mut retry_here = HashSet::new();
        let mut in_doubt = 0;
        let requeue = matches!(
            self.retry_mode,
            RetryMode::Requeue | RetryMode::RequeueWithFollowers
        );
        for record in rejected {
            let Some(output) = attempt.outputs.get(record.position).copied() else {
                continue;
            };
            if record.in_doubt && self.retry_mode == RetryMode::Never {
                self.reporter.failing(attempt.attempts, &record.message);
                in_doubt += 1;
            } else if !record.retryable || attempt.attempts >= self.retry.max_attempts {
                let rejected = self.rejected(vec![output], record.message, attempt.attempts);
                outcome.rejected.push(rejected);
            } else if requeue {
                outcome.later.push(RetryLater {
                    output,
                    attempts: attempt.attempts,
                    message: record.message,
                });
            } else {
                self.reporter.failing(attempt.attempts, &record.message);
                retry_here.insert(output);
            }
        }
        (retry_here, in_doubt)
    }

    /// With [`RetryMode::Never`]: the writer does not know whether it has written these records.
    async fn give_up_in_doubt(&self, attempt: &Attempt, records: usize, outcome: &mut WriteOutcome) {
        self.metrics.write_failed(&self.writer.name, "record");
        self.metrics.given_up(&self.writer.name, records);
        outcome.given_up += records;
        tracing::warn!(
            writer = %self.writer.name,
            partition = %self.batch.chunk().partition,
            records,
            "records may be lost, because the writer does not know whether it has written them, and \
             AtMostOnce never repeats a write"
        );
        // Without a wait, the next batch would probably be in doubt as well.
        tokio::time::sleep(self.retry.random_backoff(attempt.attempts)).await;
    }

    fn transaction_failure(&self, error: &WriteError) -> TransactionFailure {
        let cause = match error {
            WriteError::Refused(_) => Cause::Record,
            WriteError::Transient(_) | WriteError::Inconclusive(_) | WriteError::Fenced(_) => {
                Cause::Unavailable
            }
            WriteError::Systemic(_) => Cause::Systemic,
        };
        self.metrics.write_failed(&self.writer.name, cause.class());
        let message = format!("writer {}: {error}", self.writer.name);
        TransactionFailure::new(cause, message)
    }

    /// The writer refuses the batch as a whole: halves it, down to the record that the writer rejects.
    fn on_batch_refused(&self, attempt: Attempt, message: String, state: &mut DeliveryState) {
        self.metrics.write_failed(&self.writer.name, "record");
        state.outage = WriterOutage::default();
        if attempt.probe.is_some() {
            return self.return_probe(attempt, state);
        }
        if let Err(attempt) = self.halve(attempt, state) {
            let rejected = self.rejected(attempt.outputs, message, attempt.attempts);
            state.outcome.rejected.push(rejected);
        }
    }

    /// Replaces an attempt by two for its halves. Returns the attempt if it is for a single record.
    fn halve(&self, mut attempt: Attempt, state: &mut DeliveryState) -> Result<(), Attempt> {
        let Some(middle) = self.middle(&attempt.outputs) else {
            return Err(attempt);
        };
        let right = attempt.outputs.split_off(middle);
        for outputs in [right, attempt.outputs] {
            state.stack.push(Attempt {
                outputs,
                ..Attempt::default()
            });
        }
        Ok(())
    }

    /// The system behind the writer has not accepted the call: retries the attempt, or gives it up under
    /// `AtMostOnce`.
    async fn on_unavailable(
        &self,
        attempt: Attempt,
        error: &WriteError,
        pass: Pass<'_>,
        state: &mut DeliveryState,
    ) {
        let systemic = matches!(error, WriteError::Systemic(_));
        self.metrics.write_failed(&self.writer.name, error.class());
        let open = state.outage.failed(self, pass, error);
        if !open {
            tokio::time::sleep(self.retry.outage_backoff(state.outage.failures, systemic)).await;
        }
        if self.retry_mode == RetryMode::Never && !systemic {
            // The wait comes first, here or before the next batch, so that an outage costs few batches and
            // not all.
            self.metrics.given_up(&self.writer.name, attempt.outputs.len());
            state.outcome.given_up += attempt.outputs.len();
            return;
        }
        self.metrics.retried(&self.writer.name);
        // An outage is caused by the system and not by the records, so it uses up none of their attempts.
        state.stack.push(Attempt {
            attempts: attempt.attempts - 1,
            ..attempt
        });
    }

    /// Where to halve a batch: between two records, so that the outputs of a record are written together or
    /// not at all. None when all outputs belong to one record.
    fn middle(&self, outputs: &[u32]) -> Option<usize> {
        let middle = (outputs.len() / 2).max(1);
        let between = |at: &usize| self.batch.source(outputs[at - 1]) != self.batch.source(outputs[*at]);
        (middle..outputs.len())
            .find(between)
            .or_else(|| (1..middle).rev().find(between))
    }

    /// `outputs` belong to one record, and there is at least one.
    fn rejected(&self, outputs: Vec<u32>, message: String, attempts: u32) -> RejectedRecord {
        let failure = Failure {
            source: self.batch.source(outputs[0]) as usize,
            stage: Stage::Write,
            component: Arc::clone(&self.writer.name),
            message,
        };
        RejectedRecord {
            failure,
            attempts,
            outputs,
        }
    }
}

/// Reports that a partition waits until the writer is available again.
pub(crate) fn wait_for_writer(reporter: &ProblemReporter, attempts: u32, error: &str) {
    reporter.failing(attempts, error);
    reporter.pause(PausedReason::WriterUnavailable);
}

/// Consecutive failures which show that the system behind the writer is unavailable.
#[derive(Default)]
struct WriterOutage {
    failures: u32,
    since: Option<Instant>,
    /// For [`FailedCall::seen`].
    seen: Option<u64>,
}

impl WriterOutage {
    /// Records a failed call. True when the circuit breaker is open, so that the other deliveries wait as
    /// well.
    fn failed(&mut self, delivery: &Delivery<'_>, pass: Pass<'_>, error: &WriteError) -> bool {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert_with(Instant::now);
        let writer = &delivery.writer.name;
        let message = format!("writer {writer}: {error}");
        let systemic = matches!(error, WriteError::Systemic(_));
        let failed = FailedCall {
            systemic,
            failures: self.failures,
            seen: self.seen.replace(pass.answers()),
            error: &message,
        };
        // The system has answered: another worker has claimed the partition. The writer logs that once by
        // itself.
        let fenced = matches!(error, WriteError::Fenced(_));
        let open = if fenced {
            pass.answered();
            false
        } else {
            pass.failed(failed, delivery.retry)
        };
        let lost = delivery.retry_mode == RetryMode::Never && !systemic;
        // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log. The breaker logs once
        // for all when it opens.
        if retry::is_logged(self.failures) && (lost || !open) && !fenced {
            let partition = delivery.batch.chunk().partition.to_string();
            let next = if lost {
                "these records may be lost, because AtMostOnce never repeats a write"
            } else {
                "retrying"
            };
            tracing::warn!(%writer, partition, attempt = self.failures, "{message}; {next}");
        }
        delivery.reporter.failing(self.failures, &message);
        if open || systemic || since.elapsed() >= UNAVAILABLE_AFTER {
            delivery.reporter.pause(PausedReason::WriterUnavailable);
        }
        open
    }
}

#[cfg(test)]
mod tests;
