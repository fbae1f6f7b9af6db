//! Commits the start position of a new group. In: an open client, the query, the wanted position. Out: the
//! number of committed partitions. Never changes a group with members or a partition that has a committed
//! offset.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::spec::{StartPosition, StartPositionType};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Cluster, Timeouts};
use super::facts::{self, Members, Missing, Offsets};
use super::ffi;
use super::model::{FactsQuery, KafkaProblem, Partition};

pub(super) fn commit(
    cluster: &Cluster,
    query: &FactsQuery,
    start: &StartPosition,
    members: Members,
    timeouts: Timeouts,
) -> Result<usize, KafkaProblem> {
    let topics = facts::topics(cluster, &query.topics, timeouts.connect)?;
    let timeout = timeouts.answer;
    let partitions = facts::all_partitions(&topics);
    // Only saves requests: the broker itself refuses commits of non-members for a group with members.
    if members == Members::Ask
        && let Ok(group) = facts::describe(cluster, &query.group_id, timeout)
        && !group.members.is_empty()
    {
        return Ok(0);
    }
    let committed = needed(facts::committed(cluster, &query.group_id, &partitions, timeout))?;
    let (new_topics, new_partitions) = without_offset(&partitions, &committed);
    if new_topics.is_empty() && new_partitions.is_empty() {
        return Ok(0);
    }
    let mut offsets = needed(facts::offsets(
        cluster,
        &new_partitions,
        Offset::Beginning,
        timeout,
    ))?;
    let at = match (start.kind, start.timestamp) {
        (StartPositionType::Earliest, _) => Offset::Beginning,
        (StartPositionType::Timestamp, Some(time)) => Offset::Offset(time.as_millisecond().max(0)),
        (StartPositionType::Latest | StartPositionType::Timestamp, _) => Offset::End,
    };
    let mut wanted = needed(facts::offsets(cluster, &new_topics, at, timeout))?;
    let later: Vec<_> = new_topics
        .iter()
        .filter(|partition| !wanted.contains_key(*partition))
        .cloned()
        .collect();
    wanted.extend(needed(facts::offsets(cluster, &later, Offset::End, timeout))?);
    offsets.extend(wanted);
    write(cluster, &query.group_id, &offsets, timeout)
}

/// Partitions without a committed offset: those of topics that the group has never read, and those added to
/// topics that it reads. The latter always start at their first record.
fn without_offset(partitions: &[Partition], committed: &Offsets) -> (Vec<Partition>, Vec<Partition>) {
    let read: BTreeSet<&String> = committed.keys().map(|(topic, _)| topic).collect();
    partitions
        .iter()
        .filter(|partition| !committed.contains_key(*partition))
        .cloned()
        .partition(|(topic, _)| !read.contains(topic))
}

fn write(
    cluster: &Cluster,
    group: &str,
    offsets: &Offsets,
    timeout: Duration,
) -> Result<usize, KafkaProblem> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(|error| KafkaProblem::Unreachable(error.to_string()))?;
    }
    let failed = |code: Code, message: &str| match cluster.refused(Some(code), &format!("group \"{group}\""))
    {
        Some(problem) => Err(problem),
        // Members have joined meanwhile; they determine their own start.
        None if matches!(
            code,
            Code::UnknownMemberId | Code::NonEmptyGroup | Code::RebalanceInProgress | Code::IllegalGeneration
        ) =>
        {
            Ok(0)
        }
        None => Err(KafkaProblem::Unreachable(format!(
            "committing the start position: {message}"
        ))),
    };
    match ffi::commit(&cluster.consumer, group, &list, timeout) {
        Err(failure) => failed(failure.code, &failure.message),
        Ok(answers) => match answers.iter().find_map(|answer| answer.error) {
            Some(code) => failed(code, &code.to_string()),
            None => Ok(answers.len()),
        },
    }
}

fn needed<T>(answer: Result<T, Missing>) -> Result<T, KafkaProblem> {
    answer.map_err(|missing| match missing {
        Missing::Refused(problem) => problem,
        Missing::Unknown(message) => KafkaProblem::Unreachable(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_partitions_of_a_known_topic_are_distinguished_from_new_topics() {
        let partitions: Vec<Partition> =
            vec![("a".into(), 0), ("a".into(), 1), ("b".into(), 0), ("b".into(), 1)];
        let committed = Offsets::from([(("a".to_string(), 0), 7)]);
        let (new_topics, added) = without_offset(&partitions, &committed);
        assert_eq!(new_topics, [("b".to_string(), 0), ("b".to_string(), 1)]);
        assert_eq!(added, [("a".to_string(), 1)]);
    }
}
