//! `--workers N`: what one group with many busy workers costs the API server. In: a prepared cluster with the
//! controllers of Kubernetes. Out: CPU time of operator and API server, and writes of the group. The pods are
//! real objects, bound by the real scheduler to a node without a kubelet ([`fake_node`]); their `/status` comes
//! from this process. Nothing consumes.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use crds::KafkaConsumerGroup;
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::{
    super::process::{Servers, Window, cpu_seconds},
    Progress,
    cluster::{Cluster, NAMESPACE},
    fake_node::FakeNode,
    groups::manifest,
    phases::{Pace, rest},
    process::Operator,
};
use crate::systems::{kubernetes::merge, wait::until_within};

const GROUP: &str = "busy";
const TOPIC: &str = "bench-operator-busy";
/// Kubernetes' controllers create 20 to 50 pods per second, and the scheduler binds as many.
const STARTED: Duration = Duration::from_secs(600);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers {
    pub workers: u32,
    pub seconds: f64,
    pub operator_cpu_seconds_per_minute: f64,
    pub operator_rss_mib: f64,
    /// With the operator, and afterwards without it.
    pub api_server_cpu_seconds_per_minute: (f64, f64),
    /// Changes of the group, whoever made them.
    pub writes: usize,
    /// The size of the group as JSON.
    pub group_bytes: usize,
    /// Reports that the operator has read.
    pub reports_read: usize,
}

impl Workers {
    /// What the operator adds, as a share of a core.
    fn api_server_share(&self) -> f64 {
        let (with, without) = self.api_server_cpu_seconds_per_minute;
        (with - without) / 60.0
    }

    pub fn print(&self) {
        let (with, without) = self.api_server_cpu_seconds_per_minute;
        println!(
            "{} workers, window of {:.0} s: {} reports read, {} writes of the group ({} bytes); operator {:.2} \
             CPU-s per minute, {:.1} MiB; API server {with:.2} CPU-s per minute, without the operator \
             {without:.2}, difference {:.1} % of a core",
            self.workers,
            self.seconds,
            self.reports_read,
            self.writes,
            self.group_bytes,
            self.operator_cpu_seconds_per_minute,
            self.operator_rss_mib,
            self.api_server_share() * 100.0
        );
    }
}

/// What to measure.
pub(super) struct Subject<'a> {
    /// The operator, and its log.
    pub binary: &'a Path,
    pub log: &'a Path,
    pub workers: u32,
    /// Process id of the API server.
    pub api_server: u32,
    pub pace: Pace,
}

/// Measures a group with many workers.
pub(super) async fn measure(cluster: &Cluster, subject: &Subject<'_>) -> Result<Workers> {
    let topics = [TOPIC.to_string()];
    cluster.kafka.delete_topics(&topics).await?;
    cluster
        .kafka
        .create_topic(TOPIC, subject.workers.try_into().context("workers")?)
        .await?;
    let node = FakeNode::start(cluster.kube.clone(), NAMESPACE, TOPIC).await?;
    let measured = measure_on(cluster, &node, subject).await;
    node.remove().await?;
    cluster.kafka.delete_topics(&topics).await?;
    measured
}

async fn measure_on(cluster: &Cluster, node: &FakeNode, subject: &Subject<'_>) -> Result<Workers> {
    let &Subject {
        binary,
        log,
        workers,
        api_server,
        pace,
    } = subject;
    let operator = Operator::start(binary, log).await?;
    let probe = operator.probe(cluster.brokers().await?);
    let groups: Api<KafkaConsumerGroup> = Api::namespaced(cluster.kube.clone(), NAMESPACE);
    let mut group = manifest(GROUP, TOPIC, cluster.bootstrap(), true);
    let on_the_node = json!({"spec": {
        "scaling": {"maxReplicas": workers},
        "worker": {"nodeSelector": FakeNode::selector()},
    }});
    merge(&mut group, on_the_node);
    groups
        .create(&PostParams::default(), &serde_json::from_value(group)?)
        .await?;
    let mut progress = Progress::start();
    until_within(STARTED, &format!("{workers} workers report"), async || {
        let group = groups.get(GROUP).await?;
        let totals = group.status.and_then(|status| status.worker_totals);
        let reporting = totals.map_or(0, |totals| totals.reporting);
        progress.say(|| format!("{reporting} of {workers} workers report"));
        ensure!(reporting.unsigned_abs() == workers, "{reporting} report");
        Ok(())
    })
    .await?;
    rest("rest before the window", pace.rest).await;

    let writes = Writes::watch(groups.clone());
    let (reads, api) = (node.reports_read(), cpu_seconds(api_server)?);
    let window = Window::open(probe.pid, Servers::default())?;
    rest("window", pace.window * 2).await;
    let spent = window.close()?;
    let with = cpu_seconds(api_server)? - api;
    let reports_read = node.reports_read() - reads;
    let writes = writes.count();
    let operator_rss_mib = probe.read()?.rss_mib;
    let group_bytes = serde_json::to_vec(&groups.get(GROUP).await?)?.len();

    operator.stop()?;
    rest("rest without the operator", pace.rest).await;
    let (api, started) = (cpu_seconds(api_server)?, Instant::now());
    rest("window without the operator", pace.window * 2).await;
    let without = (cpu_seconds(api_server)? - api) / started.elapsed().as_secs_f64();
    Ok(Workers {
        workers,
        seconds: spent.seconds,
        operator_cpu_seconds_per_minute: spent.cpu_seconds / spent.seconds * 60.0,
        operator_rss_mib,
        api_server_cpu_seconds_per_minute: (with / spent.seconds * 60.0, without * 60.0),
        writes,
        group_bytes,
        reports_read,
    })
}

/// Counts the versions of the group.
struct Writes {
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Writes {
    fn watch(groups: Api<KafkaConsumerGroup>) -> Self {
        use futures::StreamExt as _;
        use kube::{
            ResourceExt as _,
            runtime::{WatchStreamExt as _, watcher},
        };

        let count = Arc::new(AtomicUsize::default());
        let counter = count.clone();
        let task = tokio::spawn(async move {
            let mut versions = HashSet::new();
            let mut changes = std::pin::pin!(
                watcher(groups, watcher::Config::default())
                    .default_backoff()
                    .applied_objects()
            );
            while let Some(change) = changes.next().await {
                if let Ok(group) = change {
                    versions.insert(group.resource_version());
                    // The first one existed before.
                    counter.store(versions.len() - 1, Ordering::Relaxed);
                }
            }
        });
        Self { count, task }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_what_the_operator_adds() {
        let measured = Workers {
            workers: 1000,
            seconds: 120.0,
            operator_cpu_seconds_per_minute: 1.0,
            operator_rss_mib: 50.0,
            api_server_cpu_seconds_per_minute: (4.5, 1.5),
            writes: 8,
            group_bytes: 20_000,
            reports_read: 8000,
        };
        assert_eq!(measured.api_server_share(), 0.05);
    }
}
