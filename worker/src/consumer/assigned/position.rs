//! What is committed of a partition.

use crate::record::Offset;

/// What to commit: the offset, and what is finished above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: Offset,
    pub metadata: String,
}

/// With transactions, the commit's metadata must list all finished records, or they would be written again. So few records may be
/// with the lanes that even if every other one is finished the list fits, unless their offsets lie far apart; then see
/// `AssignedPartition::fits`. Fewer where brokers accept less than [`MetadataLimit::default`](crate::offsets::commit_metadata::MetadataLimit).
pub const MAX_DISPATCHED: usize = 2000;
