//! Reads the configuration document and checks its version and its values.

use std::path::Path;

use crds::{WorkerConfig, worker_config::FORMAT_VERSION};

use super::{error::SettingsError, validate};

/// Reads the document at `path` and checks its version and its values.
pub fn read(path: &Path) -> Result<WorkerConfig, SettingsError> {
    let bytes = std::fs::read(path).map_err(|source| SettingsError::Read {
        path: path.into(),
        source,
    })?;
    parse(path, &bytes)
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<WorkerConfig, SettingsError> {
    // The version comes first, because a document of another version may not have the other fields.
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
