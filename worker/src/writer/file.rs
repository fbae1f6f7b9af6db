//! Writes NDJSON files: one line per value, `null` for a tombstone, one open file per worker and partition,
//! named `<topic>-<partition>-<worker>-<first offset>-<UTC time>.ndjson`. A batch counts as written when its
//! lines are on disk (fdatasync). A line that an error cut off is removed before the next attempt. After a
//! crash, records may be in two files. The writer never deletes, renames or compresses files.

mod partition;
mod settings;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use crds::spec;
use futures::future::BoxFuture;

use self::{
    partition::PartitionFile,
    settings::{FileSettings, to_write_error},
};
use super::{Rejected, WriteBatch, WriteError, Writer, lines};
use crate::record::TopicPartition;
use crate::sync;

/// How often the writer looks for files past their age. A file may stay open this much longer than
/// configured.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

type Files = Mutex<HashMap<TopicPartition, Arc<Mutex<PartitionFile>>>>;

/// Appends to files in one directory.
pub struct FileWriter {
    settings: Arc<FileSettings>,
    files: Arc<Files>,
}

impl FileWriter {
    /// Opens no file yet. Must be called inside a tokio runtime.
    pub fn new(config: &spec::FileWriter, worker: &str) -> Self {
        let settings = FileSettings {
            directory: PathBuf::from(&config.directory),
            rotate_bytes: config.rotate_bytes.max(1).unsigned_abs(),
            rotate_after: Duration::from_secs(config.rotate_seconds.max(1).unsigned_abs().into()),
            worker: worker.into(),
        };
        let files = Arc::new(Files::default());
        tokio::spawn(sweep(Arc::downgrade(&files), settings.rotate_after));
        Self {
            settings: Arc::new(settings),
            files,
        }
    }

    fn partition(&self, partition: &TopicPartition) -> Arc<Mutex<PartitionFile>> {
        let mut files = sync::lock(&self.files);
        files.entry(partition.clone()).or_default().clone()
    }

    async fn append(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let lines::Lines {
            bytes: lines,
            rejected,
            ..
        } = lines::of(&batch);
        let Some(first) = batch.records().next().filter(|_| !lines.is_empty()) else {
            return Ok(rejected);
        };
        let partition = first.record.partition().clone();
        let offset = first.offset();
        let file = self.partition(&partition);
        let settings = self.settings.clone();
        // Completes even if the caller is dropped: the lock is released with the file in a known state.
        let appended = tokio::task::spawn_blocking(move || {
            let mut file = sync::lock(&file);
            file.append(&settings, &partition, offset, &lines)
        });
        match appended.await {
            Ok(Ok(())) => Ok(rejected),
            Ok(Err(error)) => Err(to_write_error(&self.settings, error)),
            Err(error) => Err(WriteError::Transient(format!(
                "writing a file was interrupted: {error}"
            ))),
        }
    }
}

impl Writer for FileWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(self.append(batch))
    }

    fn reads_headers(&self) -> bool {
        false
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let files = std::mem::take(&mut *sync::lock(&self.files));
            let closing = tokio::task::spawn_blocking(move || {
                for (partition, file) in files {
                    if let Err(error) = sync::lock(&file).close() {
                        // Every confirmed line was synced before it was confirmed.
                        tracing::warn!(%partition, "cannot close the file of {partition}: {error}");
                    }
                }
            });
            let _ = closing.await;
        })
    }
}

/// Closes files past their age, including those of partitions that moved to other workers.
async fn sweep(files: Weak<Files>, rotate_after: Duration) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL.min(rotate_after)).await;
        let Some(files) = files.upgrade() else { return };
        let swept = tokio::task::spawn_blocking(move || {
            sync::lock(&files).retain(|_, file| {
                // A locked file is being written.
                let Ok(mut open) = file.try_lock() else {
                    return true;
                };
                open.close_if_older(rotate_after);
                // A write that waits for the lock has a reference. Forgetting the file would allow a
                // second one.
                open.is_open() || Arc::strong_count(file) > 1
            });
        });
        let _ = swept.await;
    }
}
