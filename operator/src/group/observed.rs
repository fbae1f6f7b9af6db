//! What a decision about a group rests on: the objects that its spec references, its children, what Kafka
//! reports. In: what the caller has read. Out: [`Observed`]. Reads nothing itself.

use std::sync::Arc;

use crds::client_config::KafkaCredentials;
use crds::spec::KafkaConsumerGroupSpec;
use crds::worker_config::group_id;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::references::{ReferencedData, References, VolumeSource};
use super::rejection::Rejection;
use super::topics::expected_outputs;
use crate::kafka::model::{FactsQuery, KafkaView};

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
    /// The start positions of this group are committed, or need no commit because the group had members, now
    /// or earlier.
    pub start_positions_committed: bool,
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
