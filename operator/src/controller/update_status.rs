//! Writes the status of a group. In: what was observed, decided and applied, and the old status. Out: at most
//! one patch of the operator's own fields, one that removes entries of deleted workers, and Events for
//! transitions. Writes nothing if nothing changed; never writes the entry of a live worker.

pub mod compute;
pub mod conditions;
pub mod events;
mod schedule;
pub mod workers;

use std::time::Instant;

use crds::names::OPERATOR_MANAGER;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard};
use kube::runtime::events::Event;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use thiserror::Error;

use super::apply::error::{in_words, is_not_found};
use super::apply::{ApplyError, runs_workers_of, scale_to_zero};
use super::memory::GroupMemory;
use super::names::child_name;
use super::pods::has_ended;
use super::scope::Scope;
use super::worker_reports::numbers_interval;
use crate::group::rejection::Rejection;
use crate::group::validate::ReportMode;
use compute::Computed;
use schedule::Schedule;

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
    computed: Computed,
    more_events: Vec<Event>,
    memory: &mut GroupMemory,
) -> Result<(), StatusError> {
    let _slot = scope.api_slot().await;
    let (old, new) = (group.status.clone().unwrap_or_default(), computed.status);
    let schedule = schedule(scope);
    let written = memory.written.as_ref().map(|(written, at)| (written, *at));
    let since = *memory.since.get_or_insert_with(Instant::now);
    let last = written.map(|(written, _)| written);
    if schedule.is_due(&old, &new, written, since, Instant::now())
        && !schedule.is_stored(&old, &new, last, memory.returned.as_ref())
    {
        let patch = json!({"status": schedule.patch(&old, &new)});
        let Some(returned) = write(scope, group, patch).await? else {
            return Ok(());
        };
        // Compared with the last written status if there is one: the cached status may be delayed, and then
        // the Events would be published twice.
        let published = memory.written.as_ref().map_or(&old, |(written, _)| written);
        let mut events = events::events(published, &new);
        let unlisted = computed.unlisted_skipped;
        events.extend(events::skipped_by_retention(published, &new, unlisted));
        memory.written = Some((new, Instant::now()));
        memory.returned = Some(returned);
        publish(scope, group, events).await;
    }
    publish(scope, group, more_events).await;
    if schedule.owns_workers {
        return Ok(());
    }
    prune(scope, group, &old).await
}

fn schedule(scope: &Scope) -> Schedule {
    Schedule {
        owns_workers: scope.context.defaults.reports == ReportMode::Pull,
        numbers_interval: numbers_interval(scope.context.reports.groups()),
    }
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
    let _slot = scope.api_slot().await;
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
    let patch = Patch::Merge(json!({"status": schedule(scope).patch(&old, &new)}));
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

/// The status that the API server returns: a CRD that is older than this operator drops fields. None: the group
/// was deleted.
async fn write(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    patch: Value,
) -> Result<Option<KafkaConsumerGroupStatus>, StatusError> {
    match api(scope, group)
        .patch_status(&group.name_any(), &manager(), &Patch::Merge(patch))
        .await
    {
        Ok(DeserializeGuard(stored)) => Ok(Some(stored.ok().and_then(|it| it.status).unwrap_or_default())),
        Err(error) if is_not_found(&error) => Ok(None),
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
