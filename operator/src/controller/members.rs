//! Who else is a member of a group. In: the members that the broker reports, the pods of the group. Out: a
//! [`SharedGroup`] if others read the same topics. Remembers which pods it has seen: a worker that has ended
//! without leaving stays a member until its session timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use crds::incarnation::Incarnation;
use crds::worker_config::group_id;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::memory::GroupMemory;
use super::names::{child_name, selector};
use super::scope::Scope;
use crate::group::members::{Known, SharedGroup, others, shared};
use crate::group::observed::Observed;
use crate::kafka::model::GroupKey;

/// A member with the name of a worker of this group counts only after this time: the watch of the pods may be
/// delayed.
const YOUNG: Duration = Duration::from_secs(5);
/// And after the operator has started, this long: the worker may have ended without leaving before, and its
/// session ends after 45 s.
const STARTING: Duration = Duration::from_secs(60);

/// What is remembered of the members of a group.
#[derive(Debug)]
pub struct MembersMemory {
    since: Instant,
    /// Pods of this group that exist, or whose member is still in the group.
    pods: BTreeSet<String>,
    /// Members without a pod, by worker, and when they were noticed.
    unknown: BTreeMap<String, Instant>,
}

impl Default for MembersMemory {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            pods: BTreeSet::new(),
            unknown: BTreeMap::new(),
        }
    }
}

impl MembersMemory {
    /// Takes over the pods and the workers that are members now. `like_ours` says which names workers of this
    /// group have. Returns the workers that count as known.
    fn known(
        &mut self,
        pods: BTreeSet<String>,
        members: &BTreeSet<String>,
        like_ours: impl Fn(&str) -> bool,
        now: Instant,
    ) -> BTreeSet<String> {
        self.pods.retain(|pod| members.contains(pod));
        self.pods.extend(pods);
        self.unknown.retain(|worker, _| members.contains(worker));
        let mut known = self.pods.clone();
        for worker in members.difference(&self.pods).filter(|worker| like_ours(worker)) {
            let noticed = *self.unknown.entry(worker.clone()).or_insert(now);
            let starting = now.duration_since(self.since) < STARTING;
            if starting || now.duration_since(noticed) < YOUNG {
                known.insert(worker.clone());
            }
        }
        known
    }

    /// A member that will count soon.
    pub fn is_undecided(&self) -> bool {
        !self.unknown.is_empty()
    }
}

/// Other members of the group, if the broker reports them.
pub fn shared_group(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
    memory: &mut GroupMemory,
) -> Option<SharedGroup> {
    let facts = observed.kafka.known()?.group.as_ref()?;
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let wanted = selector(&name);
    // With those that have ended: they may have died without leaving.
    let pods = scope.caches.pods.state_filter(|pod: &Pod| {
        let labels = pod.labels();
        pod.namespace().as_deref() == Some(namespace.as_str())
            && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    let runs = facts
        .members
        .iter()
        .filter_map(|member| Incarnation::parse(&member.client_id));
    let members: BTreeSet<String> = runs.map(|run| run.worker).collect();
    let prefix = format!("{}-", child_name(&name));
    let pods: BTreeSet<String> = pods.iter().map(|pod| pod.name_any()).collect();
    let workers = pods.len();
    let like_ours = |worker: &str| worker.starts_with(&prefix);
    let known = memory.members.known(pods, &members, like_ours, Instant::now());
    let known = Known {
        worker: &|run: &Incarnation| known.contains(&run.worker),
        client_id: group
            .spec
            .kafka
            .client_config
            .get("client.id")
            .map(|value| value.0.as_str()),
        workers,
    };
    let others = others(facts, &known);
    if others.is_empty() {
        return None;
    }
    let id = group_id(&namespace, &name, &group.spec);
    let key = GroupKey::new(&namespace, &name);
    let users = scope.context.kafka.users(&key, &id);
    let users: Vec<String> = users
        .iter()
        .map(|user| format!("KafkaConsumerGroup {}/{}", user.namespace, user.name))
        .collect();
    shared(&id, group.spec.consumer.group_protocol, facts, &others, &users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_worker_that_has_ended_is_known_until_it_has_left_the_group() {
        let mut memory = MembersMemory::default();
        let later = memory.since + STARTING;
        let like_ours = |name: &str| name.starts_with("orders-worker-");
        let (a, none) = (names(&["orders-worker-a"]), names(&[]));
        assert_eq!(memory.known(a.clone(), &a, like_ours, later), a);
        assert_eq!(memory.known(none.clone(), &a, like_ours, later + STARTING), a);
        assert_eq!(memory.known(none.clone(), &none, like_ours, later), none);
    }

    #[test]
    fn a_member_with_the_name_of_a_worker_counts_after_a_moment() {
        let mut memory = MembersMemory::default();
        let like_ours = |name: &str| name.starts_with("orders-worker-");
        let members = names(&["orders-worker-x", "returns-worker-x"]);
        let (none, x) = (names(&[]), names(&["orders-worker-x"]));
        let start = memory.since;
        assert_eq!(memory.known(none.clone(), &members, like_ours, start), x);
        assert!(memory.is_undecided());
        assert_eq!(
            memory.known(none.clone(), &members, like_ours, start + STARTING),
            none
        );
        let mut memory = MembersMemory::default();
        let late = memory.since + STARTING;
        assert_eq!(memory.known(none.clone(), &members, like_ours, late), x);
        assert_eq!(
            memory.known(none.clone(), &members, like_ours, late + YOUNG),
            none
        );
    }
}
