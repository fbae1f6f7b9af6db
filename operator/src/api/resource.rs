//! What changes of a group are at the API server: paths, patches, and what is refused before. In: names and the
//! resource. Out: text and JSON. Pure; the routes and the kubectl plugin make the same changes.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kafka::model::GroupKey;

/// As `kubectl rollout restart` writes it.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The path of a group at the API server.
pub fn resource_path(key: &GroupKey) -> String {
    format!(
        "/apis/{}/v1alpha1/namespaces/{}/kafkaconsumergroups/{}",
        crds::names::API_GROUP,
        key.namespace,
        key.name
    )
}

/// The resets of a namespace at the API server.
pub fn resets_path(namespace: &str) -> String {
    format!(
        "/apis/{}/v1alpha1/namespaces/{namespace}/kafkaoffsetresets",
        crds::names::API_GROUP
    )
}

/// The path of a Deployment.
pub fn deployment_path(key: &GroupKey) -> String {
    format!(
        "/apis/apps/v1/namespaces/{}/deployments/{}",
        key.namespace, key.name
    )
}

/// The patch of a Deployment that restarts its pods one after the other, as `kubectl rollout restart` does.
pub fn restart_patch(now: Timestamp) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}})
}

/// Why the number of workers cannot be set.
pub fn not_manual(resource: &Value) -> Option<String> {
    let mode = resource["spec"]["scaling"]["mode"]
        .as_str()
        .unwrap_or("PartitionCount");
    (mode != "Manual").then(|| {
        format!(
            "the operator decides about the number of workers, because spec.scaling.mode is {mode}; set it to Manual, or change spec.scaling"
        )
    })
}
