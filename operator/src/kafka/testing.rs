//! For tests of other rooms: a broker in memory with records that have headers.
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::embedded::EmbeddedBroker;

/// A record to write, to partition 0.
pub struct Written<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// A broker with one topic.
pub fn broker(topic: &str, partitions: i32) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

/// Writes the records, and waits for the broker.
pub fn write(broker: &EmbeddedBroker, topic: &str, records: &[Written<'_>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("compression.type", "lz4")
        .create()
        .unwrap();
    for written in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in written.headers {
            headers = headers.insert(Header {
                key,
                value: Some(*value),
            });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(0)
            .timestamp(written.timestamp)
            .headers(headers);
        record.key = written.key;
        record.payload = written.value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}
