//! How the work of one partition is going: written by its lanes, read by the poll loop for status and for deciding
//! whether to read on. Updated per failure, never per record.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{health::snapshot::PausedReason, record::Offset};

/// Longest error text kept.
const MAX_ERROR: usize = 1024;

/// What is wrong in a partition, by the offset of the record that it is wrong with. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The second half of the key tells apart what is tried again from what it was before.
    troubles: Mutex<BTreeMap<(Offset, u64), Trouble>>,
    next: AtomicU64,
}

/// What is wrong with one piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Attempts so far for what is being tried now.
    pub attempts: u32,
    /// What went wrong last, at most 1024 bytes; kept until the next success.
    pub last_error: Option<String>,
    /// Set while it makes no sense to read on.
    pub held: Option<PausedReason>,
}

impl Troubles {
    /// For the work that begins with the record at `offset`.
    pub fn at(&self, offset: Offset) -> Progress {
        Progress {
            troubles: self.clone(),
            key: (offset, self.0.next.fetch_add(1, Ordering::Relaxed)),
            told: AtomicBool::new(false),
        }
    }

    /// The trouble of the oldest record that has any; `held` if any work of the partition is held, and then for the gravest
    /// reason.
    pub fn oldest(&self) -> Trouble {
        let troubles = self.lock();
        // Of several attempts at one record, the latest.
        let offset = troubles.keys().next().map(|(offset, _)| *offset);
        let of_oldest = troubles
            .iter()
            .take_while(|((other, _), _)| Some(*other) == offset);
        let mut oldest = of_oldest
            .last()
            .map(|(_, trouble)| trouble.clone())
            .unwrap_or_default();
        oldest.held = troubles.values().filter_map(|trouble| trouble.held).max();
        oldest
    }

    /// The trouble that tells most of why the partition does not move, and the offset of the record that it begins with: the
    /// one held for the gravest reason, so that reason and error belong together; without any, that of the oldest record
    /// that has one. Of equals the oldest, and of several attempts at one record the latest.
    pub fn gravest(&self) -> Option<(Offset, Trouble)> {
        let troubles = self.lock();
        let ((offset, _), trouble) = troubles
            .iter()
            .max_by_key(|((offset, attempt), trouble)| (trouble.held, Reverse(*offset), *attempt))?;
        Some((*offset, trouble.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Offset, u64), Trouble>> {
        self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One piece of work: the records written together, or a record that waits. Its trouble ends with it.
#[derive(Debug)]
pub struct Progress {
    troubles: Troubles,
    key: (Offset, u64),
    /// Saves the lock where all is well.
    told: AtomicBool,
}

impl Progress {
    /// An attempt failed.
    pub fn failing(&self, attempts: u32, error: &str) {
        self.tell(|trouble| {
            trouble.attempts = attempts;
            trouble.last_error = Some(truncate(error));
        });
    }

    /// It makes no sense to read on until [`Progress::recovered`].
    pub fn hold(&self, reason: PausedReason) {
        self.tell(|trouble| trouble.held = Some(reason));
    }

    /// It succeeded.
    pub fn recovered(&self) {
        if self.told.swap(false, Ordering::Relaxed) {
            self.troubles.lock().remove(&self.key);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Trouble)) {
        self.told.store(true, Ordering::Relaxed);
        change(self.troubles.lock().entry(self.key).or_default());
    }
}

impl Drop for Progress {
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
        let troubles = Troubles::default();
        let (before, old, new) = (troubles.at(7), troubles.at(7), troubles.at(9));
        before.failing(9, "an earlier attempt at the same record");
        new.failing(1, "new");
        new.hold(PausedReason::WriterUnavailable);
        old.failing(3, "old");
        let oldest = troubles.oldest();
        assert_eq!((oldest.attempts, oldest.last_error.as_deref()), (3, Some("old")));
        assert_eq!(oldest.held, Some(PausedReason::WriterUnavailable));
        old.recovered();
        assert_eq!(troubles.oldest().attempts, 9);
        drop(before);
        assert_eq!(troubles.oldest().attempts, 1);
        drop(new);
        assert_eq!(troubles.oldest(), Trouble::default());
    }

    #[test]
    fn what_holds_for_the_gravest_reason_is_told_with_its_own_error_and_offset() {
        let troubles = Troubles::default();
        let told = || {
            let (offset, trouble) = troubles.gravest().unwrap();
            (offset, trouble.attempts, trouble.held)
        };
        assert_eq!(troubles.gravest(), None);
        let (first, second, third) = (troubles.at(7), troubles.at(8), troubles.at(9));
        third.failing(3, "third");
        second.failing(2, "second");
        first.failing(1, "first");
        assert_eq!(told(), (7, 1, None));
        second.hold(PausedReason::WriterUnavailable);
        assert_eq!(told(), (8, 2, Some(PausedReason::WriterUnavailable)));
        third.hold(PausedReason::RecordFailed);
        first.hold(PausedReason::TransformSlow);
        assert_eq!(told(), (9, 3, Some(PausedReason::RecordFailed)));
        assert_eq!(troubles.oldest().held, Some(PausedReason::RecordFailed));
        let again = troubles.at(9);
        again.failing(4, "once more");
        assert_eq!(told().1, 3, "not held");
        again.hold(PausedReason::RecordFailed);
        assert_eq!(told().1, 4);
    }
}
