//! CreateTopics and CreatePartitions.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;

use super::super::topics::*;
use super::*;

fn new_topics() -> impl Strategy<Value = NewTopic> {
    (texts(), any::<i32>(), any::<i16>(), few((texts(), texts()))).prop_map(
        |(name, partitions, replication_factor, configs)| NewTopic {
            name,
            partitions,
            replication_factor,
            configs,
        },
    )
}

fn results() -> impl Strategy<Value = TopicResult> {
    (texts(), error_codes(), maybe_texts()).prop_map(|(topic, error, message)| TopicResult {
        topic,
        error,
        message,
    })
}

fn their_topic(topic: &NewTopic) -> CreatableTopic {
    let config = |(name, value): &(String, String)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(topic_name(&topic.name))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_configs(topic.configs.iter().map(config).collect())
}

proptest! {
    #[test]
    fn create_topics(topics in few(new_topics()), timeout_milliseconds: i32, answer in few(results())) {
        let expected = theirs::CreateTopicsRequest::default()
            .with_topics(topics.iter().map(their_topic).collect())
            .with_timeout_ms(timeout_milliseconds);
        let request: theirs::CreateTopicsRequest =
            written(&CreateTopics { topics, timeout_milliseconds }, 4);
        prop_assert_eq!(request, expected);

        let result = |result: &TopicResult| {
            CreatableTopicResult::default()
                .with_name(topic_name(&result.topic))
                .with_error_code(result.error.0)
                .with_error_message(result.message.as_deref().map(text))
        };
        let theirs =
            theirs::CreateTopicsResponse::default().with_topics(answer.iter().map(result).collect());
        prop_assert_eq!(read_back::<CreateTopics, _>(&theirs, 4), answer);
    }

    #[test]
    fn create_partitions(
        topics in few((texts(), any::<i32>())),
        timeout_milliseconds: i32,
        answer in few(results()),
    ) {
        let topic = |(name, count): &(String, i32)| {
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(*count)
                .with_assignments(None)
        };
        let expected = theirs::CreatePartitionsRequest::default()
            .with_topics(topics.iter().map(topic).collect())
            .with_timeout_ms(timeout_milliseconds);
        let request: theirs::CreatePartitionsRequest =
            written(&CreatePartitions { topics, timeout_milliseconds }, 1);
        prop_assert_eq!(request, expected);

        let result = |result: &TopicResult| {
            CreatePartitionsTopicResult::default()
                .with_name(topic_name(&result.topic))
                .with_error_code(result.error.0)
                .with_error_message(result.message.as_deref().map(text))
        };
        let theirs =
            theirs::CreatePartitionsResponse::default().with_results(answer.iter().map(result).collect());
        prop_assert_eq!(read_back::<CreatePartitions, _>(&theirs, 1), answer);
    }
}
