//! ServiceAccount, Role and RoleBinding of the workers: they may read their own resource, and write its
//! status if they push their reports, nothing else. In: a validated group. Out: three objects. Every
//! permission is bound to the name of this group.

use crds::names::API_GROUP;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::metadata::metadata;
use crate::controller::names::child_name;
use crate::group::validate::{ReportMode, ValidatedGroup};

pub fn service_account(group: &ValidatedGroup) -> ServiceAccount {
    let wanted = &group.spec.worker.service_account;
    let mut metadata = metadata(group);
    // Ours override the user's.
    let labels = wanted.labels.clone().into_iter();
    metadata.labels = Some(labels.chain(metadata.labels.unwrap_or_default()).collect());
    metadata.annotations = (!wanted.annotations.is_empty()).then(|| wanted.annotations.clone());
    ServiceAccount {
        metadata,
        ..ServiceAccount::default()
    }
}

pub fn role(group: &ValidatedGroup) -> Role {
    let rule = |resource: &str, verb: &str| PolicyRule {
        api_groups: Some(vec![API_GROUP.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(vec![group.name.clone()]),
        verbs: vec![verb.into()],
        ..PolicyRule::default()
    };
    Role {
        metadata: metadata(group),
        // get: for custom workers. patch: the worker's own entry of status.workers.
        rules: Some(match group.reports {
            ReportMode::Pull => vec![rule("kafkaconsumergroups", "get")],
            ReportMode::Push => vec![
                rule("kafkaconsumergroups", "get"),
                rule("kafkaconsumergroups/status", "patch"),
            ],
        }),
    }
}

pub fn role_binding(group: &ValidatedGroup) -> RoleBinding {
    RoleBinding {
        metadata: metadata(group),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: child_name(&group.name),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: child_name(&group.name),
            namespace: Some(group.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;

    #[test]
    fn workers_that_push_reports_may_access_one_resource_and_write_only_its_status() {
        let mut group = validated();
        let pull = role(&group).rules.unwrap();
        group.reports = ReportMode::Push;
        let rules = role(&group).rules.unwrap();
        assert_eq!(pull, rules[..1], "others only read it");
        for rule in &rules {
            assert_eq!(
                rule.resource_names.as_deref(),
                Some(["orders".to_string()].as_slice())
            );
            assert_eq!(
                rule.api_groups.as_deref(),
                Some([API_GROUP.to_string()].as_slice())
            );
        }
        let granted: Vec<_> = rules
            .iter()
            .map(|rule| (rule.resources.clone().unwrap(), &rule.verbs))
            .collect();
        assert_eq!(
            granted[0],
            (vec!["kafkaconsumergroups".to_string()], &vec!["get".to_string()])
        );
        assert_eq!(
            granted[1],
            (
                vec!["kafkaconsumergroups/status".to_string()],
                &vec!["patch".to_string()]
            )
        );
        assert_eq!(granted.len(), 2);
    }

    #[test]
    fn the_account_has_the_users_labels_and_annotations() {
        let mut group = validated();
        let wanted = serde_json::json!({
            "labels": {"azure.workload.identity/use": "true"},
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"},
        });
        group.spec.worker.service_account = serde_json::from_value(wanted).unwrap();
        let metadata = service_account(&group).metadata;
        let labels = metadata.labels.unwrap();
        assert_eq!(labels["azure.workload.identity/use"], "true");
        assert_eq!(labels["kafka-consumer.dev/group"], "orders");
        assert!(
            metadata
                .annotations
                .unwrap()
                .contains_key("eks.amazonaws.com/role-arn")
        );
    }

    #[test]
    fn the_binding_connects_this_role_and_this_account() {
        let binding = role_binding(&validated());
        assert_eq!(binding.role_ref.name, "orders-worker");
        let subject = &binding.subjects.unwrap()[0];
        assert_eq!(
            (subject.name.as_str(), subject.namespace.as_deref()),
            ("orders-worker", Some("shop"))
        );
    }
}
