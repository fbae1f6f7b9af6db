//! The workers of the group of a reset, as the caches have them, which is good enough. In: names. Out: numbers.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::next_step::Workers;
use crate::controller::names::{child_name, selector};
use crate::controller::pods::has_ended;
use crate::controller::scope::Scope;

/// The workers of a group.
pub fn workers(scope: &Scope, namespace: &str, group: &str) -> Workers {
    let caches = &scope.caches;
    let deployment = caches
        .deployments
        .get(&ObjectRef::new(&child_name(group)).within(namespace));
    let wanted = deployment.and_then(|deployment| deployment.spec.as_ref()?.replicas);
    let labels = selector(group);
    let left = caches.pods.state_filter(|pod: &Pod| {
        !has_ended(pod)
            && pod.namespace().as_deref() == Some(namespace)
            && labels
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    });
    Workers {
        wanted: wanted.unwrap_or(0),
        left: left.len(),
    }
}
