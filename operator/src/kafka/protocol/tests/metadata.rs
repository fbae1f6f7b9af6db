//! Metadata.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use super::super::metadata::*;
use super::*;

fn brokers() -> impl Strategy<Value = BrokerMetadata> {
    (any::<i32>(), texts(), any::<i32>(), maybe_texts()).prop_map(|(id, host, port, rack)| BrokerMetadata {
        id,
        host,
        port,
        rack,
    })
}

fn partitions() -> impl Strategy<Value = PartitionMetadata> {
    (error_codes(), any::<[i32; 3]>()).prop_map(|(error, [index, leader, leader_epoch])| PartitionMetadata {
        error,
        index,
        leader,
        leader_epoch,
    })
}

fn topics() -> impl Strategy<Value = TopicMetadata> {
    let ids = proptest::option::of(any::<[u8; 16]>().prop_filter("zero", |id| *id != [0; 16]));
    (error_codes(), texts(), ids, few(partitions())).prop_map(|(error, name, id, partitions)| TopicMetadata {
        error,
        name,
        id: id.map(TopicId),
        partitions,
    })
}

fn answers() -> impl Strategy<Value = MetadataAnswer> {
    (few(brokers()), maybe_texts(), any::<i32>(), few(topics())).prop_map(
        |(brokers, cluster_id, controller, topics)| MetadataAnswer {
            brokers,
            cluster_id,
            controller,
            topics,
        },
    )
}

fn their_broker(broker: &BrokerMetadata) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(broker.id.into())
        .with_host(text(&broker.host))
        .with_port(broker.port)
        .with_rack(broker.rack.as_deref().map(text))
        .with_unknown_tagged_field(3, b"a field of a newer broker".to_vec().into())
}

fn their_partition(partition: &PartitionMetadata) -> MetadataResponsePartition {
    MetadataResponsePartition::default()
        .with_error_code(partition.error.0)
        .with_partition_index(partition.index)
        .with_leader_id(partition.leader.into())
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(vec![1.into(), 2.into(), 3.into()])
        .with_isr_nodes(vec![1.into(), 2.into()])
        .with_offline_replicas(vec![3.into()])
        .with_unknown_tagged_field(0, Vec::new().into())
}

fn their_topic(topic: &TopicMetadata) -> MetadataResponseTopic {
    let theirs = MetadataResponseTopic::default()
        .with_error_code(topic.error.0)
        .with_name(Some(topic_name(&topic.name)))
        .with_is_internal(true)
        .with_partitions(topic.partitions.iter().map(their_partition).collect())
        .with_topic_authorized_operations(264);
    match topic.id {
        // The type of the id is not a dependency of this crate, but it can be parsed.
        Some(TopicId(id)) => {
            let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            theirs.with_topic_id(digits.parse().unwrap())
        }
        None => theirs,
    }
}

proptest! {
    #[test]
    fn metadata(
        topics in few(texts()),
        version in proptest::sample::select(Metadata::VERSIONS),
        mut answer in answers(),
    ) {
        let request: theirs::MetadataRequest = written(&Metadata { topics: topics.clone() }, version);
        let topic = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let expected = theirs::MetadataRequest::default()
            .with_topics(Some(topics.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        prop_assert_eq!(request, expected);

        let theirs = theirs::MetadataResponse::default()
            .with_throttle_time_ms(5)
            .with_brokers(answer.brokers.iter().map(their_broker).collect())
            .with_cluster_id(answer.cluster_id.as_deref().map(text))
            .with_controller_id(answer.controller.into())
            .with_topics(answer.topics.iter().map(their_topic).collect())
            .with_unknown_tagged_field(9, b"tagged".to_vec().into());
        if version == 9 {
            answer.topics.iter_mut().for_each(|topic| topic.id = None);
        }
        prop_assert_eq!(read_back::<Metadata, _>(&theirs, version), answer);
    }
}

#[test]
fn without_topics_only_the_brokers_are_requested() {
    for &version in Metadata::VERSIONS {
        let request: theirs::MetadataRequest = written(&Metadata { topics: Vec::new() }, version);
        // None would be all topics.
        assert_eq!(request.topics, Some(Vec::new()));
    }
}
