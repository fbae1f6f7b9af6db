//! What the API server has stored of an operation and of its group. In: names. Out: the objects as they are now. No
//! cache: a plan that was stored a moment ago must be seen, and a group that was changed just before its operation
//! was created is changed.

use std::fmt::Debug;

use crds::KafkaConsumerGroup;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::controller::apply::error::in_words;
use crate::controller::scope::Scope;

/// The API server did not answer.
#[derive(Debug, Error)]
#[error("cannot read {what}: {}", in_words(source))]
pub struct ReadError {
    what: &'static str,
    source: Box<kube::Error>,
}

/// An object, unless it does not exist. `what` is for messages, such as "the reset".
pub async fn object<K>(
    scope: &Scope,
    api: &Api<K>,
    name: &str,
    what: &'static str,
) -> Result<Option<K>, ReadError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let _slot = scope.api_slot().await;
    api.get_opt(name).await.map_err(|source| ReadError {
        what,
        source: Box::new(source),
    })
}

/// The group of an operation.
pub async fn group(scope: &Scope, namespace: &str, name: &str) -> Result<Option<StoredGroup>, ReadError> {
    let resource = ApiResource::erase::<KafkaConsumerGroup>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(scope.context.client.clone(), namespace, &resource);
    let stored = object(scope, &api, name, "the group").await?;
    Ok(stored.map(|stored| StoredGroup::of(stored, &resource)))
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

/// The group that an operation names.
#[derive(Clone, Debug)]
pub enum GroupState<'a> {
    Missing,
    /// The stored resource does not parse.
    Unreadable(&'a str),
    Present(&'a KafkaConsumerGroup),
}

impl<'a> GroupState<'a> {
    pub fn of(stored: Option<&'a StoredGroup>) -> Self {
        match stored.map(|group| &group.parsed) {
            None => Self::Missing,
            Some(Ok(group)) => Self::Present(group),
            Some(Err(problem)) => Self::Unreadable(problem),
        }
    }
}
