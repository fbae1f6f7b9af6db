//! Applies the children of a group. In: [`Resources<Prepared>`]. Out: [`Resources<Applied>`]. Writes with
//! server-side apply, in the order of their dependencies, and only differences: a child that already matches
//! costs no write and usually no read. Never takes over an object of another owner.

mod children;
pub mod error;
mod orphans;

use std::marker::PhantomData;
use std::sync::Arc;

use crds::names::{DESIRED_STATE_ANNOTATION, OPERATOR_MANAGER};
use crds::spec::{DesiredState, ScalingMode};
use crds::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use self::children::Children;
pub use self::error::ApplyError;
use self::error::is_not_found;
use self::orphans::delete_orphans;
use super::build::{Applied, Prepared, Resources};
use super::memory::GroupMemory;
use super::scope::Scope;
use crate::group::observed::Observed;
use crate::group::scaling::Decision;
use crate::group::validate::ValidatedGroup;

/// Applies all children, then annotates the pods and deletes orphans.
pub async fn apply(
    scope: &Scope,
    group: &ValidatedGroup,
    prepared: Resources<Prepared>,
    observed: &Observed,
    memory: &mut GroupMemory,
) -> Result<Resources<Applied>, ApplyError> {
    let _slot = scope.api_slot().await;
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
        owner_exists: false,
    };
    let caches = &scope.caches;
    // Permissions and configuration come before the pods that need them.
    let service_account = children.ensure(service_account, &caches.service_accounts).await?;
    let role = children.ensure(role, &caches.roles).await?;
    let role_binding = children.ensure(role_binding, &caches.role_bindings).await?;
    let config_map = children.ensure(config_map, &caches.config_maps).await?;
    let disruption_budget = children
        .ensure(disruption_budget, &caches.disruption_budgets)
        .await?;
    let deployment = children.ensure(deployment, &caches.deployments).await?;
    children.memory.deployment = Some(Arc::new(deployment.clone()));
    annotate_pods(scope, group, &observed.pods).await?;
    delete_orphans(scope, group).await?;
    Ok(Resources {
        service_account,
        role,
        role_binding,
        config_map,
        disruption_budget,
        deployment,
        stage: PhantomData,
    })
}

/// The workers of a group that is not accepted stay unchanged, with one exception: stopping must always work.
pub async fn stop_rejected(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
) -> Result<(), ApplyError> {
    let Some(deployment) = &observed.deployment else {
        return Ok(());
    };
    if group.spec.desired_state != DesiredState::Stopped || observed.current_replicas() == Some(0) {
        return Ok(());
    }
    let _slot = scope.api_slot().await;
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
        Err(source) => Err(ApplyError::Write {
            kind: "Deployment",
            name,
            source: Box::new(source),
        }),
    }
}

/// Writes spec.replicas once in mode Manual, so that `GET /scale` works for kubectl, an HPA or KEDA.
pub async fn seed_replicas(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    decision: &Decision,
) -> Result<(), ApplyError> {
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
        Err(error) => Err(ApplyError::Scale(Box::new(error))),
    }
}

/// Annotates the pods with Running or Paused: that makes the kubelet refresh the mounted ConfigMap at once
/// instead of within a minute.
async fn annotate_pods(scope: &Scope, group: &ValidatedGroup, pods: &[Arc<Pod>]) -> Result<(), ApplyError> {
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
        let annotated = pod
            .annotations()
            .get(DESIRED_STATE_ANNOTATION)
            .map_or("Running", String::as_str);
        if annotated == state {
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
                return Err(ApplyError::Write {
                    kind: "Pod",
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

/// An object as it is applied, for tests of the comparison.
#[cfg(test)]
pub fn desired_json<K: kube::Resource + serde::Serialize>(object: K) -> serde_json::Value {
    serde_json::to_value(children::with_hash(object).0).unwrap_or_default()
}
