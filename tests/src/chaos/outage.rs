//! The system behind the writer is away for long, while records go on arriving. No worker may lose its place in the group for
//! that, and none may grow with what it cannot write. How fast the backlog is worked off afterwards is told beside how fast the
//! same workers do that with a backlog of the same age without an outage; it is not judged, because whatever else the machine
//! does would be judged with it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{Scenario, fleet::Fleet, output::Route, settled, witness::Witness};
use crate::{systems::kafka::Kafka, verify::ledger::feed::Feed};

/// Most that a worker may grow by. What it holds is bounded by its queues, which are full within seconds; so ten minutes may
/// cost no more than one.
const MOST_MIB: f64 = 50.0;

/// Between two looks at the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// What was seen of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// Times that partitions came or went, from the beginning of the outage until its backlog was gone.
    pub rebalances: u64,
    /// Of the worker that grew most, from the beginning of the outage to its end.
    pub grown_mib: f64,
    /// Records a second, with a backlog that came about while the workers were stopped.
    pub rate_without: f64,
    /// The same with the backlog of the outage.
    pub rate_after: f64,
}

impl Outage {
    /// Whether it did nothing to the group but to hold it up.
    pub fn is_harmless(&self) -> bool {
        self.rebalances == 0 && self.grown_mib <= MOST_MIB
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outage: {} rebalances, a worker grew by up to {:.0} MiB, its backlog went at {:.0} records/s, one without an outage at \
             {:.0}",
            self.rebalances, self.grown_mib, self.rate_after, self.rate_without
        )
    }
}

/// A run in which an outage takes place.
pub(super) struct Scene<'a> {
    pub scenario: &'a Scenario,
    pub kafka: &'a Kafka,
    pub route: &'a Route,
    pub feed: &'a Feed,
    pub witness: &'a Witness,
}

impl Scene<'_> {
    /// Two backlogs: the first without an outage.
    pub async fn run(&self, fleet: &mut Fleet, time: Duration) -> Result<Outage> {
        fleet.rest(time).await?;
        let rate_without = self.catch_up(fleet, time).await?;
        settled(self.kafka, self.route, self.scenario).await?;
        let (rebalances, memory) = (fleet.rebalances().await?, fleet.memory()?);
        self.route.interrupt(time)?;
        tokio::time::sleep(time).await;
        fleet.restart_ended()?;
        let grown = fleet
            .memory()?
            .into_iter()
            .zip(memory)
            .map(|(now, before)| now - before);
        let grown_mib = grown.fold(0.0, f64::max);
        let rate_after = self.catch_up(fleet, time).await?;
        Ok(Outage {
            // Less than before only when a worker was started anew, which the outcome tells.
            rebalances: fleet.rebalances().await?.saturating_sub(rebalances),
            grown_mib,
            rate_without,
            rate_after,
        })
    }

    /// Records a second, from the first that is committed until no more are left than come in a second. A group that does not get
    /// there is judged all the same.
    async fn catch_up(&self, fleet: &mut Fleet, time: Duration) -> Result<f64> {
        // Workers that are half as fast again as the feed need twice the time.
        let limit = self.scenario.patience + 3 * time;
        let (called, from) = (Instant::now(), self.committed());
        let mut started = called;
        loop {
            let now = self.committed();
            if now == from {
                started = Instant::now();
            }
            if now + self.scenario.rate >= self.feed.sent()
                || called.elapsed() > limit
                || self.witness.has_ended()
            {
                return Ok((now - from) as f64 / started.elapsed().as_secs_f64().max(PAUSE.as_secs_f64()));
            }
            fleet.restart_ended()?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Records that are committed: the input has no gaps.
    fn committed(&self) -> u64 {
        self.witness.committed().values().sum::<i64>().unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_harmless_without_rebalances_and_with_little_growth_however_slow_what_follows() {
        let outage = Outage {
            rebalances: 0,
            grown_mib: 50.0,
            rate_without: 9000.0,
            rate_after: 1.0,
        };
        assert!(outage.is_harmless());
        assert!(
            !Outage {
                rebalances: 1,
                ..outage
            }
            .is_harmless()
        );
        assert!(
            !Outage {
                grown_mib: 50.1,
                ..outage
            }
            .is_harmless()
        );
    }
}
