//! From a checked document to plain values. Pure.

use std::time::Duration;

use crds::{
    WorkerConfig,
    client_config::{self, KafkaCredentials},
    spec::Compression,
};

use super::{
    memory::MemoryBudget,
    values::{BatchLimits, Settings},
};
use crate::{
    dead_letter::{BreakerLimits, DeadLetterSettings},
    retry::RetryPolicy,
};

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
            writers: _,
            error_handling,
            drain_seconds,
        } = config;
        let milliseconds = |value: i32| Duration::from_millis(value as u64);
        Self {
            worker_name: worker_name.into(),
            namespace,
            name,
            consumer_properties: client_config::consumer(&kafka, credentials, &group_id, &consumer),
            producer_properties: client_config::producer(&kafka, credentials, Compression::default()),
            group_id,
            topics,
            start_time: consumer
                .start_position
                .timestamp
                .map(|time| time.as_millisecond()),
            on_topic_recreated: consumer.on_topic_recreated,
            on_offset_out_of_range: consumer.on_offset_out_of_range,
            concurrency: processing.concurrency as usize,
            batch: BatchLimits {
                max_records: processing.batch.max_records as usize,
                max_bytes: processing.batch.max_bytes as usize,
                linger: processing.batch.linger_milliseconds.map(milliseconds),
            },
            records_per_second: processing.records_per_second.map(|limit| limit as u64),
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
