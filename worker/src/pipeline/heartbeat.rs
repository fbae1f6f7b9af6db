//! Signs of life of one run of the pipeline. The thread that runs it writes them, and the task that watches
//! it reads them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Signs of life of one run.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// Outputs emitted, failed or filtered, and transforms started.
    pub beats: AtomicU64,
    pub transform: AtomicUsize,
    // These change under the lock of the abandoned runs.
    pub ended: AtomicBool,
    pub abandoned: AtomicBool,
    pub counts: AtomicBool,
}

impl Heartbeat {
    /// Records that a transform starts. False when the run is abandoned.
    pub fn start_transform(&self, transform: usize) -> bool {
        self.transform.store(transform, Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.is_abandoned()
    }

    /// True when the worker has abandoned the run and discards its result.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}
