//! Against librdkafka's mock cluster.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    topic_partition_list::TopicPartitionList,
    types::RDKafkaApiKey,
};

use super::{ConsumerCallbacks, ConsumerClient};
use crate::kafka::callbacks::RebalanceEvent;

/// Waits until `so` is true, and polls meanwhile if `poll` is set.
fn until(source: &ConsumerClient, poll: bool, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(30));
        if poll {
            let _ = source.consumer().poll(Duration::ZERO);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_lost_its_session_has_no_membership() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 1, 1).unwrap();
    let consumer: BaseConsumer<ConsumerCallbacks> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "group")
        .set("heartbeat.interval.ms", "50")
        .create_with_context(ConsumerCallbacks::default())
        .unwrap();
    let context = consumer.client().context().clone();
    let source = ConsumerClient::new(consumer);
    assert!(source.membership().is_none());

    source.consumer().subscribe(&["in"]).unwrap();
    until(&source, true, || {
        matches!(context.next_event(), Some(RebalanceEvent::Assign(_)))
    });
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition("in", 0);
    source.consumer().assign(&partitions).unwrap();
    assert!(source.membership().is_some());

    // Nothing answers the revoke that follows, so the member does not join again.
    cluster.request_errors(
        RDKafkaApiKey::Heartbeat,
        &[RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID; 3],
    );
    until(&source, false, || source.membership().is_none());
    let metadata = source.consumer().group_metadata();
    // Otherwise closing the consumer would wait for that answer.
    context.close();
    assert!(
        metadata.is_some(),
        "librdkafka gives one out that brokers would take"
    );
}
