//! Commits the start position of topics that a group has not read yet. In: a cluster, the query, the wanted
//! position. Out: the number of committed partitions, or the topics for which the group must first be without
//! members. Never changes a group with members or a partition that has a committed offset.

use std::collections::{BTreeMap, BTreeSet};

use crds::spec::{StartPosition, StartPositionType};

use super::cluster::Cluster;
use super::commit::{self, Taken};
use super::committed;
use super::groups;
use super::look::partitions;
use super::missing::{Missing, answer_of};
use super::model::{FactsQuery, KafkaProblem, Partition, StartOutcome};
use super::topics::{self, At, Offsets, Topics};

pub(super) async fn commit(
    cluster: &Cluster,
    query: &FactsQuery,
    start: &StartPosition,
) -> Result<StartOutcome, KafkaProblem> {
    let names: BTreeSet<String> = query.topics.iter().cloned().collect();
    let topics = topics::topics(cluster, &names).await?;
    // A topic that is left out now would start anywhere later, because the caller commits only once.
    for name in &query.topics {
        if answer_of(&topics, name).map_err(Missing::problem)?.is_none() {
            return Err(KafkaProblem::Unreachable(format!(
                "topic \"{name}\" is not known to all brokers yet"
            )));
        }
    }
    let group = &query.group_id;
    let wanted = BTreeMap::from([(group.clone(), partitions(&topics, &query.topics))]);
    let committed = committed::offsets(cluster, &wanted).await;
    let committed = answer_of(&committed, group).map_err(Missing::problem)?;
    let all = wanted.get(group).map(Vec::as_slice).unwrap_or_default();
    let (new_topics, new_partitions) = without_offset(all, &committed);
    if new_topics.is_empty() && new_partitions.is_empty() {
        return Ok(StartOutcome::Committed(0));
    }
    // Partitions of known topics start at their first record without a commit too.
    let occupied = |topics: &[Partition]| match topics {
        [] => StartOutcome::Committed(0),
        topics => {
            let names: BTreeSet<&String> = topics.iter().map(|(topic, _)| topic).collect();
            StartOutcome::Occupied(names.into_iter().cloned().collect())
        }
    };
    // Only saves requests: the broker itself refuses commits of non-members for a group with members.
    let protocols = BTreeMap::from([(group.clone(), query.protocol)]);
    if let Ok(Some(found)) = answer_of(&groups::describe(cluster, &protocols).await, group)
        && !found.members.is_empty()
    {
        return Ok(occupied(&new_topics));
    }
    let mut offsets = positions(cluster, &topics, new_partitions, At::Start).await?;
    // Where a consumer that starts at the end would start: records of open transactions are still to come.
    let end = At::end(query.isolation);
    let at = match (start.kind, start.timestamp) {
        (StartPositionType::Earliest, _) => At::Start,
        (StartPositionType::Timestamp, Some(time)) => At::Time(time.as_millisecond()),
        (StartPositionType::Latest | StartPositionType::Timestamp, _) => end,
    };
    let mut found = positions(cluster, &topics, new_topics.clone(), at).await?;
    // No record at or after that time: the group starts with the next one.
    let later = new_topics
        .iter()
        .filter(|partition| !found.contains_key(*partition))
        .cloned()
        .collect();
    found.append(&mut positions(cluster, &topics, later, end).await?);
    offsets.append(&mut found);
    Ok(match write(cluster, group, &offsets).await? {
        Some(committed) => StartOutcome::Committed(committed),
        // Members have joined meanwhile.
        None => occupied(&new_topics),
    })
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

async fn positions(
    cluster: &Cluster,
    topics: &Topics,
    partitions: Vec<Partition>,
    at: At,
) -> Result<Offsets, KafkaProblem> {
    let mut offsets = Offsets::new();
    for (partition, offset) in topics::offsets(cluster, topics, partitions, at).await {
        if let Some(offset) = offset.map_err(Missing::problem)? {
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}

/// None: the group has members.
async fn write(cluster: &Cluster, group: &str, offsets: &Offsets) -> Result<Option<usize>, KafkaProblem> {
    let answers = commit::commit(cluster, group, offsets).await;
    let mut occupied = false;
    for partition in offsets.keys() {
        let taken = answer_of(&answers, partition).map_err(|missing| match missing.problem() {
            KafkaProblem::Unreachable(message) => {
                KafkaProblem::Unreachable(format!("committing the start position: {message}"))
            }
            problem => problem,
        })?;
        occupied |= taken == Taken::GroupHasMembers;
    }
    Ok((!occupied).then_some(offsets.len()))
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
