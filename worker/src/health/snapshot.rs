//! The state of a worker at one moment, which answers "why is it stuck". The poll loop publishes it, the HTTP
//! server shows it at `/status`, and the status reporter writes a summary into the resource's status. Pure
//! data.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex},
};

pub use crds::status::PausedReason;
use jiff::Timestamp;
use serde::Serialize;

use crate::sync;

/// The whole worker.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Name of the worker: the pod's name.
    pub worker: String,
    /// Consumer group id.
    pub group_id: String,
    /// What the worker is doing.
    pub phase: Phase,
    /// True while the worker does not read because the resource pauses the group.
    pub paused: bool,
    /// Records finished since the start: written, dead-lettered, filtered out or skipped.
    pub records_total: u64,
    /// Of those, records written to the dead letter topic.
    pub dead_lettered_total: u64,
    /// Of those, records skipped by `onExhausted: Skip`.
    pub skipped_total: u64,
    /// The error of the partition with the most severe `pausedReason`, otherwise the last error of any kind;
    /// at most 1024 characters.
    pub last_error: Option<String>,
    /// One entry per assigned partition, ordered by topic and number.
    pub partitions: Vec<PartitionSnapshot>,
}

/// What the worker is doing.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub enum Phase {
    /// Not yet a member of the group.
    #[default]
    Joining,
    /// A member; consuming its assigned partitions, of which there may be none.
    Consuming,
    /// Finishing the records in flight before it leaves the group.
    Draining,
    /// Has left the group.
    Stopped,
}

/// One assigned partition.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PartitionSnapshot {
    /// Topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// Number of the assignment: a partition that is assigned again has a larger one.
    pub assignment_epoch: u64,
    /// The committed offset, which is the next to be read after a restart.
    pub committed: Option<i64>,
    /// Every record below this offset is finished.
    pub watermark: Option<i64>,
    /// Records between the watermark and the end of the partition; null until it is known.
    pub lag: Option<i64>,
    /// Records read and not finished.
    pub in_flight: u64,
    /// The oldest of them, and the problem of the partition.
    pub oldest: Option<OldestRecord>,
    /// Why reading is paused; if several reasons apply, the most severe one.
    pub paused_reason: Option<PausedReason>,
    /// Set if the partition has work to do and makes no progress: the time of its last progress.
    pub stalled_since: Option<Timestamp>,
    /// The last records that retention removed before this worker read them.
    pub skipped_by_retention: Option<SkippedRange>,
}

/// Offsets that a worker passed without reading records.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SkippedRange {
    /// The first of them.
    pub from_offset: i64,
    /// The first offset that was left, or where reading continued.
    pub to_offset: i64,
    /// When the worker passed them.
    pub time: Timestamp,
}

/// The oldest unfinished record of a partition, and the problem of the partition: the one that pauses it,
/// otherwise that of the first record that has one. The problem may belong to another record: this one may
/// wait for an answer while a later record has failed.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldestRecord {
    /// Offset of the record.
    pub offset: i64,
    /// Time since which it is in flight.
    pub since: Timestamp,
    /// Number of attempts so far at the work that failed with `lastError`.
    pub attempts: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// Offset of the later record that `attempts` and `lastError` belong to. Null if they belong to this
    /// record, to records written together with it, or to the whole partition.
    pub error_offset: Option<i64>,
}

/// The error that belongs to the worker's paused reason, from the reason and the error of each partition:
/// among the partitions with the most severe reason, that of the first one that has an error.
pub(crate) fn most_severe_error(
    partitions: impl IntoIterator<Item = (Option<PausedReason>, Option<String>)>,
) -> Option<String> {
    let partitions = partitions.into_iter();
    partitions
        .min_by_key(|(reason, error)| Reverse((*reason, error.is_some())))?
        .1
}

/// The latest snapshot. The poll loop writes it; the HTTP server and the status reporter read it.
#[derive(Clone, Debug, Default)]
pub struct SharedSnapshot(Arc<Mutex<Arc<Snapshot>>>);

impl SharedSnapshot {
    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        *sync::lock(&self.0) = Arc::new(snapshot);
    }

    /// The latest snapshot.
    pub fn read(&self) -> Arc<Snapshot> {
        sync::lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type ReasonAndError = (Option<PausedReason>, Option<String>);

    #[test]
    fn the_error_comes_from_the_partition_with_the_most_severe_reason() {
        let partition = |reason: Option<PausedReason>, error: &str| -> ReasonAndError {
            (reason, (!error.is_empty()).then(|| error.to_owned()))
        };
        let [unavailable, failed] = [PausedReason::WriterUnavailable, PausedReason::RecordFailed].map(Some);
        let partitions = [
            partition(None, "too many requests"),
            partition(unavailable, "connection refused"),
            partition(failed, ""),
            partition(failed, "first"),
            partition(failed, "second"),
        ];
        let of = |partitions: &[ReasonAndError]| most_severe_error(partitions.to_vec());
        assert_eq!(of(&partitions).as_deref(), Some("first"));
        assert_eq!(of(&partitions[..2]).as_deref(), Some("connection refused"));
        assert_eq!(of(&partitions[..1]).as_deref(), Some("too many requests"));
        assert_eq!(of(&partitions[..3]), None, "not that of another reason");
        assert_eq!(of(&[]), None);
    }
}
