//! The dead letter topic: the record byte for byte, with headers that say where it came from and why it is there. A
//! record counts as finished only after the broker has confirmed the copy; while the topic does not take records, the
//! partition waits.

mod breaker;
mod headers;
mod partition_breakers;

use std::sync::Arc;

use crate::{
    health::{problems::ProblemReporter, snapshot::PausedReason},
    kafka::producer::{ErrorClass, ProduceRecord, Producer},
    record::{Chunk, Record, failure::FailedRecord},
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

/// `spec.errorHandling.deadLetter`, the parts that workers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// Name of the topic.
    pub topic: String,
    /// Which headers are added.
    pub style: HeaderStyle,
    /// When to stop writing to it.
    pub breaker: Option<BreakerLimits>,
}

/// Where failed records go.
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

    /// Counts so many records of `chunk`, of which those at the positions `failed` (ascending, each once) failed. The first
    /// that must not be written because too many fail, if there is one; then the ones before it may.
    pub(crate) fn admit(&self, chunk: &Chunk, records: usize, failed: &[usize]) -> Option<BreakerRefusal> {
        self.breakers.as_ref()?.admit(chunk, records, failed)
    }

    /// What [`DeadLetters::admit`] would answer, without counting anything.
    pub(crate) fn would_refuse(
        &self,
        chunk: &Chunk,
        records: usize,
        failed: &[usize],
    ) -> Option<BreakerRefusal> {
        self.breakers.as_ref()?.would_refuse(chunk, records, failed)
    }

    /// The record that was not admitted has passed.
    pub(crate) fn close_breaker(&self, chunk: &Chunk) {
        if let Some(breakers) = &self.breakers {
            breakers.close(chunk);
        }
    }

    /// Writes all letters, in order, and returns when every one of them is confirmed: after minutes or hours if need
    /// be. Inside of a transaction, of which this is the number, the first failure spoils it.
    pub(crate) async fn write(
        &self,
        letters: &[(Record<'_>, &FailedRecord)],
        transaction: u64,
        retry: &RetryPolicy,
        reporter: &ProblemReporter,
    ) -> Result<(), TransactionFailure> {
        let mut todo: Vec<usize> = (0..letters.len()).collect();
        if seeded_bug("drop-dead-letter") && now_and_then(5) {
            todo.clear();
        }
        if seeded_bug("dead-letter-twice") {
            todo.extend(0..letters.len());
        }
        let mut failures = 0;
        let started = tokio::time::Instant::now();
        while !todo.is_empty() {
            // Unknown for now: the key decides; whether the topic is there, the send itself tells.
            let partitions = self.producer.partition_count(&self.topic).await.ok();
            let headers: Vec<Vec<Header>> = todo
                .iter()
                .map(|at| self.headers.of(&letters[*at].0, letters[*at].1))
                .collect();
            let records: Vec<ProduceRecord<'_>> = todo
                .iter()
                .zip(&headers)
                .map(|(at, headers)| self.copy(&letters[*at].0, headers, partitions))
                .collect();
            let send = self.producer.send_in(transaction, &records);
            let results = if seeded_bug("dead-letter-not-awaited") {
                impatient(send, || vec![Ok(()); records.len()]).await
            } else {
                send.await
            };
            let mut error = None;
            let mut results = results.into_iter();
            todo.retain(|_| match results.next() {
                Some(Ok(())) => false,
                Some(Err(failed)) => {
                    error.get_or_insert(failed);
                    true
                }
                None => true,
            });
            let Some(error) = error else { continue };
            failures += 1;
            let message = format!("dead letter topic {}: {error}", self.topic);
            if self.producer.is_transactional() {
                let cause = match error.class {
                    ErrorClass::Systemic | ErrorClass::Record => Cause::Systemic,
                    ErrorClass::Transient => Cause::Unavailable,
                };
                return Err(TransactionFailure {
                    message,
                    cause,
                    reason: PausedReason::DeadLetterUnavailable,
                });
            }
            if is_logged(failures) {
                tracing::warn!(topic = %self.topic, attempt = failures, "{message}; nothing is committed past these records");
            }
            reporter.failing(failures, &message);
            if started.elapsed() >= UNAVAILABLE_AFTER {
                reporter.hold(PausedReason::DeadLetterUnavailable);
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
        // The same partition keeps the order of a key's dead letters; without it, the key decides.
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
    /// Wait at it.
    Stop,
    /// Drop and count it.
    Skip,
}

impl FailurePolicy {
    /// Takes note of so many records of a chunk that did not fail.
    pub(crate) fn passed(&self, chunk: &Chunk, records: usize) {
        if let Self::DeadLetter(queue) = self {
            queue.admit(chunk, records, &[]);
        }
    }
}
