//! A group as commands see it. In: a KafkaConsumerGroup from the API server. Out: its status and what follows from
//! it. Pure. Reads the spec as JSON, so that a resource of a newer operator can still be shown.

use crds::KafkaConsumerGroupStatus;
use crds::status::condition::READY;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::cluster::Cluster;
use super::error::Error;
use crate::api::resource::resource_path;
use crate::controller::names::{child_name, selector_text};
use crate::kafka::model::GroupKey;

/// A group.
#[derive(Clone, Debug)]
pub struct GroupView {
    pub key: GroupKey,
    pub resource: Value,
    pub status: KafkaConsumerGroupStatus,
}

impl GroupView {
    pub fn of(resource: Value) -> Result<Self, Error> {
        let text = |pointer: &str| {
            resource
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let key = GroupKey::new(text("/metadata/namespace"), text("/metadata/name"));
        let status = match resource.get("status") {
            None | Some(Value::Null) => KafkaConsumerGroupStatus::default(),
            Some(status) => serde_json::from_value(status.clone()).map_err(|error| {
                Error::Unreadable(format!("the status of {}/{}: {error}", key.namespace, key.name))
            })?,
        };
        Ok(Self {
            key,
            resource,
            status,
        })
    }

    /// Reads a group of the namespace.
    pub async fn read(cluster: &Cluster, name: &str) -> Result<Self, Error> {
        let key = GroupKey::new(&cluster.namespace, name);
        let path = checked(&key)?;
        match cluster.get(&path).await {
            Ok(resource) => Self::of(resource),
            Err(error) if error.is_not_found() => Err(Error::NotFound(format!(
                "there is no KafkaConsumerGroup {name} in namespace {}; kubectl kcg status -A lists all groups",
                key.namespace
            ))),
            Err(error) => Err(error),
        }
    }

    /// Reads all groups of the namespace, or of all, by namespace and name.
    pub async fn read_all(cluster: &Cluster, all_namespaces: bool) -> Result<Vec<Self>, Error> {
        let api = format!("/apis/{}/v1alpha1", crds::names::API_GROUP);
        let path = match all_namespaces {
            true => format!("{api}/kafkaconsumergroups"),
            false => format!(
                "{api}/namespaces/{}/kafkaconsumergroups",
                named(&cluster.namespace)?
            ),
        };
        let found = cluster.list(&path, "").await?;
        let mut groups: Vec<Self> = found.into_iter().map(Self::of).collect::<Result<_, _>>()?;
        groups.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(groups)
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == kind)
    }

    /// `spec.desiredState`.
    pub fn desired_state(&self) -> &str {
        self.resource["spec"]["desiredState"]
            .as_str()
            .unwrap_or("Running")
    }

    /// Whether the status describes the spec of now.
    pub fn is_observed(&self) -> bool {
        let generation = self.resource["metadata"]["generation"].as_i64();
        generation.is_none() || self.status.observed_generation >= generation
    }

    /// Whether all is well, as far as the operator has seen it.
    pub fn is_well(&self) -> bool {
        self.is_observed() && self.condition(READY).is_some_and(|ready| ready.status == "True")
    }

    pub fn created(&self) -> Option<Timestamp> {
        let created = self.resource["metadata"]["creationTimestamp"].as_str();
        created.and_then(|time| time.parse().ok())
    }

    /// The selector of the worker pods.
    pub fn selector(&self) -> String {
        let selector = self.status.selector.clone();
        selector.unwrap_or_else(|| selector_text(&self.key.name))
    }

    /// The Deployment of the workers.
    pub fn deployment(&self) -> GroupKey {
        GroupKey::new(&self.key.namespace, &child_name(&self.key.name))
    }
}

/// The path of a group, for names that can be part of one.
pub fn checked(key: &GroupKey) -> Result<String, Error> {
    named(&key.namespace)?;
    named(&key.name)?;
    Ok(resource_path(key))
}

/// Names of Kubernetes: nothing else may become part of a path.
pub fn named(name: &str) -> Result<&str, Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let valid = name.len() <= 253
        && name.chars().all(allowed)
        && edge(name.chars().next())
        && edge(name.chars().last());
    valid.then_some(name).ok_or_else(|| {
        Error::Impossible(format!(
            "\"{name}\" is not a name in Kubernetes: it needs lower case letters, digits, '-' and '.', for example orders"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_of_a_newer_operator_can_be_shown() {
        let group = GroupView::of(json!({
            "metadata": {"name": "orders", "namespace": "shop", "generation": 3},
            "spec": {"fieldOfTheFuture": 1},
            "status": {"observedGeneration": 2, "fieldOfTheFuture": {}},
        }))
        .unwrap();
        assert_eq!(group.desired_state(), "Running");
        assert!(!group.is_observed() && !group.is_well());
        assert_eq!(
            group.selector(),
            "app.kubernetes.io/name=kafka-consumer-worker,kafka-consumer.dev/group=orders"
        );
        let broken = GroupView::of(json!({"metadata": {"name": "a"}, "status": {"replicas": "x"}}));
        assert!(broken.unwrap_err().to_string().contains("version of the plugin"));
    }

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        for name in ["", "../pods", "a/b", "a?x", "A", "-a", "a.", "a b"] {
            assert!(named(name).is_err(), "{name}");
        }
        assert!(named("orders-1.x").is_ok());
    }
}
