//! What the API server and the caches say of a reset, its group and its workers. In: a reset of the cache. Out:
//! what is stored now. A cache is good enough for the workers only: a plan that was stored a moment ago must be
//! seen, and a group that was stopped just before its reset was created is stopped.

use crds::{KafkaConsumerGroup, KafkaOffsetReset};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;
use thiserror::Error;

use super::next_step::Workers;
use crate::controller::apply::error::in_words;
use crate::controller::names::{child_name, selector};
use crate::controller::pods::has_ended;
use crate::controller::scope::Scope;

/// The API server did not answer.
#[derive(Debug, Error)]
#[error("cannot read {what}: {}", in_words(source))]
pub struct ReadError {
    what: &'static str,
    source: Box<kube::Error>,
}

/// The API of the namespace of a reset.
pub fn api(scope: &Scope, reset: &KafkaOffsetReset) -> Api<KafkaOffsetReset> {
    let namespace = reset.namespace().unwrap_or_default();
    Api::namespaced(scope.context.client.clone(), &namespace)
}

/// The reset, unless it was deleted.
pub async fn reset(scope: &Scope, cached: &KafkaOffsetReset) -> Result<Option<KafkaOffsetReset>, ReadError> {
    let _slot = scope.api_slot().await;
    let stored = api(scope, cached).get_opt(&cached.name_any()).await;
    stored.map_err(|source| ReadError {
        what: "the reset",
        source: Box::new(source),
    })
}

/// The group of a reset.
pub async fn group(scope: &Scope, reset: &KafkaOffsetReset) -> Result<Option<StoredGroup>, ReadError> {
    let namespace = reset.namespace().unwrap_or_default();
    let resource = ApiResource::erase::<KafkaConsumerGroup>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(scope.context.client.clone(), &namespace, &resource);
    let _slot = scope.api_slot().await;
    let stored = api.get_opt(&reset.spec.group_ref.name).await;
    let stored = stored.map_err(|source| ReadError {
        what: "the group of the reset",
        source: Box::new(source),
    })?;
    Ok(stored.map(|stored| StoredGroup::of(stored, &resource)))
}

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

/// A group as the API server has it.
pub struct StoredGroup {
    /// The operator that serves it, if one does.
    pub operator: Option<String>,
    /// Or why it does not parse.
    pub parsed: Result<KafkaConsumerGroup, String>,
    pub reference: ObjectReference,
}

impl StoredGroup {
    fn of(stored: DynamicObject, resource: &ApiResource) -> Self {
        let operator = stored.data.pointer("/status/operator").and_then(Value::as_str);
        let operator = operator.map(String::from);
        let reference = stored.object_ref(resource);
        let parsed = serde_json::to_value(stored).and_then(serde_json::from_value);
        Self {
            operator,
            parsed: parsed.map_err(|error| error.to_string()),
            reference,
        }
    }
}
