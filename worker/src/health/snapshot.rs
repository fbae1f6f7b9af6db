//! What a worker can tell about itself at any moment: the answer to "why is it stuck". The engine publishes it, the HTTP
//! server shows it at `/status`, the reporter puts a summary into the resource's status. Pure data.

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
    /// What it is doing.
    pub phase: Phase,
    /// True while reading is held back because the resource says Paused.
    pub paused: bool,
    /// Records finished since the start: written, dead-lettered, filtered out or skipped.
    pub records_total: u64,
    /// Of those, records written to the dead letter topic.
    pub dead_lettered_total: u64,
    /// Of those, records skipped by `onExhausted: Skip`.
    pub skipped_total: u64,
    /// The error of the partition with the gravest `pausedReason`, else the last of any kind; at most 1024 characters.
    pub last_error: Option<String>,
    /// One entry per assigned partition, by topic and number.
    pub partitions: Vec<PartitionSnapshot>,
}

/// What the worker is doing.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub enum Phase {
    /// Not yet a member of the group.
    #[default]
    Joining,
    /// A member; consuming what it is assigned, which may be nothing.
    Consuming,
    /// Finishing what it has begun before it leaves.
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
    /// Counts assignments; completions of an older epoch are ignored.
    pub epoch: u64,
    /// Offset committed last, the next to be read after a restart.
    pub committed: Option<i64>,
    /// Every record below this offset is finished.
    pub watermark: Option<i64>,
    /// Records between the watermark and the end of the partition; absent until it is known.
    pub lag: Option<i64>,
    /// Records read and not finished.
    pub in_flight: u64,
    /// The oldest of them, and what is wrong.
    pub oldest: Option<OldestRecord>,
    /// Why reading is held back; of several reasons the gravest.
    pub paused_reason: Option<PausedReason>,
    /// It makes no progress although there is something to do: when it made progress last.
    pub stalled_since: Option<Timestamp>,
}

/// The unfinished record that has waited longest, and what went wrong in its partition: with what holds the partition back,
/// else with the first record that has any trouble. That need not be this one. It may wait for an answer, while a later
/// record has failed.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldestRecord {
    /// Its offset.
    pub offset: i64,
    /// Since when it is in flight.
    pub since: Timestamp,
    /// Attempts so far at what `lastError` tells of.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Offset of the later record that `attempts` and `lastError` are of. Null: they are of this one, of those that are
    /// written together with it, or of all the partition.
    pub error_offset: Option<i64>,
}

/// The error that belongs to the worker's reason, from the reason and the error of each partition: of the partitions with
/// the gravest reason, the first that has one.
pub(crate) fn most_severe_error(
    partitions: impl IntoIterator<Item = (Option<PausedReason>, Option<String>)>,
) -> Option<String> {
    let partitions = partitions.into_iter();
    partitions
        .min_by_key(|(reason, error)| Reverse((*reason, error.is_some())))?
        .1
}

/// The latest snapshot, shared by the engine (writes) and everybody who shows it (reads).
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

    type Told = (Option<PausedReason>, Option<String>);

    #[test]
    fn the_error_is_of_the_partition_that_gives_the_reason() {
        let told = |reason: Option<PausedReason>, error: &str| -> Told {
            (reason, (!error.is_empty()).then(|| error.to_owned()))
        };
        let [away, failed] = [PausedReason::WriterUnavailable, PausedReason::RecordFailed].map(Some);
        let partitions = [
            told(None, "too many requests"),
            told(away, "connection refused"),
            told(failed, ""),
            told(failed, "first"),
            told(failed, "second"),
        ];
        let of = |partitions: &[Told]| most_severe_error(partitions.to_vec());
        assert_eq!(of(&partitions).as_deref(), Some("first"));
        assert_eq!(of(&partitions[..2]).as_deref(), Some("connection refused"));
        assert_eq!(of(&partitions[..1]).as_deref(), Some("too many requests"));
        assert_eq!(of(&partitions[..3]), None, "not that of another reason");
        assert_eq!(of(&[]), None);
    }
}
