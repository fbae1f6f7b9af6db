//! The topic that a partition belongs to, positions that are out of range, and partitions of which nothing is
//! read until the user decides.

use super::{AssignedPartition, Position};
use crate::{
    health::{
        problems::{ProblemReporter, Problems},
        snapshot::PausedReason,
    },
    offsets::commit_metadata::{self, MetadataLimit},
    record::{Offset, topic_id::TopicId},
};

/// Why nothing of a partition is read.
pub struct Parked {
    /// Dropping it would remove the problem from the status.
    _reporter: ProblemReporter,
    /// What is committed.
    commits: ParkedCommits,
}

enum ParkedCommits {
    /// What was read before, as it is finished.
    Position,
    /// This instead of a position, so that later owners park the partition, too.
    Marker(Position),
    Nothing,
}

/// What an offset out of range meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// This many records, or fewer, were removed before they were read.
    Removed {
        records: u64,
    },
    BehindTheEnd,
}

impl Parked {
    /// Parks a partition because its topic was deleted and created again. `old` is the id of the deleted
    /// topic, if known.
    pub fn recreated(problems: &Problems, old: Option<&TopicId>, message: &str) -> Self {
        let reporter = problems.at(0);
        reporter.failing(1, message);
        reporter.pause(PausedReason::TopicRecreated);
        let commits = old.map_or(ParkedCommits::Nothing, |id| {
            ParkedCommits::Marker(Position {
                offset: 0,
                metadata: commit_metadata::of_topic(Some(id), MetadataLimit::default(), |_| String::new()),
            })
        });
        Self {
            _reporter: reporter,
            commits,
        }
    }
}

impl AssignedPartition {
    /// True if nothing of the partition is read until the user decides.
    pub fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// What to commit instead of a position: nothing, or the marker of a parked partition. None: the position.
    pub(super) fn instead_of_position(&self) -> Option<Option<Position>> {
        match &self.parked.as_ref()?.commits {
            ParkedCommits::Position => None,
            ParkedCommits::Nothing => Some(None),
            ParkedCommits::Marker(marker) => {
                let is_new = !self.commit_state.has_committed(marker);
                Some(is_new.then(|| marker.clone()))
            }
        }
    }

    /// The marker of a parked partition is not committed any more.
    pub fn commit_marker_again(&mut self) {
        if matches!(&self.parked, Some(parked) if matches!(parked.commits, ParkedCommits::Marker(_))) {
            self.commit_state.forget_committed();
        }
    }

    /// Parks the partition, because the position where it was read is out of range.
    pub fn park_out_of_range(&mut self, offset: Offset, message: &str) {
        let reporter = self.problems.at(offset);
        reporter.failing(1, message);
        reporter.pause(PausedReason::OffsetOutOfRange);
        self.parked = Some(Parked {
            _reporter: reporter,
            commits: ParkedCommits::Position,
        });
    }

    /// The position was out of range, and reading continues at the first record.
    pub fn was_out_of_range(&mut self, offset: Offset) {
        self.out_of_range = Some(offset);
    }

    /// The position that was out of range, until it is known what that meant.
    pub fn out_of_range_at(&self) -> Option<Offset> {
        self.out_of_range
    }

    /// What it meant, from the first and the end offset as of the last fetch. These may be older than the
    /// position; then nothing is known yet.
    pub fn resolve_out_of_range(&mut self, first: Offset, end: Offset) -> Option<OutOfRange> {
        let at = self.out_of_range?;
        let meaning = if first > at {
            OutOfRange::Removed {
                records: first.abs_diff(at),
            }
        } else if at > end {
            OutOfRange::BehindTheEnd
        } else {
            return None;
        };
        self.out_of_range = None;
        Some(meaning)
    }

    /// The topic that its records and its committed position belong to, if known.
    pub fn topic_id(&self) -> Option<&TopicId> {
        self.commit_state.topic_id.as_ref()
    }

    /// True if a record of the topic with this id continues what the partition has read so far. The first
    /// record decides where nothing is known.
    pub fn continues(&mut self, present: Option<&TopicId>) -> bool {
        match (self.topic_id(), present) {
            (Some(own), Some(present)) => own == present,
            (None, Some(present)) => {
                self.set_topic_id(Some(present.clone()));
                true
            }
            (_, None) => true,
        }
    }

    pub(super) fn set_topic_id(&mut self, topic_id: Option<TopicId>) {
        self.open_chunk.topic_id.clone_from(&topic_id);
        self.commit_state.topic_id = topic_id;
    }
}
