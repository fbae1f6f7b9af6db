//! What a writer that stores offsets (`ExactlyOnce`) has beside its table of rows.

use super::{claims::Claims, offsets::OffsetsTable};

/// The offsets table, and the partitions that this worker has claimed.
pub(super) struct StoredOffsets {
    pub table: OffsetsTable,
    pub claims: Claims,
}

impl StoredOffsets {
    /// Uses this table, for this group and worker.
    pub fn new(table: &str, group: &str, worker: &str) -> Self {
        Self {
            table: OffsetsTable::new(table, group, worker),
            claims: Claims::default(),
        }
    }
}
