//! From a checked document to plain values. Pure.

use std::time::Duration;

use crds::{
    WorkerConfig,
    client_config::{self, KafkaCredentials},
    spec::{Compression, DeliveryGuarantee, Ordering, Processing, Writer, WriterType},
};

use super::{
    memory::MemoryBudget,
    values::{BatchLimits, Settings},
};
use crate::{
    dead_letter::{BreakerLimits, DeadLetterSettings},
    retry::RetryPolicy,
};

/// Batches that wait for databases, servers and disks at the same time, unless the user sets another number.
const CONCURRENCY: i64 = 4;
/// The same for brokers. The producer holds a copy of each of them, see [`MemoryBudget`].
const PIPELINED: i64 = 16;

impl Settings {
    /// The values of `config`, which [`super::read`] has checked. `credentials` are those of `kafka`.
    pub(super) fn new(config: WorkerConfig, credentials: &KafkaCredentials, worker_name: &str) -> Self {
        // Every field by name, so that a new field of the document does not compile before it is handled
        // here.
        let WorkerConfig {
            format_version: _,
            namespace,
            name,
            group_id,
            topics,
            kafka,
            consumer,
            processing,
            // What is built from these is in `Parts`.
            decode: _,
            transforms: _,
            writers,
            error_handling,
            drain_seconds,
            until,
        } = config;
        let concurrency = concurrency(&processing, &writers);
        let mut consumer_properties = client_config::consumer(&kafka, credentials, &group_id, &consumer);
        let mut topics = topics;
        if let Some(until) = &until {
            // The last offsets of a part of the log may belong to no record.
            consumer_properties.insert("enable.partition.eof".into(), "true".into());
            topics.retain(|topic| until.partitions.iter().any(|planned| planned.topic == *topic));
        }
        let of_run = until.as_ref().and_then(|until| until.records_per_second);
        let records_per_second = processing.records_per_second.into_iter().chain(of_run).min();
        let milliseconds = |value: i32| Duration::from_millis(value as u64);
        Self {
            worker_name: worker_name.into(),
            namespace,
            name,
            consumer_properties,
            producer_properties: client_config::producer(&kafka, credentials, Compression::default()),
            group_id,
            topics,
            start_time: consumer
                .start_position
                .timestamp
                .map(|time| time.as_millisecond()),
            on_topic_recreated: consumer.on_topic_recreated,
            on_offset_out_of_range: consumer.on_offset_out_of_range,
            until,
            concurrency,
            batch: BatchLimits {
                max_records: processing.batch.max_records as usize,
                max_bytes: processing.batch.max_bytes as usize,
                linger: processing.batch.linger_milliseconds.map(milliseconds),
            },
            records_per_second: records_per_second.map(|limit| limit as u64),
            guarantee: processing.delivery_guarantee,
            ordering: processing.ordering,
            memory: MemoryBudget::new(None),
            commit_interval: milliseconds(processing.commit_interval_milliseconds),
            on_exhausted: error_handling.policy(),
            retry: RetryPolicy {
                max_attempts: error_handling.retry.max_attempts as u32,
                initial: milliseconds(error_handling.retry.initial_backoff_milliseconds),
                max: Duration::from_secs(error_handling.retry.max_backoff_seconds as u64),
                jitter_percent: error_handling.retry.jitter_percent as u32,
            },
            dead_letter: error_handling.dead_letter.map(|dead_letter| DeadLetterSettings {
                topic: dead_letter.topic,
                style: dead_letter.header_style,
                on_refused: dead_letter.on_refused,
                breaker: dead_letter.breaker.map(|breaker| BreakerLimits {
                    consecutive: breaker.max_consecutive as u64,
                    percent: breaker.max_ratio_percent as u64,
                }),
            }),
            transform_timeout: Duration::from_secs(error_handling.transform_timeout_seconds as u64),
            stalled_after: Duration::from_secs(error_handling.stalled_after_seconds as u64),
            drain: Duration::from_secs(drain_seconds as u64),
        }
    }
}

/// Batches written at the same time. With a Kafka writer, a batch spends most of its time waiting for the
/// broker's answer: with 4 at a time, 12 partitions at 1,000 records per second waited 30 ms for their turn. In
/// transactions nobody waits for a single batch, and what cannot be written in time aborts all of them.
fn concurrency(processing: &Processing, writers: &[Writer]) -> usize {
    let pipelined = writers.iter().all(|writer| writer.kind == WriterType::Kafka);
    let transactional = processing.delivery_guarantee == DeliveryGuarantee::ExactlyOnce;
    let limit = match (processing.concurrency, processing.ordering) {
        (Some(limit), _) => i64::from(limit),
        (None, Ordering::PerPartition) if pipelined && !transactional => PIPELINED,
        (None, _) => CONCURRENCY,
    };
    limit as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_number_kafka_takes_more_batches_at_once_than_other_systems() {
        let writers = |kinds: &[&str]| -> Vec<Writer> {
            let writer = |kind: &&str| serde_json::from_value(json!({"name": "w", "type": kind}));
            kinds.iter().map(writer).collect::<Result<_, _>>().unwrap()
        };
        let of = |ordering, number, kinds: &[&str]| {
            let processing = Processing {
                ordering,
                concurrency: number,
                ..Processing::default()
            };
            concurrency(&processing, &writers(kinds))
        };
        assert_eq!(of(Ordering::PerPartition, None, &["Kafka"]), 16);
        assert_eq!(of(Ordering::PerPartition, None, &["Kafka", "Kafka"]), 16);
        assert_eq!(of(Ordering::PerPartition, Some(2), &["Kafka"]), 2);
        assert_eq!(of(Ordering::PerPartition, None, &["Kafka", "Http"]), 4);
        assert_eq!(of(Ordering::PerKey, None, &["Kafka"]), 4);
        assert_eq!(of(Ordering::Unordered, None, &["Postgres"]), 4);
        let transactional = Processing {
            delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
            ..Processing::default()
        };
        assert_eq!(concurrency(&transactional, &writers(&["Kafka"])), 4);
    }
}
