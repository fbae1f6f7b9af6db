//! Which anomalies a guarantee allows, and how many.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::{Kind, Verdict};

/// `processing.deliveryGuarantee`, spelled as in the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Guarantee {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// `processing.ordering`, spelled as in the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Ordering {
    PerPartition,
    PerKey,
    Unordered,
}

/// The type of the only writer, spelled as in the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Sink {
    Kafka,
    Postgres,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Ordering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The promise for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    pub guarantee: Guarantee,
    pub ordering: Ordering,
    pub sink: Sink,
    /// What crashes may cost: repeated records with [`Guarantee::AtLeastOnce`], lost records with
    /// [`Guarantee::AtMostOnce`]. 0 if nothing crashes.
    pub allowance: u64,
    /// The same for dead letters. [`Guarantee::ExactlyOnce`] may repeat them too, if the rows are in another
    /// system than the dead letters.
    pub letters: u64,
    /// Records that frozen workers may have been processing. With [`Guarantee::AtMostOnce`] they are already
    /// committed, so others continue after them, and the frozen worker writes them late.
    pub late: u64,
    /// Samples may show old ends of topics: an isolated broker still answers as the leader. So they do not
    /// prove that anything is committed too early; what is lost is found at the end.
    pub stale_ends: bool,
}

impl Promise {
    /// The number of anomalies of this kind that is not a fault.
    pub fn allows(&self, kind: Kind) -> u64 {
        match (kind, self.guarantee, self.ordering) {
            (Kind::Duplicated, Guarantee::AtLeastOnce, _) | (Kind::Lost, Guarantee::AtMostOnce, _) => {
                self.allowance
            }
            (Kind::DeadLetterDuplicated, Guarantee::AtLeastOnce, _)
            | (Kind::DeadLetterLost, Guarantee::AtMostOnce, _) => self.letters,
            // A transaction of PostgreSQL does not include a topic.
            (Kind::DeadLetterDuplicated, Guarantee::ExactlyOnce, _) if self.sink == Sink::Postgres => {
                self.letters
            }
            (Kind::ReorderedInPartition, Guarantee::AtMostOnce, Ordering::PerPartition)
            | (Kind::ReorderedPerKey, Guarantee::AtMostOnce, Ordering::PerPartition | Ordering::PerKey) => {
                self.late
            }
            (Kind::CommittedPastUndone, ..) if self.stale_ends => u64::MAX,
            // This is what the settings mean.
            (Kind::CommittedPastUndone, Guarantee::AtMostOnce, _)
            | (Kind::ReorderedPerKey, _, Ordering::Unordered)
            | (Kind::ReorderedInPartition, _, Ordering::Unordered | Ordering::PerKey) => u64::MAX,
            _ => 0,
        }
    }

    /// What breaks the promise.
    pub fn broken_by(&self, verdict: &Verdict) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| verdict.count(*kind) > self.allows(*kind))
            .collect()
    }
}
