//! Writes a batch with one writer until every record of it is either written or known to be refused: backoff without end
//! when the system behind the writer is away, halving when a batch is refused as a whole, bounded attempts for records
//! that are refused one by one. Cancel-safe in the sense of at-least-once: a dropped call may have written a part.

use std::{sync::Arc, time::Duration};

use crate::{
    batch::{Batch, Failure, Stage},
    progress::Progress,
    retry::RetryPolicy,
    settings::NamedWriter,
    snapshot::PausedReason,
    telemetry::Metrics,
    writer::{WriteBatch, WriteError},
};

/// After this long without success the partition counts as held back by the writer and stops being read: long enough
/// for a reconnect or a leader change, short against the 30 s in which the resource's status must tell.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(5);

/// A record that stays refused, with the number of attempts it took.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong with it.
    pub failure: Failure,
    /// Attempts to write it.
    pub attempts: u32,
}

/// Outputs still to be written, in order, and how often they were tried.
struct Segment {
    outputs: Vec<u32>,
    attempts: u32,
}

/// Writes all of `batch`; returns the records that the writer refuses for good.
pub async fn deliver(
    writer: &NamedWriter,
    batch: &Batch,
    retry: &RetryPolicy,
    progress: &Progress,
    metrics: &Metrics,
) -> Vec<Refused> {
    let mut refused: Vec<Refused> = Vec::new();
    if batch.is_empty() {
        return refused;
    }
    // A stack with the earliest segment on top keeps the order of the offsets while batches are halved.
    let mut todo = vec![Segment {
        outputs: (0..batch.len() as u32).collect(),
        attempts: 0,
    }];
    let mut outage = Outage::default();
    while let Some(mut segment) = todo.pop() {
        segment.attempts += 1;
        let started = tokio::time::Instant::now();
        let result = writer
            .writer
            .write(WriteBatch::new(batch, &segment.outputs))
            .await;
        metrics.wrote(&writer.name, started.elapsed());
        match result {
            Ok(rejected) => {
                outage = Outage::default();
                progress.recovered();
                metrics.written(&writer.name, segment.outputs.len() - rejected.len());
                let mut again = Vec::new();
                for record in rejected {
                    let Some(output) = segment.outputs.get(record.position).copied() else {
                        continue;
                    };
                    if record.retryable && segment.attempts < retry.max_attempts {
                        progress.failing(segment.attempts, &record.message);
                        again.push(output);
                    } else {
                        refused.push(refusal(writer, batch, output, record.message, segment.attempts));
                    }
                }
                if !again.is_empty() {
                    metrics.write_failed(&writer.name, "record");
                    metrics.retried(&writer.name);
                    tokio::time::sleep(retry.random_backoff(segment.attempts)).await;
                    todo.push(Segment {
                        outputs: again,
                        attempts: segment.attempts,
                    });
                }
            }
            Err(WriteError::Refused(message)) => {
                metrics.write_failed(&writer.name, "record");
                outage = Outage::default();
                if let [output] = segment.outputs[..] {
                    refused.push(refusal(writer, batch, output, message, segment.attempts));
                } else {
                    let right = segment.outputs.split_off(segment.outputs.len() / 2);
                    todo.push(Segment {
                        outputs: right,
                        attempts: 0,
                    });
                    todo.push(Segment {
                        outputs: segment.outputs,
                        attempts: 0,
                    });
                }
            }
            Err(error @ (WriteError::Transient(_) | WriteError::Systemic(_))) => {
                let systemic = matches!(error, WriteError::Systemic(_));
                metrics.write_failed(&writer.name, if systemic { "systemic" } else { "transient" });
                outage.failed(writer, &error, batch, progress);
                // Somebody must mend a systemic error, so there is no use in hurrying.
                let wait = retry.random_backoff(if systemic {
                    outage.failures.max(3)
                } else {
                    outage.failures
                });
                metrics.retried(&writer.name);
                tokio::time::sleep(wait).await;
                // An outage is nobody's fault but the system's: it uses up no attempts of the records.
                todo.push(Segment {
                    attempts: segment.attempts - 1,
                    ..segment
                });
            }
        }
    }
    refused
}

/// Failures in a row that say the system behind the writer is away.
#[derive(Default)]
struct Outage {
    failures: u32,
    since: Option<tokio::time::Instant>,
}

impl Outage {
    fn failed(&mut self, writer: &NamedWriter, error: &WriteError, batch: &Batch, progress: &Progress) {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert_with(tokio::time::Instant::now);
        let message = format!("writer {}: {error}", writer.name);
        // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log.
        if self.failures.is_power_of_two() {
            let partition = batch.chunk().partition.to_string();
            tracing::warn!(writer = %writer.name, partition, attempt = self.failures, "{message}; trying again");
        }
        progress.failing(self.failures, &message);
        if matches!(error, WriteError::Systemic(_)) || since.elapsed() >= UNAVAILABLE_AFTER {
            progress.hold(PausedReason::WriterUnavailable);
        }
    }
}

fn refusal(writer: &NamedWriter, batch: &Batch, output: u32, message: String, attempts: u32) -> Refused {
    let failure = Failure {
        source: batch.output(output as usize).source,
        stage: Stage::Write,
        component: Arc::clone(&writer.name),
        message,
    };
    Refused { failure, attempts }
}
