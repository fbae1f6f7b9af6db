//! Writes outputs with one writer until each of them is written, known to be refused, or to be tried later: backoff
//! without end when the system behind the writer is away, together with all others who write with it ([`WriterBreaker`]),
//! halving when a batch is refused as a whole. Cancel-safe in the sense of at-least-once: a dropped call may have written a
//! part.

use std::{collections::HashSet, sync::Arc};

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
        NamedWriter, WriteBatch, WriteError,
        breaker::{FailedCall, Pass, WriterBreaker},
    },
};

/// What to do when it does not work at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryMode {
    /// Hand back the records to be tried again, so that others go on meanwhile.
    Requeue,
    /// The same, and everything behind them that is not written yet, because it must not overtake them. WaitingRecord for them here
    /// would take a lane from other partitions.
    RequeueWithFollowers,
    /// Never repeat a write that may have happened.
    Never,
    /// Give up at the first failure that is not a record's own: the writes are part of a transaction, which is spoiled.
    AbortTransaction,
}

/// A record that stays refused, with the number of attempts it took.
#[derive(Debug)]
pub(crate) struct RefusedRecord {
    pub failure: Failure,
    pub attempts: u32,
    /// Of its outputs, those that are not written.
    pub outputs: Vec<u32>,
}

/// An output to be tried again after a while.
#[derive(Debug)]
pub(crate) struct RetryLater {
    pub output: u32,
    pub attempts: u32,
    pub message: String,
}

/// What is not simply written.
#[derive(Debug, Default)]
pub(crate) struct WriteOutcome {
    pub refused: Vec<RefusedRecord>,
    pub later: Vec<RetryLater>,
    /// With [`RetryMode::RequeueWithFollowers`]: what was not begun.
    pub rest: Vec<u32>,
    /// Outputs that may or may not have been written, with [`RetryMode::Never`].
    pub given_up: usize,
    /// With [`RetryMode::AbortTransaction`]: the transaction cannot be committed, and none of this counts.
    pub failure: Option<TransactionFailure>,
}

impl WriteOutcome {
    /// Of `outputs`, those that are not written, and with `repeat` those that were written before they should have been.
    pub fn left(&self, batch: &Batch, outputs: &[u32], repeat: bool) -> Vec<u32> {
        let refused = self
            .refused
            .iter()
            .flat_map(|refused| refused.outputs.iter().copied());
        let later = self.later.iter().map(|later| later.output);
        let left: HashSet<u32> = refused.chain(later).chain(self.rest.iter().copied()).collect();
        match left.is_empty() {
            true => Vec::new(),
            false => with_later_of_their_keys(batch, outputs, &left, repeat),
        }
    }
}

/// Where to and how.
pub(crate) struct Delivery<'a> {
    pub writer: &'a NamedWriter,
    pub breaker: &'a WriterBreaker,
    pub batch: &'a Batch,
    /// Number of the transaction, with [`RetryMode::AbortTransaction`].
    pub transaction: u64,
    /// What was refused before may be taken now.
    pub again: bool,
    pub retry_mode: RetryMode,
    pub retry: &'a RetryPolicy,
    pub reporter: &'a ProblemReporter,
    pub metrics: &'a Metrics,
}

/// Outputs still to be written, in order, and how often they were tried.
struct Attempt {
    outputs: Vec<u32>,
    attempts: u32,
}

impl Delivery<'_> {
    /// Writes what is to be done.
    pub async fn run(&self, pending: &PendingWrite) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        if pending.outputs.is_empty() {
            return outcome;
        }
        // A stack with the earliest segment on top keeps the order of the offsets while batches are halved.
        let mut stack = vec![Attempt {
            outputs: pending.outputs.clone(),
            attempts: pending.attempts,
        }];
        let mut outage = WriterOutage::default();
        while let Some(mut attempt) = stack.pop() {
            let waiting = |error: &str| wait_for_writer(self.reporter, outage.failures, error);
            let pass = self.breaker.admit(waiting).await;
            attempt.attempts += 1;
            let started = tokio::time::Instant::now();
            let batch = WriteBatch::new(self.batch, &attempt.outputs)
                .of_transaction(self.transaction)
                .after_a_wait(self.again);
            let result = self.writer.writer.write(batch).await;
            self.metrics.wrote(&self.writer.name, started.elapsed());
            match result {
                Ok(rejected) => {
                    pass.answered();
                    outage = WriterOutage::default();
                    self.reporter.recovered();
                    let written = attempt.outputs.len() - rejected.len();
                    self.metrics.written(&self.writer.name, written);
                    let mut again = HashSet::new();
                    let mut in_doubt = 0;
                    for record in rejected {
                        let Some(output) = attempt.outputs.get(record.position).copied() else {
                            continue;
                        };
                        if record.in_doubt && self.retry_mode == RetryMode::Never {
                            self.reporter.failing(attempt.attempts, &record.message);
                            in_doubt += 1;
                        } else if !record.retryable || attempt.attempts >= self.retry.max_attempts {
                            let refused = self.refused(vec![output], record.message, attempt.attempts);
                            outcome.refused.push(refused);
                        } else if matches!(
                            self.retry_mode,
                            RetryMode::Requeue | RetryMode::RequeueWithFollowers
                        ) {
                            outcome.later.push(RetryLater {
                                output,
                                attempts: attempt.attempts,
                                message: record.message,
                            });
                        } else {
                            self.reporter.failing(attempt.attempts, &record.message);
                            again.insert(output);
                        }
                    }
                    if in_doubt > 0 {
                        self.metrics.write_failed(&self.writer.name, "record");
                        self.metrics.given_up(&self.writer.name, in_doubt);
                        outcome.given_up += in_doubt;
                        tracing::warn!(
                            writer = %self.writer.name,
                            partition = %self.batch.chunk().partition,
                            records = in_doubt,
                            "records may be lost, because the writer does not know whether it has written them, and AtMostOnce never repeats a write"
                        );
                        // What comes next is not to have the same fate at once.
                        tokio::time::sleep(self.retry.random_backoff(attempt.attempts)).await;
                    }
                    if !(again.is_empty() && outcome.later.is_empty()) {
                        self.metrics.write_failed(&self.writer.name, "record");
                        self.metrics.retried(&self.writer.name);
                    }
                    if !again.is_empty() {
                        tokio::time::sleep(self.retry.random_backoff(attempt.attempts)).await;
                        attempt.outputs.retain(|output| again.contains(output));
                        stack.push(attempt);
                    }
                    if self.retry_mode == RetryMode::RequeueWithFollowers && !outcome.later.is_empty() {
                        let rest = stack.drain(..).flat_map(|attempt| attempt.outputs);
                        outcome.rest.extend(rest);
                    }
                }
                // The breaker stays closed: a spoiled transaction holds all lanes back by itself, and a lane that waited inside
                // would hold it up.
                Err(error) if self.retry_mode == RetryMode::AbortTransaction => {
                    let cause = match error {
                        WriteError::Refused(_) => Cause::Record,
                        WriteError::Transient(_) | WriteError::Fenced(_) => Cause::Unavailable,
                        WriteError::Systemic(_) => Cause::Systemic,
                    };
                    self.metrics.write_failed(&self.writer.name, cause.class());
                    let message = format!("writer {}: {error}", self.writer.name);
                    outcome.failure = Some(TransactionFailure::new(cause, message));
                    return outcome;
                }
                Err(WriteError::Refused(message)) => {
                    pass.answered();
                    self.metrics.write_failed(&self.writer.name, "record");
                    outage = WriterOutage::default();
                    if let Some(middle) = self.middle(&attempt.outputs) {
                        let right = attempt.outputs.split_off(middle);
                        for outputs in [right, attempt.outputs] {
                            stack.push(Attempt { outputs, attempts: 0 });
                        }
                    } else {
                        let refused = self.refused(attempt.outputs, message, attempt.attempts);
                        outcome.refused.push(refused);
                    }
                }
                Err(error) => {
                    let systemic = matches!(error, WriteError::Systemic(_));
                    self.metrics.write_failed(&self.writer.name, error.class());
                    let open = outage.failed(self, pass, &error);
                    if !open {
                        tokio::time::sleep(self.retry.outage_backoff(outage.failures, systemic)).await;
                    }
                    if self.retry_mode == RetryMode::Never && !systemic {
                        // The wait comes first, here or before the next batch: an outage must cost few of them, not all.
                        self.metrics.given_up(&self.writer.name, attempt.outputs.len());
                        outcome.given_up += attempt.outputs.len();
                        continue;
                    }
                    self.metrics.retried(&self.writer.name);
                    // An outage is nobody's fault but the system's: it uses up no attempts of the records.
                    stack.push(Attempt {
                        attempts: attempt.attempts - 1,
                        ..attempt
                    });
                }
            }
        }
        outcome
    }

    /// Where to halve a batch: between two records, so that the outputs of a record are written together or not at all. None
    /// when all are of one record.
    fn middle(&self, outputs: &[u32]) -> Option<usize> {
        let middle = (outputs.len() / 2).max(1);
        let between = |at: &usize| self.batch.source(outputs[at - 1]) != self.batch.source(outputs[*at]);
        (middle..outputs.len())
            .find(between)
            .or_else(|| (1..middle).rev().find(between))
    }

    /// `outputs` are of one record; there is at least one.
    fn refused(&self, outputs: Vec<u32>, message: String, attempts: u32) -> RefusedRecord {
        let failure = Failure {
            source: self.batch.source(outputs[0]) as usize,
            stage: Stage::Write,
            component: Arc::clone(&self.writer.name),
            message,
        };
        RefusedRecord {
            failure,
            attempts,
            outputs,
        }
    }
}

/// The outputs to be written again, and with `repeat` those after them with the same key: twice in the right order beats once
/// in the wrong one.
fn with_later_of_their_keys(batch: &Batch, outputs: &[u32], again: &HashSet<u32>, repeat: bool) -> Vec<u32> {
    let mut keys = HashSet::new();
    let mut repeated = |output: &u32| {
        let key = batch.output(*output as usize).record.key;
        let itself = again.contains(output);
        if itself && repeat {
            keys.extend(key);
        }
        itself || key.is_some_and(|key| keys.contains(key))
    };
    outputs
        .iter()
        .copied()
        .filter(|output| repeated(output))
        .collect()
}

/// Tells that a partition waits for a writer to come back.
pub(crate) fn wait_for_writer(reporter: &ProblemReporter, attempts: u32, error: &str) {
    reporter.failing(attempts, error);
    reporter.hold(PausedReason::WriterUnavailable);
}

/// Failures in a row that say the system behind the writer is away.
#[derive(Default)]
struct WriterOutage {
    failures: u32,
    since: Option<tokio::time::Instant>,
    /// For [`FailedCall::seen`].
    seen: Option<u64>,
}

impl WriterOutage {
    /// True when others wait as well.
    fn failed(&mut self, delivery: &Delivery<'_>, pass: Pass<'_>, error: &WriteError) -> bool {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert_with(tokio::time::Instant::now);
        let writer = &delivery.writer.name;
        let message = format!("writer {writer}: {error}");
        let systemic = matches!(error, WriteError::Systemic(_));
        let failed = FailedCall {
            systemic,
            failures: self.failures,
            seen: self.seen.replace(pass.answers()),
            error: &message,
        };
        // The system has answered one whose partition somebody else has claimed. The writer itself tells of that once.
        let fenced = matches!(error, WriteError::Fenced(_));
        let open = if fenced {
            pass.answered();
            false
        } else {
            pass.failed(failed, delivery.retry)
        };
        let lost = delivery.retry_mode == RetryMode::Never && !systemic;
        // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log. What all wait for is logged once.
        if self.failures.is_power_of_two() && (lost || !open) && !fenced {
            let partition = delivery.batch.chunk().partition.to_string();
            let next = match lost {
                true => "these records may be lost, because AtMostOnce never repeats a write",
                false => "trying again",
            };
            tracing::warn!(%writer, partition, attempt = self.failures, "{message}; {next}");
        }
        delivery.reporter.failing(self.failures, &message);
        if open || systemic || since.elapsed() >= UNAVAILABLE_AFTER {
            delivery.reporter.hold(PausedReason::WriterUnavailable);
        }
        open
    }
}

#[cfg(test)]
mod tests;
