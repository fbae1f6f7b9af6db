//! Which anomalies a guarantee allows, and how many.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::{Kind, Verdict};

/// `processing.deliveryGuarantee`, as the resource spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Guarantee {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// `processing.ordering`, as the resource spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Ordering {
    PerPartition,
    PerKey,
    Unordered,
}

/// The type of the only writer, as the resource spells it.
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

/// What a run was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    pub guarantee: Guarantee,
    pub ordering: Ordering,
    pub sink: Sink,
    /// What crashes may cost: records repeated with [`Guarantee::AtLeastOnce`], lost with [`Guarantee::AtMostOnce`]. 0 when
    /// nothing crashes.
    pub allowance: u64,
    /// The same for dead letters. They are also repeated where [`Guarantee::ExactlyOnce`] has them in another system than the
    /// rows.
    pub letters: u64,
    /// Records that workers may have had in hand when they were frozen. With [`Guarantee::AtMostOnce`] they are committed
    /// already, so others go on behind them, and they are written late.
    pub late: u64,
}

impl Promise {
    /// How many anomalies of this kind are no fault.
    pub fn allows(&self, kind: Kind) -> u64 {
        match (kind, self.guarantee, self.ordering) {
            (Kind::Duplicated, Guarantee::AtLeastOnce, _) | (Kind::Lost, Guarantee::AtMostOnce, _) => {
                self.allowance
            }
            (Kind::DeadLetterDuplicated, Guarantee::AtLeastOnce, _)
            | (Kind::DeadLetterLost, Guarantee::AtMostOnce, _) => self.letters,
            // A transaction of PostgreSQL does not reach into a topic.
            (Kind::DeadLetterDuplicated, Guarantee::ExactlyOnce, _) if self.sink == Sink::Postgres => {
                self.letters
            }
            (Kind::ReorderedInPartition, Guarantee::AtMostOnce, Ordering::PerPartition)
            | (Kind::ReorderedPerKey, Guarantee::AtMostOnce, Ordering::PerPartition | Ordering::PerKey) => {
                self.late
            }
            // That is what it means.
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
