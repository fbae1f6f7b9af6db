//! Which operator serves a group, if several watch its namespace. In: the group, the lease of the operator
//! that has claimed it. Out: whether this operator serves it. `status.operator` names the installation that
//! does; another one takes over only when the lease of that installation has ended.

use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use kube::api::Patch;
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use thiserror::Error;

use super::apply::error::in_words;
use super::apply::manager;
use super::leases::LeaseError;
use super::memory::GroupMemory;
use super::scope::Scope;
use super::update_status::events;
use crate::kafka::model::GroupKey;

/// For this long the cache may still show the claim that this operator has replaced.
const WATCH_DELAY: Duration = Duration::from_secs(10);
/// Attempts to claim a resource that others write at the same time.
const TRIES: u32 = 3;

/// Why a claim failed.
#[derive(Debug, Error)]
pub enum ClaimError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("cannot claim the resource: {}", in_words(.0))]
    Write(Box<kube::Error>),
    #[error("another operator has just claimed the resource")]
    Faster,
}

/// The installation that serves the group, if it is another one. Claims the group if nobody serves it.
pub async fn served_by_another(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &mut GroupMemory,
) -> Result<Option<String>, ClaimError> {
    let own = &scope.context.installation;
    let claimed = group.status.as_ref().and_then(|status| status.operator.clone());
    if claimed.as_ref() == Some(own) {
        return Ok(None);
    }
    if let Some((replaced, at)) = &memory.claimed
        && *replaced == claimed
        && at.elapsed() < WATCH_DELAY
    {
        return Ok(None);
    }
    // After an upgrade all groups are claimed at once.
    let _slot = scope.api_slot().await;
    if let Some(other) = &claimed
        && scope
            .context
            .leases
            .is_alive(&scope.context.client, other)
            .await?
    {
        return Ok(claimed);
    }
    let namespace = group.namespace().unwrap_or_default();
    let api: Api<DeserializeGuard<KafkaConsumerGroup>> =
        Api::namespaced(scope.context.client.clone(), &namespace);
    let version = group.metadata.resource_version.clone();
    claim(&api, &group.name_any(), own, &claimed, version).await?;
    memory.served_by = None;
    memory.claimed = Some((claimed, Instant::now()));
    Ok(None)
}

/// Writes the claim with the version that was read: of two operators that claim a resource at the same time,
/// one fails. A newer version with the same claim is no reason to fail: somebody has changed something else.
async fn claim(
    api: &Api<DeserializeGuard<KafkaConsumerGroup>>,
    name: &str,
    own: &str,
    replaced: &Option<String>,
    mut version: Option<String>,
) -> Result<(), ClaimError> {
    let failed = |error| ClaimError::Write(Box::new(error));
    let mut tries = 0;
    loop {
        tries += 1;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"operator": own}});
        match api.patch_status(name, &manager(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
            Err(error) => return Err(failed(error)),
        }
        let newer = api.get(name).await.map_err(failed)?;
        let status = newer.0.as_ref().ok().and_then(|group| group.status.as_ref());
        let claimed = status.and_then(|status| status.operator.as_ref());
        if claimed != replaced.as_ref() {
            return Err(ClaimError::Faster);
        }
        version = newer.meta().resource_version.clone();
    }
}

/// Leaves the group to another operator, and says so once.
pub async fn step_back(scope: &Scope, group: &KafkaConsumerGroup, other: String, memory: &mut GroupMemory) {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    scope.context.metrics.forget(&namespace, &name);
    let key = GroupKey::new(&namespace, &name);
    scope.context.kafka.forget(&key);
    scope.context.reports.forget(&key);
    if memory.served_by.as_ref() != Some(&other) {
        // What was known is outdated when this operator takes over.
        *memory = GroupMemory::default();
        let _slot = scope.api_slot().await;
        let event = events::served_by_another(&scope.context.installation, &other);
        tracing::warn!(namespace, name, note = event.note, "stepping back");
        scope.publish(&event, &group.object_ref(&())).await;
        memory.served_by = Some(other);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http::{Method, StatusCode};
    use axum::{Json, Router};
    use kube::{Client, Config};
    use serde_json::Value;

    use super::*;
    use crate::fixtures::group;

    /// An API server that stores version 2 of a group, claimed by `stored`. Returns the outcome of a claim
    /// that replaces `replaced` and knows version 1, and the versions that were written.
    async fn claimed(stored: Option<&str>, replaced: Option<&str>) -> (Result<(), ClaimError>, Vec<Value>) {
        let mut object = serde_json::to_value(group()).unwrap();
        object["metadata"]["resourceVersion"] = json!("2");
        object["status"] = json!({"operator": stored});
        let written = Arc::new(Mutex::new(Vec::new()));
        let seen = written.clone();
        let answer = move |method: Method, body: String| async move {
            if method != Method::PATCH {
                return (StatusCode::OK, Json(object));
            }
            let patch: Value = serde_json::from_str(&body).unwrap();
            let version = patch["metadata"]["resourceVersion"].clone();
            let is_current = version == "2";
            seen.lock().unwrap().push(version);
            if is_current {
                return (StatusCode::OK, Json(object));
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409});
            (StatusCode::CONFLICT, Json(status))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::try_from(Config::new(server.parse().unwrap())).unwrap();
        let api = Api::namespaced(client, "shop");
        let replaced = replaced.map(String::from);
        let outcome = claim(&api, "orders", "kco/b", &replaced, Some("1".into())).await;
        let written = written.lock().unwrap().clone();
        (outcome, written)
    }

    #[tokio::test]
    async fn another_write_does_not_prevent_a_claim_and_another_claim_does() {
        let (outcome, written) = claimed(Some("kco/a"), Some("kco/a")).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(written, ["1", "2"]);
        let (outcome, written) = claimed(Some("kco/c"), Some("kco/a")).await;
        assert!(matches!(outcome, Err(ClaimError::Faster)), "{outcome:?}");
        assert_eq!(written, ["1"]);
        let (outcome, _) = claimed(Some("kco/c"), None).await;
        assert!(matches!(outcome, Err(ClaimError::Faster)), "{outcome:?}");
    }
}
