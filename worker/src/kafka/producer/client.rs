//! One librdkafka client and its replacement. An idempotent client never works again after a fatal error, so
//! the [`ClientSlot`] drops it and creates a new one at the next send. Closing and dropping happen outside of
//! the tokio workers.

use std::{
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use crds::client_config::Properties;
use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    topic_partition_list::TopicPartitionList,
};

use super::{ProducerError, pending::PendingBatches};
use crate::kafka::{
    ffi::add_brokers,
    log::{LogSource, log},
    reconnect::{self, BootstrapReminder},
};
use crate::sync;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoClient {
    #[error(transparent)]
    Create(#[from] ProducerError),
    #[error("the producer is closed: the worker is shutting down")]
    Closed,
}

enum SlotState {
    Absent,
    Open(Arc<Client>),
    Closed,
}

/// Holds one client at a time.
pub(super) struct ClientSlot {
    properties: Mutex<Properties>,
    pending: Arc<PendingBatches>,
    state: Mutex<SlotState>,
}

impl ClientSlot {
    pub fn new(properties: Properties, pending: Arc<PendingBatches>) -> Self {
        Self {
            properties: Mutex::new(properties),
            pending,
            state: Mutex::new(SlotState::Absent),
        }
    }

    /// Returns the client; creates it if there is none.
    pub fn client(&self) -> Result<Arc<Client>, NoClient> {
        let mut state = sync::lock(&self.state);
        match &*state {
            SlotState::Open(client) => Ok(client.clone()),
            SlotState::Closed => Err(NoClient::Closed),
            SlotState::Absent => {
                let properties = self.properties().clone();
                let client = Arc::new(Client::create(&properties, self.pending.clone())?);
                if let (Ok(runtime), Some(brokers)) = (
                    tokio::runtime::Handle::try_current(),
                    properties.get("bootstrap.servers"),
                ) {
                    runtime.spawn(remind(Arc::downgrade(&client), brokers.clone()));
                }
                *state = SlotState::Open(client.clone());
                Ok(client)
            }
        }
    }

    /// Changes the properties of the next client.
    pub fn change(&self, change: impl FnOnce(&mut Properties)) {
        change(&mut self.properties());
    }

    fn properties(&self) -> MutexGuard<'_, Properties> {
        sync::lock(&self.properties)
    }

    /// The client, if there is one.
    pub fn current(&self) -> Option<Arc<Client>> {
        match &*sync::lock(&self.state) {
            SlotState::Open(client) => Some(client.clone()),
            SlotState::Absent | SlotState::Closed => None,
        }
    }

    /// Drops a client that had a fatal error, unless another task has already replaced it.
    pub fn discard(&self, broken: &Arc<Client>) {
        let mut state = sync::lock(&self.state);
        if matches!(&*state, SlotState::Open(client) if Arc::ptr_eq(client, broken)) {
            *state = SlotState::Absent;
        }
    }

    /// Takes the client out permanently.
    pub fn close(&self) -> Option<Arc<Client>> {
        match std::mem::replace(&mut *sync::lock(&self.state), SlotState::Closed) {
            SlotState::Open(client) => Some(client),
            SlotState::Absent | SlotState::Closed => None,
        }
    }
}

/// Gives a client its bootstrap servers again when it is time, until the client is dropped.
async fn remind(client: Weak<Client>, brokers: String) {
    loop {
        tokio::time::sleep(reconnect::INTERVAL).await;
        let Some(client) = client.upgrade() else { return };
        client.remind(&brokers);
    }
}

/// A running client with the thread that serves its reports.
pub(super) struct Client {
    producer: Option<ThreadedProducer<ProducerCallbacks>>,
}

impl Client {
    fn create(properties: &Properties, pending: Arc<PendingBatches>) -> Result<Self, ProducerError> {
        let mut config = ClientConfig::new();
        config.extend(properties.iter().map(|(key, value)| (key.clone(), value.clone())));
        let producer = ThreadedProducer::from_config_and_context(
            &config,
            ProducerCallbacks {
                pending,
                reminder: BootstrapReminder::default(),
            },
        )?;
        Ok(Self {
            producer: Some(producer),
        })
    }

    pub fn send(&self, record: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), RDKafkaErrorCode> {
        let Some(producer) = &self.producer else {
            return Err(RDKafkaErrorCode::Interrupted);
        };
        producer.send(record).map_err(|(error, _)| code(&error))
    }

    fn remind(&self, brokers: &str) {
        if let Some(producer) = &self.producer
            && producer.client().context().reminder.take()
        {
            add_brokers(producer.client(), brokers);
        }
    }

    pub fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer
            .as_ref()
            .and_then(|producer| producer.client().fatal_error())
    }

    /// Blocks up to `timeout`.
    pub fn partition_count(&self, topic: &str, timeout: Duration) -> Result<i32, RDKafkaErrorCode> {
        let Some(producer) = &self.producer else {
            return Err(RDKafkaErrorCode::Interrupted);
        };
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|error| code(&error))?;
        match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => match found.error() {
                Some(error) => Err(error.into()),
                None => Ok(found.partitions().len() as i32),
            },
            None => Err(RDKafkaErrorCode::UnknownTopicOrPartition),
        }
    }

    /// Records that are sent and not answered yet.
    pub fn in_flight(&self) -> usize {
        let count = self
            .producer
            .as_ref()
            .map_or(0, |producer| producer.in_flight_count());
        usize::try_from(count).unwrap_or_default()
    }

    /// Blocks up to `timeout` until everything is answered; returns the number of unanswered records.
    pub fn flush(&self, timeout: Duration) -> usize {
        let Some(producer) = &self.producer else { return 0 };
        match producer.flush(timeout) {
            Ok(()) => 0,
            Err(_) => self.in_flight(),
        }
    }
}

/// Transactions. Each call blocks for its timeout. `send_offsets` may block indefinitely; see decision 0051.
impl Client {
    pub fn init_transactions(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.transactional(|producer| producer.init_transactions(timeout))
    }

    pub fn begin_transaction(&self) -> Result<(), KafkaError> {
        self.transactional(|producer| producer.begin_transaction())
    }

    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        self.transactional(|producer| producer.send_offsets_to_transaction(offsets, group, timeout))
    }

    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.transactional(|producer| producer.commit_transaction(timeout))
    }

    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), KafkaError> {
        self.transactional(|producer| producer.abort_transaction(timeout))
    }

    fn transactional(
        &self,
        call: impl FnOnce(&ThreadedProducer<ProducerCallbacks>) -> Result<(), KafkaError>,
    ) -> Result<(), KafkaError> {
        match &self.producer {
            Some(producer) => call(producer),
            None => Err(KafkaError::Canceled),
        }
    }
}

impl Drop for Client {
    /// Dropping a client joins its threads, which takes up to a second.
    fn drop(&mut self) {
        let producer = self.producer.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(producer))),
            Err(_) => drop(producer),
        }
    }
}

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    match error {
        // A topic name with a NUL byte.
        KafkaError::Nul(_) => RDKafkaErrorCode::InvalidTopic,
        other => other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
    }
}

struct ProducerCallbacks {
    pending: Arc<PendingBatches>,
    reminder: BootstrapReminder,
}

impl ClientContext for ProducerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(LogSource::Producer, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka also logs it, at a bounded rate.
        tracing::debug!(target: "librdkafka", "producer: {error}: {reason}");
        let consequence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if consequence {
            self.reminder.brokers_down();
        }
        self.pending.note_problem(reason, consequence);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for ProducerCallbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        self.pending
            .answer(opaque, result.as_ref().err().map(|(error, _)| code(error)));
    }
}
