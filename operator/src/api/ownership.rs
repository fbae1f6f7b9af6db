//! Who else writes a field of a resource. In: the resource with its managed fields. Out: the GitOps tool that
//! will put the field back. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

/// Begins the field manager of changes through this API.
pub const MANAGER_PREFIX: &str = "kafka-consumer-api:";

/// Field managers of tools that restore what Git or a release says: how their names begin, in lower case.
const TOOLS: [(&str, &str); 8] = [
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux (Helm)"),
    ("helm", "Helm"),
    ("fleetagent", "Rancher Fleet"),
    ("configsync", "Config Sync"),
    ("kapp-controller", "kapp-controller"),
    ("terraform", "Terraform"),
];
/// What `kubectl apply` and tools that work like it have applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A tool that owns a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its field manager.
    pub manager: String,
    /// Its name.
    pub tool: &'static str,
}

/// The tool that owns `spec.FIELD` of a resource.
pub fn owner(resource: &Value, field: &str) -> Option<Owner> {
    let metadata = &resource["metadata"];
    let entries: Vec<ManagedFieldsEntry> =
        serde_json::from_value(metadata["managedFields"].clone()).unwrap_or_default();
    let path = format!("/f:spec/f:{field}");
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer(&path).is_some())
    };
    let mut owners = entries.iter().filter(owns).filter_map(|entry| {
        let manager = entry.manager.as_deref()?;
        let name = manager.to_lowercase();
        let (_, tool) = TOOLS.iter().find(|(prefix, _)| name.starts_with(prefix))?;
        // Without server-side apply, defaults belong to the tool as well, although it does not restore them.
        let restores = entry.operation.as_deref() == Some("Apply") || is_applied(metadata, field);
        restores.then(|| Owner {
            manager: manager.into(),
            tool,
        })
    });
    owners.next()
}

/// Whether the last applied configuration has the field; also true if there is none to ask, as with Helm.
fn is_applied(metadata: &Value, field: &str) -> bool {
    let text = metadata["annotations"][LAST_APPLIED].as_str();
    let applied: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
    applied.is_none_or(|applied| !applied["spec"][field].is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(manager: &str, operation: &str, field: &str) -> Value {
        let fields = json!({"f:spec": {format!("f:{field}"): {}}});
        let entry = json!({"manager": manager, "operation": operation, "fieldsV1": fields});
        json!({"metadata": {"managedFields": [
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:writers": {}}}},
            entry,
        ]}})
    }

    #[test]
    fn the_tools_that_restore_a_field_are_known_by_their_field_manager() {
        for (manager, tool) in [
            ("argocd-controller", Some("Argo CD")),
            ("kustomize-controller", Some("Flux")),
            ("helm-controller", Some("Flux (Helm)")),
            ("Helm", Some("Helm")),
            ("helm", Some("Helm")),
            ("kubectl-edit", None),
            ("kubectl-client-side-apply", None),
            ("kafka-consumer-api:alice", None),
        ] {
            let found = owner(&resource(manager, "Apply", "desiredState"), "desiredState");
            assert_eq!(found.map(|owner| owner.tool), tool, "{manager}");
            let other = owner(&resource(manager, "Apply", "replicas"), "desiredState");
            assert_eq!(other, None, "{manager} owns another field");
        }
        assert_eq!(owner(&json!({}), "desiredState"), None);
    }

    #[test]
    fn a_default_that_a_tool_has_not_applied_is_not_restored() {
        let mut resource = resource("argocd-controller", "Update", "desiredState");
        let applied = |spec: Value| json!({LAST_APPLIED: json!({"spec": spec}).to_string()});
        resource["metadata"]["annotations"] = applied(json!({"topics": []}));
        assert_eq!(owner(&resource, "desiredState"), None);
        resource["metadata"]["annotations"] = applied(json!({"desiredState": "Running"}));
        assert!(owner(&resource, "desiredState").is_some());
        resource["metadata"]["annotations"] = Value::Null;
        assert!(
            owner(&resource, "desiredState").is_some(),
            "Helm has no such annotation"
        );
    }
}
