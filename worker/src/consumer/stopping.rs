//! A stop in progress: its deadline, and whether abandoned transforms are its cause.

use std::time::Instant;

/// A stop in progress.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// The end of the drain budget.
    pub deadline: Instant,
    /// The worker stops because of this many abandoned threads. None if it was asked to stop.
    pub stuck: Option<usize>,
}
