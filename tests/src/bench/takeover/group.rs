//! The two workers of a trial and their group.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::json;

use super::super::{
    subjects::{Bench, START},
    worker::{get, sum},
};
use crate::systems::process::{WorkerProcess, free_address};

/// Partitions of the input.
pub(super) const PARTITIONS: i32 = 12;

/// Both workers must have kept their half for this long: no rebalance is running, and everything is
/// committed.
const SETTLED: Duration = Duration::from_secs(3);
/// Pause between two checks of the workers.
const PAUSE: Duration = Duration::from_millis(100);

/// The group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Classic,
    Consumer,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "Classic",
            Protocol::Consumer => "Consumer",
        }
    }
}

/// When the broker considers a silent member dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// 45 s, and a heartbeat every 3 s (Classic) or 5 s (Consumer).
    Default,
    /// 6 s, and a heartbeat every second. For the protocol Consumer, the broker must allow it.
    Short,
}

impl Session {
    pub fn name(self) -> &'static str {
        match self {
            Session::Default => "45 s (default)",
            Session::Short => "6 s",
        }
    }
}

/// A worker and the address of its pages.
pub(super) struct Member {
    pub worker: WorkerProcess,
    address: SocketAddr,
}

impl Member {
    pub fn start(bench: &Bench, name: &str, config: &WorkerConfig) -> Result<Self> {
        // Only the log of the last trial is needed.
        let _ = fs::remove_file(bench.scratch.join(format!("{name}.log")));
        let address = free_address()?;
        let worker = WorkerProcess::start(&bench.worker, name, (&bench.scratch, address), config, &[])?;
        Ok(Self { worker, address })
    }

    fn assigned(&mut self) -> Result<u64> {
        self.worker
            .process
            .check()
            .with_context(|| WorkerProcess::last_words(&self.worker.log, 10))?;
        Ok(sum(
            get(self.address, "/metrics").as_deref(),
            "kcg_worker_assigned_partitions",
        ))
    }

    pub fn partitions(&self) -> Result<BTreeSet<i32>> {
        let metrics = get(self.address, "/metrics").context("a worker does not answer")?;
        Ok(partitions(&metrics))
    }
}

/// The partitions that have a series of the metric.
fn partitions(metrics: &str) -> BTreeSet<i32> {
    metrics
        .lines()
        .filter_map(|line| {
            let labels = line.strip_prefix("kcg_worker_records_finished_total{")?;
            let (_, rest) = labels.split_once("partition=\"")?;
            rest.split('"').next()?.parse().ok()
        })
        .collect()
}

/// What both workers do: copy to a topic, a different one for each.
pub(super) fn config(
    bench: &Bench,
    (session, protocol): (Session, Protocol),
    group: &str,
    input: &str,
    output: &str,
) -> Result<WorkerConfig> {
    let client = match (session, protocol) {
        // With Consumer, the broker decides.
        (Session::Default, _) | (_, Protocol::Consumer) => json!({}),
        (Session::Short, Protocol::Classic) => {
            json!({"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"})
        }
    };
    let spec: KafkaConsumerGroupSpec = serde_json::from_value(json!({
        "topics": [{"name": input}],
        "groupId": group,
        "kafka": {"bootstrapServers": [bench.bootstrap], "clientConfig": client},
        "consumer": {"groupProtocol": protocol.name()},
        "writers": [{"name": "out", "type": "Kafka", "kafka": {"topic": output}}],
    }))
    .context("the bench's own resource")?;
    Ok(WorkerConfig::from_spec(
        "bench",
        "takeover",
        &spec,
        spec.transforms.clone(),
    ))
}

/// Waits until both workers have half of the partitions for a while.
pub(super) async fn settle(leaver: &mut Member, stayer: &mut Member) -> Result<()> {
    let started = Instant::now();
    let mut since = None;
    loop {
        let assigned = (leaver.assigned()?, stayer.assigned()?);
        let half = PARTITIONS as u64 / 2;
        if assigned == (half, half) {
            if since.get_or_insert_with(Instant::now).elapsed() >= SETTLED {
                return Ok(());
            }
        } else {
            since = None;
        }
        ensure!(
            started.elapsed() < START,
            "the workers have {assigned:?} partitions"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// With the protocol Consumer, the broker keeps the session timeout of each group; only Kafka's own tool can
/// set it.
pub(super) async fn shorten_session(bench: &Bench, group: &str) -> Result<()> {
    let jars = bench
        .jars
        .as_ref()
        .context("a short session needs --kafka-jars")?;
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx128M",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp",
        ])
        .arg(jars.join("*"))
        .args([
            "kafka.admin.ConfigCommand",
            "--bootstrap-server",
            &bench.bootstrap,
            "--alter",
        ])
        .args(["--entity-type", "groups", "--entity-name", group, "--add-config"])
        .arg("consumer.session.timeout.ms=6000,consumer.heartbeat.interval.ms=1000")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "the session of {group} cannot be set: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_that_the_worker_counts_records_of() {
        let text = "# TYPE kcg_worker_records_finished counter\nkcg_worker_records_finished_total{topic=\"t\",partition=\"3\"} 2\n\
                    kcg_worker_records_finished_total{topic=\"t\",partition=\"11\"} 0\nkcg_worker_records_consumed_total{partition=\"4\"} 1\n";
        assert_eq!(partitions(text), BTreeSet::from([3, 11]));
    }
}
