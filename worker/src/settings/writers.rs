//! Builds the [`Writer`]s of `spec.writers[]`. Reads the Secrets that a writer needs, so that a missing
//! Secret is an error at the start; connects to nothing.

use std::sync::Arc;

use crds::spec::{self, Compression, DeliveryGuarantee, WriterType};

use crate::{
    extensions::Extensions,
    kafka::producer::{Producer, ProducerError},
    secrets::{SecretError, SecretFiles},
    transaction::Transactional,
    writer::{Writer, blackhole::Blackhole, file::FileWriter, kafka::KafkaWriter, stdout::StdoutWriter},
};

/// What writers need besides their configuration.
#[derive(Clone, Copy)]
pub struct WriterContext<'a> {
    /// Where Secrets are mounted.
    pub secrets: &'a SecretFiles,
    /// Returns the worker's producer for a compression; writers with the same compression share one.
    pub producer: &'a (dyn Fn(Compression) -> Result<Producer, ProducerError> + Send + Sync),
    /// The transactional producer; set with ExactlyOnce and a Kafka writer.
    pub transactions: Option<&'a Transactional>,
    /// Name of the worker, unique in the group; part of file names.
    pub worker_name: &'a str,
    /// Kafka's group.id.
    pub group_id: &'a str,
    /// The delivery guarantee. With ExactlyOnce, writers also store offsets.
    pub guarantee: DeliveryGuarantee,
    /// The custom transforms and writers of this binary.
    pub extensions: &'a Extensions,
}

/// A writer that cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildWriterError {
    /// A Secret or ConfigMap is missing or invalid.
    #[error("writer {name:?}: {source}")]
    Secret {
        name: String,
        #[source]
        source: SecretError,
    },
    /// The content of a Secret is of no use to the writer.
    #[error("writer {name:?}: {message}")]
    SecretContent { name: String, message: String },
    /// The Kafka producer cannot be created.
    #[error("writer {name:?}: {source}")]
    Producer {
        name: String,
        #[source]
        source: ProducerError,
    },
    /// The configuration is invalid.
    #[error("writer {name:?}: {message}")]
    Config { name: String, message: String },
    /// The custom code returned an error.
    #[error("writer {name:?}: {source:#}")]
    Custom { name: String, source: anyhow::Error },
}

/// Builds the writer that `config` describes.
pub async fn build(
    config: &spec::Writer,
    context: &WriterContext<'_>,
) -> Result<Arc<dyn Writer>, BuildWriterError> {
    let name = || config.name.clone();
    let missing = |member: &str| BuildWriterError::Config {
        name: name(),
        message: format!("type is {:?}, so the member {member} must be set", config.kind),
    };
    match config.kind {
        WriterType::Blackhole => Ok(Arc::new(Blackhole)),
        WriterType::Stdout => Ok(Arc::new(StdoutWriter::stdout())),
        WriterType::File => {
            let file = config.file.as_ref().ok_or_else(|| missing("file"))?;
            Ok(Arc::new(FileWriter::new(file, context.worker_name)))
        }
        WriterType::Kafka => {
            let kafka = config.kafka.as_ref().ok_or_else(|| missing("kafka"))?;
            if let Some(Transactional {
                producer,
                rejected_records,
            }) = context.transactions
            {
                let writer =
                    KafkaWriter::transactional(&kafka.topic, producer.clone(), rejected_records.clone());
                return Ok(Arc::new(writer));
            }
            let producer = (context.producer)(kafka.compression)
                .map_err(|source| BuildWriterError::Producer { name: name(), source })?;
            Ok(Arc::new(KafkaWriter::new(&kafka.topic, producer)))
        }
        #[cfg(feature = "http")]
        WriterType::Http => {
            let http = config.http.as_ref().ok_or_else(|| missing("http"))?;
            let writer = crate::writer::http::HttpWriter::new(http, context.secrets.clone());
            Ok(Arc::new(writer.map_err(|error| match error {
                crate::writer::http::NewHttpError::Secret(source) => {
                    BuildWriterError::Secret { name: name(), source }
                }
                other => BuildWriterError::Config {
                    name: name(),
                    message: other.to_string(),
                },
            })?))
        }
        #[cfg(feature = "postgres")]
        WriterType::Postgres => {
            let postgres = config.postgres.as_ref().ok_or_else(|| missing("postgres"))?;
            let writer = crate::writer::postgres::PostgresWriter::new(postgres, context.secrets.clone());
            let writer = writer.map_err(|error| match error {
                crate::writer::postgres::NewPostgresError::Secret(source) => {
                    BuildWriterError::Secret { name: name(), source }
                }
                crate::writer::postgres::NewPostgresError::Url(message) => BuildWriterError::SecretContent {
                    name: name(),
                    message,
                },
            })?;
            Ok(match context.guarantee {
                DeliveryGuarantee::ExactlyOnce => Arc::new(writer.exactly_once(
                    &postgres.offsets_table,
                    context.group_id,
                    context.worker_name,
                )),
                _ => Arc::new(writer),
            })
        }
        WriterType::Custom => {
            let custom = config.custom.as_ref().ok_or_else(|| missing("custom"))?;
            let value = serde_json::to_value(&custom.config).unwrap_or_default();
            (context.extensions.build_writer(&custom.name, &value))
                .map_err(|source| BuildWriterError::Custom { name: name(), source })
        }
        #[cfg(not(all(feature = "http", feature = "postgres")))]
        kind => Err(BuildWriterError::Config {
            name: name(),
            message: format!(
                "this worker was built without the feature for type {kind:?}; use the released worker image"
            ),
        }),
    }
}
