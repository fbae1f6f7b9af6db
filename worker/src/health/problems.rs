//! How the work of one partition is going: written by its lanes, read by the poll loop for status and for deciding
//! whether to read on. Updated per failure, never per record.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{health::snapshot::PausedReason, record::Offset, sync};

/// Longest error text kept.
const MAX_ERROR: usize = 1024;

/// What is wrong in a partition, by the offset of the record that it is wrong with. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<ProblemTable>);

#[derive(Debug, Default)]
struct ProblemTable {
    /// The second half of the key tells apart what is tried again from what it was before.
    problems: Mutex<BTreeMap<(Offset, u64), Problem>>,
    next: AtomicU64,
}

/// What is wrong with one piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Attempts so far for what is being tried now.
    pub attempts: u32,
    /// What went wrong last, at most 1024 bytes; kept until the next success.
    pub last_error: Option<String>,
    /// Set while it makes no sense to read on.
    pub paused_reason: Option<PausedReason>,
}

impl Problems {
    /// For the work that begins with the record at `offset`.
    pub fn at(&self, offset: Offset) -> ProblemReporter {
        ProblemReporter {
            problems: self.clone(),
            key: (offset, self.0.next.fetch_add(1, Ordering::Relaxed)),
            reported: AtomicBool::new(false),
        }
    }

    /// The trouble of the oldest record that has any; `paused_reason` if any work of the partition is held, and then for the gravest
    /// reason.
    pub fn oldest(&self) -> Problem {
        let problems = self.lock();
        // Of several attempts at one record, the latest.
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

    /// The trouble that tells most of why the partition does not move, and the offset of the record that it begins with: the
    /// one held for the gravest reason, so that reason and error belong together; without any, that of the oldest record
    /// that has one. Of equals the oldest, and of several attempts at one record the latest.
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

/// One piece of work: the records written together, or a record that waits. Its trouble ends with it.
#[derive(Debug)]
pub struct ProblemReporter {
    problems: Problems,
    key: (Offset, u64),
    /// Saves the lock where all is well.
    reported: AtomicBool,
}

impl ProblemReporter {
    /// An attempt failed.
    pub fn failing(&self, attempts: u32, error: &str) {
        self.tell(|problem| {
            problem.attempts = attempts;
            problem.last_error = Some(truncate(error));
        });
    }

    /// It makes no sense to read on until [`ProblemReporter::recovered`].
    pub fn hold(&self, reason: PausedReason) {
        self.tell(|problem| problem.paused_reason = Some(reason));
    }

    /// It succeeded.
    pub fn recovered(&self) {
        if self.reported.swap(false, Ordering::Relaxed) {
            self.problems.lock().remove(&self.key);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Problem)) {
        self.reported.store(true, Ordering::Relaxed);
        change(self.problems.lock().entry(self.key).or_default());
    }
}

impl Drop for ProblemReporter {
    fn drop(&mut self) {
        self.recovered();
    }
}

/// Cuts a message to what status and headers may hold, at a character boundary.
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
    fn success_clears_the_trouble_of_that_work_only() {
        let problems = Problems::default();
        let (before, old, new) = (problems.at(7), problems.at(7), problems.at(9));
        before.failing(9, "an earlier attempt at the same record");
        new.failing(1, "new");
        new.hold(PausedReason::WriterUnavailable);
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
    fn what_holds_for_the_gravest_reason_is_told_with_its_own_error_and_offset() {
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
        second.hold(PausedReason::WriterUnavailable);
        assert_eq!(reported(), (8, 2, Some(PausedReason::WriterUnavailable)));
        third.hold(PausedReason::RecordFailed);
        first.hold(PausedReason::TransformSlow);
        assert_eq!(reported(), (9, 3, Some(PausedReason::RecordFailed)));
        assert_eq!(problems.oldest().paused_reason, Some(PausedReason::RecordFailed));
        let again = problems.at(9);
        again.failing(4, "once more");
        assert_eq!(reported().1, 3, "not held");
        again.hold(PausedReason::RecordFailed);
        assert_eq!(reported().1, 4);
    }
}
