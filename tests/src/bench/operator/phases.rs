//! One measurement: an operator that has just started, and its groups, from none to all and back.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::{
    super::process::{Servers, Window},
    Progress,
    groups::Groups,
    process::Probe,
    report::{Size, Steady},
    topics::Topics,
    trials,
};

/// How long each phase rests and measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From ready to the measurement of the idle process.
    idle: Duration,
    /// From the last group to the window.
    pub rest: Duration,
    pub window: Duration,
    /// From the moment at which all groups are forgotten to the last measurement: allocators return memory
    /// with a delay.
    after: Duration,
}

impl Pace {
    /// The window holds four refreshes.
    pub const FULL: Self = Self {
        idle: Duration::from_secs(10),
        rest: Duration::from_secs(30),
        window: Duration::from_secs(60),
        after: Duration::from_secs(60),
    };
    pub const QUICK: Self = Self {
        idle: Duration::from_secs(3),
        rest: Duration::from_secs(15),
        window: Duration::from_secs(20),
        after: Duration::from_secs(10),
    };
}

/// What a measurement uses.
pub(super) struct Phases<'a> {
    pub groups: &'a Groups,
    pub topics: &'a Topics<'a>,
    pub operator: &'a Probe,
    pub servers: Servers,
    pub pace: Pace,
    pub trials: u32,
}

impl Phases<'_> {
    pub async fn run(&self) -> Result<Size> {
        let (groups, size) = (self.groups, self.groups.size);
        rest("idle operator", self.pace.idle).await;
        let idle = self.operator.read()?;
        println!("{size} groups: idle operator {:.1} MiB", idle.rss_mib);

        println!("{size} groups: creating them, {}", groups.state());
        let filled = groups.fill(self.topics).await.context("creating the groups")?;
        println!(
            "{size} groups: created in {:.1} s, all reach Kafka after {:.1} s",
            filled.created.as_secs_f64(),
            filled.reachable.as_secs_f64()
        );

        rest("rest before the window", self.pace.rest).await;
        let steady = self.steady().await.context("the window without changes")?;
        println!(
            "{size} groups: {:.2} CPU-s per minute, {:.1} MiB, {} threads, {} connections to Kafka, {} groups \
             written",
            steady.cpu_seconds_per_minute,
            steady.reading.rss_mib,
            steady.reading.threads,
            steady.reading.connections,
            steady.written
        );

        println!("{size} groups: single changes");
        let latencies = trials::run(groups, self.topics, self.trials)
            .await
            .context("single changes")?;
        let peak_rss_mib = self.operator.read()?.peak_rss_mib;

        println!("{size} groups: deleting them");
        let remembered = groups
            .delete(self.operator)
            .await
            .context("deleting the groups")?;
        rest("rest after the deletion", self.pace.after).await;
        let after = self.operator.read()?;
        println!(
            "{size} groups: {:.1} MiB after their deletion, metrics of {remembered} deleted groups left",
            after.rss_mib
        );
        Ok(Size {
            groups: size,
            state: groups.state(),
            idle_rss_mib: idle.rss_mib,
            filled,
            steady,
            peak_rss_mib,
            latencies,
            after_rss_mib: after.rss_mib,
            remembered,
        })
    }

    /// A window in which nobody changes anything.
    async fn steady(&self) -> Result<Steady> {
        let before = self.groups.versions().await?;
        let window = Window::open(self.operator.pid, self.servers)?;
        rest("window", self.pace.window).await;
        let spent = window.close()?;
        let reading = self.operator.read()?;
        let after = self.groups.versions().await?;
        let written = after
            .iter()
            .filter(|(name, version)| before.get(*name) != Some(*version))
            .count();
        let per_minute = |seconds: f64| seconds / spent.seconds * 60.0;
        Ok(Steady {
            seconds: spent.seconds,
            cpu_seconds_per_minute: per_minute(spent.cpu_seconds),
            broker_cpu_seconds_per_minute: spent.servers.broker.map(per_minute),
            others: spent.others,
            reading,
            written,
        })
    }
}

/// Waits, with progress lines.
pub(super) async fn rest(what: &str, length: Duration) {
    let (mut progress, started) = (Progress::start(), Instant::now());
    while started.elapsed() < length {
        progress.say(|| format!("{what}: {} s in all", length.as_secs()));
        sleep(
            length
                .saturating_sub(started.elapsed())
                .min(Duration::from_secs(1)),
        )
        .await;
    }
}
