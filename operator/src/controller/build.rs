//! Builds the child objects of a group. In: a [`ValidatedGroup`] and a scaling decision. Out:
//! [`Resources<Prepared>`]. Pure, and cannot fail: `validate` has refused every spec that could not be built.

pub mod config_map;
pub mod deployment;
pub mod disruption_budget;
mod metadata;
pub mod rbac;
pub mod replay;
pub mod volumes;

use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};

use crate::controller::names::{MIRRORED_REPLICAS_ANNOTATION, STARTED_TOPICS_ANNOTATION};
use crate::group::observed::StartedTopics;
use crate::group::scaling::Decision;
use crate::group::validate::ValidatedGroup;

/// Built, not yet in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Prepared;
/// In the cluster, as the API server returned them.
#[derive(Clone, Copy, Debug)]
pub struct Applied;

/// The children of one group. Status can only be computed from applied ones.
#[derive(Clone, Debug)]
pub struct Resources<Stage> {
    pub service_account: ServiceAccount,
    pub role: Role,
    pub role_binding: RoleBinding,
    pub config_map: ConfigMap,
    /// None: the group has none.
    pub disruption_budget: Option<PodDisruptionBudget>,
    pub deployment: Deployment,
    pub stage: PhantomData<Stage>,
}

/// Builds all children.
pub fn build(
    group: &ValidatedGroup,
    decision: &Decision,
    started: &StartedTopics,
    mirrored: Option<i32>,
) -> Resources<Prepared> {
    let config_map = config_map::config_map(group);
    // What the next reconcile has to know, also after a restart of the operator.
    let started = Some(started).filter(|started| !started.topics.is_empty());
    let started = started.map(|started| (STARTED_TOPICS_ANNOTATION, started.to_string()));
    let mirrored = mirrored.map(|replicas| (MIRRORED_REPLICAS_ANNOTATION, replicas.to_string()));
    let notes = started
        .into_iter()
        .chain(mirrored)
        .map(|(name, value)| (name.into(), value));
    let notes = notes.collect();
    Resources {
        service_account: rbac::service_account(group),
        role: rbac::role(group),
        role_binding: rbac::role_binding(group),
        disruption_budget: disruption_budget::disruption_budget(group),
        deployment: deployment::deployment(group, decision.replicas, &config_map, notes),
        config_map,
        stage: PhantomData,
    }
}
