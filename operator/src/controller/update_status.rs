//! Writes the status of a group. In: what was observed, decided and applied, and the old status. Out: at most
//! one patch of the operator's own fields, one that removes entries of deleted workers, and Events for
//! transitions. Writes nothing if nothing changed; never writes the entry of a live worker.

pub mod compute;
pub mod conditions;
pub mod events;
pub mod workers;

use std::time::{Duration, Instant};

use crds::names::OPERATOR_MANAGER;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard};
use kube::runtime::events::Event;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::apply::error::{in_words, is_not_found};
use super::apply::{ApplyError, runs_workers_of, scale_to_zero};
use super::memory::GroupMemory;
use super::names::child_name;
use super::pods::has_ended;
use super::scope::Scope;
use crate::group::rejection::Rejection;

/// The lag changes all the time. A change of the lag alone is written at most this often, so that a busy
/// group costs the API server one write every ten seconds and not one per reconcile.
const LAG_INTERVAL: Duration = Duration::from_secs(10);
/// A watch delivers our own write within milliseconds; for this long an old status in the cache counts as
/// delayed.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Why the status could not be written.
#[derive(Debug, Error)]
pub enum StatusError {
    #[error("cannot write the status: {}", in_words(.0))]
    Write(Box<kube::Error>),
    #[error("cannot stop the workers: {0}")]
    Stop(ApplyError),
    #[error("cannot read the resource as it is stored: {}", in_words(.0))]
    Read(Box<kube::Error>),
    #[error(
        "cannot look up pod {name} of an entry in status.workers: {}",
        in_words(source)
    )]
    Pod { name: String, source: Box<kube::Error> },
}

/// Writes the status if it changed, then publishes transitions as Events.
pub async fn update_status(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    new: KafkaConsumerGroupStatus,
    more_events: Vec<Event>,
    memory: &mut GroupMemory,
) -> Result<(), StatusError> {
    let _slot = scope.api_slot().await;
    let old = group.status.clone().unwrap_or_default();
    if due(&old, &new, memory) {
        let patch = json!({"status": own_fields(&old, &new)});
        if !write(scope, group, patch).await? {
            return Ok(());
        }
        // Compared with the last written status if there is one: the cached status may be delayed, and then
        // the Events would be published twice.
        let published = memory.written.as_ref().map_or(&old, |(written, _)| written);
        let events = events::events(published, &new);
        memory.written = Some((new, Instant::now()));
        publish(scope, group, events).await;
    }
    publish(scope, group, more_events).await;
    prune(scope, group, &old).await
}

/// Rejects a group whose stored form does not parse: the API server checks what is written, but not what was
/// stored before the schema changed.
pub async fn reject_unreadable(
    scope: &Scope,
    namespace: &str,
    name: &str,
    problem: &str,
    memory: &mut GroupMemory,
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
    if is_served_by_another(scope, old.operator.as_deref()).await {
        // Perhaps one that knows the field.
        scope.context.metrics.forget(namespace, name);
        return Ok(());
    }
    stop_unreadable(scope, namespace, name, &stored, memory).await?;
    let rejection = Rejection::new(
        "InvalidSpec",
        format!(
            "the stored resource does not fit its schema: {problem}; correct the field with kubectl edit kcg {name} -n {namespace}; the workers keep running unchanged"
        ),
    );
    let new = compute::unreadable(
        &old,
        stored.metadata.generation,
        &rejection,
        jiff::Timestamp::now(),
    );
    scope.context.metrics.observe_conditions(namespace, name, &new);
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

/// Whether another operator has claimed the group and is alive, or may be: without an answer, this operator
/// must not write.
async fn is_served_by_another(scope: &Scope, claimed: Option<&str>) -> bool {
    let context = &scope.context;
    match claimed {
        Some(other) if other != context.installation => {
            let alive = context.leases.is_alive(&context.client, other).await;
            alive.unwrap_or(true)
        }
        _ => false,
    }
}

/// Stopping works even if the rest of the resource does not parse.
async fn stop_unreadable(
    scope: &Scope,
    namespace: &str,
    name: &str,
    stored: &DynamicObject,
    memory: &mut GroupMemory,
) -> Result<(), StatusError> {
    let state = stored.data.pointer("/spec/desiredState").and_then(Value::as_str);
    let child = child_name(name);
    let key = kube::runtime::reflector::ObjectRef::<Deployment>::new(&child).within(namespace);
    let runs = scope
        .caches
        .deployments
        .get(&key)
        .is_some_and(|deployment| runs_workers_of(&deployment, stored.uid()));
    if state != Some("Stopped") || !runs {
        return Ok(());
    }
    scale_to_zero(scope, namespace, &child, memory)
        .await
        .map_err(StatusError::Stop)
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

/// `new` as a merge patch over `old`: everything but `workers`, with null for removed fields.
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
            // A merge patch merges objects; removed members need a null too.
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

/// False if the group was deleted.
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

/// Removes entries of workers whose pod was deleted; the workers cannot do it themselves.
async fn prune(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    old: &KafkaConsumerGroupStatus,
) -> Result<(), StatusError> {
    let namespace = group.namespace().unwrap_or_default();
    let pod = |name: &str| {
        let key = kube::runtime::reflector::ObjectRef::<Pod>::new(name).within(&namespace);
        scope.caches.pods.get(&key)
    };
    let present = |name: &str| pod(name).is_some_and(|pod| !has_ended(&pod));
    let pods: Api<Pod> = Api::namespaced(scope.context.client.clone(), &namespace);
    let mut deleted = Vec::new();
    for name in workers::deleted(&old.workers, present, jiff::Timestamp::now()) {
        if pod(&name).is_some() {
            // It has ended, which never changes.
            deleted.push(name);
            continue;
        }
        // The cache may be delayed, so this asks the API server.
        match pods.get_metadata_opt(&name).await {
            Ok(None) => deleted.push(name),
            Ok(Some(_)) => {}
            Err(source) => {
                return Err(StatusError::Pod {
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    if deleted.is_empty() {
        return Ok(());
    }
    let patch = serde_json::from_value(workers::removal(&old.workers, &deleted))
        .map(Patch::<()>::Json)
        .map_err(|error| StatusError::Write(Box::new(kube::Error::SerdeError(error))))?;
    match api(scope, group)
        .patch_status(&group.name_any(), &manager(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        // The list changed concurrently: the tests of the patch failed, and the next reconcile retries.
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

    fn written_ago(status: KafkaConsumerGroupStatus, ago: Duration) -> GroupMemory {
        let at = Instant::now().checked_sub(ago).unwrap();
        GroupMemory {
            written: Some((status, at)),
            ..GroupMemory::default()
        }
    }

    #[test]
    fn the_patch_never_contains_workers_and_clears_removed_fields() {
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
    fn a_lag_change_is_written_every_ten_seconds_and_other_changes_at_once() {
        assert!(!due(
            &status(1),
            &status(2),
            &written_ago(status(1), Duration::from_secs(3))
        ));
        assert!(due(
            &status(1),
            &status(2),
            &written_ago(status(1), Duration::from_secs(11))
        ));
        let mut stable = status(2);
        stable.group_state = Some("Stable".into());
        assert!(due(
            &status(1),
            &stable,
            &written_ago(status(1), Duration::from_secs(3))
        ));
        let mut unknown = status(2);
        unknown.lag = None;
        assert!(due(
            &status(1),
            &unknown,
            &written_ago(status(1), Duration::from_secs(3))
        ));
    }

    #[test]
    fn a_delayed_cache_causes_no_write_but_an_edit_by_others_is_reverted() {
        let changed = |status: &mut KafkaConsumerGroupStatus| status.replicas = Some(3);
        let (old, mut new) = (status(1), status(1));
        changed(&mut new);
        assert!(!due(
            &old,
            &new,
            &written_ago(new.clone(), Duration::from_secs(1))
        ));
        assert!(due(&old, &new, &written_ago(new.clone(), Duration::from_secs(6))));
    }
}
