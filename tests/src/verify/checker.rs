//! What became of the records: from a history (the ledger, the output topic, the dead letter topic, and what
//! the harness observed meanwhile) to a verdict. Pure: no broker, no clock. The idea is that of Jepsen's
//! checker for Kafka: count every kind of anomaly separately, and decide afterwards which of them the
//! promised guarantee allows.
//!
//! It relies on two facts: the records of a key arrive in one partition of the output topic, and each sample
//! reads the committed offsets *before* the end offsets of the output and the dead letter topic. So
//! everything that a sample shows as committed must lie before the ends of the same sample; a slow harness
//! makes this check weaker, never wrong.
//!
//! An output table is judged by the log of its writes. For the checker this log is a topic: its partitions
//! are those of the input, its offsets follow the order of writing, and a rollback leaves a gap.

mod judge;
mod promise;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

pub use self::{
    judge::check,
    promise::{Guarantee, Ordering, Promise, Sink},
};

/// A position in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

/// A record of the input, as acknowledged by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub offset: i64,
    /// The number of its key within its partition.
    pub key: u32,
    /// Must end in the dead letter topic.
    pub poison: bool,
}

/// What the harness identified a record as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// This record of the input, unchanged.
    Record { partition: i32, seq: u64 },
    /// Not readable, or changed.
    Corrupted,
    /// Intact, and from another run.
    Foreign,
}

/// A record of the output topic or of the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub place: Place,
    pub what: What,
}

/// What the harness observed at one moment: first the committed offsets of the group, then the offsets stored
/// next to the rows, then the ends of the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub committed: BTreeMap<i32, i64>,
    /// Positions in the database; empty if the output is a topic, or if no offsets are stored with the rows.
    pub stored: BTreeMap<i32, i64>,
    pub output_ends: BTreeMap<i32, i64>,
    pub letter_ends: BTreeMap<i32, i64>,
}

/// Everything known about a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By partition, in the order of sequence numbers, which is the order of offsets.
    pub inputs: BTreeMap<i32, Vec<Sent>>,
    /// Names of input partitions in examples; a partition without an entry is shown by its number.
    pub names: BTreeMap<i32, String>,
    /// The output topic at the end, as a `read_committed` consumer sees it.
    pub output: Vec<Arrival>,
    /// Number of records that a `read_uncommitted` consumer sees there.
    pub uncommitted_total: u64,
    /// What a `read_committed` consumer saw there during the run.
    pub live: Vec<Place>,
    /// The dead letter topic at the end, as a `read_committed` consumer sees it.
    pub letters: Vec<Arrival>,
    /// In order of time.
    pub samples: Vec<Sample>,
}

/// A kind of anomaly. [`Promise`] decides whether it is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acknowledged, and neither in the output nor in the dead letter topic.
    Lost,
    /// More than once in the output.
    Duplicated,
    /// Arrived for the first time after a later record of its key. A replay after a crash repeats a sequence
    /// of records, but these have arrived before, so it reorders nothing.
    ReorderedPerKey,
    /// The same for two records of one input partition in one output partition, with any keys.
    ReorderedInPartition,
    /// A `read_committed` consumer saw it, and it is not there at the end.
    AbortedVisible,
    /// Covered by a committed or stored offset, and not yet in the output or the dead letter topic at that
    /// moment; or such a record does not exist.
    CommittedPastUndone,
    /// In the output or the dead letter topic, but changed.
    Corrupted,
    /// In the output or the dead letter topic, but never acknowledged.
    Unknown,
    /// A poisoned record in the output, or a healthy one in the dead letter topic.
    Misplaced,
    /// A poisoned record that is not in the dead letter topic.
    DeadLetterLost,
    /// More than once in the dead letter topic.
    DeadLetterDuplicated,
    /// The committed offset of a partition, or the one stored next to its rows, went down.
    CommittedWentBack,
    /// Records after the last committed offsets, although the group had enough time.
    Unfinished,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Lost,
        Kind::Duplicated,
        Kind::ReorderedPerKey,
        Kind::ReorderedInPartition,
        Kind::AbortedVisible,
        Kind::CommittedPastUndone,
        Kind::Corrupted,
        Kind::Unknown,
        Kind::Misplaced,
        Kind::DeadLetterLost,
        Kind::DeadLetterDuplicated,
        Kind::CommittedWentBack,
        Kind::Unfinished,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Duplicated => "duplicated",
            Kind::ReorderedPerKey => "reordered per key",
            Kind::ReorderedInPartition => "reordered in a partition",
            Kind::AbortedVisible => "aborted and visible",
            Kind::CommittedPastUndone => "committed past undone",
            Kind::Corrupted => "corrupted",
            Kind::Unknown => "unknown",
            Kind::Misplaced => "misplaced",
            Kind::DeadLetterLost => "dead letters lost",
            Kind::DeadLetterDuplicated => "dead letters duplicated",
            Kind::CommittedWentBack => "committed went back",
            Kind::Unfinished => "unfinished",
        }
    }
}

/// Number of anomalies of one kind, and the first ones as examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub count: u64,
    pub examples: Vec<String>,
}

/// Examples kept of each kind.
const EXAMPLES: usize = 10;

/// What became of the records of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged records.
    pub expected: u64,
    /// Records in the output.
    pub arrived: u64,
    /// Records in the dead letter topic.
    pub letters: u64,
    /// Records of the output that no `read_committed` consumer sees.
    pub aborted: u64,
    pub findings: BTreeMap<Kind, Finding>,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> u64 {
        self.findings.get(&kind).map_or(0, |finding| finding.count)
    }

    pub fn duplicates(&self) -> u64 {
        self.count(Kind::Duplicated)
    }

    /// True if every record arrived, in order, and no other did. Duplicates are allowed.
    pub fn complete(&self) -> bool {
        self.findings.keys().all(|kind| *kind == Kind::Duplicated)
    }

    fn note(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let finding = self.findings.entry(kind).or_default();
        finding.count += count;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(example());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} written, {} arrived, {} dead letters",
            self.expected, self.arrived, self.letters
        )?;
        if self.aborted > 0 {
            write!(f, ", {} aborted", self.aborted)?;
        }
        for (kind, finding) in &self.findings {
            write!(
                f,
                ", {} {} ({})",
                finding.count,
                kind.name(),
                finding.examples.join("; ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
