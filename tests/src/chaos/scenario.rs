//! What is to happen in a run, and what it is promised.

use std::time::Duration;

use anyhow::{Context, Result};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::json;

use super::{Faults, output::Route, random_seed};
use crate::verify::checker::{Guarantee, Ordering, Promise, Sink};

/// How long one partition may stand still before the group counts as stuck: far longer than any session and any drain.
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
    /// Go on at least until so many records are written.
    pub records: u64,
    /// `processing.batch.maxRecords`.
    pub batch: u64,
    /// One record of this many is poison; 0: none.
    pub poison_every: u64,
    /// `session.timeout.ms`.
    pub session: Duration,
    pub faults: Faults,
    pub seed: u64,
    /// More librdkafka properties.
    pub client: Vec<(&'static str, &'static str)>,
    /// A planted bug: the worker must be built with them.
    pub bug: Option<&'static str>,
    /// How long the group may take for anything.
    pub patience: Duration,
}

/// A killed worker is missed after this time: short, so that there can be many kills, and long enough that a busy machine
/// does not look like one.
pub const SESSION_OF_A_CRASH: Duration = Duration::from_secs(3);

/// The default: where nothing is meant to crash, a process that gets no processor for some seconds must not count as one.
pub const SESSION_OF_A_CLEAN_STOP: Duration = Duration::from_secs(45);

impl Scenario {
    /// A short run without faults, to be changed.
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

    /// What all crashes of this run together may repeat, or lose with at-most-once. Each: for every partition of the worker
    /// what is read and not finished, four batches at most; twice, because the worker may just have taken over those of
    /// another. And repeat what is finished and not committed, for which a second of the whole load is counted, though
    /// commits are due every 200 ms, because rebalances hold them up.
    pub fn allowance(&self) -> u64 {
        self.crashes() * self.repeated()
    }

    /// The same for dead letters: so many of a run of records are poison, and one more where the run begins.
    pub fn letters(&self) -> u64 {
        let poison = self.repeated().checked_div(self.poison_every);
        poison.map_or(0, |poison| self.crashes() * (poison + 2 * self.owned()))
    }

    fn crashes(&self) -> u64 {
        // A broker that is away may cost every worker its session, a database the answer to a write.
        let outages = self.faults.broker_restarts + u32::from(self.faults.outage_seconds > 0);
        let sessions = outages * self.workers as u32;
        // What is aborted is repeated, if it was not to be part of the transaction.
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

    /// Partitions of a worker.
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
        }
    }

    pub(super) fn config(&self, bootstrap: &str, route: &Route) -> Result<WorkerConfig> {
        let mut client = json!({
            "session.timeout.ms": self.session.as_millis().to_string(),
            // The session is missed after three of them at least.
            "heartbeat.interval.ms": "500",
        });
        for (key, value) in &self.client {
            client[key] = json!(value);
        }
        let mut spec = json!({
            "topics": [{"name": route.input}],
            "groupId": route.group,
            "kafka": {"bootstrapServers": [bootstrap], "clientConfig": client},
            "processing": {
                "deliveryGuarantee": self.guarantee.to_string(),
                "ordering": self.ordering.to_string(),
                "batch": {"maxRecords": self.batch, "lingerMilliseconds": 10},
                "commitIntervalMilliseconds": 200,
            },
            "decode": {"value": {"type": "Json"}},
            "writers": [route.writer()],
            "errorHandling": {"deadLetter": {"topic": route.letters}},
            "worker": {"terminationGracePeriodSeconds": 30},
        });
        if self.faults.outage_seconds > 0 {
            // With the default of 30 s the rate of catching up would be the time until the last worker has tried again.
            spec["errorHandling"]["retry"] = json!({"maxBackoffSeconds": 2});
        }
        let spec: KafkaConsumerGroupSpec =
            serde_json::from_value(spec).context("the contract does not know this scenario")?;
        Ok(WorkerConfig::from_spec(
            "chaos",
            &self.name,
            &spec,
            spec.transforms.clone(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crashes_cost_something_and_of_dead_letters_a_fraction() {
        let mut scenario = Scenario::new("x");
        scenario.faults.restarts = 9;
        scenario.faults.storms = 9;
        scenario.faults.growths = 9;
        assert_eq!((scenario.allowance(), scenario.letters()), (0, 0));
        scenario.faults.kills = 2;
        // Two partitions of twice four batches of 20, and a second of records; each 50th, and one more for each partition.
        assert_eq!(
            (scenario.allowance(), scenario.letters()),
            (2 * 920, 2 * (920 / 50 + 4))
        );
        // A broker counts for each of the three workers.
        scenario.faults.broker_restarts = 1;
        assert_eq!(scenario.allowance(), 5 * 920);
        scenario.poison_every = 0;
        assert_eq!(scenario.letters(), 0);
    }
}
