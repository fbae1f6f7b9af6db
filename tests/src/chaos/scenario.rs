//! The settings of a run, and what they promise.

use std::time::Duration;

use super::plan::{ClusterFault, Faults};
use crate::{
    systems::random::random_seed,
    verify::checker::{Guarantee, Ordering, Promise, Sink},
};

/// How long a partition may make no progress before the group counts as stuck: far longer than any session
/// and any drain.
const PATIENCE: Duration = Duration::from_secs(90);

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Part of topic names: short, lower case.
    pub name: String,
    pub guarantee: Guarantee,
    pub ordering: Ordering,
    pub sink: Sink,
    pub workers: usize,
    pub partitions: i32,
    /// Records a second over all partitions.
    pub rate: u64,
    /// The run continues at least until this many records are written.
    pub records: u64,
    /// `processing.batch.maxRecords`.
    pub batch: u64,
    /// One record in this many is poison; 0: none.
    pub poison_every: u64,
    /// `session.timeout.ms`.
    pub session: Duration,
    pub faults: Faults,
    pub seed: u64,
    /// More librdkafka properties.
    pub client: Vec<(&'static str, &'static str)>,
    /// A seeded bug; the worker must be built with the feature.
    pub bug: Option<&'static str>,
    /// How long the group may take for any step.
    pub patience: Duration,
}

/// The group misses a killed worker after this time: short, so that a run can have many kills, and long
/// enough that a busy machine does not look like a crash.
pub const SESSION_OF_A_CRASH: Duration = Duration::from_secs(3);

/// The default: where nothing is meant to crash, a process that gets no CPU for some seconds must not count
/// as crashed.
pub const SESSION_OF_A_CLEAN_STOP: Duration = Duration::from_secs(45);

impl Scenario {
    /// A short run without faults, as a base for others.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            guarantee: Guarantee::AtLeastOnce,
            ordering: Ordering::PerPartition,
            sink: Sink::Kafka,
            workers: 3,
            partitions: 6,
            rate: 600,
            records: 0,
            batch: 20,
            poison_every: 50,
            session: SESSION_OF_A_CLEAN_STOP,
            faults: Faults::default(),
            seed: random_seed(),
            client: Vec::new(),
            bug: None,
            patience: PATIENCE,
        }
    }

    /// What all crashes of this run together may repeat, or lose with AtMostOnce. Each crash: for every
    /// partition of the worker the records that are read and not finished, at most four batches; twice,
    /// because the worker may just have taken over the partitions of another. And repeat the finished records
    /// that are not committed, counted as a second of the whole load, although commits are due every 200 ms,
    /// because rebalances delay them.
    pub fn allowance(&self) -> u64 {
        self.crashes() * self.repeated()
    }

    /// The same for dead letters: the share of poison in a sequence of records, and one more where the
    /// sequence starts.
    pub fn letters(&self) -> u64 {
        let poison = self.repeated().checked_div(self.poison_every);
        poison.map_or(0, |poison| self.crashes() * (poison + 2 * self.owned()))
    }

    fn crashes(&self) -> u64 {
        // A broker outage may cost every worker its session, a database outage the answer to a write.
        let cluster = self.faults.cluster.map_or(0, |(_, count)| count);
        let outages = self.faults.broker_restarts + cluster + u32::from(self.faults.outage_seconds > 0);
        let sessions = outages * self.workers as u32;
        // An aborted write is repeated if it was not meant to be part of the transaction.
        u64::from(self.faults.kills + self.faults.zombies + self.faults.fences + sessions)
    }

    fn repeated(&self) -> u64 {
        self.in_hand()
            + match self.guarantee {
                Guarantee::AtMostOnce => 0,
                Guarantee::AtLeastOnce | Guarantee::ExactlyOnce => self.rate,
            }
    }

    fn in_hand(&self) -> u64 {
        2 * self.owned() * 4 * self.batch
    }

    /// Partitions of each worker.
    fn owned(&self) -> u64 {
        (self.partitions as u64).div_ceil(self.workers as u64)
    }

    pub fn promise(&self) -> Promise {
        Promise {
            guarantee: self.guarantee,
            ordering: self.ordering,
            sink: self.sink,
            allowance: self.allowance(),
            letters: self.letters(),
            late: u64::from(self.faults.zombies) * self.in_hand(),
            stale_ends: self
                .faults
                .cluster
                .is_some_and(|(fault, _)| fault == ClusterFault::Isolate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crashes_have_an_allowance_and_that_of_dead_letters_is_a_fraction() {
        let mut scenario = Scenario::new("x");
        scenario.faults.restarts = 9;
        scenario.faults.storms = 9;
        scenario.faults.growths = 9;
        assert_eq!((scenario.allowance(), scenario.letters()), (0, 0));
        scenario.faults.kills = 2;
        // Two partitions of twice four batches of 20, and a second of records; a 50th of them, and one more
        // for each partition.
        assert_eq!(
            (scenario.allowance(), scenario.letters()),
            (2 * 920, 2 * (920 / 50 + 4))
        );
        // A broker restart counts for each of the three workers.
        scenario.faults.broker_restarts = 1;
        assert_eq!(scenario.allowance(), 5 * 920);
        scenario.poison_every = 0;
        assert_eq!(scenario.letters(), 0);
    }
}
