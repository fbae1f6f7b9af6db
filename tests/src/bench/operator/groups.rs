//! The groups of a measurement: creating all of them, seeing what the operator makes of them, deleting them.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use crds::{KafkaConsumerGroup, names::API_GROUP, status::condition::KAFKA_REACHABLE};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Progress, cluster::NAMESPACE, process::Probe, topics::Topics};
use crate::systems::kubernetes::{is, merge, summary};

/// Create requests at the same time.
const CREATES: usize = 20;
/// How often a wait looks at its limit and at its progress line.
const TICK: Duration = Duration::from_millis(500);
/// An operator that needs more than this for each group cannot serve so many; with a constant part for the
/// start.
const PER_GROUP: Duration = Duration::from_millis(500);
const CONSTANT: Duration = Duration::from_secs(120);
/// After the last group is gone, for the last reconciles of the operator. A group that it still knows then is
/// a leak, which is reported.
const FORGET: Duration = Duration::from_secs(60);

/// The groups of a measurement.
pub(super) struct Groups {
    pub api: Api<KafkaConsumerGroup>,
    /// For manifests as users write them, without the defaults of our own types.
    manifests: Api<DynamicObject>,
    bootstrap: String,
    pub size: u32,
    running: bool,
}

/// How long the creation took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    /// Until the API server has accepted the last group.
    pub created: Duration,
    /// Until the operator has reported for every group that Kafka is reachable.
    pub reachable: Duration,
}

impl Groups {
    pub fn new(kube: kube::Client, bootstrap: &str, size: u32, running: bool) -> Self {
        let resource = ApiResource::erase::<KafkaConsumerGroup>(&());
        Self {
            api: Api::namespaced(kube.clone(), NAMESPACE),
            manifests: Api::namespaced_with(kube, NAMESPACE, &resource),
            bootstrap: bootstrap.into(),
            size,
            running,
        }
    }

    /// Name of group `number`.
    pub fn name(number: u32) -> String {
        format!("group-{number:05}")
    }

    /// `desiredState` of all groups.
    pub fn state(&self) -> &'static str {
        if self.running { "Running" } else { "Stopped" }
    }

    /// Creates a group; returns when the API server has accepted it.
    pub async fn create(&self, name: &str, topic: &str) -> Result<()> {
        let manifest = manifest(name, topic, &self.bootstrap, self.running);
        self.manifests
            .create(&PostParams::default(), &serde_json::from_value(manifest)?)
            .await
            .with_context(|| format!("cannot create {name}"))?;
        Ok(())
    }

    /// Applies a merge patch to the spec; returns the new generation.
    pub async fn change(&self, name: &str, spec: Value) -> Result<i64> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let changed = self.api.patch(name, &PatchParams::default(), &patch).await?;
        changed.metadata.generation.context("no generation")
    }

    /// Creates all groups, some at a time, and waits until the operator has reported that it reaches Kafka for
    /// each of them.
    pub async fn fill(&self, topics: &Topics<'_>) -> Result<Filled> {
        let limit = CONSTANT + PER_GROUP * self.size;
        let mut creates = pin!(
            stream::iter(0..self.size)
                .map(|number| async move { self.create(&Self::name(number), topics.of(number)).await })
                .buffer_unordered(CREATES)
        );
        let mut changes = pin!(watcher(self.api.clone(), watcher::Config::default()).default_backoff());
        let (mut progress, started) = (Progress::start(), Instant::now());
        let mut tick = tokio::time::interval(TICK);
        let (mut accepted, mut created) = (0, None);
        let mut reachable = BTreeSet::new();
        // The last group seen that is not reachable, for the error.
        let mut waiting = String::new();
        loop {
            tokio::select! {
                next = creates.try_next(), if created.is_none() => match next? {
                    Some(()) => accepted += 1,
                    None => created = Some(started.elapsed()),
                },
                event = changes.next() => {
                    // A failed watch starts again after a pause.
                    if let Some(Ok(Event::Apply(group) | Event::InitApply(group))) = event {
                        if is_reachable(&group) {
                            reachable.insert(group.name_any());
                        } else {
                            waiting = format!("{}: {}", group.name_any(), summary(&group));
                        }
                    }
                }
                _ = tick.tick() => {
                    let line = || format!("{accepted} of {} groups created, {} reach Kafka", self.size, reachable.len());
                    progress.say(line);
                    ensure!(
                        started.elapsed() < limit,
                        "not within {} s: {}; last seen: {waiting}",
                        limit.as_secs(),
                        line()
                    );
                }
            }
            if let Some(created) = created
                && reachable.len() == self.size as usize
            {
                return Ok(Filled {
                    created,
                    reachable: started.elapsed(),
                });
            }
        }
    }

    /// The resource version of each group.
    pub async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let list = self.api.list_metadata(&ListParams::default()).await?;
        Ok(list
            .iter()
            .map(|group| (group.name_any(), group.resource_version().unwrap_or_default()))
            .collect())
    }

    /// Deletes all groups and waits until `operator` has forgotten them, or [`FORGET`]. Returns the number of
    /// deleted groups that it still has metrics of.
    pub async fn delete(&self, operator: &Probe) -> Result<usize> {
        let limit = CONSTANT + PER_GROUP * self.size;
        let (mut progress, started) = (Progress::start(), Instant::now());
        let mut gone = None;
        loop {
            // The API server may not finish a large collection within one request.
            let deleted = self
                .api
                .delete_collection(&DeleteParams::default(), &ListParams::default())
                .await;
            let left = self.versions().await?.len();
            let known = operator.known_groups();
            if left == 0 {
                let gone: &mut Instant = gone.get_or_insert_with(Instant::now);
                match known {
                    Some(known) if known == 0 || gone.elapsed() > FORGET => return Ok(known),
                    _ => {}
                }
            }
            if started.elapsed() > limit {
                deleted.context("cannot delete the groups")?;
                bail!(
                    "not within {} s: {left} groups still exist, the operator has metrics of {}",
                    limit.as_secs(),
                    count(known)
                );
            }
            progress.say(|| format!("{left} groups left, the operator knows {}", count(known)));
            sleep(TICK).await;
        }
    }
}

fn count(known: Option<usize>) -> String {
    known.map_or_else(|| "an unknown number".into(), |known| known.to_string())
}

/// The operator has processed the current spec and reaches Kafka.
pub(super) fn is_reachable(group: &KafkaConsumerGroup) -> bool {
    let observed = group
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    observed.is_some() && observed == group.metadata.generation && is(group, KAFKA_REACHABLE, "True")
}

/// Start position Latest: the operator commits it, so that every group has committed offsets, as a group in
/// use has. A worker, if there is one, matches no node.
pub(super) fn manifest(name: &str, topic: &str, bootstrap: &str, running: bool) -> Value {
    let mut manifest = json!({
        "apiVersion": format!("{API_GROUP}/v1alpha1"),
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "desiredState": "Stopped",
            "topics": [{"name": topic}],
            "kafka": {"bootstrapServers": [bootstrap]},
            "consumer": {"startPosition": {"type": "Latest"}},
            "writers": [{"name": "nowhere", "type": "Blackhole"}],
        },
    });
    if running {
        let started = json!({"spec": {
            "desiredState": "Running",
            "scaling": {"maxReplicas": 1},
            "worker": {"nodeSelector": {"bench-operator": "no-node-has-this-label"}},
        }});
        merge(&mut manifest, started);
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_groups() {
        for running in [false, true] {
            let manifest = manifest("a", "orders", "kafka:9092", running);
            let group: KafkaConsumerGroup = serde_json::from_value(manifest).unwrap();
            assert_eq!(group.spec.topics[0].name, "orders");
            assert_eq!(group.spec.worker.node_selector.is_empty(), !running);
            assert!(!is_reachable(&group));
        }
    }
}
