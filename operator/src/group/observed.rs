//! What a decision about a group rests on: the objects that its spec references, its children, what Kafka
//! reports. In: what the caller has read. Out: [`Observed`]. Reads nothing itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crds::client_config::KafkaCredentials;
use crds::spec::KafkaConsumerGroupSpec;
use crds::worker_config::group_id;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::references::{ReferencedData, References, VolumeSource};
use super::rejection::Rejection;
use super::topics::expected_outputs;
use crate::kafka::model::{FactsQuery, KafkaFacts, KafkaView};

/// Everything that was read about one group for one decision.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the spec references, listed once.
    pub references: References,
    /// The contents of those objects.
    pub data: ReferencedData,
    /// The Kafka login and certificates, or the first part that is missing.
    pub credentials: Result<KafkaCredentials, Rejection>,
    pub kafka: KafkaView,
    pub deployment: Option<Arc<Deployment>>,
    /// Pods that run a worker, or will: without those that have ended.
    pub pods: Vec<Arc<Pod>>,
    /// Another client than the operator has set spec.replicas, outside of mode Manual: its field manager.
    pub replicas_set_by: Option<String>,
    /// Volumes of the spec whose Secret or ConfigMap does not exist.
    pub missing_volumes: Vec<VolumeSource>,
    /// Topics that the group reads already, so that the start position does not apply to them any more.
    pub started: StartedTopics,
}

/// Topics of one cluster that a group reads already: their start positions are committed, or need no commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartedTopics {
    /// Empty: not known.
    pub cluster_id: String,
    pub topics: BTreeSet<String>,
}

impl StartedTopics {
    /// All topics of a spec, on the cluster of these facts.
    pub fn all(spec: &KafkaConsumerGroupSpec, facts: &KafkaFacts) -> Self {
        Self {
            cluster_id: facts.cluster_id.clone().unwrap_or_default(),
            topics: spec.topics.iter().map(|topic| topic.name.clone()).collect(),
        }
    }

    /// As [`Display`](fmt::Display) wrote it. Neither cluster ids nor names of topics contain the separators.
    pub fn parse(text: &str) -> Self {
        let (cluster_id, topics) = text.split_once(':').unwrap_or(("", text));
        Self {
            cluster_id: cluster_id.into(),
            topics: topics
                .split(',')
                .filter(|topic| !topic.is_empty())
                .map(String::from)
                .collect(),
        }
    }

    /// Whether the group has started with every topic of the spec. Another cluster has other topics.
    pub fn has_all(&self, spec: &KafkaConsumerGroupSpec, facts: Option<&KafkaFacts>) -> bool {
        self.missing(spec, facts).is_empty()
    }

    /// The topics of the spec that the group has not started with.
    pub fn missing(&self, spec: &KafkaConsumerGroupSpec, facts: Option<&KafkaFacts>) -> Vec<String> {
        let cluster = facts.and_then(|facts| facts.cluster_id.as_ref());
        let same = self.cluster_id.is_empty() || cluster.is_none_or(|cluster| *cluster == self.cluster_id);
        let topics = spec.topics.iter().map(|topic| &topic.name);
        let missing = topics.filter(|topic| !same || !self.topics.contains(*topic));
        missing.cloned().collect()
    }
}

impl fmt::Display for StartedTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        write!(f, "{}:{}", self.cluster_id, topics.join(","))
    }
}

/// The query for the Kafka facts of a group.
pub fn query(namespace: &str, name: &str, spec: &KafkaConsumerGroupSpec) -> FactsQuery {
    FactsQuery {
        group_id: group_id(namespace, name, spec),
        topics: spec.topics.iter().map(|topic| topic.name.clone()).collect(),
        outputs: expected_outputs(spec),
        isolation: spec.consumer.isolation_level,
        protocol: spec.consumer.group_protocol,
    }
}

impl Observed {
    /// Partitions of all input topics, if all are known.
    pub fn partitions(&self, spec: &KafkaConsumerGroupSpec) -> Option<i32> {
        let facts = self.kafka.known()?;
        spec.topics.iter().try_fold(0, |sum, topic| {
            Some(sum + facts.topics.get(&topic.name).copied()??)
        })
    }

    /// Number of workers of the last decision.
    pub fn current_replicas(&self) -> Option<i32> {
        self.deployment.as_ref()?.spec.as_ref()?.replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{facts, group};

    #[test]
    fn started_topics_are_read_back_and_belong_to_one_cluster() {
        let spec = group().spec;
        let mut here = facts(&[("orders", Some(1))]);
        here.cluster_id = Some("MkU3OEVBNTcwNTJENDM2Qg".into());
        let started = StartedTopics::all(&spec, &here);
        assert_eq!(StartedTopics::parse(&started.to_string()), started);
        assert_eq!(StartedTopics::parse(""), StartedTopics::default());
        assert!(started.has_all(&spec, Some(&here)) && started.has_all(&spec, None));
        let mut elsewhere = here.clone();
        elsewhere.cluster_id = Some("other".into());
        assert!(!started.has_all(&spec, Some(&elsewhere)));
        let mut more = spec.clone();
        more.topics
            .push(serde_json::from_value(serde_json::json!({"name": "returns"})).unwrap());
        assert_eq!(started.missing(&more, Some(&here)), ["returns"]);
        assert_eq!(started.missing(&more, Some(&elsewhere)), ["orders", "returns"]);
        assert!(!StartedTopics::default().has_all(&spec, None));
    }
}
