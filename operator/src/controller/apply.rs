//! Applies the children of a group. In: [`Resources<Prepared>`]. Out: [`Resources<Applied>`]. Writes with
//! server-side apply, in the order of their dependencies, and only differences: a child that already matches
//! costs no write and usually no read. Never takes over an object of another owner.

mod children;
pub mod error;
mod orphans;

use std::marker::PhantomData;
use std::sync::Arc;

use crds::KafkaConsumerGroup;
use crds::names::{DESIRED_STATE_ANNOTATION, OPERATOR_MANAGER};
use crds::spec::DesiredState;
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
use super::dereference::newest_deployment;
use super::memory::GroupMemory;
use super::scope::Scope;
use crate::group::observed::Observed;
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
    let disruption_budget = match disruption_budget {
        Some(wanted) => Some(children.ensure(wanted, &caches.disruption_budgets).await?),
        None => {
            children.memory.verified.remove("PodDisruptionBudget");
            None
        }
    };
    let deployment = children.ensure(deployment, &caches.deployments).await?;
    children.memory.deployment = Some(Arc::new(deployment.clone()));
    annotate_pods(scope, group, &observed.pods).await?;
    delete_orphans(scope, group, disruption_budget.is_some()).await?;
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

/// Scales the Deployment to 0 if the group is to be stopped, or an offset reset holds it, before anything that
/// may fail or be refused: stopping must always work. Everything else about the Deployment stays unchanged.
pub async fn stop(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    held: bool,
    memory: &mut GroupMemory,
) -> Result<(), ApplyError> {
    let deployment = newest_deployment(scope, group, memory);
    let Some(deployment) = deployment.filter(|deployment| runs_workers_of(deployment, group.uid())) else {
        return Ok(());
    };
    if group.spec.desired_state != DesiredState::Stopped && !held {
        return Ok(());
    }
    let _slot = scope.api_slot().await;
    scale_to_zero(
        scope,
        &group.namespace().unwrap_or_default(),
        &deployment.name_any(),
        memory,
    )
    .await
}

/// True if the Deployment belongs to the group with this uid and is to run workers.
pub fn runs_workers_of(deployment: &Deployment, group: Option<String>) -> bool {
    let owned = deployment
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == group.as_ref());
    owned && deployment.spec.as_ref().and_then(|spec| spec.replicas) != Some(0)
}

pub async fn scale_to_zero(
    scope: &Scope,
    namespace: &str,
    name: &str,
    memory: &mut GroupMemory,
) -> Result<(), ApplyError> {
    // What is applied next differs by this operator's own change, and not by that of another client.
    memory.verified.remove("Deployment");
    let api: Api<Deployment> = Api::namespaced(scope.context.client.clone(), namespace);
    let patch = json!({"spec": {"replicas": 0}});
    match api.patch(name, &manager(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(source) => Err(ApplyError::Write {
            kind: "Deployment",
            name: name.into(),
            source: Box::new(source),
        }),
    }
}

pub(super) fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(OPERATOR_MANAGER.into()),
        ..PatchParams::default()
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
        match api.patch_metadata(&name, &manager(), &Patch::Merge(&patch)).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_own_deployment_is_stopped() {
        let deployment = |uid: &str, replicas: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"ownerReferences": [{"apiVersion": "v", "kind": "k", "name": "n", "uid": uid}]},
                "spec": {"replicas": replicas, "selector": {}, "template": {}},
            }))
            .unwrap()
        };
        let ours = Some("u1".to_string());
        assert!(runs_workers_of(&deployment("u1", 2), ours.clone()));
        assert!(!runs_workers_of(&deployment("u1", 0), ours.clone()));
        assert!(!runs_workers_of(&deployment("u2", 2), ours));
        assert!(!runs_workers_of(&deployment("u2", 2), None));
    }
}
