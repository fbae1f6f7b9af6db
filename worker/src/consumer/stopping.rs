//! A stop that has started: until when the partitions may finish, and whether abandoned transforms are its cause.

use std::time::Instant;

/// A stop in progress.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// The end of the drain budget.
    pub deadline: Instant,
    /// The worker stops because this many abandoned threads occupy it; None when it was asked to stop.
    pub stuck: Option<usize>,
}
