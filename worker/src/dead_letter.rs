//! Writes failed records to the dead letter topic, byte for byte, with headers that say where each record
//! came from and why it failed. A record counts as finished only after the broker has confirmed the copy.
//! While the topic does not accept records, the partition waits. What the topic refuses for good is written
//! in another form ([`form`]).

mod breaker;
mod form;
mod headers;
mod partition_breakers;

use std::sync::Arc;

use crate::{
    health::{problems::ProblemReporter, snapshot::PausedReason},
    kafka::producer::{ProduceRecord, Producer, SendError},
    record::{
        Chunk, Record,
        failure::{FailedRecord, FailureClass},
    },
    retry::{RetryPolicy, UNAVAILABLE_AFTER, is_logged},
    seeded_bugs::{impatient, now_and_then, seeded_bug},
    transaction::{Cause, RejectedRecords, TransactionFailure},
};

pub(crate) use self::{breaker::Exceeded, partition_breakers::BreakerRefusal};
pub use self::{breaker::Limits as BreakerLimits, headers::HEADER_PREFIX};
use self::{
    form::{Form, Letter},
    headers::Headers,
    partition_breakers::PartitionBreakers,
};
use crds::spec::{HeaderStyle, OnRefused};

/// The parts of `spec.errorHandling.deadLetter` that workers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// Name of the topic.
    pub topic: String,
    /// Which headers are added.
    pub style: HeaderStyle,
    /// What happens to a record whose dead letter the topic refuses in every form.
    pub on_refused: OnRefused,
    /// Limits of failures, after which the worker stops writing to it.
    pub breaker: Option<BreakerLimits>,
}

/// The dead letter topic of the group.
pub struct DeadLetters {
    producer: Producer,
    topic: String,
    headers: Headers,
    on_refused: OnRefused,
    /// With a transactional producer: dead letters that brokers have rejected.
    rejected_records: Option<Arc<RejectedRecords>>,
    breakers: Option<PartitionBreakers>,
}

/// Failed records that are not in the dead letter topic.
#[derive(Debug, Default)]
pub(crate) struct NotWritten {
    /// Indices of those whose partition has to wait, with what the topic says.
    pub stopped: Vec<(usize, String)>,
    /// Indices of those that were dropped.
    pub dropped: Vec<usize>,
}

/// Dead letters that have to be written, and those that cannot.
struct Sending<'r> {
    failed: &'r [(Record<'r>, &'r FailedRecord)],
    /// Indices and forms.
    pending: Vec<(usize, Form)>,
    not_written: NotWritten,
}

impl DeadLetters {
    /// Sends with `producer`; `group` and `worker` go into the headers. `rejected_records` belongs to a
    /// transactional producer.
    pub fn new(
        producer: Producer,
        settings: DeadLetterSettings,
        group: String,
        worker: String,
        rejected_records: Option<Arc<RejectedRecords>>,
    ) -> Self {
        let DeadLetterSettings {
            topic,
            style,
            on_refused,
            breaker,
        } = settings;
        Self {
            producer,
            topic,
            headers: Headers { style, group, worker },
            on_refused,
            rejected_records,
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
    /// take minutes or hours. Returns those that the topic refuses in every form. With ExactlyOnce it writes
    /// in the transaction of the number `transaction`, and the first failure makes the transaction fail.
    /// `again` is true if the records have waited, because the topic may accept them now.
    pub(crate) async fn write(
        &self,
        failed: &[(Record<'_>, &FailedRecord)],
        transaction: u64,
        again: bool,
        retry: &RetryPolicy,
        reporter: &ProblemReporter,
    ) -> Result<NotWritten, TransactionFailure> {
        let mut sending = self.start(failed, again);
        if seeded_bug("drop-dead-letter") && now_and_then(5) {
            sending.pending.clear();
        }
        if seeded_bug("dead-letter-twice") {
            sending.pending.extend_from_within(..);
        }
        let mut failures = 0;
        let started = tokio::time::Instant::now();
        while !sending.pending.is_empty() {
            let Some(error) = self.send(&mut sending, transaction).await? else {
                continue;
            };
            failures += 1;
            let message = format!("dead letter topic {}: {error}", self.topic);
            if self.producer.is_transactional() {
                return Err(self.transaction_failure(&error));
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
        Ok(sending.not_written)
    }

    /// In which form each record has to be sent, from what is known of it.
    fn start<'r>(&self, failed: &'r [(Record<'r>, &'r FailedRecord)], again: bool) -> Sending<'r> {
        let mut sending = Sending {
            failed,
            pending: Vec::with_capacity(failed.len()),
            not_written: NotWritten::default(),
        };
        for (at, (record, _)) in failed.iter().enumerate() {
            let form = match &self.rejected_records {
                Some(rejected_records) => {
                    let refusals = rejected_records.refusals(record);
                    Form::after_all(&refusals, record).or_else(|| {
                        again.then(|| rejected_records.forget_refusals(record))?;
                        Some(Form::default())
                    })
                }
                None => Some(Form::default()),
            };
            match form {
                Some(form) => sending.pending.push((at, form)),
                None => self.give_up(&mut sending, at, "it refuses every form of this dead letter"),
            }
        }
        sending
    }

    /// Sends what is pending. Returns the first error that says nothing about its record.
    async fn send(
        &self,
        sending: &mut Sending<'_>,
        transaction: u64,
    ) -> Result<Option<SendError>, TransactionFailure> {
        // If the count is unknown, the key selects the partition. A missing topic is an error of the send.
        let partitions = self.producer.partition_count(&self.topic).await.ok();
        let pending = std::mem::take(&mut sending.pending);
        let failed = sending.failed;
        let letters: Vec<Letter<'_>> = (pending.iter())
            .map(|(at, form)| {
                let (record, failed) = &failed[*at];
                Letter::new(*form, *record, self.headers.of(record, failed))
            })
            .collect();
        let records: Vec<ProduceRecord<'_>> = (pending.iter().zip(&letters))
            .map(|((at, _), letter)| self.produce(&failed[*at].0, letter, partitions))
            .collect();
        let send = self.producer.send_in(transaction, &records);
        let results = if seeded_bug("dead-letter-not-awaited") {
            impatient(send, || vec![Ok(()); records.len()]).await
        } else {
            send.await
        };
        let (mut first_error, mut doubt) = (None, None);
        for (((at, form), result), produced) in pending.into_iter().zip(results).zip(&records) {
            let Err(error) = result else { continue };
            let record = &failed[at].0;
            match error.refusal {
                Some(_) if error.in_doubt => {
                    if let Some(rejected_records) = &self.rejected_records {
                        rejected_records.suspect_dead_letter(record, produced);
                    }
                    doubt.get_or_insert(error);
                }
                Some(refusal) => {
                    // With transactions, the batch may be processed again before its records are finished.
                    if let Some(rejected_records) = &self.rejected_records {
                        rejected_records.refused(record, refusal);
                    }
                    match form.after(refusal, record) {
                        Some(next) => sending.pending.push((at, next)),
                        None => self.give_up(sending, at, &error.message),
                    }
                }
                None => {
                    sending.pending.push((at, form));
                    first_error.get_or_insert(error);
                }
            }
        }
        match doubt {
            Some(error) => Err(self.transaction_failure(&error)),
            None => Ok(first_error),
        }
    }

    /// The topic refuses every form of this dead letter.
    fn give_up(&self, sending: &mut Sending<'_>, at: usize, why: &str) {
        let (record, failed) = &sending.failed[at];
        match self.on_refused {
            OnRefused::Drop => {
                sending.not_written.dropped.push(at);
                tracing::warn!(
                    topic = %self.topic,
                    partition = %record.partition(),
                    offset = record.offset,
                    "dropped a failed record, because the dead letter topic refuses it: {why}; the record's \
                     error: {}",
                    failed.failure.message
                );
            }
            OnRefused::Stop => {
                let message = format!("dead letter topic {} refuses the record: {why}", self.topic);
                sending.not_written.stopped.push((at, message));
            }
        }
    }

    fn transaction_failure(&self, error: &SendError) -> TransactionFailure {
        let cause = match error.class {
            FailureClass::Record => Cause::Record,
            FailureClass::Systemic => Cause::Systemic,
            FailureClass::Transient => Cause::Unavailable,
        };
        TransactionFailure {
            message: format!("dead letter topic {}: {error}", self.topic),
            cause,
            reason: PausedReason::DeadLetterUnavailable,
        }
    }

    fn produce<'a>(
        &'a self,
        record: &Record<'a>,
        letter: &'a Letter<'a>,
        partitions: Option<i32>,
    ) -> ProduceRecord<'a> {
        // The same partition number keeps the order of a key's dead letters. If it does not exist, the key
        // selects one.
        let source = record.partition().partition;
        let partition = partitions.filter(|count| source < *count).map(|_| source);
        let headers = self.headers.beside(record, letter.headers());
        letter.produce(&self.topic, partition, headers)
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
