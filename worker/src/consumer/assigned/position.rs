//! The committed position of a partition.

use crate::record::Offset;

/// What to commit: the offset, and the metadata that lists the out-of-order completions above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: Offset,
    pub metadata: String,
}

/// With transactions, maximum number of dispatched records. The commit's metadata must list all out-of-order
/// completions, or the records would be written again. With this limit the list fits even if every other
/// record is finished, unless the offsets lie far apart; `AssignedPartition::metadata_fits` covers that case.
/// The limit is lower where brokers accept less metadata than
/// [`MetadataLimit::default`](crate::offsets::commit_metadata::MetadataLimit).
pub const MAX_DISPATCHED: usize = 2000;
