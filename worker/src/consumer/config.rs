//! The configuration of the poll loop: plain values. The engine makes them from the settings, so this room
//! does not know the resource.

use std::{sync::Arc, time::Duration};

use crds::{
    client_config::Properties,
    spec::{OnOffsetOutOfRange, OnTopicRecreated},
};

use super::bounds::Bounds;
use crate::{retry::RetryPolicy, transaction::Transactional};

/// The settings that the poll loop reads.
#[derive(Clone)]
pub struct Config {
    /// Name of the worker.
    pub worker: String,
    /// The consumer group.
    pub group: String,
    /// Topics to subscribe to.
    pub topics: Vec<String>,
    /// Where partitions of a recreated topic start, in milliseconds since 1970. None: at their first record.
    pub start_time: Option<i64>,
    /// What to do with a topic that was deleted and created again.
    pub on_topic_recreated: OnTopicRecreated,
    /// Where to continue when the position of a partition is out of range.
    pub on_offset_out_of_range: OnOffsetOutOfRange,
    /// The part of the log to process, after which the worker ends. None: it runs until it is stopped.
    pub bounds: Option<Arc<Bounds>>,
    /// librdkafka's properties for the consumer; they contain credentials.
    pub properties: Properties,
    /// Time between commits.
    pub commit_interval: Duration,
    /// How long partitions may take to finish their in-flight work when the worker stops.
    pub drain: Duration,
    /// Maximum number of records in a chunk.
    pub max_records: usize,
    /// Maximum number of bytes in a chunk.
    pub max_bytes: usize,
    /// Limit of in-flight bytes of all partitions together; the loop reads nothing above it. Bounds memory,
    /// and how much is repeated after a crash.
    pub bytes_in_flight: usize,
    /// How long every chunk that is not full waits for more. None: only while its partition has others in
    /// flight.
    pub linger: Option<Duration>,
    /// True if a transform, a writer or the dead letter topic reads headers. Parsing them costs a quarter of
    /// the time to read a small record.
    pub headers: bool,
    /// Maximum number of records to read per second.
    pub records_per_second: Option<u64>,
    /// How long a partition may make no progress before status shows it as stalled.
    pub stalled_after: Duration,
    /// With ExactlyOnce and a Kafka writer: the producer of the transactions and what it rejected.
    pub transactions: Option<Transactional>,
    /// Backoff between transactions that fail.
    pub retry: RetryPolicy,
}

impl Config {
    /// The topics as the client takes them.
    pub(super) fn topics(&self) -> Vec<&str> {
        self.topics.iter().map(String::as_str).collect()
    }

    /// The brokers that the client connects to first.
    pub(super) fn bootstrap_servers(&self) -> &str {
        self.properties
            .get("bootstrap.servers")
            .map_or("", String::as_str)
    }

    /// True when the members assign the partitions; false when the broker does (KIP-848).
    pub(super) fn is_classic(&self) -> bool {
        !self.properties.contains_key("group.protocol")
    }
}
