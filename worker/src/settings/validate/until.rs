//! Checks the bounds of a bounded run: they must be ranges of partitions of the topics that the worker consumes, each
//! partition once.

use std::collections::{HashMap, HashSet};

use crds::{WorkerConfig, spec::bounds};

use super::Check;

/// Number of characters of a topic id: 16 bytes in base64.
const TOPIC_ID: usize = 22;

pub(super) fn check(config: &WorkerConfig, check: &mut Check) {
    let Some(until) = &config.until else { return };
    if let Some(limit) = until.records_per_second {
        check.range("until.recordsPerSecond", limit, bounds::RECORDS_PER_SECOND);
    }
    if until.partitions.is_empty() {
        check.fail(
            "until.partitions",
            "is empty; write at least one partition, or remove until",
        );
    }
    let (mut seen, mut ids) = (HashSet::new(), HashMap::new());
    for (index, planned) in until.partitions.iter().enumerate() {
        let (topic, partition) = (planned.topic.as_str(), planned.partition);
        let mut fail = |field: &str, message: String| {
            check.fail(format!("until.partitions[{index}].{field}"), message);
        };
        if !config.topics.iter().any(|subscribed| subscribed == topic) {
            fail(
                "topic",
                format!("{topic:?} is not in topics; add it there, or remove the partition"),
            );
        }
        if partition < 0 {
            fail(
                "partition",
                format!("{partition} is negative; partitions count from 0"),
            );
        }
        if !seen.insert((topic, partition)) {
            fail(
                "partition",
                format!("partition {partition} of topic {topic:?} occurs twice; list it once"),
            );
        }
        if planned.from < 0 {
            fail(
                "from",
                format!("{} is negative; offsets count from 0", planned.from),
            );
        }
        if planned.from > planned.to {
            fail(
                "to",
                format!("{} is less than from, {}; swap them", planned.to, planned.from),
            );
        }
        let Some(id) = &planned.topic_id else { continue };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if id.len() != TOPIC_ID || !id.bytes().all(is_base64) {
            fail(
                "topicId",
                format!("{id:?} is no topic id; write it as Kafka prints it, or remove the field"),
            );
        }
        if *ids.entry(topic).or_insert(id) != id {
            fail(
                "topicId",
                format!("topic {topic:?} has two ids; all of its partitions belong to one topic"),
            );
        }
    }
}
