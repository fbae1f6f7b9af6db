//! Tests of the checker: for a worker with one seeded bug (`worker/src/seeded_bugs.rs`), the checker must
//! find exactly that bug within 20 kills. A checker that misses one proves nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    outcome::Outcome,
    plan::Faults,
    report::Row,
    run::run,
    scenario::{SESSION_OF_A_CRASH, Scenario},
    site::Site,
};
use crate::verify::checker::{Guarantee, Kind, Ordering, Sink};

/// Number of parallel runs: most of each run is waiting.
const TOGETHER: usize = 4;

/// A bug of `worker/src/seeded_bugs.rs`, and what makes it show.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    pub name: &'static str,
    /// The checker must find each of these; or one of them, if it is chance which.
    pub kinds: &'static [Kind],
    /// `make test` tests it too; the others are tested only by `make soak`.
    pub quick: bool,
    guarantee: Guarantee,
    ordering: Ordering,
    sink: Sink,
    either: bool,
    /// The broker's acknowledgements are late, so that there is always something in flight.
    slow: bool,
    kills: u32,
    restarts: u32,
    fences: u32,
}

impl Bug {
    /// A bug that shows without any fault.
    const fn new(name: &'static str, kinds: &'static [Kind]) -> Self {
        Self {
            name,
            kinds,
            quick: false,
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::PerPartition,
            sink: Sink::Kafka,
            either: false,
            slow: false,
            kills: 0,
            restarts: 0,
            fences: 0,
        }
    }

    const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    const fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    const fn ordering(self, ordering: Ordering) -> Self {
        Self { ordering, ..self }
    }

    const fn guarantee(self, guarantee: Guarantee) -> Self {
        Self { guarantee, ..self }
    }

    /// Shows only if workers are killed; 20 times at most.
    const fn kills(self) -> Self {
        Self { kills: 6, ..self }
    }

    /// Shows only if workers are restarted.
    const fn restarts(self) -> Self {
        Self { restarts: 4, ..self }
    }

    /// Shows only if transactions are aborted.
    const fn fences(self) -> Self {
        Self { fences: 12, ..self }
    }

    /// With ExactlyOnce and this writer.
    const fn exactly_once(self, sink: Sink) -> Self {
        Self {
            guarantee: Guarantee::ExactlyOnce,
            sink,
            ..self
        }
    }

    /// One of the kinds is enough.
    const fn either(self) -> Self {
        Self { either: true, ..self }
    }
}

/// All of them.
pub const BUGS: &[Bug] = &[
    // The Kafka writer.
    Bug::new("ignore-writer-error", &[Kind::Lost]).quick(),
    Bug::new("write-not-awaited", &[Kind::CommittedPastUndone]).slow(),
    Bug::new("duplicate-write", &[Kind::Duplicated]),
    Bug::new("reorder-within-batch", &[Kind::ReorderedPerKey]).quick(),
    Bug::new("corrupt-value", &[Kind::Corrupted, Kind::Lost]),
    Bug::new("wrong-key", &[Kind::Corrupted]),
    Bug::new("swap-keys", &[Kind::Corrupted]),
    Bug::new("timestamp-of-now", &[Kind::Corrupted]),
    // Dead letters.
    Bug::new("drop-dead-letter", &[Kind::DeadLetterLost]).quick(),
    Bug::new("failed-records-finished", &[Kind::DeadLetterLost]),
    Bug::new("dead-letter-not-awaited", &[Kind::CommittedPastUndone]).slow(),
    Bug::new("dead-letter-twice", &[Kind::DeadLetterDuplicated]),
    Bug::new("dead-letter-without-headers", &[Kind::Corrupted]),
    // Commits.
    Bug::new("commit-before-write", &[Kind::CommittedPastUndone, Kind::Lost])
        .slow()
        .kills(),
    Bug::new("commit-maximum", &[Kind::CommittedPastUndone])
        .slow()
        .ordering(Ordering::PerKey),
    Bug::new("commit-offset-plus-one", &[Kind::CommittedPastUndone]).quick(),
    Bug::new("commit-goes-back", &[Kind::CommittedWentBack]),
    Bug::new("commit-nothing", &[Kind::Unfinished]),
    Bug::new("out-of-order-completions-invented", &[Kind::Lost])
        .restarts()
        .ordering(Ordering::PerKey),
    Bug::new("at-most-once-commits-later", &[Kind::Duplicated])
        .slow()
        .kills()
        .guarantee(Guarantee::AtMostOnce),
    // Ordering.
    Bug::new("partition-order-by-key", &[Kind::ReorderedInPartition]).slow(),
    Bug::new("key-order-by-chance", &[Kind::ReorderedPerKey])
        .slow()
        .ordering(Ordering::PerKey),
    // Rebalances, start and stop.
    Bug::new("no-drain-on-revoke", &[Kind::Lost]).slow().kills(),
    Bug::new("skip-first-record-after-assign", &[Kind::Lost]),
    Bug::new("latest-on-new-partitions", &[Kind::Lost]),
    Bug::new("lose-last-batch-on-shutdown", &[Kind::Lost])
        .slow()
        .restarts()
        .quick(),
    // Kafka transactions.
    Bug::new("no-rewind-after-abort", &[Kind::Lost])
        .fences()
        .exactly_once(Sink::Kafka)
        .quick(),
    Bug::new("abort-is-committed", &[Kind::Lost])
        .fences()
        .exactly_once(Sink::Kafka),
    Bug::new("ends-before-its-lanes", &[Kind::Duplicated])
        .kills()
        .fences()
        .exactly_once(Sink::Kafka),
    Bug::new("offsets-outside-transaction", &[Kind::Duplicated, Kind::Lost])
        .either()
        .kills()
        .fences()
        .exactly_once(Sink::Kafka),
    Bug::new("dead-letter-outside-transaction", &[Kind::DeadLetterDuplicated])
        .kills()
        .fences()
        .exactly_once(Sink::Kafka),
    // PostgreSQL transactions.
    Bug::new("postgres-offsets-outside-transaction", &[Kind::Duplicated])
        .kills()
        .exactly_once(Sink::Postgres),
    Bug::new("postgres-ignores-finished", &[Kind::Duplicated])
        .kills()
        .exactly_once(Sink::Postgres)
        .quick(),
];

impl Bug {
    /// A run that must show the bug.
    pub fn scenario(&self) -> Scenario {
        let mut scenario = Scenario {
            guarantee: self.guarantee,
            ordering: self.ordering,
            sink: self.sink,
            workers: 2,
            partitions: 4,
            rate: 300,
            // Some seconds of records if there are no faults to wait for.
            records: 1500,
            poison_every: 10,
            faults: Faults {
                kills: self.kills,
                restarts: self.restarts,
                fences: self.fences,
                ..Faults::default()
            },
            bug: Some(self.name),
            // A group that the bug has stopped needs no wait as long as that of a healthy one.
            patience: Duration::from_secs(20),
            ..Scenario::new("seeded")
        };
        if self.kills > 0 {
            scenario.session = SESSION_OF_A_CRASH;
        }
        if self.slow {
            scenario.client.push(("linger.ms", "500"));
            // Waiting for a dead letter takes as long, and would hide that the worker does not wait for the
            // rest of its batch.
            scenario.poison_every = 150;
        }
        scenario
    }

    /// The row of a run of this bug.
    pub fn row(&self, outcome: &Outcome) -> Row {
        let broken = outcome.broken();
        Row {
            passed: if self.either {
                self.kinds.iter().any(|kind| broken.contains(kind))
            } else {
                self.kinds.iter().all(|kind| broken.contains(kind))
            },
            ..Row::new(outcome)
        }
    }
}

/// Runs these bugs, several at a time. Rows of missed bugs have `passed: false`.
pub async fn rows(site: &Site, bugs: impl IntoIterator<Item = &'static Bug>) -> Result<Vec<Row>> {
    ensure!(
        site.worker.is_file(),
        "{} does not exist: build the worker with `--features seeded-bugs` and put it there, as scripts/test.sh and \
         scripts/soak.sh do",
        site.worker.display()
    );
    stream::iter(bugs)
        .map(async |bug| Ok(bug.row(&run(site, &bug.scenario()).await?)))
        .buffered(TOGETHER)
        .try_collect()
        .await
}
