//! Why a worker cannot start with its configuration, and the exit code of each reason.

use std::{io, path::PathBuf};

use crds::worker_config::FORMAT_VERSION;
use thiserror::Error;

use super::{transforms::TransformError, validate::FieldError, writers::BuildWriterError};
use crate::{exit, kafka::producer::ProducerError, secrets::SecretError};

/// Why the worker cannot start.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The document cannot be read.
    #[error("cannot read the configuration {}: {source}; point --config at the worker.json that the operator renders", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The document does not parse.
    #[error("{} is not a worker configuration: {source}; operator and worker must be of the same release", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The document belongs to another release.
    #[error("{} has formatVersion {found}, this worker reads {FORMAT_VERSION}; use operator and worker of the same release", path.display())]
    Version { path: PathBuf, found: u32 },
    /// The document has invalid values.
    #[error("{} is invalid; correct these fields:{}", path.display(), list(errors))]
    Invalid { path: PathBuf, errors: Vec<FieldError> },
    /// A Secret or ConfigMap for the connection to Kafka is missing or invalid.
    #[error("kafka: {0}")]
    Secret(#[from] SecretError),
    /// The transactional producer cannot be created.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A transform cannot be built.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A writer cannot be built.
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
            | SettingsError::Writer(
                BuildWriterError::Secret { .. } | BuildWriterError::SecretContent { .. },
            )
            | SettingsError::Transform(TransformError::ConfigMap { .. }) => exit::CREDENTIALS,
            _ => exit::CONFIG,
        }
    }
}
