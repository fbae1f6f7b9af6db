//! Where files go, what they are called, and what is wrong when they cannot be written.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    record::{Offset, TopicPartition},
    writer::WriteError,
};

/// Where files go and when they are closed.
#[derive(Clone, Debug)]
pub(super) struct FileSettings {
    pub directory: PathBuf,
    pub rotate_bytes: u64,
    pub rotate_after: Duration,
    pub worker: String,
}

/// `<topic>-<partition>-<worker>-<first offset>-<UTC time>`, without directory and extension. Topic names
/// contain no slash, and worker names are pod names.
pub(super) fn stem(settings: &FileSettings, partition: &TopicPartition, offset: Offset) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    format!(
        "{partition}-{}-{offset:020}-{now}",
        settings.worker.replace('/', "_")
    )
}

/// A failed step, with the path that it concerns.
#[derive(Debug)]
pub(super) struct FileError {
    pub step: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

pub(super) fn to_write_error(settings: &FileSettings, failed: FileError) -> WriteError {
    let FileError { step, path, error } = failed;
    let directory = settings.directory.display();
    let advice = match error.kind() {
        io::ErrorKind::NotFound => format!(
            "the directory {directory} does not exist; create it in the volume, or correct file.directory"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the worker's user may not write in {directory}; give the volume an fsGroup or mode that allows \
             it"
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "{directory} is read-only; mount a writable volume there with worker.volumes and \
             worker.volumeMounts"
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("the volume of {directory} is full; make room or enlarge it")
        }
        io::ErrorKind::NotADirectory => format!("{directory} is not a directory; correct file.directory"),
        _ => {
            return WriteError::Transient(format!("cannot {step} {}: {error}", path.display()));
        }
    };
    WriteError::Systemic(format!("cannot {step} {}: {error}: {advice}", path.display()))
}
