//! A long outage of the system behind the writer, while records keep arriving. No worker may lose its place
//! in the group, and none may accumulate what it cannot write. The report compares the speed of working off
//! the backlog with that of the same workers for a backlog of the same age without an outage. The speed is
//! not judged, because the verdict would then depend on everything else that the machine does.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{fleet::Fleet, output::Route, scenario::Scenario, witness::Witness};
use crate::{systems::kafka::Kafka, verify::ledger::feed::Feed};

/// Maximum growth of a worker's memory. A worker's queues limit what it holds and are full within seconds, so
/// ten minutes may cost no more than one.
const MOST_MIB: f64 = 50.0;

/// Pause between two checks of the progress.
const PAUSE: Duration = Duration::from_millis(100);

/// Observations of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// Assignments and revocations from the start of the outage until its backlog is gone.
    pub rebalances: u64,
    /// Growth of the worker that grew most, from the start of the outage to its end.
    pub grown_mib: f64,
    /// Records per second for a backlog that built up while the workers were stopped.
    pub rate_without: f64,
    /// The same with the backlog of the outage.
    pub rate_after: f64,
}

impl Outage {
    /// Whether the outage only delayed the group.
    pub fn is_harmless(&self) -> bool {
        self.rebalances == 0 && self.grown_mib <= MOST_MIB
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outage: {} rebalances, a worker grew by up to {:.0} MiB, the backlog was worked off at \
             {:.0} records/s, one without an outage at {:.0} records/s",
            self.rebalances, self.grown_mib, self.rate_after, self.rate_without
        )
    }
}

/// A run with an outage.
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
            // Lower than before only if a worker was restarted, which the outcome reports.
            rebalances: fleet.rebalances().await?.saturating_sub(rebalances),
            grown_mib,
            rate_without,
            rate_after,
        })
    }

    /// Records per second, from the first commit until the backlog is less than a second's worth of the feed.
    /// A group that does not reach this is judged anyway.
    async fn catch_up(&self, fleet: &mut Fleet, time: Duration) -> Result<f64> {
        // Workers that are 1.5 times as fast as the feed need twice the time.
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

    /// Number of committed records: the input has no gaps.
    fn committed(&self) -> u64 {
        self.witness.committed().values().sum::<i64>().unsigned_abs()
    }
}

/// Waits until the group is complete and stable: a cut during a rebalance may cost a member its place in the
/// group, which counts as a crash.
pub(super) async fn settled(kafka: &Kafka, route: &Route, scenario: &Scenario) -> Result<()> {
    let started = Instant::now();
    let complete = Some(("Stable".to_string(), scenario.workers));
    while kafka.group(&route.group).await? != complete && started.elapsed() < scenario.patience {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_without_rebalances_and_with_little_growth_is_harmless_at_any_catch_up_rate() {
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
