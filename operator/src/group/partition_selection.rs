//! Which partitions of a group an operation is about. In: what a user selects, the topics of the group, those that
//! exist in Kafka. Out: numbers of partitions by topic, or why the selection is refused. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::offset_reset::{PartitionOffset, ResetTopic};
use crds::spec::KafkaConsumerGroupSpec;

use super::rejection::Rejection;
use crate::kafka::model::{Partition, ResetPosition, ResetPositions};

/// Numbers of partitions by topic; empty: all of them.
pub type Selection = BTreeMap<String, Vec<i32>>;

/// The topics and partitions that a user lists. A topic that is listed with and without partitions is whole.
pub fn of_topics(listed: &[ResetTopic]) -> Selection {
    let mut topics = Selection::new();
    for entry in listed {
        let same = listed.iter().filter(|other| other.topic == entry.topic);
        let whole = same.clone().any(|other| other.partitions.is_empty());
        let partitions = same.filter(|_| !whole).flat_map(|other| &other.partitions);
        topics.insert(entry.topic.clone(), partitions.copied().collect());
    }
    topics
}

/// The partitions of a list of offsets, which is in `field`.
pub fn of_offsets(offsets: &[PartitionOffset], field: &str) -> Result<Selection, Rejection> {
    let mut listed = Selection::new();
    let mut seen = BTreeSet::new();
    for offset in offsets {
        if !seen.insert((&offset.topic, offset.partition)) {
            return Err(Rejection::new(
                "DuplicateOffset",
                format!(
                    "{field} has more than one offset for partition {} of topic \"{}\"; keep one",
                    offset.partition, offset.topic
                ),
            ));
        }
        let partitions = listed.entry(offset.topic.clone()).or_default();
        partitions.push(offset.partition);
    }
    Ok(listed)
}

/// All partitions of all topics of the group.
pub fn of_group(group: &KafkaConsumerGroupSpec) -> Selection {
    let topics = group.topics.iter();
    topics.map(|topic| (topic.name.clone(), Vec::new())).collect()
}

/// Sorts the partitions. Refuses topics that the group does not have.
pub fn check_topics(mut topics: Selection, group: &KafkaConsumerGroupSpec) -> Result<Selection, Rejection> {
    for partitions in topics.values_mut() {
        partitions.sort_unstable();
        partitions.dedup();
    }
    let own: BTreeSet<&str> = group.topics.iter().map(|topic| topic.name.as_str()).collect();
    match topics.keys().find(|topic| !own.contains(topic.as_str())) {
        None => Ok(topics),
        Some(foreign) => Err(Rejection::new(
            "TopicNotInGroup",
            format!(
                "topic \"{foreign}\" is not a topic of the group; it has {}",
                own.into_iter().collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// The selected partitions with their positions. Refuses what does not exist in Kafka, and more than `most`.
pub fn wanted<'a>(
    selected: &Selection,
    positions: &'a ResetPositions,
    most: usize,
    operation: &str,
) -> Result<Vec<(&'a Partition, &'a ResetPosition)>, Rejection> {
    check_existence(selected, positions)?;
    let is_selected = |(topic, index): &Partition| {
        let partitions = selected.get(topic);
        partitions.is_some_and(|some| some.is_empty() || some.contains(index))
    };
    let all = positions.partitions.iter();
    let wanted: Vec<_> = all.filter(|(partition, _)| is_selected(partition)).collect();
    check_number(wanted.len(), most, operation)?;
    Ok(wanted)
}

/// Every selected topic and partition exists.
fn check_existence(selected: &Selection, positions: &ResetPositions) -> Result<(), Rejection> {
    for (topic, partitions) in selected {
        let Some(existing) = positions.topics.get(topic).copied().flatten() else {
            return Err(Rejection::new(
                "TopicMissing",
                format!(
                    "topic \"{topic}\" does not exist in Kafka; create it, or select the topics that exist"
                ),
            ));
        };
        let exists = |index: &&i32| positions.partitions.contains_key(&(topic.clone(), **index));
        if let Some(missing) = partitions.iter().find(|index| !exists(index)) {
            return Err(Rejection::new(
                "PartitionMissing",
                format!(
                    "topic \"{topic}\" has no partition {missing}; its partitions are 0 to {}",
                    existing.saturating_sub(1)
                ),
            ));
        }
    }
    Ok(())
}

/// The plan of all partitions has to fit into one resource.
fn check_number(number: usize, most: usize, operation: &str) -> Result<(), Rejection> {
    if number <= most {
        return Ok(());
    }
    Err(Rejection::new(
        "TooManyPartitions",
        format!(
            "these are {number} partitions, and a {operation} has at most {most}; select some of the topics or partitions, and {operation} the others after it"
        ),
    ))
}
