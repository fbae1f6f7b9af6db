//! What is built from the configuration document: producers, transforms and writers. Reads Secrets and
//! ConfigMaps, and connects to nothing.

use std::sync::{Arc, Mutex};

use crds::{
    WorkerConfig,
    client_config::{self, KafkaCredentials},
    spec::{Compression, DeliveryGuarantee},
};

use super::{
    error::SettingsError,
    transforms,
    writers::{self, WriterContext},
};
use crate::{
    decode::Decoders, extensions::Extensions, kafka::producer::Producer, secrets::SecretFiles, sync,
    transaction::Transactional, transform::NamedTransform, writer::NamedWriter,
};

/// The parts of a worker that are built from the document.
#[derive(Clone)]
pub struct Parts {
    /// Checks of keys and values.
    pub decoders: Decoders,
    /// The transforms, in the order in which they run.
    pub transforms: Vec<NamedTransform>,
    /// The writers; every record goes to each of them.
    pub writers: Vec<NamedWriter>,
    /// The transactional producer; set with ExactlyOnce and a Kafka writer.
    pub transactions: Option<Transactional>,
}

impl Parts {
    /// Builds the parts of `config`, which [`super::read`] has checked. `credentials` are those of `kafka`;
    /// `secrets` is where Secrets and ConfigMaps are mounted; `extensions` are the custom transforms and
    /// writers of this binary.
    pub(super) async fn build(
        config: &WorkerConfig,
        credentials: &KafkaCredentials,
        worker_name: &str,
        secrets: &SecretFiles,
        extensions: &Extensions,
    ) -> Result<Self, SettingsError> {
        let producers: Mutex<Vec<(Compression, Producer)>> = Mutex::default();
        let producer = |compression| {
            let mut producers = sync::lock(&producers);
            if let Some((_, producer)) = producers.iter().find(|(used, _)| *used == compression) {
                return Ok(producer.clone());
            }
            let properties = client_config::producer(&config.kafka, credentials, compression);
            let producer = Producer::new(&properties)?;
            producers.push((compression, producer.clone()));
            Ok(producer)
        };
        let transactional_writer = match config.processing.delivery_guarantee {
            DeliveryGuarantee::ExactlyOnce => config.writers.iter().find_map(|writer| writer.kafka.as_ref()),
            _ => None,
        };
        let transactions = match transactional_writer {
            Some(writer) => Some(Transactional {
                producer: Producer::transactional(
                    client_config::transactional_ids(&config.group_id, worker_name).map(|id| {
                        client_config::transactional_producer(
                            &config.kafka,
                            credentials,
                            writer.compression,
                            &id,
                            config.processing.commit_interval_milliseconds,
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
            group_id: &config.group_id,
            guarantee: config.processing.delivery_guarantee,
            extensions,
        };
        let mut built = Vec::with_capacity(config.writers.len());
        for spec in &config.writers {
            built.push(NamedWriter {
                name: (*spec.name).into(),
                writer: writers::build(spec, &context).await?,
            });
        }
        let transforms = transforms::build(&config.transforms, &config.decode, secrets, extensions)?;
        let decoded_later = transforms
            .first()
            .is_some_and(|first| first.transform.decodes_values());
        Ok(Self {
            decoders: Decoders::new(&config.decode, decoded_later),
            transforms,
            writers: built,
            transactions,
        })
    }

    /// True if a transform or a writer reads headers.
    pub fn read_headers(&self) -> bool {
        self.transforms
            .iter()
            .any(|named| named.transform.reads_headers())
            || self.writers.iter().any(|named| named.writer.reads_headers())
    }
}
