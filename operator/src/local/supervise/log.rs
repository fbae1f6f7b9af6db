//! The log of a worker. It is a file and not a pipe: a pipe breaks when this process is killed, and a worker
//! that cannot write its log may fail to stop cleanly. In: the file. Out: new lines that users should see,
//! and the last lines. A large file is truncated.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Number of last lines that are kept.
const LAST_LINES: usize = 5;
/// A log larger than this is truncated.
const MAX_SIZE: u64 = 8 * 1024 * 1024;
/// Maximum number of bytes per read.
const MAX_READ: u64 = 1024 * 1024;

pub(super) struct WorkerLog {
    file: File,
    read: u64,
    /// The start of a line that is not complete yet.
    open: Vec<u8>,
    last: VecDeque<String>,
}

impl WorkerLog {
    /// Opens and truncates the log; also returns a handle for the worker to append to.
    pub(super) fn create(path: &Path) -> std::io::Result<(Self, File)> {
        // Append mode: after a truncation the next line of the worker is at the start of the file.
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

    /// New lines that are warnings or errors. Read errors are ignored.
    pub(super) fn new_problems(&mut self) -> Vec<String> {
        let mut bytes = std::mem::take(&mut self.open);
        let before = bytes.len();
        if self.file.seek(SeekFrom::Start(self.read)).is_err()
            || self.file.by_ref().take(MAX_READ).read_to_end(&mut bytes).is_err()
        {
            return Vec::new();
        }
        self.read += (bytes.len() - before) as u64;
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.open = bytes.split_off(end);
        if self.read > MAX_SIZE && self.file.set_len(0).is_ok() {
            self.read = 0;
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        self.last.extend(lines.iter().cloned());
        self.last.drain(..self.last.len().saturating_sub(LAST_LINES));
        lines.into_iter().filter(|line| is_problem(line)).collect()
    }

    pub(super) fn last_lines(&self) -> String {
        self.last.iter().map(|line| format!("\n  | {line}")).collect()
    }
}

/// True for warnings and errors of the worker's text log.
fn is_problem(line: &str) -> bool {
    line.split_whitespace()
        .take(2)
        .any(|word| matches!(word, "WARN" | "ERROR"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn warnings_and_errors_are_returned_once_and_the_last_lines_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut worker) = WorkerLog::create(&dir.path().join("w.log")).unwrap();
        write!(
            worker,
            "t  INFO all is well\nt  WARN worker: writer is down\nt ERROR wor"
        )
        .unwrap();
        assert_eq!(log.new_problems(), ["t  WARN worker: writer is down"]);
        assert_eq!(log.new_problems(), Vec::<String>::new());
        writeln!(worker, "ker: no").unwrap();
        assert_eq!(log.new_problems(), ["t ERROR worker: no"]);
        for number in 0..10 {
            writeln!(worker, "t  INFO an ERROR was repaired {number}").unwrap();
        }
        assert_eq!(log.new_problems(), Vec::<String>::new());
        assert!(
            log.last_lines()
                .starts_with("\n  | t  INFO an ERROR was repaired 5"),
            "{}",
            log.last_lines()
        );
    }

    #[test]
    fn a_large_log_is_truncated_and_continues() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.log");
        let (mut log, mut worker) = WorkerLog::create(&path).unwrap();
        let line = format!("t  INFO {}\n", "x".repeat(1000));
        for _ in 0..9000 {
            worker.write_all(line.as_bytes()).unwrap();
        }
        for _ in 0..20 {
            log.new_problems();
        }
        assert!(path.metadata().unwrap().len() < MAX_SIZE);
        writeln!(worker, "t  WARN still here").unwrap();
        assert_eq!(log.new_problems(), ["t  WARN still here"]);
    }
}
