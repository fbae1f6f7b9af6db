//! The worker's producer, for the Kafka writer and for dead letters. It takes slices of records and answers
//! when the broker has answered for each of them. Every wait is asynchronous; librdkafka delivers its reports
//! on a separate thread. The producer never blocks a tokio worker, never drops a record silently, and never
//! decides what a failed record means.
//!
//! A broker rejects whole record batches, including valid records in them. The producer sends the records of
//! a rejected batch again one by one, through a second client that makes no batches. So a
//! [`FailureClass::Record`] always concerns that record. Later records with the same key are sent again after
//! them: twice in the right order is better than once in the wrong order.
//!
//! A transactional producer has no such client, because a failed record aborts its transaction anyway. It
//! marks records that a broker rejected together with others as [`SendError::in_doubt`]. It has two clients
//! that take turns instead ([`TransactionalClient`]), so that records can be sent while the previous
//! transaction is being committed.

mod classify;
mod client;
mod partitioner;
mod partitions;
mod pending;
mod record;
mod transactional;

use std::{collections::HashSet, sync::Arc, time::Duration};

use crds::client_config::Properties;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use client::{Client, ClientSlot};
use partitions::Partitions;
use pending::PendingBatches;
pub use record::{ProduceRecord, timestamp_of};
use record::{native, with_later_records_of_their_keys};
pub use transactional::{TransactionError, TransactionErrorKind, TransactionalClient};

use crate::record::failure::FailureClass;

/// librdkafka's reports say when a full queue has room. This recheck covers a report that came before we
/// listened.
const QUEUE_FULL_RECHECK: Duration = Duration::from_millis(100);
/// Enqueueing costs about a microsecond per record. After this many, the task yields its thread.
const ENQUEUE_SLICE: usize = 512;

/// A record that the broker did not confirm. With class `Transient` it may have been written nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What is wrong and what to do. Names the topic; never contains the key or the value.
    pub message: String,
    /// What the failure means.
    pub class: FailureClass,
    /// With class `Record`: what is refused.
    pub refusal: Option<Refusal>,
    /// True if the client had a fatal error and is replaced by a new one; the caller only has to send again.
    pub fatal: bool,
    /// True if the broker rejected the record together with others, so that the record may be valid.
    pub in_doubt: bool,
}

/// What of a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than the topic or the client allows.
    TooLarge,
    /// Its timestamp is out of the topic's bounds.
    Timestamp,
    /// The name of a header is not UTF-8.
    HeaderName,
    /// The record; the broker does not say more. Usually a compacted topic and no key.
    Record,
}

/// Why the producer cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka rejects a property. The message does not show its value, which may be a secret.
    #[error(
        "the Kafka producer refuses the property {key:?}: {reason}; correct it in spec.kafka.clientConfig"
    )]
    Property { key: String, reason: String },
    /// librdkafka rejects the combination of properties.
    #[error("the Kafka producer cannot be created: {0}; check spec.kafka and its Secrets")]
    Create(String),
}

impl From<KafkaError> for ProducerError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, key, _) => ProducerError::Property { key, reason },
            other => ProducerError::Create(other.to_string()),
        }
    }
}

/// A handle to the producer; clones share it.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<ProducerState>,
}

struct ProducerState {
    /// One client, or two in a transactional producer.
    batched: Vec<ClientSlot>,
    /// For records that a broker rejected together with others; `None` with transactions.
    alone: Option<ClientSlot>,
    pending: Arc<PendingBatches>,
    partitions: Partitions,
}

impl ProducerState {
    fn of(&self, transaction: u64) -> &ClientSlot {
        &self.batched[transaction as usize % self.batched.len()]
    }
}

impl Producer {
    /// Creates the client, which connects in the background.
    pub fn new(properties: &Properties) -> Result<Self, ProducerError> {
        let mut unbatched = properties.clone();
        unbatched.insert("batch.num.messages".into(), "1".into());
        unbatched.insert("linger.ms".into(), "0".into());
        Self::create(vec![properties.clone()], Some(unbatched))
    }

    fn create(batched: Vec<Properties>, unbatched: Option<Properties>) -> Result<Self, ProducerError> {
        let pending = Arc::new(PendingBatches::default());
        let slot = |properties| ClientSlot::new(properties, pending.clone());
        let batched: Vec<ClientSlot> = batched.into_iter().map(slot).collect();
        // The first client is enough to check the properties: those of the others are the same.
        if let Some(Err(error)) = batched.first().map(ClientSlot::client) {
            return Err(match error {
                client::NoClient::Create(error) => error,
                client::NoClient::Closed => ProducerError::Create("closed".into()),
            });
        }
        let alone = unbatched.map(slot);
        Ok(Self {
            shared: Arc::new(ProducerState {
                batched,
                alone,
                pending,
                partitions: Partitions::default(),
            }),
        })
    }

    /// Sends records in order and waits until the broker has answered for each of them, or
    /// `message.timeout.ms` is over. The result has one entry per record.
    pub async fn send(&self, records: &[ProduceRecord<'_>]) -> Vec<Result<(), SendError>> {
        self.send_in(0, records).await
    }

    /// Like [`Producer::send`], in the transaction with this number. Even numbers belong to the first
    /// [`TransactionalClient`].
    pub async fn send_in(
        &self,
        transaction: u64,
        records: &[ProduceRecord<'_>],
    ) -> Vec<Result<(), SendError>> {
        let mut results = vec![Ok(()); records.len()];
        let everything: Vec<usize> = (0..records.len()).collect();
        let failures = self
            .attempt(self.shared.of(transaction), transaction, records, &everything)
            .await;
        let Some(alone) = &self.shared.alone else {
            for failure in failures {
                results[failure.position] = Err(SendError {
                    in_doubt: failure.suspect,
                    ..failure.error
                });
            }
            return results;
        };
        let suspects: Vec<usize> = failures
            .iter()
            .filter(|failure| failure.suspect)
            .map(|failure| failure.position)
            .collect();
        for failure in failures.into_iter().filter(|failure| !failure.suspect) {
            results[failure.position] = Err(failure.error);
        }
        if !suspects.is_empty() {
            let again = with_later_records_of_their_keys(records, &suspects);
            for position in &again {
                results[*position] = Ok(());
            }
            for failure in self.attempt(alone, transaction, records, &again).await {
                results[failure.position] = Err(failure.error);
            }
        }
        results
    }

    /// The latest problem with brokers or logins, which is why a send takes long; `None` after a success.
    pub fn problem(&self) -> Option<String> {
        self.shared.pending.problem()
    }

    /// Waits up to `timeout` until the broker has answered for everything sent, then closes the connections.
    /// Later sends fail. Returns the number of abandoned records.
    pub async fn close(&self, timeout: Duration) -> usize {
        let slots = self.shared.batched.iter().chain(&self.shared.alone);
        let clients: Vec<_> = slots.filter_map(ClientSlot::close).collect();
        let closing = tokio::task::spawn_blocking(move || {
            clients.into_iter().map(|client| client.flush(timeout)).sum()
        });
        closing.await.unwrap_or_default()
    }

    /// Sends the records at `positions` through one client and returns those that were not confirmed.
    async fn attempt(
        &self,
        slot: &ClientSlot,
        transaction: u64,
        records: &[ProduceRecord<'_>],
        positions: &[usize],
    ) -> Vec<FailedSend> {
        if positions.is_empty() {
            return Vec::new();
        }
        let client = match slot.client() {
            Ok(client) => client,
            Err(error) => {
                let error = no_client(error);
                let failed = |position: &usize| FailedSend {
                    position: *position,
                    error: error.clone(),
                    suspect: false,
                };
                return positions.iter().map(failed).collect();
            }
        };
        let placed = self.place(transaction, records, positions);
        let mut runs = placed.runs.iter().peekable();
        let (mut ticket, answers) = self.shared.pending.open(positions.len());
        for (index, position) in positions.iter().enumerate() {
            let record = &records[*position];
            while runs.next_if(|(run, _)| run.indices.end <= index).is_some() {}
            let chosen = runs.peek().filter(|(run, _)| run.indices.contains(&index));
            let partition = record
                .partition
                .or(chosen.map(|(_, partition)| *partition as i32));
            let opaque = ticket.opaque(index);
            match self.enqueue(&client, record, partition, opaque).await {
                Ok(()) => ticket.handed_over(),
                Err(code) => ticket.refused(index, code),
            }
            if index % ENQUEUE_SLICE == ENQUEUE_SLICE - 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(ticket);
        let answers = answers.await.unwrap_or_default();
        let fatal = if answers.is_empty() {
            None
        } else {
            client.fatal_error()
        };
        if fatal.is_some() {
            slot.discard(&client);
        }
        let problem = if answers.is_empty() { None } else { self.problem() };
        let mut failures = Vec::with_capacity(answers.len());
        let mut stale_counts = HashSet::new();
        for answer in answers {
            let position = positions[answer.index];
            let topic = records[position].topic;
            let error = match (&fatal, answer.code) {
                // A client with a fatal error empties its queues.
                (
                    Some((code, reason)),
                    RDKafkaErrorCode::Fatal | RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight,
                ) => classify::fatal(topic, *code, reason),
                _ => classify::error(topic, answer.code, problem.as_deref()),
            };
            if answer.code == RDKafkaErrorCode::UnknownPartition {
                stale_counts.insert(topic);
            }
            // librdkafka itself rejects single records; the broker rejects whole batches.
            let suspect = !answer.local && classify::rejects_whole_batches(answer.code);
            failures.push(FailedSend {
                position,
                error,
                suspect,
            });
        }
        for topic in stale_counts {
            self.shared.partitions.forget(topic);
        }
        failures
    }

    /// Puts a record into librdkafka's queue; waits for room if the queue is full.
    async fn enqueue(
        &self,
        client: &Client,
        record: &ProduceRecord<'_>,
        partition: Option<i32>,
        opaque: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        match client.send(native(record, partition, opaque)?) {
            Err(RDKafkaErrorCode::QueueFull) => {}
            other => return other,
        }
        loop {
            let report = self.shared.pending.report();
            tokio::pin!(report);
            report.as_mut().enable();
            match client.send(native(record, partition, opaque)?) {
                Err(RDKafkaErrorCode::QueueFull) => {
                    let _ = tokio::time::timeout(QUEUE_FULL_RECHECK, report).await;
                }
                other => return other,
            }
        }
    }
}

struct FailedSend {
    position: usize,
    error: SendError,
    suspect: bool,
}

fn no_client(error: client::NoClient) -> SendError {
    let class = match &error {
        client::NoClient::Create(_) => FailureClass::Systemic,
        client::NoClient::Closed => FailureClass::Transient,
    };
    SendError {
        message: error.to_string(),
        class,
        refusal: None,
        fatal: false,
        in_doubt: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let properties = Properties::from([("sasl.mechanism".to_string(), "s3cret".to_string())]);
        let properties = properties
            .into_iter()
            .chain([("no.such.key".into(), "s3cret".into())])
            .collect();
        let message = Producer::new(&properties).err().unwrap().to_string();
        assert!(
            message.contains("no.such.key") && !message.contains("s3cret"),
            "{message}"
        );
    }
}
