//! Builds the child objects of a group. In: a [`ValidatedGroup`] and a scaling decision. Out: [`Resources<Prepared>`].
//! Pure, and cannot fail: whatever could be wrong was refused by `validate`.

pub mod config_map;
pub mod deployment;
pub mod disruption_budget;
pub mod rbac;
pub mod volumes;

use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;

use super::names;
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
pub struct Resources<State> {
    pub service_account: ServiceAccount,
    pub role: Role,
    pub role_binding: RoleBinding,
    pub config_map: ConfigMap,
    pub disruption_budget: PodDisruptionBudget,
    pub deployment: Deployment,
    pub state: PhantomData<State>,
}

/// Builds all children.
pub fn build(group: &ValidatedGroup, decision: &Decision, positions_settled: bool) -> Resources<Prepared> {
    let config_map = config_map::config_map(group);
    Resources {
        service_account: rbac::service_account(group),
        role: rbac::role(group),
        role_binding: rbac::role_binding(group),
        disruption_budget: disruption_budget::disruption_budget(group),
        deployment: deployment::deployment(group, decision.replicas, &config_map, positions_settled),
        config_map,
        state: PhantomData,
    }
}

/// Metadata of every child: the common name, labels, and an owner that takes it along when it goes.
fn metadata(group: &ValidatedGroup) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::child_name(&group.name)),
        namespace: Some(group.namespace.clone()),
        labels: Some(names::labels(&group.name)),
        owner_references: Some(vec![group.owner.clone()]),
        ..ObjectMeta::default()
    }
}
