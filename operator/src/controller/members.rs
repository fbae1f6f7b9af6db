//! Who else is a member of a group. In: the members that the broker reports, the pods of the group. Out: a
//! [`SharedGroup`] if others read the same topics.

use std::collections::BTreeSet;
use std::time::Instant;

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
