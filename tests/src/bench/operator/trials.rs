//! Single changes at full load, and the time until status shows that the operator has acted on them: from the
//! moment at which the API server or the broker has accepted the change.
//!
//! Changes start at fixed times, whether or not the earlier ones are finished. If each started when the one
//! before it ends, all of them would start just after a refresh of the operator, and the slow ones would be
//! few.

use std::time::Duration;

use anyhow::{Result, ensure};
use crds::KafkaConsumerGroup;
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    super::quantiles::Quantiles,
    groups::{Groups, is_reachable},
    topics::{self, Topics},
};
use crate::systems::kubernetes::summary;

/// Time between the starts of two changes: not a divisor of the refresh (15 s), so that they start at
/// different times within it.
const SPACING: Duration = Duration::from_millis(1700);
/// An operator that needs longer is overloaded; that has no latency to report.
const LIMIT: Duration = Duration::from_secs(300);
/// Pause between two looks at a group, and the part of the elapsed time that it grows to: many slow trials at
/// the same time must not load the API server.
const LOOK: Duration = Duration::from_millis(20);
const PART: u32 = 50;

/// The times of all trials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latencies {
    /// From a new group to `KafkaReachable`.
    pub created: Quantiles,
    /// From a changed spec to `status.observedGeneration`.
    pub changed: Quantiles,
    /// From more partitions of a topic to `status.topics`.
    pub grown: Quantiles,
}

/// Runs `trials` changes of each kind.
pub(super) async fn run(groups: &Groups, topics: &Topics<'_>, trials: u32) -> Result<Latencies> {
    let created = all("new group", trials, async |number| {
        let name = format!("new-{number:04}");
        groups.create(&name, topics.of(number)).await?;
        until(groups, &name, "reports KafkaReachable", is_reachable).await
    });
    let created = created.await?;
    let changed = all("changed spec", trials, async |number| {
        // Spread over all groups.
        let name = Groups::name((u64::from(number) * u64::from(groups.size) / u64::from(trials)) as u32);
        let seconds = 31 + number;
        let spec = json!({"worker": {"terminationGracePeriodSeconds": seconds}});
        let generation = groups.change(&name, spec).await?;
        until(groups, &name, "reports the new generation", |group| {
            let status = group.status.as_ref();
            status.and_then(|status| status.observed_generation) >= Some(generation)
        })
        .await
    });
    let changed = changed.await?;
    let grown = all("grown topic", trials, async |number| {
        let topic = topics.of(number);
        let partitions = topics::PARTITIONS + 1 + number / topics::COUNT;
        topics.grow(topic, partitions).await?;
        let name = Groups::name(number % topics::COUNT);
        until(groups, &name, "reports the new partitions", |group| {
            let found = group.status.iter().flat_map(|status| &status.topics);
            found
                .filter(|found| found.name == topic)
                .any(|found| found.partitions >= Some(partitions as i32))
        })
        .await
    });
    Ok(Latencies {
        created,
        changed,
        grown: grown.await?,
    })
}

/// Starts one trial after the other, [`SPACING`] apart.
async fn all(what: &str, trials: u32, trial: impl AsyncFn(u32) -> Result<Duration>) -> Result<Quantiles> {
    println!(
        "  {what}: {trials} trials, {:.0} s",
        (SPACING * trials).as_secs_f64()
    );
    let trial = &trial;
    let times = try_join_all((0..trials).map(|number| async move {
        sleep(SPACING * number).await;
        trial(number).await
    }))
    .await?;
    let quantiles = Quantiles::of(&times);
    println!("  {what}: {quantiles}");
    Ok(quantiles)
}

/// The time from now until the group is as wanted.
async fn until(
    groups: &Groups,
    name: &str,
    what: &str,
    wanted: impl Fn(&KafkaConsumerGroup) -> bool,
) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let group = groups.api.get(name).await?;
        let elapsed = started.elapsed();
        if wanted(&group) {
            return Ok(elapsed);
        }
        ensure!(
            elapsed < LIMIT,
            "{name} {what}: not within {} s; last seen: {}",
            LIMIT.as_secs(),
            summary(&group)
        );
        sleep(LOOK.max(elapsed / PART)).await;
    }
}
