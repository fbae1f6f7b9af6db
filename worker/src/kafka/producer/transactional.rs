//! The transactional side of the producer: two clients with a `transactional.id` each, whose transactions the
//! caller begins and ends. They take turns: one has the worker's even transactions, the other the odd ones.
//! Each call blocks and returns its result; the caller decides what to do about it. A client with a fatal
//! error is dropped, and the next [`TransactionalClient::initialize`] creates a new one, which fences the old
//! one.

use std::{sync::Arc, time::Duration};

use crds::client_config::Properties;
use rdkafka::{
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};

use super::{
    Producer, ProducerError, ProducerState, classify,
    client::{Client, ClientSlot},
};

/// Timeout of one call. After a timeout librdkafka continues in the background, and the same call is made
/// again.
const CALL: Duration = Duration::from_secs(10);

/// Below this number of bytes, batches hold one record each.
const SMALLEST_BATCH: usize = 1024;

/// A transaction call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransactionError {
    /// What is wrong and what to do.
    pub message: String,
    /// What to do about it.
    pub kind: TransactionErrorKind,
}

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionErrorKind {
    /// Make the same call again.
    Again,
    /// The consumer group has moved on: the partitions belong to another member, or will in a moment. Abort
    /// and read again.
    Moved,
    /// The broker rejects the metadata of the offsets as too long: abort, read again, and send less metadata.
    TooLong,
    /// Abort and read again.
    Abort,
    /// The client is unusable: create a new one and read again.
    NewClient,
    /// Like `NewClient`, and a user has to fix the cause first, for example permissions.
    Systemic,
}

/// librdkafka's flags of an error, in addition to its code.
struct Flags {
    retriable: bool,
    abort: bool,
}

/// One of the clients of a transactional producer.
#[derive(Clone)]
pub struct TransactionalClient {
    shared: Arc<ProducerState>,
    index: u64,
}

impl Producer {
    /// Creates a transactional producer. The properties of each client contain a different
    /// `transactional.id`. The producer sends only between [`TransactionalClient::begin`] and the end of a
    /// transaction.
    pub fn transactional(transactional_clients: [Properties; 2]) -> Result<Self, ProducerError> {
        Self::create(transactional_clients.into(), None)
    }

    /// True if records are sent inside transactions.
    pub fn is_transactional(&self) -> bool {
        self.shared.alone.is_none()
    }

    /// The clients of the even and of the odd transactions.
    pub fn transactional_clients(&self) -> [TransactionalClient; 2] {
        [0, 1].map(|index| TransactionalClient {
            shared: self.shared.clone(),
            index,
        })
    }

    /// For a broker that accepts each of some records, but not these `bytes` of records together: the next
    /// clients make smaller batches.
    pub fn shrink_batches(&self, bytes: usize) {
        for slot in &self.shared.batched {
            slot.change(|properties| {
                let now = properties.get("batch.size").and_then(|size| size.parse().ok());
                let smaller = now.unwrap_or(usize::MAX).min(bytes) / 4;
                properties.insert("batch.size".into(), smaller.max(SMALLEST_BATCH).to_string());
                if smaller < SMALLEST_BATCH {
                    properties.insert("batch.num.messages".into(), "1".into());
                }
            });
        }
    }

    /// A producer that sends each record by itself, to find out which one a broker rejects.
    pub fn isolating(&self) -> Result<Producer, ProducerError> {
        let mut properties = Properties::new();
        self.shared.of(0).change(|ours| properties.clone_from(ours));
        if let Some(id) = properties.get_mut("transactional.id") {
            id.push_str(".isolate");
        }
        properties.insert("batch.num.messages".into(), "1".into());
        properties.insert("linger.ms".into(), "0".into());
        // librdkafka 2.12 resends what is in flight behind a refused request for 10 s, although the
        // transaction is over.
        properties.insert("max.in.flight.requests.per.connection".into(), "1".into());
        Self::create(vec![properties], None)
    }

    /// Waits until a record has failed.
    pub async fn first_failure(&self) {
        self.shared.pending.first_failure().await;
    }
}

impl TransactionalClient {
    fn slot(&self) -> &ClientSlot {
        self.shared.of(self.index)
    }

    /// Creates the client if there is none, and registers its `transactional.id`. That aborts a transaction
    /// that an earlier client with the same id has left open, and fences that client.
    pub fn initialize(&self) -> Result<(), TransactionError> {
        let client = self.slot().client().map_err(|error| TransactionError {
            message: error.to_string(),
            kind: TransactionErrorKind::Systemic,
        })?;
        self.check(
            &client,
            "registering the transactional.id",
            client.init_transactions(CALL),
        )
    }

    /// Begins a transaction. Makes no request to a broker.
    pub fn begin(&self) -> Result<(), TransactionError> {
        self.with("beginning a transaction", |client| client.begin_transaction())
    }

    /// Adds offsets of the group to the transaction. Fails if `group` no longer owns the partitions.
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        self.with("putting offsets into a transaction", |client| {
            client.send_offsets(offsets, group, CALL)
        })
    }

    /// Commits. Every record sent must have been answered before.
    pub fn commit(&self) -> Result<(), TransactionError> {
        self.with("committing a transaction", |client| {
            client.commit_transaction(CALL)
        })
    }

    /// Aborts. Records that are not answered yet are answered with an error.
    pub fn abort(&self) -> Result<(), TransactionError> {
        self.with("aborting a transaction", |client| client.abort_transaction(CALL))
    }

    /// True if every record sent has been answered.
    pub fn is_idle(&self) -> bool {
        let client = self.slot().current();
        client.is_none_or(|client| client.in_flight() == 0)
    }

    /// Drops the client.
    pub fn discard(&self) {
        if let Some(client) = self.slot().current() {
            self.slot().discard(&client);
        }
    }

    fn with(
        &self,
        what: &str,
        call: impl FnOnce(&Client) -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        // Do not create a client here: it would have no transaction.
        let Some(client) = self.slot().current() else {
            return Err(TransactionError {
                message: format!("{what}: there is no client any more; the worker starts a new one"),
                kind: TransactionErrorKind::NewClient,
            });
        };
        let result = call(&client);
        self.check(&client, what, result)
    }

    /// Classifies the result of a call, and drops a client that has become unusable.
    fn check(
        &self,
        client: &Arc<Client>,
        what: &str,
        result: Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        let Err(error) = result else { return Ok(()) };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let flags = match &error {
            KafkaError::Transaction(error) => Flags {
                retriable: error.is_retriable(),
                abort: error.txn_requires_abort(),
            },
            // The wait for outstanding records timed out.
            _ => Flags {
                retriable: code == RDKafkaErrorCode::OperationTimedOut,
                abort: false,
            },
        };
        let kind = kind(code, &flags);
        if matches!(
            kind,
            TransactionErrorKind::NewClient | TransactionErrorKind::Systemic
        ) {
            self.slot().discard(client);
        }
        let mut message = format!("{what}: {error}");
        if let Some(advice) = classify::transaction_advice(code) {
            message.push_str(": ");
            message.push_str(advice);
        }
        if let Some(problem) = self.shared.pending.problem() {
            message.push_str("; latest problem: ");
            message.push_str(&problem);
        }
        Err(TransactionError { message, kind })
    }
}

fn kind(code: RDKafkaErrorCode, flags: &Flags) -> TransactionErrorKind {
    match code {
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::InvalidTransactionTimeout
        | RDKafkaErrorCode::UnsupportedFeature => TransactionErrorKind::Systemic,
        _ if flags.retriable => TransactionErrorKind::Again,
        RDKafkaErrorCode::IllegalGeneration
        | RDKafkaErrorCode::UnknownMemberId
        | RDKafkaErrorCode::FencedInstanceId
        | RDKafkaErrorCode::FencedMemberEpoch
        | RDKafkaErrorCode::StaleMemberEpoch
        | RDKafkaErrorCode::RebalanceInProgress
            if flags.abort =>
        {
            TransactionErrorKind::Moved
        }
        RDKafkaErrorCode::OffsetMetadataTooLarge if flags.abort => TransactionErrorKind::TooLong,
        _ if flags.abort => TransactionErrorKind::Abort,
        _ => TransactionErrorKind::NewClient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_flags_decide_and_missing_permissions_are_systemic() {
        let of = |code, retriable, abort| kind(code, &Flags { retriable, abort });
        use RDKafkaErrorCode as Code;
        assert_eq!(
            of(Code::OperationTimedOut, true, false),
            TransactionErrorKind::Again
        );
        assert_eq!(
            of(Code::IllegalGeneration, false, true),
            TransactionErrorKind::Moved
        );
        assert_eq!(
            of(Code::MessageTimedOut, false, true),
            TransactionErrorKind::Abort
        );
        assert_eq!(
            of(Code::OffsetMetadataTooLarge, false, true),
            TransactionErrorKind::TooLong
        );
        assert_eq!(
            of(Code::ProducerFenced, false, false),
            TransactionErrorKind::NewClient
        );
        let refused = Code::TransactionalIdAuthorizationFailed;
        assert_eq!(of(refused, false, false), TransactionErrorKind::Systemic);
    }
}
