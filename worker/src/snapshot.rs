//! What a worker can tell about itself at any moment: the answer to "why is it stuck". The engine publishes it, the HTTP
//! server shows it at `/status`, the reporter puts a summary into the resource's status. Pure data.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

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
    /// The last error of any kind, at most 1024 characters.
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
    /// The oldest of them.
    pub oldest: Option<OldestRecord>,
    /// Why reading is held back.
    pub paused_reason: Option<PausedReason>,
    /// It makes no progress although there is something to do: when it made progress last.
    pub stalled_since: Option<Timestamp>,
}

/// The unfinished record that has waited longest.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldestRecord {
    /// Its offset.
    pub offset: i64,
    /// Since when it is in flight.
    pub since: Timestamp,
    /// Attempts to write it so far.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Why a partition is not read.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PausedReason {
    /// The resource says Paused.
    Paused,
    /// A writer does not take batches.
    WriterUnavailable,
    /// The dead letter topic does not take records.
    DeadLetterUnavailable,
    /// Too many records fail for all of them to go to the dead letter topic.
    DeadLetterBreakerOpen,
    /// `onExhausted: Stop` met a record that fails.
    RecordFailed,
    /// A transform shows no sign of life.
    TransformSlow,
    /// Later records are finished, so many that reading on makes no sense before the oldest one is.
    OldestUnfinished,
}

impl PausedReason {
    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PausedReason::Paused => "Paused",
            PausedReason::WriterUnavailable => "WriterUnavailable",
            PausedReason::DeadLetterUnavailable => "DeadLetterUnavailable",
            PausedReason::DeadLetterBreakerOpen => "DeadLetterBreakerOpen",
            PausedReason::RecordFailed => "RecordFailed",
            PausedReason::TransformSlow => "TransformSlow",
            PausedReason::OldestUnfinished => "OldestUnfinished",
        }
    }
}

/// The latest snapshot, shared by the engine (writes) and everybody who shows it (reads).
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Arc<Snapshot>>>);

impl Board {
    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// The latest snapshot.
    pub fn read(&self) -> Arc<Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
