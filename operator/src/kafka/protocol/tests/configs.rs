//! DescribeConfigs.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::super::configs::*;
use super::*;

fn entries() -> impl Strategy<Value = ConfigEntry> {
    (texts(), maybe_texts(), any::<bool>()).prop_map(|(name, value, of_topic)| ConfigEntry {
        name,
        value,
        of_topic,
    })
}

fn configs() -> impl Strategy<Value = TopicConfig> {
    (texts(), error_codes(), few(entries())).prop_map(|(topic, error, entries)| TopicConfig {
        topic,
        error,
        entries,
    })
}

proptest! {
    #[test]
    fn describe_configs(topics in few(texts()), names in few(texts()), answer in few(configs())) {
        let resource = |topic: &String| {
            DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(topic))
                .with_configuration_keys(Some(names.iter().map(|name| text(name)).collect()))
        };
        let expected = theirs::DescribeConfigsRequest::default()
            .with_resources(topics.iter().map(resource).collect());
        let request: theirs::DescribeConfigsRequest =
            written(&DescribeConfigs { topics, names: names.clone() }, 1);
        prop_assert_eq!(request, expected);

        let entry = |entry: &ConfigEntry| {
            DescribeConfigsResourceResult::default()
                .with_name(text(&entry.name))
                .with_value(entry.value.as_deref().map(text))
                .with_config_source(if entry.of_topic { 1 } else { 5 })
                .with_synonyms(vec![DescribeConfigsSynonym::default().with_name(text("synonym"))])
        };
        let config = |config: &TopicConfig| {
            DescribeConfigsResult::default()
                .with_error_code(config.error.0)
                .with_resource_type(2)
                .with_resource_name(text(&config.topic))
                .with_configs(config.entries.iter().map(entry).collect())
        };
        let theirs = theirs::DescribeConfigsResponse::default()
            .with_results(answer.iter().map(config).collect());
        prop_assert_eq!(read_back::<DescribeConfigs, _>(&theirs, 1), answer);
    }
}
