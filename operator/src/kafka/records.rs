//! Writes and reads plain records, for the demo: it must feed a topic and count the results independently of
//! the workers. In: bootstrap servers, topics, records. Both calls block; each needs its own thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::model::KafkaProblem;

/// librdkafka fails a message after this time; the broker is on the same machine.
const DELIVERY: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);

/// A record to write.
pub struct Record {
    pub key: String,
    pub value: Vec<u8>,
}

/// A record that was read; headers are text.
pub struct Read<'a> {
    pub topic: &'a str,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub headers: Vec<(String, String)>,
}

struct Deliveries<'a> {
    confirmed: &'a AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries<'_> {}

impl ProducerContext for Deliveries<'_> {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            self.confirmed
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes all records at no more than `per_second`, counting delivery reports in `confirmed`, until done or
/// `stop`.
pub fn write(
    bootstrap: &str,
    topic: &str,
    records: impl Iterator<Item = Record>,
    per_second: u32,
    confirmed: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), KafkaProblem> {
    let context = Deliveries {
        confirmed,
        failed: AtomicU64::new(0),
    };
    let producer: BaseProducer<Deliveries<'_>> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("message.timeout.ms", DELIVERY.as_millis().to_string())
        .create_with_context(context)
        .map_err(failed)?;
    let started = Instant::now();
    for (sent, record) in records.enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let due = Duration::from_secs_f64(sent as f64 / f64::from(per_second.max(1)));
        while started.elapsed() < due {
            producer.poll(Duration::from_millis(1));
        }
        let mut wanted = BaseRecord::to(topic).key(&record.key).payload(&record.value);
        while let Err((error, unsent)) = producer.send(wanted) {
            if error.rdkafka_error_code() != Some(Code::QueueFull) {
                return Err(failed(error));
            }
            producer.poll(STEP);
            wanted = unsent;
        }
    }
    producer.flush(DELIVERY).map_err(failed)?;
    match producer.context().failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        lost => Err(KafkaProblem::Unreachable(format!(
            "{lost} records were not confirmed"
        ))),
    }
}

/// Reads all partitions of `topics` from their first record until `stop`, and calls `each` with each record.
pub fn read(
    bootstrap: &str,
    topics: &[(String, i32)],
    stop: &AtomicBool,
    mut each: impl FnMut(Read<'_>),
) -> Result<(), KafkaProblem> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Required but unused: the consumer neither subscribes nor commits.
        .set("group.id", "kafka-consumer-demo")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "20")
        .create()
        .map_err(failed)?;
    let mut all = TopicPartitionList::new();
    for (topic, partitions) in topics {
        for partition in 0..*partitions {
            all.add_partition_offset(topic, partition, Offset::Beginning)
                .map_err(failed)?;
        }
    }
    consumer.assign(&all).map_err(failed)?;
    while !stop.load(Ordering::Relaxed) {
        // Read errors resolve themselves: the broker is on the same machine, and the reader is stopped at the
        // end.
        let Some(Ok(message)) = consumer.poll(STEP) else {
            continue;
        };
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            headers
                .iter()
                .map(|header| {
                    (
                        header.key.to_string(),
                        header.value.map_or_else(String::new, text),
                    )
                })
                .collect()
        });
        each(Read {
            topic: message.topic(),
            key: message.key().unwrap_or_default(),
            value: message.payload().unwrap_or_default(),
            headers,
        });
    }
    Ok(())
}

fn failed(error: KafkaError) -> KafkaProblem {
    KafkaProblem::Unreachable(error.to_string())
}
