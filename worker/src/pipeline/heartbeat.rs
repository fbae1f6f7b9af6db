//! Signs of life of one run of the pipeline: written by the thread that runs it, read by the task that watches it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Signs of life of one run.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// Outputs emitted, failed or filtered, and transforms begun.
    pub beats: AtomicU64,
    pub transform: AtomicUsize,
    // These change under the lock of `Left`.
    pub ended: AtomicBool,
    pub abandoned: AtomicBool,
    pub counts: AtomicBool,
}

impl Heartbeat {
    /// A transform begins. False when nobody waits for the run any more.
    pub fn begin(&self, transform: usize) -> bool {
        self.transform.store(transform, Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.is_abandoned()
    }

    /// True when nobody waits for the run any more.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}
