//! The worker's producer: for the Kafka writer and for dead letters. Takes slices of records, answers when the broker has
//! answered for each of them. Every wait is asynchronous; librdkafka's reports come in on a thread of their own.
//! Never blocks a tokio worker, never drops a record silently, never decides what a failed record means.
//!
//! A broker refuses whole record batches, with innocent records in them. Such records are sent again one by one through
//! a second client that makes no batches, so that a [`FailureClass::Record`] is always the fault of that record. Later
//! records with the same key are sent again after them: twice in the right order beats once in the wrong one.
//!
//! A transactional producer has no such client, because a record that fails spoils its transaction anyway: what a broker
//! refused with others is answered with [`SendError::in_doubt`]. It has two clients that take turns instead ([`TransactionalClient`]), so that
//! records can be sent while the transaction before theirs is being committed.

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
pub use record::ProduceRecord;
use record::{native, with_later_records_of_their_keys};
pub use transactional::{TransactionError, TransactionErrorKind, TransactionalClient};

use crate::record::failure::FailureClass;
pub use crate::record::failure::FailureClass as ErrorClass;

/// Reports free room in a full queue; this is only in case that the report came before we listened.
const QUEUE_FULL_RECHECK: Duration = Duration::from_millis(100);
/// Enqueueing costs about a microsecond per record: after this many, others get the thread.
const ENQUEUE_SLICE: usize = 512;

/// A record that was not confirmed. It may have been written all the same when the class is Transient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What is wrong and what to do; names the topic, never contains the payload.
    pub message: String,
    /// Who is at fault.
    pub class: FailureClass,
    /// True when the client had to be replaced by a new one; sending again is all there is to do.
    pub fatal: bool,
    /// True when the broker refused the record together with others, so that it may be innocent.
    pub in_doubt: bool,
}

/// A producer that cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka refuses a property. Its value is not shown, it may be a secret.
    #[error(
        "the Kafka producer refuses the property {key:?}: {reason}; correct it in spec.kafka.clientConfig"
    )]
    Property { key: String, reason: String },
    /// librdkafka refuses the properties together.
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
    /// One; of a transactional producer two.
    batched: Vec<ClientSlot>,
    /// For records that a broker has refused together with others; none inside of transactions.
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
    /// Creates the client; connects in the background.
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
        // The others need not be tried: their properties are the same.
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

    /// Sends records in order and waits until the broker has answered for each or `message.timeout.ms` is over. The answer
    /// has one entry per record.
    pub async fn send(&self, records: &[ProduceRecord<'_>]) -> Vec<Result<(), SendError>> {
        self.send_in(0, records).await
    }

    /// As [`Producer::send`], in the transaction of this number: even ones are those of the first [`TransactionalClient`].
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

    /// The latest trouble with brokers or logins, None after a success: why a send takes long.
    pub fn problem(&self) -> Option<String> {
        self.shared.pending.problem()
    }

    /// Waits until everything sent is answered, at most `timeout`, then closes the connections. Later sends fail.
    /// Returns the number of records that were given up.
    pub async fn close(&self, timeout: Duration) -> usize {
        let lanes = self.shared.batched.iter().chain(&self.shared.alone);
        let clients: Vec<_> = lanes.filter_map(ClientSlot::close).collect();
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
        let mut grown_or_gone = HashSet::new();
        for answer in answers {
            let position = positions[answer.index];
            let topic = records[position].topic;
            let error = match (&fatal, answer.code) {
                // A client that breaks empties its queues.
                (
                    Some((code, reason)),
                    RDKafkaErrorCode::Fatal | RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight,
                ) => classify::fatal(topic, *code, reason),
                _ => classify::error(topic, answer.code, problem.as_deref()),
            };
            if answer.code == RDKafkaErrorCode::UnknownPartition {
                grown_or_gone.insert(topic);
            }
            // What librdkafka itself refused was judged alone; what the broker refused was not.
            let suspect = !answer.local && classify::blames_a_batch(answer.code);
            failures.push(FailedSend {
                position,
                error,
                suspect,
            });
        }
        for topic in grown_or_gone {
            self.shared.partitions.forget(topic);
        }
        failures
    }

    /// Puts a record into librdkafka's queue, waiting for room when it is full.
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
