//! The Kafka consumer group id of a resource. Pure.

use crds::KafkaConsumerGroup;
use crds::worker_config::group_id;
use kube::ResourceExt;

/// The Kafka consumer group id of a group.
pub fn id_of(group: &KafkaConsumerGroup) -> String {
    group_id(
        &group.namespace().unwrap_or_default(),
        &group.name_any(),
        &group.spec,
    )
}
