//! What the status of every operation has in common. In: an object, its new status. Out: its conditions, and one
//! patch, which applies only to the version that was read: of two writers one fails, and looks again.

use std::fmt::Debug;

use crds::names::OPERATOR_MANAGER;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::controller::scope::Scope;
use crate::controller::update_status::conditions::{Truth, Verdict, merge};

/// Condition types, as a Job has them.
pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";

/// How an operation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    Failed,
}

/// The conditions after a step. Neither is True before the end.
pub fn conditions(
    old: &[Condition],
    end: Option<End>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let verdict = |holds| {
        let truth = if holds { Truth::True } else { Truth::False };
        Verdict::new(truth, reason, message)
    };
    let verdicts = vec![
        (COMPLETE, verdict(end == Some(End::Complete))),
        (FAILED, verdict(end == Some(End::Failed))),
    ];
    merge(old, verdicts, generation, now)
}

/// Applies the status to the version of the object that was read.
pub async fn write<K>(
    scope: &Scope,
    api: &Api<K>,
    object: &K,
    status: &impl Serialize,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "resourceVersion": object.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
    let _slot = scope.api_slot().await;
    api.patch_status(&object.name_any(), &parameters, &Patch::Apply(patch))
        .await
}
