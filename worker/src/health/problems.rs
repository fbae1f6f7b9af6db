//! The problems of one partition. Its lanes report them; the poll loop reads them for status and to decide
//! whether it continues to read. Updated per failure, never per record.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{health::snapshot::PausedReason, record::Offset, sync};

/// Maximum length of an error text, in bytes.
const MAX_ERROR: usize = 1024;

/// The problems of a partition, by the offset of the record that each one concerns. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<ProblemTable>);

#[derive(Debug, Default)]
struct ProblemTable {
    /// The second part of the key distinguishes a new attempt from an earlier one at the same record.
    problems: Mutex<BTreeMap<(Offset, u64), Problem>>,
    next: AtomicU64,
}

/// The problem of one record, or of the records written together with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Number of attempts so far at the current work.
    pub attempts: u32,
    /// The last error, at most 1024 bytes; kept until the next success.
    pub last_error: Option<String>,
    /// Set while reading more records of the partition would not help.
    pub paused_reason: Option<PausedReason>,
}

impl Problems {
    /// The reporter for the work that starts with the record at `offset`.
    pub fn at(&self, offset: Offset) -> ProblemReporter {
        ProblemReporter {
            problems: self.clone(),
            key: (offset, self.0.next.fetch_add(1, Ordering::Relaxed)),
            reported: AtomicBool::new(false),
        }
    }

    /// The problem of the oldest record that has one. Its `paused_reason` is the most severe one in the whole
    /// partition.
    pub fn oldest(&self) -> Problem {
        let problems = self.lock();
        // If there are several attempts at one record, the latest counts.
        let offset = problems.keys().next().map(|(offset, _)| *offset);
        let of_oldest = problems
            .iter()
            .take_while(|((other, _), _)| Some(*other) == offset);
        let mut oldest = of_oldest
            .last()
            .map(|(_, problem)| problem.clone())
            .unwrap_or_default();
        oldest.paused_reason = problems
            .values()
            .filter_map(|problem| problem.paused_reason)
            .max();
        oldest
    }

    /// The problem that explains best why the partition makes no progress, and the offset of its first
    /// record: the problem with the most severe `paused_reason`, so that reason and error belong together. If
    /// no problem has a reason, it is the one of the oldest record. Among equals the oldest record wins, and
    /// for one record the latest attempt.
    pub fn most_severe(&self) -> Option<(Offset, Problem)> {
        let problems = self.lock();
        let ((offset, _), problem) = problems
            .iter()
            .max_by_key(|((offset, attempt), problem)| (problem.paused_reason, Reverse(*offset), *attempt))?;
        Some((*offset, problem.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Offset, u64), Problem>> {
        sync::lock(&self.0.problems)
    }
}

/// Reports the problem of one piece of work: records written together, or a waiting record. Dropping it
/// clears the problem.
#[derive(Debug)]
pub struct ProblemReporter {
    problems: Problems,
    key: (Offset, u64),
    /// Avoids the lock if there was no problem.
    reported: AtomicBool,
}

impl ProblemReporter {
    /// An attempt failed.
    pub fn failing(&self, attempts: u32, error: &str) {
        self.update(|problem| {
            problem.attempts = attempts;
            problem.last_error = Some(truncate(error));
        });
    }

    /// Reading more records would not help until [`ProblemReporter::recovered`] is called.
    pub fn pause(&self, reason: PausedReason) {
        self.update(|problem| problem.paused_reason = Some(reason));
    }

    /// The work succeeded: clears the problem.
    pub fn recovered(&self) {
        if self.reported.swap(false, Ordering::Relaxed) {
            self.problems.lock().remove(&self.key);
        }
    }

    fn update(&self, change: impl FnOnce(&mut Problem)) {
        self.reported.store(true, Ordering::Relaxed);
        change(self.problems.lock().entry(self.key).or_default());
    }
}

impl Drop for ProblemReporter {
    fn drop(&mut self) {
        self.recovered();
    }
}

/// Cuts a message to the 1024 bytes that status and headers may hold, at a character boundary.
pub fn truncate(message: &str) -> String {
    cut(message, MAX_ERROR).to_owned()
}

/// The first `longest` bytes of a message, or fewer, up to a character boundary.
pub fn cut(message: &str, longest: usize) -> &str {
    if message.len() <= longest {
        return message;
    }
    let end = (0..=longest)
        .rev()
        .find(|at| message.is_char_boundary(*at))
        .unwrap_or(0);
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_at_a_character_boundary() {
        let long = "ä".repeat(600);
        let cut = truncate(&format!("x{long}"));
        assert_eq!(cut.len(), 1023);
    }

    #[test]
    fn success_clears_only_the_problem_of_that_work() {
        let problems = Problems::default();
        let (before, old, new) = (problems.at(7), problems.at(7), problems.at(9));
        before.failing(9, "an earlier attempt at the same record");
        new.failing(1, "new");
        new.pause(PausedReason::WriterUnavailable);
        old.failing(3, "old");
        let oldest = problems.oldest();
        assert_eq!((oldest.attempts, oldest.last_error.as_deref()), (3, Some("old")));
        assert_eq!(oldest.paused_reason, Some(PausedReason::WriterUnavailable));
        old.recovered();
        assert_eq!(problems.oldest().attempts, 9);
        drop(before);
        assert_eq!(problems.oldest().attempts, 1);
        drop(new);
        assert_eq!(problems.oldest(), Problem::default());
    }

    #[test]
    fn the_most_severe_reason_comes_with_its_own_error_and_offset() {
        let problems = Problems::default();
        let reported = || {
            let (offset, problem) = problems.most_severe().unwrap();
            (offset, problem.attempts, problem.paused_reason)
        };
        assert_eq!(problems.most_severe(), None);
        let (first, second, third) = (problems.at(7), problems.at(8), problems.at(9));
        third.failing(3, "third");
        second.failing(2, "second");
        first.failing(1, "first");
        assert_eq!(reported(), (7, 1, None));
        second.pause(PausedReason::WriterUnavailable);
        assert_eq!(reported(), (8, 2, Some(PausedReason::WriterUnavailable)));
        third.pause(PausedReason::RecordFailed);
        first.pause(PausedReason::TransformSlow);
        assert_eq!(reported(), (9, 3, Some(PausedReason::RecordFailed)));
        assert_eq!(problems.oldest().paused_reason, Some(PausedReason::RecordFailed));
        let again = problems.at(9);
        again.failing(4, "once more");
        assert_eq!(reported().1, 3, "no reason yet");
        again.pause(PausedReason::RecordFailed);
        assert_eq!(reported().1, 4);
    }
}
