//! The file of one partition: opens it, appends with fdatasync, repairs it after an error, rotates it.
//! Blocking; runs on threads for blocking work.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::settings::{FileError, FileSettings, stem};
use crate::record::{Offset, TopicPartition};

/// Has at most one open file.
#[derive(Debug, Default)]
pub(super) struct PartitionFile {
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    path: PathBuf,
    /// Confirmed bytes. Anything behind them is the rest of a failed append.
    len: u64,
    dirty: bool,
    since: Instant,
}

impl PartitionFile {
    /// Appends lines and returns once they are on disk.
    pub fn append(
        &mut self,
        settings: &FileSettings,
        partition: &TopicPartition,
        first_offset: Offset,
        lines: &[u8],
    ) -> Result<(), FileError> {
        self.close_if_older(settings.rotate_after);
        // Whoever moved or deleted a file owns it: lines added now might never be read.
        if self.open.as_ref().is_some_and(|open| !open.is_in_place()) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenFile::create(settings, &stem(settings, partition, first_offset))?,
        };
        let open = self.open.insert(open);
        open.repair()?;
        open.dirty = true;
        if let Err(error) = open.file.write_all(lines) {
            let failed = open.failed("write to", error);
            // If this fails as well, the next attempt repeats it.
            let _ = open.repair();
            return Err(failed);
        }
        if let Err(error) = open.file.sync_data() {
            let failed = open.failed("sync", error);
            let _ = open.repair();
            // After a failed sync the kernel may consider the pages clean, so only a new file is safe.
            self.open = None;
            return Err(failed);
        }
        open.dirty = false;
        open.len += lines.len() as u64;
        if open.len >= settings.rotate_bytes {
            self.open = None;
        }
        Ok(())
    }

    /// Closes the file if it is past its age.
    pub fn close_if_older(&mut self, age: Duration) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.dirty && open.since.elapsed() >= age)
        {
            self.open = None;
        }
    }

    /// Removes the rest of a failed append, syncs and closes the file.
    pub fn close(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.repair().map_err(|failed| failed.error)?;
        open.file.sync_all()
    }

    /// True while a file is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

impl OpenFile {
    fn create(settings: &FileSettings, stem: &str) -> Result<Self, FileError> {
        let mut attempt = 0;
        loop {
            let name = if attempt == 0 {
                format!("{stem}.ndjson")
            } else {
                format!("{stem}-{attempt}.ndjson")
            };
            let path = settings.directory.join(name);
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Without this, the name may be missing after a crash although the data is on disk.
                    if let Err(error) = sync_directory(&settings.directory) {
                        return Err(FileError {
                            step: "sync the directory of",
                            path,
                            error,
                        });
                    }
                    return Ok(Self {
                        file,
                        path,
                        len: 0,
                        dirty: false,
                        since: Instant::now(),
                    });
                }
                // Two files in the same millisecond: never take over an existing name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => {
                    return Err(FileError {
                        step: "create",
                        path,
                        error,
                    });
                }
            }
        }
    }

    /// Cuts off the rest of a failed append.
    fn repair(&mut self) -> Result<(), FileError> {
        if self.dirty {
            self.file
                .set_len(self.len)
                .map_err(|error| self.failed("truncate", error))?;
            self.dirty = false;
        }
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => id(ours) == id(there),
            _ => false,
        }
    }

    fn failed(&self, step: &'static str, error: io::Error) -> FileError {
        FileError {
            step,
            path: self.path.clone(),
            error,
        }
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_past_its_age_is_closed_and_followed_by_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let settings = FileSettings {
            directory: directory.path().into(),
            rotate_bytes: 1 << 20,
            rotate_after: Duration::from_secs(3600),
            worker: "w".into(),
        };
        let partition = TopicPartition::new("t", 0);
        let mut file = PartitionFile::default();
        file.append(&settings, &partition, 0, b"a\n").unwrap();
        file.close_if_older(settings.rotate_after);
        assert!(file.is_open());
        file.append(&settings, &partition, 1, b"b\n").unwrap();
        file.close_if_older(Duration::ZERO);
        assert!(!file.is_open());
        file.append(&settings, &partition, 2, b"c\n").unwrap();
        let mut files: Vec<PathBuf> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let contents: Vec<String> = files
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(contents, ["a\nb\n", "c\n"]);
    }
}
