//! What the poll loop shares with the rest of the process: where it publishes its state, and the flags that
//! it follows.

use tokio::sync::watch;

use crate::{
    health::snapshot::SharedSnapshot,
    telemetry::{Liveness, Metrics},
};

/// Receiver side of the flags that the rest of the worker sets.
pub type Flag = watch::Receiver<bool>;

/// What the poll loop shares with the rest of the process.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Where snapshots go.
    pub snapshot: SharedSnapshot,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Ticked by the poll loop.
    pub liveness: Liveness,
    /// True: keep the partitions, read nothing.
    pub paused: Flag,
    /// True: drain, commit, leave.
    pub shutdown: Flag,
}
