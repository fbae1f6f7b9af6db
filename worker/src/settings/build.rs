//! From a checked document to [`Settings`]: reads Secrets, creates producers, compiles transforms and builds
//! writers. Connects to nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::{
    WorkerConfig, client_config,
    spec::{Compression, DeliveryGuarantee},
};

use super::{
    error::SettingsError,
    memory::MemoryBudget,
    transforms,
    values::{BatchLimits, Settings},
    writers::{self, WriterContext},
};
use crate::{
    dead_letter::{BreakerLimits, DeadLetterSettings},
    decode::Decoders,
    extensions::Extensions,
    kafka::producer::Producer,
    retry::RetryPolicy,
    secrets::SecretFiles,
    sync,
    transaction::Transactional,
    writer::NamedWriter,
};

impl Settings {
    /// Builds the settings from `config`, which [`super::read`] has checked. `secrets` is where
    /// Secrets and ConfigMaps are mounted; `extensions` are the custom transforms and writers of this binary.
    pub async fn build(
        config: WorkerConfig,
        worker_name: &str,
        secrets: &SecretFiles,
        extensions: &Extensions,
    ) -> Result<Self, SettingsError> {
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
            decode,
            transforms,
            writers: writer_specs,
            error_handling,
            drain_seconds,
        } = config;
        let credentials = secrets.kafka_credentials(&kafka)?;
        let producer_properties = |compression| client_config::producer(&kafka, &credentials, compression);
        let producers: Mutex<Vec<(Compression, Producer)>> = Mutex::default();
        let producer = |compression| {
            let mut producers = sync::lock(&producers);
            if let Some((_, producer)) = producers.iter().find(|(used, _)| *used == compression) {
                return Ok(producer.clone());
            }
            let producer = Producer::new(&producer_properties(compression))?;
            producers.push((compression, producer.clone()));
            Ok(producer)
        };
        let transactional_writer = match processing.delivery_guarantee {
            DeliveryGuarantee::ExactlyOnce => writer_specs.iter().find_map(|writer| writer.kafka.as_ref()),
            _ => None,
        };
        let transactions = match transactional_writer {
            Some(writer) => Some(Transactional {
                producer: Producer::transactional(
                    client_config::transactional_ids(&group_id, worker_name).map(|id| {
                        client_config::transactional_producer(
                            &kafka,
                            &credentials,
                            writer.compression,
                            &id,
                            processing.commit_interval_milliseconds,
                        )
                    }),
                )?,
                rejected_records: Arc::default(),
            }),
            None => None,
        };
        let context = WriterContext {
            secrets,
            producer: &producer,
            transactions: transactions.as_ref(),
            worker_name,
            group_id: &group_id,
            guarantee: processing.delivery_guarantee,
            extensions,
        };
        let mut built = Vec::with_capacity(writer_specs.len());
        for spec in &writer_specs {
            built.push(NamedWriter {
                name: (*spec.name).into(),
                writer: writers::build(spec, &context).await?,
            });
        }
        let transforms = transforms::build(&transforms, &decode, secrets, extensions)?;
        let decoded_later = transforms
            .first()
            .is_some_and(|first| first.transform.decodes_values());
        let milliseconds = |value: i32| Duration::from_millis(value as u64);
        Ok(Self {
            worker_name: worker_name.into(),
            namespace,
            name,
            consumer_properties: client_config::consumer(&kafka, &credentials, &group_id, &consumer),
            producer_properties: producer_properties(Compression::default()),
            transactions,
            group_id,
            topics,
            start_position: consumer.start_position,
            concurrency: processing.concurrency as usize,
            batch: BatchLimits {
                max_records: processing.batch.max_records as usize,
                max_bytes: processing.batch.max_bytes as usize,
                linger: milliseconds(processing.batch.linger_milliseconds),
            },
            records_per_second: processing.records_per_second.map(|limit| limit as u64),
            guarantee: processing.delivery_guarantee,
            ordering: processing.ordering,
            memory: MemoryBudget::new(None),
            commit_interval: milliseconds(processing.commit_interval_milliseconds),
            decoders: Decoders::new(&decode, decoded_later),
            transforms,
            writers: built,
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
                breaker: dead_letter.breaker.map(|breaker| BreakerLimits {
                    consecutive: breaker.max_consecutive as u64,
                    percent: breaker.max_ratio_percent as u64,
                }),
            }),
            transform_timeout: Duration::from_secs(error_handling.transform_timeout_seconds as u64),
            stalled_after: Duration::from_secs(error_handling.stalled_after_seconds as u64),
            drain: Duration::from_secs(drain_seconds as u64),
        })
    }
}
