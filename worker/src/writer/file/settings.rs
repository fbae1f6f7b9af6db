//! Where files go, what they are called, and what is wrong when they cannot be written.

use std::{io, path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};

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

/// Maximum length of a file name, in bytes, on Linux file systems.
const MAX_NAME: usize = 255;

/// Bytes of a name behind its origin: offset, time, the number of an attempt, extension.
const AFTER_ORIGIN: usize = 64;

/// `<topic>-<partition>-<worker>-<first offset>-<UTC time>`, without directory and extension. Topic names
/// contain no slash, and worker names are pod names.
pub(super) fn stem(settings: &FileSettings, partition: &TopicPartition, offset: Offset) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let origin = origin(partition, &settings.worker.replace('/', "_"));
    format!("{origin}-{offset:020}-{now}")
}

/// `<topic>-<partition>-<worker>`. If that is too long for a file name, it is cut and ends in a hash of the
/// whole, so that names differ where the origins do, and stay the same for the same origin.
fn origin(partition: &TopicPartition, worker: &str) -> String {
    let origin = format!("{partition}-{worker}");
    if origin.len() <= MAX_NAME - AFTER_ORIGIN {
        return origin;
    }
    let digest = Sha256::digest(&origin);
    let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let kept = origin.floor_char_boundary(MAX_NAME - AFTER_ORIGIN - hash.len() - 1);
    format!("{}-{hash}", &origin[..kept])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_too_long_and_differs_between_origins() {
        let name = |topic: &str, partition, worker: &str| {
            let settings = FileSettings {
                directory: PathBuf::new(),
                rotate_bytes: 1,
                rotate_after: Duration::ZERO,
                worker: worker.into(),
            };
            let stem = stem(&settings, &TopicPartition::new(topic, partition), i64::MAX);
            format!("{stem}-{}.ndjson", u32::MAX)
        };
        let longest = "t".repeat(249);
        for (topic, worker) in [
            (longest.clone(), "w".repeat(253)),
            ("t".repeat(241), "orders-7d9f8-abcde".into()),
            ("short".into(), "w".repeat(253)),
            ("short".into(), "\u{e4}".repeat(126)),
        ] {
            let len = name(&topic, i32::MAX, &worker).len();
            assert!(len <= MAX_NAME, "{len} bytes");
        }
        assert!(name("orders", 3, "w-0").starts_with("orders-3-w-0-09223372036854775807-"));
        let origin = |partition, worker: &str| origin(&TopicPartition::new(&*longest, partition), worker);
        assert_eq!(origin(3, "w-0"), origin(3, "w-0"));
        let different = [
            origin(3, "w-0"),
            origin(4, "w-0"),
            origin(3, "w-1"),
            origin(31, "w-0"),
        ];
        let unique: std::collections::HashSet<_> = different.iter().collect();
        assert_eq!(unique.len(), different.len());
    }
}
