//! Commits offsets from outside of a group, which Kafka accepts only while the group has no members. In: a
//! cluster, a group, offsets. Out: for each partition whether it is committed, or why not. What may pass is
//! repeated: committing an offset again changes nothing.

use std::collections::{BTreeMap, HashMap};

use super::cluster::{ANSWER, Cluster};
use super::groups;
use super::missing::{Answers, Missing, Rounds, all_missing};
use super::model::Partition;
use super::protocol::error_code::ErrorCode;
use super::protocol::offsets::{OffsetCommit, by_topic};
use super::topics::Offsets;

/// The coordinator appends the offsets of one request as one batch to `__consumer_offsets`, whose
/// `max.message.bytes` is 1 MiB by default. Half of it, because the size of a record is only estimated.
const BATCH: usize = 512 * 1024;
/// Bytes of one offset in that batch, beside the names of group and topic: numbers, times and headers.
const ENTRY: usize = 80;

/// What the coordinator has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Committed,
    GroupHasMembers,
}

/// Commits one offset per partition.
pub(super) async fn commit(cluster: &Cluster, group: &str, offsets: &Offsets) -> Answers<Partition, Taken> {
    let mut rounds = Rounds::new(offsets.keys().cloned().collect());
    while let Some(partitions) = rounds.next().await {
        let pending = |partition: Partition| {
            let offset = *offsets.get(&partition)?;
            Some((partition, offset))
        };
        let pending: Offsets = partitions.into_iter().filter_map(pending).collect();
        for batch in batches(group, pending) {
            rounds.take(send(cluster, group, batch).await);
        }
    }
    rounds.answers
}

/// The offsets of one request.
type Batch = Vec<(Partition, i64)>;

/// Requests that the coordinator can append. The partitions of a topic stay together, unless they are too many
/// for one request: a topic with some offsets counts as one that the group has read before.
fn batches(group: &str, offsets: Offsets) -> Vec<Batch> {
    let mut topics: BTreeMap<String, Batch> = BTreeMap::new();
    for entry in offsets {
        topics.entry(entry.0.0.clone()).or_default().push(entry);
    }
    let mut batches: Vec<Batch> = Vec::new();
    // Bytes that are left in the last batch.
    let mut left = 0;
    for (topic, entries) in topics {
        let size = ENTRY + group.len() + topic.len();
        let mut rest = entries.as_slice();
        if rest.len() * size > left {
            left = 0;
        }
        while !rest.is_empty() {
            if left < size {
                batches.push(Batch::new());
                left = BATCH;
            }
            let (some, others) = rest.split_at(rest.len().min(left / size));
            left -= some.len() * size;
            rest = others;
            batches
                .last_mut()
                .into_iter()
                .for_each(|batch| batch.extend_from_slice(some));
        }
    }
    batches
}

async fn send(cluster: &Cluster, group: &str, batch: Batch) -> Vec<(Partition, Result<Taken, Missing>)> {
    let entries = batch.iter();
    let request = OffsetCommit {
        group: group.into(),
        topics: by_topic(entries.map(|((topic, index), offset)| (topic, (*index, *offset)))),
    };
    let answer = async {
        let node = groups::coordinator(cluster, group).await?;
        let answer = cluster.node(node, &request, ANSWER).await;
        answer.map_err(Missing::of_call)
    };
    let keys = batch.iter().map(|(partition, _)| partition.clone());
    let topics = match answer.await {
        Ok(topics) => topics,
        Err(missing) => {
            cluster.forget_coordinator(group);
            return all_missing(keys, &missing);
        }
    };
    let codes: HashMap<Partition, ErrorCode> = topics
        .into_iter()
        .flat_map(|(topic, partitions)| {
            let code = move |(index, code)| ((topic.clone(), index), code);
            partitions.into_iter().map(code)
        })
        .collect();
    let answers: Vec<_> = keys
        .filter_map(|partition| {
            let taken = taken(group, &partition, *codes.get(&partition)?);
            Some((partition, taken))
        })
        .collect();
    if answers.iter().any(|(_, taken)| taken.is_err()) {
        // The group may have another coordinator now.
        cluster.forget_coordinator(group);
    }
    answers
}

fn taken(group: &str, (topic, index): &Partition, code: ErrorCode) -> Result<Taken, Missing> {
    match code {
        code if code.is_ok() => Ok(Taken::Committed),
        ErrorCode::UNKNOWN_MEMBER_ID
        | ErrorCode::NON_EMPTY_GROUP
        | ErrorCode::REBALANCE_IN_PROGRESS
        | ErrorCode::ILLEGAL_GENERATION
        | ErrorCode::STALE_MEMBER_EPOCH => Ok(Taken::GroupHasMembers),
        code => {
            let what = format!("group \"{group}\", topic \"{topic}\" partition {index}");
            Err(Missing::of_code(code, &what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of offsets in each batch.
    fn sizes(group: &str, topics: &[(&str, i32)]) -> Vec<usize> {
        let partitions = topics.iter().flat_map(|(topic, partitions)| {
            (0..*partitions).map(|index| ((topic.to_string(), index), i64::from(index)))
        });
        let offsets: Offsets = partitions.collect();
        let batches = batches(group, offsets.clone());
        let sizes = batches.iter().map(Vec::len).collect();
        let all: Offsets = batches.into_iter().flatten().collect();
        assert_eq!(all, offsets, "nothing is left out or changed");
        sizes
    }

    #[test]
    fn many_partitions_are_committed_in_batches_that_the_broker_can_append() {
        assert_eq!(sizes("g", &[]), Vec::<usize>::new());
        assert_eq!(sizes("g", &[("a", 12), ("b", 3)]), [15]);
        let group = "g".repeat(255);
        // 341 bytes each.
        assert_eq!(sizes(&group, &[("orders", 4096)]), [1537, 1537, 1022]);
    }

    #[test]
    fn a_topic_is_not_split_while_it_fits_into_one_batch() {
        let group = "g".repeat(255);
        assert_eq!(
            sizes(&group, &[("a", 1000), ("b", 1000), ("c", 500)]),
            [1000, 1500]
        );
    }
}
