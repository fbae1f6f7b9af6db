//! A worker's state: problems by record, stalled partitions, and the snapshot that the worker publishes.

pub mod problems;
pub mod snapshot;
pub mod stalls;
