//! The checker checked: a worker with one bug planted into it (`worker/src/planted.rs`) must be blamed for just that, within
//! 20 kills. A checker that misses one would be no evidence.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Faults, Outcome, Row, SESSION_OF_A_CRASH, Scenario, Site, run};
use crate::checker::Kind;

/// Runs that go on at the same time: most of each is waiting.
const TOGETHER: usize = 4;

/// A bug of `worker/src/planted.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    pub name: &'static str,
    /// Each of these must be found.
    pub kinds: &'static [Kind],
    provoked_by: Provocation,
    /// Tested by `make test` too; the others only by `make soak`.
    pub quick: bool,
}

/// What makes a bug show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provocation {
    /// Nothing more than records.
    Calm,
    /// The same; confirmations of the broker come late.
    SlowBroker,
    Kills,
    Restarts,
}

use Provocation::{Calm, Kills, Restarts, SlowBroker};

const fn bug(name: &'static str, provoked_by: Provocation, kinds: &'static [Kind]) -> Bug {
    Bug {
        name,
        kinds,
        provoked_by,
        quick: false,
    }
}

const fn quick(bug: Bug) -> Bug {
    Bug { quick: true, ..bug }
}

/// All of them.
pub const BUGS: &[Bug] = &[
    // The writer of topics.
    quick(bug("ignore-writer-error", Calm, &[Kind::Lost])),
    bug("write-not-awaited", SlowBroker, &[Kind::CommittedPastUndone]),
    bug("duplicate-write", Calm, &[Kind::Duplicated]),
    quick(bug("reorder-within-batch", Calm, &[Kind::ReorderedPerKey])),
    bug("corrupt-value", Calm, &[Kind::Corrupted, Kind::Lost]),
    bug("wrong-key", Calm, &[Kind::Corrupted]),
    bug("swap-keys", Calm, &[Kind::Corrupted]),
    bug("timestamp-of-now", Calm, &[Kind::Corrupted]),
    // Dead letters.
    quick(bug("drop-dead-letter", Calm, &[Kind::DeadLetterLost])),
    bug(
        "dead-letter-not-awaited",
        SlowBroker,
        &[Kind::CommittedPastUndone],
    ),
    bug("dead-letter-twice", Calm, &[Kind::DeadLetterDuplicated]),
    bug("dead-letter-without-headers", Calm, &[Kind::Corrupted]),
];

impl Bug {
    /// A run that must show it.
    pub fn scenario(&self) -> Scenario {
        let kills = match self.provoked_by {
            Kills => 6,
            _ => 0,
        };
        let restarts = match self.provoked_by {
            Restarts => 4,
            _ => 0,
        };
        let mut scenario = Scenario {
            workers: 2,
            partitions: 4,
            rate: 300,
            // Some seconds of records when there are no faults to wait for.
            records: 1500,
            poison_every: 10,
            faults: Faults {
                kills,
                restarts,
                ..Faults::default()
            },
            bug: Some(self.name),
            // A group that a bug has stopped need not be waited for as long as a healthy one.
            patience: Duration::from_secs(20),
            ..Scenario::new("planted")
        };
        if kills > 0 {
            scenario.session = SESSION_OF_A_CRASH;
        }
        if self.provoked_by == SlowBroker {
            scenario.client.push(("linger.ms", "500"));
            // Waiting for a dead letter takes as long, and would hide that nobody waits for the rest of its batch.
            scenario.poison_every = 150;
        }
        scenario
    }

    /// The row of a run of this bug.
    pub fn row(&self, outcome: &Outcome) -> Row {
        let broken = outcome.broken();
        Row {
            passed: self.kinds.iter().all(|kind| broken.contains(kind)),
            ..Row::new(outcome)
        }
    }
}

/// Runs these bugs, several at a time. Rows of bugs that were missed say so.
pub async fn rows(site: &Site, bugs: impl IntoIterator<Item = &'static Bug>) -> Result<Vec<Row>> {
    ensure!(
        site.worker.is_file(),
        "{} is not there: build the worker with `--features planted-bugs` and put it there, as scripts/test.sh and \
         scripts/soak.sh do",
        site.worker.display()
    );
    stream::iter(bugs)
        .map(async |bug| Ok(bug.row(&run(site, &bug.scenario()).await?)))
        .buffered(TOGETHER)
        .try_collect()
        .await
}
