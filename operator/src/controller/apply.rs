//! Brings the children of a group into the cluster. In: [`Resources<Prepared>`]. Out: [`Resources<Applied>`]. Writes by
//! server-side apply, in the order in which the objects need each other, and only what differs: a child that already
//! holds everything wanted costs no write, and usually no read. Never takes over an object that belongs to others.

mod children;
mod orphans;

use std::marker::PhantomData;
use std::sync::Arc;

use crds::names::{DESIRED_STATE_ANNOTATION, OPERATOR_MANAGER};
use crds::spec::{DesiredState, ScalingMode};
use crds::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

use self::children::Children;
use self::orphans::delete_orphans;
use super::Scope;
use super::build::{Applied, Prepared, Resources};
use super::dereference::Observed;
use super::names::{APPLIED_HASH_ANNOTATION, hash};

use super::memory::Memory;
use crate::group::scaling::Decision;
use crate::group::validate::ValidatedGroup;

/// Which step failed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot read {kind} {name}: {source}")]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("the API server does not take {kind} {name}: {source}")]
    Write {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("{kind} {name} is still there from a KafkaConsumerGroup of this name that was deleted")]
    Leftover { kind: &'static str, name: String },
    #[error(
        "{kind} {name} exists and does not belong to this KafkaConsumerGroup; delete it, or give the KafkaConsumerGroup another name"
    )]
    Conflict { kind: &'static str, name: String },
    #[error("the KafkaConsumerGroup is gone")]
    Gone,
    #[error("cannot seed spec.replicas through /scale: {0}")]
    Scale(Box<kube::Error>),
}

impl Error {
    /// As it stands in a condition, and as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ReadFailed",
            Self::Write { .. } | Self::Scale(_) => "ApplyFailed",
            Self::Leftover { .. } => "WaitingForDeletion",
            Self::Conflict { .. } => "NameConflict",
            Self::Gone => "Gone",
        }
    }

    /// True when waiting will not help: the object itself was refused.
    pub fn needs_human(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Scale(source) => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            Self::Leftover { .. } | Self::Gone => false,
            Self::Conflict { .. } => true,
        }
    }
}

/// Applies all children, then what depends on them.
pub async fn apply(
    scope: &Scope,
    group: &ValidatedGroup,
    prepared: Resources<Prepared>,
    observed: &Observed,
    memory: &mut Memory,
) -> Result<Resources<Applied>, Error> {
    let _turn = scope.turn().await;
    let Resources {
        service_account,
        role,
        role_binding,
        config_map,
        disruption_budget,
        deployment,
        ..
    } = prepared;
    let mut children = Children {
        scope,
        group,
        memory,
        owner_lives: false,
    };
    let caches = &scope.caches;
    // Permissions and configuration before the pods that need them.
    let service_account = children
        .ensure_seen(service_account, &caches.service_accounts)
        .await?;
    let role = children.ensure_seen(role, &caches.roles).await?;
    let role_binding = children.ensure_seen(role_binding, &caches.role_bindings).await?;
    let config_map = children.ensure_seen(config_map, &caches.config_maps).await?;
    let disruption_budget = children
        .ensure_seen(disruption_budget, &caches.disruption_budgets)
        .await?;
    let deployment = children.ensure_seen(deployment, &caches.deployments).await?;
    children.memory.deployment = Some(Arc::new(deployment.clone()));
    tell_pods(scope, group, &observed.pods).await?;
    delete_orphans(scope, group).await?;
    Ok(Resources {
        service_account,
        role,
        role_binding,
        config_map,
        disruption_budget,
        deployment,
        state: PhantomData,
    })
}

/// A group that is not accepted keeps its workers as they are, with one exception: stopping must always work.
pub async fn stop_rejected(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
) -> Result<(), Error> {
    let Some(deployment) = &observed.deployment else {
        return Ok(());
    };
    if group.spec.desired_state != DesiredState::Stopped || observed.current_replicas() == Some(0) {
        return Ok(());
    }
    let _turn = scope.turn().await;
    let api: Api<Deployment> = Api::namespaced(
        scope.context.client.clone(),
        &group.namespace().unwrap_or_default(),
    );
    let name = deployment.name_any();
    let patch = json!({"spec": {"replicas": 0}});
    match api
        .patch(&name, &PatchParams::apply(OPERATOR_MANAGER), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(source) => Err(Error::Write {
            kind: "Deployment",
            name,
            source: Box::new(source),
        }),
    }
}

/// In mode Manual spec.replicas is written once, so that `GET /scale` works for kubectl, an HPA or KEDA.
pub async fn seed_replicas(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    decision: &Decision,
) -> Result<(), Error> {
    if spec.scaling.mode != ScalingMode::Manual || spec.replicas.is_some() {
        return Ok(());
    }
    let replicas = if decision.replicas > 0 {
        decision.replicas
    } else {
        spec.scaling.min_replicas
    };
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let parameters = PatchParams {
        field_manager: Some(OPERATOR_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch_scale(name, &parameters, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::Scale(Box::new(error))),
    }
}

/// The object with the hash of itself as an annotation.
fn with_hash<K: Resource + Serialize>(mut desired: K) -> (K, String) {
    let hash = hash(serde_json::to_string(&desired).unwrap_or_default().as_bytes());
    desired
        .annotations_mut()
        .insert(APPLIED_HASH_ANNOTATION.into(), hash.clone());
    (desired, hash)
}

fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}

/// Running and Paused are also written on the pods: that makes the kubelet refresh the mounted ConfigMap at once
/// instead of within a minute.
async fn tell_pods(scope: &Scope, group: &ValidatedGroup, pods: &[Arc<Pod>]) -> Result<(), Error> {
    let state = match group.spec.desired_state {
        DesiredState::Running => "Running",
        DesiredState::Paused => "Paused",
        DesiredState::Stopped => return Ok(()),
    };
    let api: Api<Pod> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    let patch = json!({"metadata": {"annotations": {DESIRED_STATE_ANNOTATION: state}}});
    for pod in pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        let told = pod
            .annotations()
            .get(DESIRED_STATE_ANNOTATION)
            .map_or("Running", String::as_str);
        if told == state {
            continue;
        }
        let name = pod.name_any();
        let parameters = PatchParams {
            field_manager: Some(OPERATOR_MANAGER.into()),
            ..PatchParams::default()
        };
        match api
            .patch_metadata(&name, &parameters, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(source) => {
                return Err(Error::Write {
                    kind: "Pod",
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

/// The object went away between two calls, which is never an error here.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// For tests of the comparison with real objects.
#[cfg(test)]
pub fn desired_json<K: Resource + Serialize>(object: K) -> serde_json::Value {
    serde_json::to_value(with_hash(object).0).unwrap_or_default()
}
