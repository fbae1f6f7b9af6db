//! How one partition's work is going: written by its task, read by the poll loop for status and for deciding whether to
//! read on. Updated per failure, never per record.

use std::sync::{Arc, Mutex, PoisonError};

use crate::snapshot::PausedReason;

/// Longest error text kept.
const MAX_ERROR: usize = 1024;

/// Shared by a partition's task and the poll loop.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Trouble>>);

/// What is wrong, if anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Attempts so far for what is being tried now.
    pub attempts: u32,
    /// What went wrong last, at most 1024 bytes; kept until the next success.
    pub last_error: Option<String>,
    /// Set while it makes no sense to read on.
    pub held: Option<PausedReason>,
}

impl Progress {
    /// An attempt failed.
    pub fn failing(&self, attempts: u32, error: &str) {
        let mut trouble = self.lock();
        trouble.attempts = attempts;
        trouble.last_error = Some(truncate(error));
    }

    /// It makes no sense to read on until [`Progress::recovered`].
    pub fn hold(&self, reason: PausedReason) {
        self.lock().held = Some(reason);
    }

    /// Something succeeded.
    pub fn recovered(&self) {
        let mut trouble = self.lock();
        if *trouble != Trouble::default() {
            *trouble = Trouble::default();
        }
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Trouble {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts a message to what status and headers may hold, at a character boundary.
pub fn truncate(message: &str) -> String {
    if message.len() <= MAX_ERROR {
        return message.to_owned();
    }
    let end = (0..=MAX_ERROR)
        .rev()
        .find(|at| message.is_char_boundary(*at))
        .unwrap_or(0);
    message[..end].to_owned()
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
    fn success_clears_the_trouble() {
        let progress = Progress::default();
        progress.failing(3, "no");
        progress.hold(PausedReason::WriterUnavailable);
        assert_eq!(progress.trouble().attempts, 3);
        progress.recovered();
        assert_eq!(progress.trouble(), Trouble::default());
    }
}
