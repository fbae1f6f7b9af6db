//! A worker's log: a file, not a pipe, because a pipe breaks when this process is killed, and a worker that cannot write
//! its log any more may not get as far as stopping in order. In: the file. Out: new lines that people should see, and the
//! last words. Cut when it grows large.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Lines that are kept for the last words.
const LAST_WORDS: usize = 5;
/// Larger than what anybody reads, small enough to forget about.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Read at once; a worker that logs more per tick is cut.
const MOST: u64 = 1024 * 1024;

pub(super) struct WorkerLog {
    file: File,
    read: u64,
    /// The beginning of a line whose end is not written yet.
    open: Vec<u8>,
    last: VecDeque<String>,
}

impl WorkerLog {
    /// Opens the log, cut to nothing, and a handle for the worker to append to.
    pub(super) fn create(path: &Path) -> std::io::Result<(Self, File)> {
        // Append: after a cut the worker's next line is at the beginning, wherever it had written before.
        let append = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        append.set_len(0)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok((
            Self {
                file,
                read: 0,
                open: Vec::new(),
                last: VecDeque::new(),
            },
            append,
        ))
    }

    /// New lines that are warnings or errors. A log that cannot be read is not worth stopping for.
    pub(super) fn news(&mut self) -> Vec<String> {
        let mut bytes = std::mem::take(&mut self.open);
        let before = bytes.len();
        if self.file.seek(SeekFrom::Start(self.read)).is_err()
            || self.file.by_ref().take(MOST).read_to_end(&mut bytes).is_err()
        {
            return Vec::new();
        }
        self.read += (bytes.len() - before) as u64;
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.open = bytes.split_off(end);
        if self.read > LARGEST && self.file.set_len(0).is_ok() {
            self.read = 0;
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        self.last.extend(lines.iter().cloned());
        self.last.drain(..self.last.len().saturating_sub(LAST_WORDS));
        lines.into_iter().filter(|line| worth_showing(line)).collect()
    }

    pub(super) fn last_words(&self) -> String {
        self.last.iter().map(|line| format!("\n  | {line}")).collect()
    }
}

/// Warnings and errors of the worker's text log.
fn worth_showing(line: &str) -> bool {
    line.split_whitespace()
        .take(2)
        .any(|word| matches!(word, "WARN" | "ERROR"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn warnings_and_errors_are_news_once_and_the_last_lines_are_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut worker) = WorkerLog::create(&dir.path().join("w.log")).unwrap();
        write!(
            worker,
            "t  INFO all is well\nt  WARN worker: writer is down\nt ERROR wor"
        )
        .unwrap();
        assert_eq!(log.news(), ["t  WARN worker: writer is down"]);
        assert_eq!(log.news(), Vec::<String>::new());
        writeln!(worker, "ker: no").unwrap();
        assert_eq!(log.news(), ["t ERROR worker: no"]);
        for number in 0..10 {
            writeln!(worker, "t  INFO an ERROR was repaired {number}").unwrap();
        }
        assert_eq!(log.news(), Vec::<String>::new());
        assert!(
            log.last_words()
                .starts_with("\n  | t  INFO an ERROR was repaired 5"),
            "{}",
            log.last_words()
        );
    }

    #[test]
    fn a_large_log_is_cut_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.log");
        let (mut log, mut worker) = WorkerLog::create(&path).unwrap();
        let line = format!("t  INFO {}\n", "x".repeat(1000));
        for _ in 0..9000 {
            worker.write_all(line.as_bytes()).unwrap();
        }
        for _ in 0..20 {
            log.news();
        }
        assert!(path.metadata().unwrap().len() < LARGEST);
        writeln!(worker, "t  WARN still here").unwrap();
        assert_eq!(log.news(), ["t  WARN still here"]);
    }
}
