//! Why nothing of a partition is read until the user decides, and what is committed of it meanwhile.

use super::position::Position;
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
        let commits = old.map_or(ParkedCommits::Nothing, |id| {
            ParkedCommits::Marker(Position {
                offset: 0,
                metadata: commit_metadata::of_topic(Some(id), MetadataLimit::default(), |_| String::new()),
            })
        });
        Self::new(problems, 0, PausedReason::TopicRecreated, message, commits)
    }

    /// Parks a partition, because the position where it was read is out of range.
    pub fn out_of_range(problems: &Problems, offset: Offset, message: &str) -> Self {
        let reason = PausedReason::OffsetOutOfRange;
        Self::new(problems, offset, reason, message, ParkedCommits::Position)
    }

    fn new(
        problems: &Problems,
        offset: Offset,
        reason: PausedReason,
        message: &str,
        commits: ParkedCommits,
    ) -> Self {
        let reporter = problems.at(offset);
        reporter.failing(1, message);
        reporter.pause(reason);
        Self {
            _reporter: reporter,
            commits,
        }
    }

    /// What to commit instead of a position: nothing, or a marker. None: the position.
    pub fn instead_of_position(&self) -> Option<Option<&Position>> {
        match &self.commits {
            ParkedCommits::Position => None,
            ParkedCommits::Nothing => Some(None),
            ParkedCommits::Marker(marker) => Some(Some(marker)),
        }
    }

    /// True if the topic was deleted and created again.
    pub fn is_recreated(&self) -> bool {
        !matches!(self.commits, ParkedCommits::Position)
    }

    /// True if a marker is committed.
    pub fn has_marker(&self) -> bool {
        matches!(self.commits, ParkedCommits::Marker(_))
    }
}
