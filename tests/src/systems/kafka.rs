//! The Kafka side of a test: topics, produced and consumed records, offsets. A plain client of the broker,
//! independent of the product's code.

mod read;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, FutureProducer, FutureRecord, Producer, future_producer::Delivery},
    types::RDKafkaErrorCode as Code,
};

/// Timeout of one request to a healthy broker on a busy machine.
pub(crate) const REQUEST: Duration = Duration::from_secs(30);

/// Replication factor: what the broker is configured with.
const BROKERS_DEFAULT: i32 = -1;

/// A Kafka cluster and how to log in to it.
#[derive(Clone, Debug)]
pub struct Kafka {
    config: ClientConfig,
}

/// A record to write, byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<i64>,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let value = self
            .value
            .as_deref()
            .with_context(|| format!("{}@{} has no value", self.partition, self.offset))?;
        serde_json::from_slice(value).with_context(|| {
            format!(
                "{}@{} is not JSON: {}",
                self.partition,
                self.offset,
                String::from_utf8_lossy(value)
            )
        })
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}

impl Kafka {
    /// The cluster at `bootstrap`, without login.
    pub fn new(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("allow.auto.create.topics", "false");
        Self { config }
    }

    /// The same with one more librdkafka property.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.set(key, value);
        self
    }

    pub(crate) fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config.create().context("cannot create the admin client")
    }

    /// Creates a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// Creates a topic with its own settings.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(BROKERS_DEFAULT));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = self.admin()?.create_topics([&topic], &options()).await?;
        each_ok(results)?;
        // The broker answers before every client can see the topic.
        crate::systems::wait::until(&format!("topic {name} exists"), async || {
            ensure!(
                self.partitions(name).await? == partitions as usize,
                "another number of partitions"
            );
            Ok(())
        })
        .await
    }

    /// Adds partitions to a topic.
    pub async fn grow_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let results = self
            .admin()?
            .create_partitions([&NewPartitions::new(name, partitions as usize)], &options())
            .await?;
        each_ok(results)?;
        crate::systems::wait::until(&format!("topic {name} has {partitions} partitions"), async || {
            ensure!(
                self.partitions(name).await? == partitions as usize,
                "another number of partitions"
            );
            Ok(())
        })
        .await
    }

    /// Deletes the records of a partition before `offset`, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let deleted = self.admin()?.delete_records(&before, &options()).await?;
        deleted
            .elements()
            .iter()
            .try_for_each(|element| element.error())?;
        Ok(())
    }

    /// Deletes topics; a missing one is no error.
    pub async fn delete_topics(&self, names: &[String]) -> Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        let results = self.admin()?.delete_topics(&names, &options()).await?;
        each_ok(
            results
                .into_iter()
                .filter(|result| !matches!(result, Err((_, Code::UnknownTopicOrPartition)))),
        )
    }

    /// Number of partitions of a topic in the metadata of a new client; an error if the topic does not exist.
    pub async fn partitions(&self, topic: &str) -> Result<usize> {
        let topic = topic.to_string();
        self.blocking(move |consumer| {
            let metadata = consumer.fetch_metadata(Some(&topic), REQUEST)?;
            let found = metadata
                .topics()
                .first()
                .with_context(|| format!("no metadata of {topic}"))?;
            ensure!(
                found.error().is_none() && !found.partitions().is_empty(),
                "topic {topic} does not exist"
            );
            Ok(found.partitions().len())
        })
        .await
    }

    /// A producer whose acknowledged records are in the log exactly once and in order.
    pub fn producer(&self) -> Result<FutureProducer> {
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "200000")
            // Longer than any outage in a test: either the broker acknowledges a record or the test fails.
            .set("message.timeout.ms", "300000");
        config.create().context("cannot create the producer")
    }

    /// Takes over a transactional id, as a producer does when it starts: the broker aborts the open
    /// transaction of this id and fences the previous producer.
    pub async fn fence(&self, transactional_id: &str) -> Result<()> {
        let mut config = self.config.clone();
        config.set("transactional.id", transactional_id);
        let id = transactional_id.to_string();
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = config.create().context("cannot create the producer")?;
            producer
                .init_transactions(REQUEST)
                .with_context(|| format!("cannot take over the transactions of {id}"))
        })
        .await?
    }

    /// Writes records in this order. Returns their partitions and offsets once the broker has acknowledged
    /// all of them.
    pub async fn produce(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Delivery>> {
        let producer = self.producer()?;
        let mut deliveries = Vec::new();
        for message in messages {
            deliveries.push(send(&producer, topic, &message).await?);
        }
        let mut landed = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            landed.push(
                delivery
                    .await?
                    .map_err(|(error, _)| error)
                    .context("a record was not written")?,
            );
        }
        Ok(landed)
    }

    /// End offset of each partition.
    pub async fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let topic = topic.to_string();
        let partitions = self.partitions(&topic).await?;
        self.blocking(move |consumer| {
            (0..partitions as i32)
                .map(|partition| {
                    Ok((
                        partition,
                        consumer.fetch_watermarks(&topic, partition, REQUEST)?.1,
                    ))
                })
                .collect()
        })
        .await
    }

    /// Committed offsets of a group, without partitions that have none.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let topic = topic.to_string();
        let partitions = self.partitions(&topic).await?;
        let this = self.clone().with("group.id", group);
        this.blocking(move |consumer| {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(&topic, 0, partitions as i32 - 1);
            let answer = consumer.committed_offsets(asked, REQUEST)?;
            Ok(answer
                .elements()
                .iter()
                .filter_map(|element| {
                    Some((
                        element.partition(),
                        element.offset().to_raw().filter(|raw| *raw >= 0)?,
                    ))
                })
                .collect())
        })
        .await
    }

    /// Number of records between a group's committed offsets and the end offsets; a partition without a
    /// commit counts from 0.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<i64> {
        let committed = self.committed(group, topic).await?;
        let ends = self.end_offsets(topic).await?;
        Ok(ends
            .iter()
            .map(|(partition, end)| end - committed.get(partition).copied().unwrap_or(0))
            .sum())
    }

    /// Waits until a group has committed everything in a topic.
    pub async fn until_drained(&self, group: &str, topic: &str) -> Result<()> {
        crate::systems::wait::until(&format!("{group} has committed all of {topic}"), async || {
            let lag = self.lag(group, topic).await?;
            ensure!(
                lag == 0,
                "lag {lag}, committed {:?}",
                self.committed(group, topic).await?
            );
            Ok(())
        })
        .await
    }

    /// Waits until every replica of every partition is in sync.
    pub async fn until_in_sync(&self) -> Result<()> {
        crate::systems::wait::until("all replicas are in sync", async || {
            self.blocking(|consumer| {
                let metadata = consumer.fetch_metadata(None, REQUEST)?;
                for topic in metadata.topics() {
                    let late = topic
                        .partitions()
                        .iter()
                        .find(|it| it.isr().len() < it.replicas().len() || it.leader() < 0);
                    ensure!(
                        late.is_none(),
                        "{} has replicas that are not in sync",
                        topic.name()
                    );
                }
                Ok(())
            })
            .await
        })
        .await
    }

    /// State and number of members of a group, as the broker reports them; None if the broker does not know
    /// the group.
    pub async fn group(&self, group: &str) -> Result<Option<(String, usize)>> {
        let group = group.to_string();
        self.blocking(move |consumer| {
            let list = consumer.fetch_group_list(Some(&group), REQUEST)?;
            Ok(list
                .groups()
                .iter()
                .find(|found| found.name() == group)
                .map(|found| (found.state().to_string(), found.members().len())))
        })
        .await
    }

    /// Runs librdkafka's synchronous calls outside of the threads that run the test.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseConsumer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut config = self.config.clone();
        if config.get("group.id").is_none() {
            config.set("group.id", "kafka-consumer-tests");
        }
        config
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().context("cannot create the consumer")?;
            call(&consumer)
        })
        .await?
    }
}

/// Sends a record to the producer, and waits while its queue is full. Keeps the order of the records of a
/// partition.
pub(crate) async fn send(
    producer: &FutureProducer,
    topic: &str,
    message: &Message,
) -> Result<rdkafka::producer::DeliveryFuture> {
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic);
    record.partition = message.partition;
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.timestamp = message.timestamp;
    if !message.headers.is_empty() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &message.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        record.headers = Some(headers);
    }
    loop {
        match producer.send_result(record) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err((error, _)) => bail!("the producer rejected a record for {topic}: {error}"),
        }
    }
}

/// Waits until the producer has written everything in its queue.
pub(crate) fn flush(producer: &FutureProducer) -> Result<()> {
    producer
        .flush(Duration::from_secs(300))
        .context("the producer could not write everything")
}

/// For requests that change topics.
pub(crate) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST))
        .operation_timeout(Some(REQUEST))
}

/// The first error of an answer about several topics.
pub(crate) fn each_ok<T>(results: impl IntoIterator<Item = Result<T, (String, Code)>>) -> Result<()> {
    for result in results {
        if let Err((name, code)) = result {
            bail!("{name}: {code}");
        }
    }
    Ok(())
}
