//! What became of the records: from a history (the ledger, the output topic, the dead letter topic, and what the harness saw
//! meanwhile) to a verdict. Pure: no broker, no clock. The idea is that of Jepsen's checker of Kafka: count every kind of
//! anomaly by itself, and decide afterwards which of them the promised guarantee allows.
//!
//! What it rests on: records of a key arrive in one partition of the output topic, and each sample reads the committed
//! offsets *before* it looks where output and dead letter topic end. So what a sample says to be committed must lie before
//! the ends of the same sample; a slow harness makes that weaker, never wrong.
//!
//! An output that is a table is judged by the log of its writes, which is a topic in all that matters here: its partitions are
//! those of the input, its offsets are given in the order of writing, and what was rolled back leaves a gap.

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
    /// Its key within its partition.
    pub key: u32,
    /// Must end in the dead letter topic.
    pub poison: bool,
}

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// This record of the input, untouched.
    Record { partition: i32, seq: u64 },
    /// Not readable, or changed.
    Corrupted,
    /// Whole, and of another run.
    Foreign,
}

/// A record of the output topic or of the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub place: Place,
    pub what: What,
}

/// What the harness saw at a moment: first the offsets that the group had committed, then those that it stores beside its rows,
/// then where the topics ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub committed: BTreeMap<i32, i64>,
    /// Positions in the database; none when the output is a topic, or no offsets are kept with the rows.
    pub stored: BTreeMap<i32, i64>,
    pub output_ends: BTreeMap<i32, i64>,
    pub letter_ends: BTreeMap<i32, i64>,
}

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By partition, in the order of sequence numbers, which is that of offsets.
    pub inputs: BTreeMap<i32, Vec<Sent>>,
    /// As a `read_committed` consumer sees the output topic at the end.
    pub output: Vec<Arrival>,
    /// Records that a `read_uncommitted` consumer sees there.
    pub uncommitted_total: u64,
    /// What a `read_committed` consumer saw there while the run went on.
    pub live: Vec<Place>,
    /// As a `read_committed` consumer sees the dead letter topic at the end.
    pub letters: Vec<Arrival>,
    /// In the order of time.
    pub samples: Vec<Sample>,
}

/// A kind of anomaly. Whether it is a fault, [`Promise`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acknowledged, and neither in the output nor in the dead letter topic.
    Lost,
    /// In the output again.
    Duplicated,
    /// Arrived for the first time after a later record of its key had. A replay after a crash repeats a run of records, but
    /// what it repeats has been there before, so it reorders nothing.
    ReorderedPerKey,
    /// The same, of two records of one input partition in one output partition, whatever their keys.
    ReorderedInPartition,
    /// Seen by a `read_committed` consumer, and not there at the end.
    AbortedVisible,
    /// Covered by a committed or stored offset, and not in output or dead letter topic at that moment; or no such record exists.
    CommittedPastUndone,
    /// In output or dead letter topic, but not as it was written.
    Corrupted,
    /// Never acknowledged, and in output or dead letter topic.
    Unknown,
    /// A poisoned record in the output, or a healthy one in the dead letter topic.
    Misplaced,
    /// A poisoned record that is not in the dead letter topic.
    DeadLetterLost,
    /// In the dead letter topic again.
    DeadLetterDuplicated,
    /// The committed offset of a partition, or the one stored beside its rows, was lower than before.
    CommittedWentBack,
    /// Records behind the last committed offsets although the group had all the time it needed.
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

/// How often a kind of anomaly occurred, and where at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    pub count: u64,
    pub examples: Vec<String>,
}

/// Examples kept of each kind.
const EXAMPLES: usize = 5;

/// What became of the records of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged records.
    pub expected: u64,
    /// Records in the output.
    pub arrived: u64,
    /// Records in the dead letter topic.
    pub letters: u64,
    /// Records of the output that no `read_committed` consumer gets to see.
    pub aborted: u64,
    pub findings: BTreeMap<Kind, Finding>,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> u64 {
        self.findings.get(&kind).map_or(0, |finding| finding.count)
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
