//! Who else is a member of a group. In: the members that the broker reports, the pods of the group. Out: a
//! [`Others`].

use std::collections::BTreeSet;
use std::time::Instant;

use crds::KafkaConsumerGroup;
use crds::incarnation::Incarnation;
use crds::worker_config::group_id;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::memory::GroupMemory;
use super::names::{child_name, selector};
use super::pods::has_ended;
use super::scope::Scope;
use crate::group::members::{self, Known, Others};
use crate::group::observed::Observed;
use crate::kafka::model::{GroupFacts, GroupKey};

/// Other members of the group, if the broker reports them.
pub fn others_of(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
    memory: &mut GroupMemory,
) -> Others {
    let Some(facts) = observed.kafka.known().and_then(|facts| facts.group.as_ref()) else {
        return Others::default();
    };
    if !members::is_rebalancing(facts) {
        memory.others = judge(scope, group, facts, memory);
    }
    memory.others.clone()
}

fn judge(scope: &Scope, group: &KafkaConsumerGroup, facts: &GroupFacts, memory: &mut GroupMemory) -> Others {
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
    let running = pods.iter().filter(|pod| !has_ended(pod)).count();
    let pods: BTreeSet<String> = pods.iter().map(|pod| pod.name_any()).collect();
    let client_id = group.spec.kafka.client_config.get("client.id");
    let client_id = client_id.map(|value| value.0.as_str());
    let named = facts.members.iter();
    let named = named
        .filter(|member| Some(&*member.client_id) == client_id)
        .count();
    let like_ours = |worker: &str| worker.starts_with(&prefix);
    let known = memory.members.known(pods, &members, like_ours, Instant::now());
    let surplus_counts = memory.members.surplus_counts(named > running, Instant::now());
    let workers = if surplus_counts { running } else { usize::MAX };
    let known = Known {
        worker: &|run: &Incarnation| known.contains(&run.worker),
        client_id,
        workers,
    };
    let others = members::others(facts, &known);
    if others.is_empty() {
        return Others::default();
    }
    let id = group_id(&namespace, &name, &group.spec);
    let key = GroupKey::new(&namespace, &name);
    let users = scope.context.kafka.users(&key, &id);
    let users: Vec<String> = users
        .iter()
        .map(|user| format!("KafkaConsumerGroup {}/{}", user.namespace, user.name))
        .collect();
    let protocol = group.spec.consumer.group_protocol;
    Others {
        shared: members::shared(&id, protocol, facts, &others, &users),
        present: true,
    }
}
