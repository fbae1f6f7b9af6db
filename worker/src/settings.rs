//! From the configuration document and the mounted Secrets to [`Settings`]: what it means, checked, with transforms compiled
//! and writers built. All validation of a worker is here and below; it reads files and connects to nothing.

pub mod memory;
pub mod writers;

mod transforms;
mod validate;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crds::{
    WorkerConfig,
    client_config::{self, Properties},
    spec::{Compression, DeliveryGuarantee, OnExhausted, Ordering, StartPosition},
    worker_config::FORMAT_VERSION,
};
use thiserror::Error;

pub use self::{transforms::TransformError, validate::FieldError};
use crate::{
    args::Args,
    dead_letter::{BreakerLimits, DeadLetterSettings},
    decode::Decoders,
    exit,
    extensions::Extensions,
    kafka::producer::{Producer, ProducerError},
    retry::RetryPolicy,
    secrets::{SecretError, SecretFiles},
    settings::{
        memory::MemoryBudget,
        writers::{BuildWriterError, WriterContext, build},
    },
    transaction::Transactional,
    transform::NamedTransform,
    writer::NamedWriter,
};

/// Everything the engine must know.
#[derive(Clone)]
pub struct Settings {
    /// Name of this worker, unique in the group.
    pub worker_name: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// Kafka's group.id.
    pub group_id: String,
    /// Input topics.
    pub topics: Vec<String>,
    /// Properties of the consumer; contain credentials.
    pub consumer_properties: Properties,
    /// Properties of the producer for dead letters; contain credentials.
    pub producer_properties: Properties,
    /// With ExactlyOnce and a Kafka writer: what transactions are made with.
    pub transactions: Option<Transactional>,
    /// Where partitions without a committed offset start; its timestamp is there when it needs one.
    pub start_position: StartPosition,
    /// Partitions processed at the same time.
    pub concurrency: usize,
    /// How many records go through transforms and writers together.
    pub batch: BatchLimits,
    /// Most records to read per second.
    pub records_per_second: Option<u64>,
    /// How much memory records may take.
    pub memory: MemoryBudget,
    /// When offsets are committed.
    pub guarantee: DeliveryGuarantee,
    /// What may overtake what.
    pub ordering: Ordering,
    /// Time between commits.
    pub commit_interval: Duration,
    /// Checks of keys and values.
    pub decoders: Decoders,
    /// In this order.
    pub transforms: Vec<NamedTransform>,
    /// Every record goes to each of them.
    pub writers: Vec<NamedWriter>,
    /// Backoff of failing writes.
    pub retry: RetryPolicy,
    /// What happens to a record that cannot be processed; DeadLetter only with a topic.
    pub on_exhausted: OnExhausted,
    /// Where failed records go, and how.
    pub dead_letter: Option<DeadLetterSettings>,
    /// How long the transforms may take for one record.
    pub transform_timeout: Duration,
    /// How long a partition may stand still before that is told.
    pub stalled_after: Duration,
    /// How long a stopping worker may work on what it has begun.
    pub drain: Duration,
}

/// Limits of one batch; it is closed by whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most records.
    pub max_records: usize,
    /// Most bytes; a single larger record makes a batch of its own.
    pub max_bytes: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
}

/// Why the worker cannot start.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No document.
    #[error("cannot read the configuration {}: {source}; point --config at the worker.json that the operator renders", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not the document.
    #[error("{} is not a worker configuration: {source}; operator and worker must be of the same release", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A document of another release.
    #[error("{} has formatVersion {found}, this worker reads {FORMAT_VERSION}; use operator and worker of the same release", path.display())]
    Version { path: PathBuf, found: u32 },
    /// Values that make no sense.
    #[error("{} cannot be used:{}", path.display(), list(errors))]
    Invalid { path: PathBuf, errors: Vec<FieldError> },
    /// A Secret or ConfigMap for the connection to Kafka.
    #[error("kafka: {0}")]
    Secret(#[from] SecretError),
    /// The producer of transactions.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A transform.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A writer.
    #[error(transparent)]
    Writer(#[from] BuildWriterError),
}

fn list(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

impl SettingsError {
    /// The process exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        match self {
            SettingsError::Secret(_)
            | SettingsError::Writer(BuildWriterError::Secret { .. })
            | SettingsError::Transform(TransformError::ConfigMap { .. }) => exit::CREDENTIALS,
            _ => exit::CONFIG,
        }
    }
}

/// Reads the document at `path` and checks its version and its values.
pub fn read(path: &Path) -> Result<WorkerConfig, SettingsError> {
    let bytes = std::fs::read(path).map_err(|source| SettingsError::Read {
        path: path.into(),
        source,
    })?;
    parse(path, &bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<WorkerConfig, SettingsError> {
    // The version first: a document of another version need not have the other fields.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u32,
    }
    let unparsable = |source| SettingsError::Parse {
        path: path.into(),
        source,
    };
    let Version { format_version } = serde_json::from_slice(bytes).map_err(unparsable)?;
    if format_version != FORMAT_VERSION {
        return Err(SettingsError::Version {
            path: path.into(),
            found: format_version,
        });
    }
    let config: WorkerConfig = serde_json::from_slice(bytes).map_err(unparsable)?;
    match validate::check(&config) {
        errors if errors.is_empty() => Ok(config),
        errors => Err(SettingsError::Invalid {
            path: path.into(),
            errors,
        }),
    }
}

impl Settings {
    /// True when anything looks at headers: a transform, a writer, or dead letters, which are copies.
    pub fn read_headers(&self) -> bool {
        self.on_exhausted == OnExhausted::DeadLetter
            || self
                .transforms
                .iter()
                .any(|named| named.transform.reads_headers())
            || self.writers.iter().any(|named| named.writer.reads_headers())
    }

    /// Loads everything that `args` point at.
    pub async fn load(args: &Args, extensions: &Extensions) -> Result<Self, SettingsError> {
        let config = read(&args.config)?;
        let secrets = SecretFiles::new(args.secrets_dir.clone(), args.config_maps_dir.clone());
        let mut settings = Self::build(config, &args.name, &secrets, extensions).await?;
        settings.fit_into(memory::limit());
        Ok(settings)
    }

    /// Sizes what is kept in memory for a container with this limit in bytes. What the user has set stays.
    fn fit_into(&mut self, limit: Option<u64>) {
        self.memory = MemoryBudget::new(limit);
        let kib = (self.memory.read_ahead >> 10).to_string();
        self.consumer_properties
            .entry("queued.max.messages.kbytes".into())
            .or_insert(kib);
    }

    /// Builds settings of a document that has been checked.
    pub async fn build(
        config: WorkerConfig,
        worker_name: &str,
        secrets: &SecretFiles,
        extensions: &Extensions,
    ) -> Result<Self, SettingsError> {
        // Every field by name: a new one must be thought about here.
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
            writers,
            error_handling,
            drain_seconds,
        } = config;
        let credentials = secrets.kafka_credentials(&kafka)?;
        let producer_properties = |compression| client_config::producer(&kafka, &credentials, compression);
        let producers: Mutex<Vec<(Compression, Producer)>> = Mutex::default();
        let producer = |compression| {
            let mut producers = producers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, producer)) = producers.iter().find(|(used, _)| *used == compression) {
                return Ok(producer.clone());
            }
            let producer = Producer::new(&producer_properties(compression))?;
            producers.push((compression, producer.clone()));
            Ok(producer)
        };
        let transactional_writer = match processing.delivery_guarantee {
            DeliveryGuarantee::ExactlyOnce => writers.iter().find_map(|writer| writer.kafka.as_ref()),
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
        let mut built = Vec::with_capacity(writers.len());
        for writer in &writers {
            built.push(NamedWriter {
                name: (*writer.name).into(),
                writer: build(writer, &context).await?,
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

#[cfg(test)]
mod tests;
