//! Which operator serves a group, if several watch its namespace. In: the group, the lease of the operator that
//! has claimed it. Out: whether this operator serves it. `status.operator` names the installation that does;
//! another one takes over only when the lease of that installation has ended.

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

/// Writes the claim with the version that was read: of two operators that claim a resource at the same time, one
/// fails. A newer version with the same claim is no reason to fail: somebody has changed something else.
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
