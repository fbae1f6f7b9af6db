//! Partitions that the group has revoked and that are still finishing their work in flight.

use std::time::Instant;

use rdkafka::topic_partition_list::TopicPartitionList;

use crate::record::TopicPartition;

/// Revoked partitions, by topic and number, and the deadline for their work in flight.
pub(super) struct Revocation {
    pub partitions: Vec<(String, i32)>,
    pub deadline: Instant,
}

impl Revocation {
    pub fn contains(&self, partition: &TopicPartition) -> bool {
        self.partitions
            .iter()
            .any(|(topic, number)| *partition.topic == **topic && partition.partition == *number)
    }
}

/// The partitions in the form that librdkafka's calls take.
pub(super) fn list(partitions: &[(String, i32)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// The partitions for the log.
pub(super) fn describe(partitions: &[(String, i32)]) -> String {
    let names: Vec<String> = partitions
        .iter()
        .map(|(topic, partition)| format!("{topic}-{partition}"))
        .collect();
    names.join(" ")
}
