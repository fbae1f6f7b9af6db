//! The rights that requests need, as Kubernetes names them. Pure.

use std::fmt;

use serde_json::{Value, json};

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    ListGroups,
    GetGroup,
    /// To start, pause and stop it.
    PatchGroup,
    ScaleGroup,
    /// To restart its workers: that is a change of their Deployment.
    PatchDeployment,
    CreateOffsetReset,
    /// To see records: a subresource that exists only in rules of RBAC.
    GetDeadLetters,
}

impl Right {
    fn verb(self) -> &'static str {
        match self {
            Self::ListGroups => "list",
            Self::GetGroup | Self::GetDeadLetters => "get",
            Self::PatchGroup | Self::ScaleGroup | Self::PatchDeployment => "patch",
            Self::CreateOffsetReset => "create",
        }
    }

    /// API group, resource, subresource.
    fn resource(self) -> (&'static str, &'static str, &'static str) {
        let group = crds::names::API_GROUP;
        match self {
            Self::ListGroups | Self::GetGroup | Self::PatchGroup => (group, "kafkaconsumergroups", ""),
            Self::ScaleGroup => (group, "kafkaconsumergroups", "scale"),
            Self::GetDeadLetters => (group, "kafkaconsumergroups", "deadletters"),
            Self::PatchDeployment => ("apps", "deployments", ""),
            Self::CreateOffsetReset => (group, "kafkaoffsetresets", ""),
        }
    }

    /// The question of a SubjectAccessReview.
    pub fn attributes(self, namespace: &str, name: &str) -> Value {
        let (group, resource, subresource) = self.resource();
        let mut attributes = json!({"verb": self.verb(), "group": group, "resource": resource});
        for (field, value) in [
            ("subresource", subresource),
            ("namespace", namespace),
            ("name", name),
        ] {
            if !value.is_empty() {
                attributes[field] = value.into();
            }
        }
        attributes
    }
}

/// As `kubectl auth can-i` takes it: `patch kafkaconsumergroups.kafka-consumer.dev/scale`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, resource, subresource) = self.resource();
        write!(f, "{} {resource}.{group}", self.verb())?;
        if subresource.is_empty() {
            return Ok(());
        }
        write!(f, "/{subresource}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_asked_as_kubernetes_names_it() {
        assert_eq!(
            Right::ScaleGroup.attributes("shop", "orders"),
            json!({
                "verb": "patch", "group": "kafka-consumer.dev", "resource": "kafkaconsumergroups",
                "subresource": "scale", "namespace": "shop", "name": "orders",
            })
        );
        assert_eq!(
            Right::ListGroups.attributes("", ""),
            json!({"verb": "list", "group": "kafka-consumer.dev", "resource": "kafkaconsumergroups"})
        );
        assert_eq!(
            Right::ScaleGroup.to_string(),
            "patch kafkaconsumergroups.kafka-consumer.dev/scale"
        );
        assert_eq!(
            Right::GetDeadLetters.to_string(),
            "get kafkaconsumergroups.kafka-consumer.dev/deadletters"
        );
        assert_eq!(Right::PatchDeployment.to_string(), "patch deployments.apps");
    }
}
