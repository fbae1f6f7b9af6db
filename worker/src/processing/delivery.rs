//! Writes outputs with one writer until each of them is written, known to be refused, or to be tried later: backoff
//! without end when the system behind the writer is away, together with all others who write with it ([`Circuit`]),
//! halving when a batch is refused as a whole. Cancel-safe in the sense of at-least-once: a dropped call may have written a
//! part.

use std::{collections::HashSet, sync::Arc};

use crate::{
    health::{problems::Progress, snapshot::PausedReason},
    processing::batch_part::Todo,
    record::{
        batch::Batch,
        failure::{Failure, Stage},
    },
    retry::{RetryPolicy, UNAVAILABLE_AFTER},
    telemetry::Metrics,
    transaction::{Cause, Spoiled},
    writer::{
        NamedWriter, WriteBatch, WriteError,
        breaker::{Circuit, Failed, Pass},
    },
};

/// What to do when it does not work at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Hand back the records to be tried again, so that others go on meanwhile.
    HandBack,
    /// The same, and everything behind them that is not written yet, because it must not overtake them. Waiting for them here
    /// would take a lane from other partitions.
    HandBackWithRest,
    /// Never repeat a write that may have happened.
    Once,
    /// Give up at the first failure that is not a record's own: the writes are part of a transaction, which is spoiled.
    Rewind,
}

/// A record that stays refused, with the number of attempts it took.
#[derive(Debug)]
pub(crate) struct Refused {
    pub failure: Failure,
    pub attempts: u32,
    /// Of its outputs, those that are not written.
    pub outputs: Vec<u32>,
}

/// An output to be tried again after a while.
#[derive(Debug)]
pub(crate) struct Later {
    pub output: u32,
    pub attempts: u32,
    pub message: String,
}

/// What is not simply written.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub refused: Vec<Refused>,
    pub later: Vec<Later>,
    /// With [`Patience::HandBackWithRest`]: what was not begun.
    pub rest: Vec<u32>,
    /// Outputs that may or may not have been written, with [`Patience::Once`].
    pub given_up: usize,
    /// With [`Patience::Rewind`]: the transaction cannot be committed, and none of this counts.
    pub spoiled: Option<Spoiled>,
}

impl Delivered {
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
    pub circuit: &'a Circuit,
    pub batch: &'a Batch,
    /// Number of the transaction, with [`Patience::Rewind`].
    pub transaction: u64,
    /// What was refused before may be taken now.
    pub again: bool,
    pub patience: Patience,
    pub retry: &'a RetryPolicy,
    pub progress: &'a Progress,
    pub metrics: &'a Metrics,
}

/// Outputs still to be written, in order, and how often they were tried.
struct Segment {
    outputs: Vec<u32>,
    attempts: u32,
}

impl Delivery<'_> {
    /// Writes what is to be done.
    pub async fn run(&self, todo: &Todo) -> Delivered {
        let mut delivered = Delivered::default();
        if todo.outputs.is_empty() {
            return delivered;
        }
        // A stack with the earliest segment on top keeps the order of the offsets while batches are halved.
        let mut stack = vec![Segment {
            outputs: todo.outputs.clone(),
            attempts: todo.attempts,
        }];
        let mut outage = Outage::default();
        while let Some(mut segment) = stack.pop() {
            let waiting = |error: &str| wait_for_writer(self.progress, outage.failures, error);
            let pass = self.circuit.admit(waiting).await;
            segment.attempts += 1;
            let started = tokio::time::Instant::now();
            let batch = WriteBatch::new(self.batch, &segment.outputs)
                .of_transaction(self.transaction)
                .after_a_wait(self.again);
            let result = self.writer.writer.write(batch).await;
            self.metrics.wrote(&self.writer.name, started.elapsed());
            match result {
                Ok(rejected) => {
                    pass.answered();
                    outage = Outage::default();
                    self.progress.recovered();
                    let written = segment.outputs.len() - rejected.len();
                    self.metrics.written(&self.writer.name, written);
                    let mut again = HashSet::new();
                    let mut in_doubt = 0;
                    for record in rejected {
                        let Some(output) = segment.outputs.get(record.position).copied() else {
                            continue;
                        };
                        if record.in_doubt && self.patience == Patience::Once {
                            self.progress.failing(segment.attempts, &record.message);
                            in_doubt += 1;
                        } else if !record.retryable || segment.attempts >= self.retry.max_attempts {
                            let refused = self.refused(vec![output], record.message, segment.attempts);
                            delivered.refused.push(refused);
                        } else if matches!(self.patience, Patience::HandBack | Patience::HandBackWithRest) {
                            delivered.later.push(Later {
                                output,
                                attempts: segment.attempts,
                                message: record.message,
                            });
                        } else {
                            self.progress.failing(segment.attempts, &record.message);
                            again.insert(output);
                        }
                    }
                    if in_doubt > 0 {
                        self.metrics.write_failed(&self.writer.name, "record");
                        self.metrics.given_up(&self.writer.name, in_doubt);
                        delivered.given_up += in_doubt;
                        tracing::warn!(
                            writer = %self.writer.name,
                            partition = %self.batch.chunk().partition,
                            records = in_doubt,
                            "records may be lost, because the writer does not know whether it has written them, and AtMostOnce never repeats a write"
                        );
                        // What comes next is not to have the same fate at once.
                        tokio::time::sleep(self.retry.random_backoff(segment.attempts)).await;
                    }
                    if !(again.is_empty() && delivered.later.is_empty()) {
                        self.metrics.write_failed(&self.writer.name, "record");
                        self.metrics.retried(&self.writer.name);
                    }
                    if !again.is_empty() {
                        tokio::time::sleep(self.retry.random_backoff(segment.attempts)).await;
                        segment.outputs.retain(|output| again.contains(output));
                        stack.push(segment);
                    }
                    if self.patience == Patience::HandBackWithRest && !delivered.later.is_empty() {
                        let rest = stack.drain(..).flat_map(|segment| segment.outputs);
                        delivered.rest.extend(rest);
                    }
                }
                // The breaker stays closed: a spoiled transaction holds all lanes back by itself, and a lane that waited inside
                // would hold it up.
                Err(error) if self.patience == Patience::Rewind => {
                    let cause = match error {
                        WriteError::Refused(_) => Cause::Record,
                        WriteError::Transient(_) | WriteError::Fenced(_) => Cause::Unavailable,
                        WriteError::Systemic(_) => Cause::Systemic,
                    };
                    self.metrics.write_failed(&self.writer.name, cause.class());
                    let message = format!("writer {}: {error}", self.writer.name);
                    delivered.spoiled = Some(Spoiled::new(cause, message));
                    return delivered;
                }
                Err(WriteError::Refused(message)) => {
                    pass.answered();
                    self.metrics.write_failed(&self.writer.name, "record");
                    outage = Outage::default();
                    if let Some(middle) = self.middle(&segment.outputs) {
                        let right = segment.outputs.split_off(middle);
                        for outputs in [right, segment.outputs] {
                            stack.push(Segment { outputs, attempts: 0 });
                        }
                    } else {
                        let refused = self.refused(segment.outputs, message, segment.attempts);
                        delivered.refused.push(refused);
                    }
                }
                Err(error) => {
                    let systemic = matches!(error, WriteError::Systemic(_));
                    self.metrics.write_failed(&self.writer.name, error.class());
                    let open = outage.failed(self, pass, &error);
                    if !open {
                        tokio::time::sleep(self.retry.outage_backoff(outage.failures, systemic)).await;
                    }
                    if self.patience == Patience::Once && !systemic {
                        // The wait comes first, here or before the next batch: an outage must cost few of them, not all.
                        self.metrics.given_up(&self.writer.name, segment.outputs.len());
                        delivered.given_up += segment.outputs.len();
                        continue;
                    }
                    self.metrics.retried(&self.writer.name);
                    // An outage is nobody's fault but the system's: it uses up no attempts of the records.
                    stack.push(Segment {
                        attempts: segment.attempts - 1,
                        ..segment
                    });
                }
            }
        }
        delivered
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
    fn refused(&self, outputs: Vec<u32>, message: String, attempts: u32) -> Refused {
        let failure = Failure {
            source: self.batch.source(outputs[0]) as usize,
            stage: Stage::Write,
            component: Arc::clone(&self.writer.name),
            message,
        };
        Refused {
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
pub(crate) fn wait_for_writer(progress: &Progress, attempts: u32, error: &str) {
    progress.failing(attempts, error);
    progress.hold(PausedReason::WriterUnavailable);
}

/// Failures in a row that say the system behind the writer is away.
#[derive(Default)]
struct Outage {
    failures: u32,
    since: Option<tokio::time::Instant>,
    /// For [`Failed::seen`].
    seen: Option<u64>,
}

impl Outage {
    /// True when others wait as well.
    fn failed(&mut self, delivery: &Delivery<'_>, pass: Pass<'_>, error: &WriteError) -> bool {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert_with(tokio::time::Instant::now);
        let writer = &delivery.writer.name;
        let message = format!("writer {writer}: {error}");
        let systemic = matches!(error, WriteError::Systemic(_));
        let failed = Failed {
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
        let lost = delivery.patience == Patience::Once && !systemic;
        // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log. What all wait for is logged once.
        if self.failures.is_power_of_two() && (lost || !open) && !fenced {
            let partition = delivery.batch.chunk().partition.to_string();
            let next = match lost {
                true => "these records may be lost, because AtMostOnce never repeats a write",
                false => "trying again",
            };
            tracing::warn!(%writer, partition, attempt = self.failures, "{message}; {next}");
        }
        delivery.progress.failing(self.failures, &message);
        if open || systemic || since.elapsed() >= UNAVAILABLE_AFTER {
            delivery.progress.hold(PausedReason::WriterUnavailable);
        }
        open
    }
}

#[cfg(test)]
mod tests;
