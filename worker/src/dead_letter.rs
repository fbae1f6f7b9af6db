//! Writes failed records to the dead letter topic, byte for byte, with headers that say where each record
//! came from and why it failed. A record counts as finished only after the broker has confirmed the copy.
//! While the topic does not accept records, the partition waits.

mod breaker;
mod headers;
mod partition_breakers;

use std::sync::Arc;

use crate::{
    health::{problems::ProblemReporter, snapshot::PausedReason},
    kafka::producer::{ProduceRecord, Producer},
    record::{
        Chunk, Record,
        failure::{FailedRecord, FailureClass},
    },
    retry::{RetryPolicy, UNAVAILABLE_AFTER, is_logged},
    seeded_bugs::{impatient, now_and_then, seeded_bug},
    transaction::{Cause, TransactionFailure},
};

pub(crate) use self::{breaker::Exceeded, partition_breakers::BreakerRefusal};
pub use self::{breaker::Limits as BreakerLimits, headers::HEADER_PREFIX};
use self::{
    headers::{Header, Headers},
    partition_breakers::PartitionBreakers,
};
use crds::spec::HeaderStyle;

/// The parts of `spec.errorHandling.deadLetter` that workers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// Name of the topic.
    pub topic: String,
    /// Which headers are added.
    pub style: HeaderStyle,
    /// Limits of failures, after which the worker stops writing to it.
    pub breaker: Option<BreakerLimits>,
}

/// The dead letter topic of the group.
pub struct DeadLetters {
    producer: Producer,
    topic: String,
    headers: Headers,
    breakers: Option<PartitionBreakers>,
}

impl DeadLetters {
    /// Sends with `producer`; `group` and `worker` go into the headers.
    pub fn new(producer: Producer, settings: DeadLetterSettings, group: String, worker: String) -> Self {
        let DeadLetterSettings {
            topic,
            style,
            breaker,
        } = settings;
        Self {
            producer,
            topic,
            headers: Headers { style, group, worker },
            breakers: breaker.map(PartitionBreakers::new),
        }
    }

    /// Counts `records` records of `chunk`; those at the positions `failed` (ascending, each once) failed.
    /// Returns the first one that must not be written because too many records fail; the failed records
    /// before it may be written.
    pub(crate) fn admit(&self, chunk: &Chunk, records: usize, failed: &[usize]) -> Option<BreakerRefusal> {
        self.breakers.as_ref()?.admit(chunk, records, failed)
    }

    /// Returns what [`DeadLetters::admit`] would return, without counting.
    pub(crate) fn would_refuse(
        &self,
        chunk: &Chunk,
        records: usize,
        failed: &[usize],
    ) -> Option<BreakerRefusal> {
        self.breakers.as_ref()?.would_refuse(chunk, records, failed)
    }

    /// The refused record was processed: resets the breaker.
    pub(crate) fn close_breaker(&self, chunk: &Chunk) {
        if let Some(breakers) = &self.breakers {
            breakers.close(chunk);
        }
    }

    /// Writes all `failed` records in order and returns when the broker has confirmed each of them, which may
    /// take minutes or hours. With ExactlyOnce it writes in the transaction of the number `transaction`, and
    /// the first failure makes the transaction fail.
    pub(crate) async fn write(
        &self,
        failed: &[(Record<'_>, &FailedRecord)],
        transaction: u64,
        retry: &RetryPolicy,
        reporter: &ProblemReporter,
    ) -> Result<(), TransactionFailure> {
        let mut pending: Vec<usize> = (0..failed.len()).collect();
        if seeded_bug("drop-dead-letter") && now_and_then(5) {
            pending.clear();
        }
        if seeded_bug("dead-letter-twice") {
            pending.extend(0..failed.len());
        }
        let mut failures = 0;
        let started = tokio::time::Instant::now();
        while !pending.is_empty() {
            // If the count is unknown, the key selects the partition. A missing topic is an error of the
            // send.
            let partitions = self.producer.partition_count(&self.topic).await.ok();
            let headers: Vec<Vec<Header>> = pending
                .iter()
                .map(|at| self.headers.of(&failed[*at].0, failed[*at].1))
                .collect();
            let records: Vec<ProduceRecord<'_>> = pending
                .iter()
                .zip(&headers)
                .map(|(at, headers)| self.copy(&failed[*at].0, headers, partitions))
                .collect();
            let send = self.producer.send_in(transaction, &records);
            let results = if seeded_bug("dead-letter-not-awaited") {
                impatient(send, || vec![Ok(()); records.len()]).await
            } else {
                send.await
            };
            let mut error = None;
            let mut results = results.into_iter();
            pending.retain(|_| match results.next() {
                Some(Ok(())) => false,
                Some(Err(cause)) => {
                    error.get_or_insert(cause);
                    true
                }
                None => true,
            });
            let Some(error) = error else { continue };
            failures += 1;
            let message = format!("dead letter topic {}: {error}", self.topic);
            if self.producer.is_transactional() {
                let cause = match error.class {
                    FailureClass::Systemic | FailureClass::Record => Cause::Systemic,
                    FailureClass::Transient => Cause::Unavailable,
                };
                return Err(TransactionFailure {
                    message,
                    cause,
                    reason: PausedReason::DeadLetterUnavailable,
                });
            }
            if is_logged(failures) {
                tracing::warn!(topic = %self.topic, attempt = failures, "{message}; retrying, and committing no offset past these records");
            }
            reporter.failing(failures, &message);
            if started.elapsed() >= UNAVAILABLE_AFTER {
                reporter.pause(PausedReason::DeadLetterUnavailable);
            }
            tokio::time::sleep(retry.random_backoff(failures)).await;
        }
        reporter.recovered();
        Ok(())
    }

    fn copy<'a>(
        &'a self,
        record: &Record<'a>,
        headers: &'a [Header],
        partitions: Option<i32>,
    ) -> ProduceRecord<'a> {
        // The same partition number keeps the order of a key's dead letters. If it does not exist, the key
        // selects one.
        let source = record.partition().partition;
        let partition = partitions.filter(|count| source < *count).map(|_| source);
        ProduceRecord {
            topic: &self.topic,
            partition,
            timestamp: (record.timestamp >= 0).then_some(record.timestamp),
            key: record.key,
            value: record.value,
            headers: self.headers.beside(record, headers),
        }
    }
}

/// What happens to a record that cannot be processed.
#[derive(Clone)]
pub enum FailurePolicy {
    /// Write it to the dead letter topic.
    DeadLetter(Arc<DeadLetters>),
    /// Wait at it and retry it.
    Stop,
    /// Drop it and count it.
    Skip,
}

impl FailurePolicy {
    /// Counts `records` records of `chunk` that did not fail.
    pub(crate) fn passed(&self, chunk: &Chunk, records: usize) {
        if let Self::DeadLetter(topic) = self {
            topic.admit(chunk, records, &[]);
        }
    }
}
