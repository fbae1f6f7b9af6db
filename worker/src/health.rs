//! What a worker knows about its own state: problems by record, stalled partitions, and the snapshot that it shows.

pub mod problems;
pub mod snapshot;
pub mod stalls;
