//! Tells what is going on. In: what was observed, decided and applied, and the status there is. Out: at most one patch of
//! the operator's own fields, one of entries of workers that are gone, and Events for transitions. Writes nothing when
//! nothing changed; never writes what a living worker wrote.

pub mod compute;
pub mod conditions;
pub mod events;
pub mod workers;

use std::time::{Duration, Instant};

use crds::names::OPERATOR_MANAGER;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard};
use kube::runtime::events::Event;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::apply::error::is_not_found;
use super::memory::GroupMemory;
use super::scope::Scope;
use crate::group::rejection::Rejection;

/// Lag moves all the time; for its sake alone status is not written more often than this, so that a busy group costs
/// the API server a write every ten seconds and not one per look.
const LAG_INTERVAL: Duration = Duration::from_secs(10);
/// A watch delivers our own write within milliseconds; for this long an old status in the cache is taken for late.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Why the status could not be told.
#[derive(Debug, Error)]
pub enum StatusError {
    #[error("cannot write the status: {0}")]
    Write(Box<kube::Error>),
    #[error("cannot read the resource as it is stored: {0}")]
    Read(Box<kube::Error>),
    #[error("cannot look for the pod {name} of a worker entry: {source}")]
    Pod { name: String, source: Box<kube::Error> },
}

/// Writes the status if it changed, then tells transitions as Events.
pub async fn update_status(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    new: KafkaConsumerGroupStatus,
    more_events: Vec<Event>,
    memory: &mut GroupMemory,
) -> Result<(), StatusError> {
    let _turn = scope.turn().await;
    let old = group.status.clone().unwrap_or_default();
    if due(&old, &new, memory) {
        let patch = json!({"status": own_fields(&old, &new)});
        if !write(scope, group, patch).await? {
            return Ok(());
        }
        // Against the last written status where there is one: the cached one may be late, and an event told twice
        // is worse than one told once.
        let told = memory.written.as_ref().map_or(&old, |(written, _)| written);
        let events = events::events(told, &new);
        memory.written = Some((new, Instant::now()));
        publish(scope, group, events).await;
    }
    publish(scope, group, more_events).await;
    prune(scope, group, &old).await
}

/// What a group gets whose stored form does not parse: the API server checks what is written, but not what was stored
/// before the schema changed.
pub async fn reject_unreadable(
    scope: &Scope,
    namespace: &str,
    name: &str,
    problem: &str,
) -> Result<(), StatusError> {
    let resource = ApiResource::erase::<KafkaConsumerGroup>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(scope.context.client.clone(), namespace, &resource);
    let stored = match api.get_opt(name).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(()),
        Err(error) => return Err(StatusError::Read(Box::new(error))),
    };
    let old: KafkaConsumerGroupStatus =
        serde_json::from_value(stored.data.get("status").cloned().unwrap_or_default()).unwrap_or_default();
    let rejection = Rejection::new(
        "InvalidSpec",
        format!(
            "the stored resource does not fit its schema: {problem}; correct the field with kubectl edit kcg {name} -n {namespace}; workers stay as they are"
        ),
    );
    let new = compute::unreadable(
        &old,
        stored.metadata.generation,
        &rejection,
        jiff::Timestamp::now(),
    );
    if new == old {
        return Ok(());
    }
    tracing::warn!(namespace, name, problem, "resource does not parse");
    let patch = Patch::Merge(json!({"status": own_fields(&old, &new)}));
    match api.patch_status(name, &manager(), &patch).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(StatusError::Write(Box::new(error))),
    }
    for event in events::events(&old, &new) {
        scope.publish(&event, &stored.object_ref(&resource)).await;
    }
    Ok(())
}

fn due(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus, memory: &GroupMemory) -> bool {
    let differs = |other: &KafkaConsumerGroupStatus| own_fields(other, new) != own_fields(other, other);
    if !differs(old) {
        return false;
    }
    let Some((written, at)) = &memory.written else {
        return true;
    };
    if !differs(written) {
        return at.elapsed() > WATCH_DELAY;
    }
    let without_lag = |status: &KafkaConsumerGroupStatus| {
        let mut fields = own_fields(status, status);
        fields.remove("lag");
        fields
    };
    let lag_only = written.lag.is_some() == new.lag.is_some() && without_lag(written) == without_lag(new);
    !lag_only || at.elapsed() >= LAG_INTERVAL
}

/// `new` as a merge patch over `old`: everything but `workers`, with null for what is no longer there.
fn own_fields(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus) -> Map<String, Value> {
    let fields = |status: &KafkaConsumerGroupStatus| match serde_json::to_value(status) {
        Ok(Value::Object(mut fields)) => {
            fields.remove("workers");
            fields
        }
        _ => Map::new(),
    };
    let mut patch = fields(new);
    for (field, value) in fields(old) {
        match (patch.get_mut(&field), value) {
            (None, _) => {
                patch.insert(field, Value::Null);
            }
            // A merge patch merges objects; members that are gone need their null too.
            (Some(Value::Object(new)), Value::Object(old)) => {
                for member in old.keys() {
                    new.entry(member.clone()).or_insert(Value::Null);
                }
            }
            _ => {}
        }
    }
    patch
}

/// False when the group is gone.
async fn write(scope: &Scope, group: &KafkaConsumerGroup, patch: Value) -> Result<bool, StatusError> {
    match api(scope, group)
        .patch_status(&group.name_any(), &manager(), &Patch::Merge(patch))
        .await
    {
        Ok(DeserializeGuard(_)) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(StatusError::Write(Box::new(error))),
    }
}

/// Removes entries of workers whose pod is gone: nobody else does.
async fn prune(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    old: &KafkaConsumerGroupStatus,
) -> Result<(), StatusError> {
    let namespace = group.namespace().unwrap_or_default();
    let present = |name: &str| {
        let key = kube::runtime::reflector::ObjectRef::<Pod>::new(name).within(&namespace);
        scope.caches.pods.get(&key).is_some()
    };
    let pods: Api<Pod> = Api::namespaced(scope.context.client.clone(), &namespace);
    let mut gone = Vec::new();
    for name in workers::gone(&old.workers, present, jiff::Timestamp::now()) {
        // The cache may be late; the API server knows.
        match pods.get_metadata_opt(&name).await {
            Ok(None) => gone.push(name),
            Ok(Some(_)) => {}
            Err(source) => {
                return Err(StatusError::Pod {
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let patch = serde_json::from_value(workers::removal(&old.workers, &gone))
        .map(Patch::<()>::Json)
        .map_err(|error| StatusError::Write(Box::new(kube::Error::SerdeError(error))))?;
    match api(scope, group)
        .patch_status(&group.name_any(), &manager(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        // The list moved under the patch: its tests failed, and the next look tries again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        Err(error) => Err(StatusError::Write(Box::new(error))),
    }
}

async fn publish(scope: &Scope, group: &KafkaConsumerGroup, events: Vec<Event>) {
    for event in events {
        scope.publish(&event, &group.object_ref(&())).await;
    }
}

fn api(scope: &Scope, group: &KafkaConsumerGroup) -> Api<DeserializeGuard<KafkaConsumerGroup>> {
    Api::namespaced(
        scope.context.client.clone(),
        &group.namespace().unwrap_or_default(),
    )
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(OPERATOR_MANAGER.into()),
        ..PatchParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::status::{LagStatus, WorkerStatus};

    fn status(lag: i64) -> KafkaConsumerGroupStatus {
        KafkaConsumerGroupStatus {
            group_id: Some("shop.orders".into()),
            lag: Some(LagStatus {
                total: lag,
                max: lag,
                max_partition: None,
                as_of: jiff::Timestamp::UNIX_EPOCH,
            }),
            ..Default::default()
        }
    }

    fn wrote(status: KafkaConsumerGroupStatus, ago: Duration) -> Memory {
        let at = Instant::now().checked_sub(ago).unwrap();
        GroupMemory {
            written: Some((status, at)),
            ..GroupMemory::default()
        }
    }

    #[test]
    fn the_patch_never_mentions_workers_and_clears_what_is_gone() {
        let mut old = status(1);
        old.group_state = Some("Stable".into());
        old.workers = vec![WorkerStatus {
            name: "a".into(),
            ..Default::default()
        }];
        if let Some(lag) = &mut old.lag {
            lag.max_partition = Some("orders-1".into());
        }
        let patch = own_fields(&old, &status(2));
        assert!(!patch.contains_key("workers"));
        assert_eq!(patch["groupState"], Value::Null);
        assert_eq!(patch["lag"]["maxPartition"], Value::Null);
        assert_eq!(patch["lag"]["total"], 2);
    }

    #[test]
    fn an_unchanged_status_is_not_written() {
        assert!(!due(&status(1), &status(1), &GroupMemory::default()));
        let mut with_workers = status(1);
        with_workers.workers.push(Default::default());
        assert!(!due(&with_workers, &status(1), &GroupMemory::default()));
    }

    #[test]
    fn moving_lag_is_written_every_ten_seconds_and_other_changes_at_once() {
        assert!(!due(
            &status(1),
            &status(2),
            &wrote(status(1), Duration::from_secs(3))
        ));
        assert!(due(
            &status(1),
            &status(2),
            &wrote(status(1), Duration::from_secs(11))
        ));
        let mut stable = status(2);
        stable.group_state = Some("Stable".into());
        assert!(due(
            &status(1),
            &stable,
            &wrote(status(1), Duration::from_secs(3))
        ));
        let mut unknown = status(2);
        unknown.lag = None;
        assert!(due(
            &status(1),
            &unknown,
            &wrote(status(1), Duration::from_secs(3))
        ));
    }

    #[test]
    fn a_late_cache_is_not_written_again_but_an_edit_by_others_is_repaired() {
        let changed = |status: &mut KafkaConsumerGroupStatus| status.replicas = Some(3);
        let (old, mut new) = (status(1), status(1));
        changed(&mut new);
        assert!(!due(&old, &new, &wrote(new.clone(), Duration::from_secs(1))));
        assert!(due(&old, &new, &wrote(new.clone(), Duration::from_secs(6))));
    }
}
