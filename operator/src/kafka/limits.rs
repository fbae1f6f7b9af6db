//! The limits that a new dead letter topic needs, so that it accepts the records of the input topics with
//! additional headers. In: the configuration of the input topics. Out: entries of the new topic. Pure, except
//! for the call that reads the configuration; without permission for that, the new topic has no such entries.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::protocol::configs::{DescribeConfigs, TopicConfig};

/// The size limit of a topic. A broker has a default for it, so it is always known.
const SIZE: &str = "max.message.bytes";

/// Limits of timestamps. They matter only if an input topic has its own.
const TIMESTAMPS: [&str; 3] = [
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
];

/// Bytes for the headers of a dead letter. The longest of them, an error message, occurs at most twice and
/// has 1 KiB.
const HEADERS: i64 = 16 * 1024;

/// Reads the limits of `topics`.
pub(super) async fn of(cluster: &Cluster, topics: &[String]) -> BTreeMap<String, String> {
    let request = DescribeConfigs {
        topics: topics.to_vec(),
        names: [SIZE].into_iter().chain(TIMESTAMPS).map(String::from).collect(),
    };
    match cluster.any(&request).await {
        Ok(configs) => wide_enough(&configs),
        Err(problem) => {
            tracing::debug!(%problem, "the limits of the input topics cannot be read");
            BTreeMap::new()
        }
    }
}

/// Entries with which a topic accepts what each of these topics accepts.
fn wide_enough(configs: &[TopicConfig]) -> BTreeMap<String, String> {
    let entries = || {
        configs
            .iter()
            .filter(|config| config.error.is_ok())
            .flat_map(|config| &config.entries)
    };
    let widest = |name: &str, own: bool| {
        let values = entries().filter(|entry| entry.name == name && (entry.of_topic || !own));
        values
            .filter_map(|entry| entry.value.as_ref()?.parse::<i64>().ok())
            .max()
    };
    let size = widest(SIZE, false).map(|bytes| {
        let with_headers = bytes.saturating_add(HEADERS).min(i64::from(i32::MAX));
        (SIZE, with_headers)
    });
    let timestamps = TIMESTAMPS
        .into_iter()
        .filter(|name| widest(name, true).is_some())
        // The broker's own value applies to the other topics.
        .filter_map(|name| Some((name, widest(name, false)?)));
    size.into_iter()
        .chain(timestamps)
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::configs::ConfigEntry;
    use crate::kafka::protocol::error_code::ErrorCode;

    fn topic(error: i16, entries: &[(&str, &str, bool)]) -> TopicConfig {
        let entry = |(name, value, of_topic): &(&str, &str, bool)| ConfigEntry {
            name: (*name).into(),
            value: Some((*value).into()),
            of_topic: *of_topic,
        };
        TopicConfig {
            topic: "orders".into(),
            error: ErrorCode(error),
            entries: entries.iter().map(entry).collect(),
        }
    }

    fn limits(configs: &[TopicConfig]) -> Vec<(String, String)> {
        wide_enough(configs).into_iter().collect()
    }

    #[test]
    fn the_largest_record_of_all_topics_fits_with_headers() {
        let configs = [
            topic(0, &[(SIZE, "1048588", false)]),
            topic(0, &[(SIZE, "5000000", true)]),
            topic(29, &[(SIZE, "9000000", true)]),
        ];
        assert_eq!(limits(&configs), [(SIZE.into(), "5016384".into())]);
        let largest = [topic(0, &[(SIZE, "2147483647", true)])];
        assert_eq!(limits(&largest), [(SIZE.into(), "2147483647".into())]);
        assert!(limits(&[topic(0, &[(SIZE, "much", true)])]).is_empty());
        assert!(limits(&[]).is_empty());
    }

    #[test]
    fn timestamp_bounds_are_those_of_the_topic_with_the_widest() {
        let name = TIMESTAMPS[0];
        assert!(
            limits(&[topic(0, &[(name, "3600000", false)])]).is_empty(),
            "the broker's"
        );
        let configs = [
            topic(0, &[(name, "1000", true)]),
            topic(0, &[(name, "3600000", false)]),
        ];
        assert_eq!(limits(&configs), [(name.into(), "3600000".into())]);
    }
}
