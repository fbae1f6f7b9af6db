//! Reads committed offsets. In: a cluster, groups with their partitions. Out: one answer for each group: all
//! of its commits, or why they are not known. Asks each coordinator once for all of its groups, where the
//! broker can do that.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, FutureExt, join_all};

use super::cluster::{ANSWER, Cluster};
use super::groups::{GROUPS, GroupAnswers, by_coordinator, one_by_one};
use super::missing::{Answers, Missing, all_missing};
use super::model::Partition;
use super::protocol::offsets::{FetchedOffsets, OffsetFetch, OffsetFetchGroup, by_topic};
use super::topics::Offsets;

/// Partitions of one request.
const PARTITIONS: usize = 4000;

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) offset: i64,
    /// Empty: none.
    pub(super) metadata: String,
}

/// Commits by partition; partitions without one are left out.
pub(super) type Commits = BTreeMap<Partition, Commit>;

/// Offsets that groups have committed for these partitions; partitions without one are left out. While a
/// transaction with a newer offset is open, it is the one before.
pub(super) async fn offsets(
    cluster: &Cluster,
    wanted: &BTreeMap<String, Vec<Partition>>,
) -> Answers<String, Offsets> {
    let of_group = |commits: Commits| {
        let offset = |(partition, commit): (Partition, Commit)| (partition, commit.offset);
        commits.into_iter().map(offset).collect()
    };
    let answers = commits(cluster, wanted, false).await.into_iter();
    answers
        .map(|(group, commits)| (group, commits.map(of_group)))
        .collect()
}

/// The commits of groups for these partitions. With `require_stable`, those of a group are missing while a
/// transaction with newer ones is open: it may still be completed. Brokers before Kafka 3.0 are not asked for
/// that.
pub(super) async fn commits(
    cluster: &Cluster,
    wanted: &BTreeMap<String, Vec<Partition>>,
    require_stable: bool,
) -> Answers<String, Commits> {
    by_coordinator(cluster, wanted.keys().cloned().collect(), |node, groups| {
        Box::pin(async move {
            let chunks = chunks(groups, wanted);
            let asked = chunks
                .into_iter()
                .map(|chunk| fetch(cluster, node, chunk, require_stable));
            join_all(asked).await.into_iter().flatten().collect()
        })
    })
    .await
}

/// Groups with their partitions, in pieces that one request takes.
fn chunks(groups: Vec<String>, wanted: &BTreeMap<String, Vec<Partition>>) -> Vec<Vec<OffsetFetchGroup>> {
    let mut chunks: Vec<Vec<OffsetFetchGroup>> = Vec::new();
    let mut size = 0;
    for group in groups {
        let partitions = wanted.get(&group).map(Vec::as_slice).unwrap_or_default();
        let fetch = OffsetFetchGroup {
            group,
            topics: by_topic(partitions.iter().map(|(topic, index)| (topic, *index))),
        };
        size += partitions.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < GROUPS && size <= PARTITIONS => chunk.push(fetch),
            _ => {
                size = partitions.len();
                chunks.push(vec![fetch]);
            }
        }
    }
    chunks
}

fn fetch(
    cluster: &Cluster,
    node: i32,
    groups: Vec<OffsetFetchGroup>,
    require_stable: bool,
) -> BoxFuture<'_, GroupAnswers<Commits>> {
    async move {
        let request = OffsetFetch {
            groups,
            require_stable,
        };
        let answers = match cluster.node(node, &request, ANSWER).await {
            Ok(answers) => answers,
            Err(error) => {
                let names = request.groups.into_iter().map(|group| group.group);
                return all_missing(names, &Missing::of_call(error));
            }
        };
        // A broker before 3.0 answers for the first group only, and does not name it.
        if let [only] = &answers[..]
            && only.group.is_empty()
        {
            let mut groups = request.groups.into_iter();
            let first = groups.next().map(|first| {
                let commits = commits_of(only, &first);
                (first.group, commits)
            });
            let alone = |group| fetch(cluster, node, vec![group], require_stable);
            return first.into_iter().chain(one_by_one(groups, alone).await).collect();
        }
        let asked = |name: &String| request.groups.iter().find(|asked| asked.group == *name);
        let named = answers.iter().filter_map(|answer| {
            let asked = asked(&answer.group)?;
            Some((answer.group.clone(), commits_of(answer, asked)))
        });
        named.collect()
    }
    .boxed()
}

/// A partition that the broker leaves out is not one without a commit.
fn commits_of(answer: &FetchedOffsets, asked: &OffsetFetchGroup) -> Result<Commits, Missing> {
    let what = "committed offsets";
    if !answer.error.is_ok() {
        return Err(Missing::of_code(answer.error, what));
    }
    let wanted: usize = asked.topics.iter().map(|(_, indexes)| indexes.len()).sum();
    let answered: usize = answer.topics.iter().map(|(_, partitions)| partitions.len()).sum();
    if answered != wanted {
        let message = format!("{what}: {answered} of {wanted} partitions were answered");
        return Err(Missing::Unknown(message));
    }
    let mut commits = Commits::new();
    for (topic, partitions) in &answer.topics {
        for partition in partitions {
            if !partition.error.is_ok() {
                let what = format!("{what} of topic \"{topic}\" partition {}", partition.index);
                return Err(Missing::of_code(partition.error, &what));
            }
            if partition.offset >= 0 {
                let commit = Commit {
                    offset: partition.offset,
                    metadata: partition.metadata.clone(),
                };
                commits.insert((topic.clone(), partition.index), commit);
            }
        }
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::error_code::ErrorCode;
    use super::super::protocol::offsets::FetchedOffset;
    use super::*;

    fn answered(error: ErrorCode) -> Result<Commits, Missing> {
        let fetched = |index, offset, metadata: &str, error| FetchedOffset {
            index,
            offset,
            metadata: metadata.into(),
            error,
        };
        let answer = FetchedOffsets {
            group: "g".into(),
            error: ErrorCode::NONE,
            topics: vec![(
                "orders".into(),
                vec![
                    fetched(0, 5, "k1:AQE", ErrorCode::NONE),
                    fetched(1, -1, "", error),
                ],
            )],
        };
        let asked = OffsetFetchGroup {
            group: "g".into(),
            topics: vec![("orders".into(), vec![0, 1])],
        };
        commits_of(&answer, &asked)
    }

    #[test]
    fn commits_keep_their_metadata_and_partitions_without_one_are_left_out() {
        let commit = Commit {
            offset: 5,
            metadata: "k1:AQE".into(),
        };
        let expected = Commits::from([(("orders".to_string(), 0), commit)]);
        assert_eq!(answered(ErrorCode::NONE), Ok(expected));
    }

    #[test]
    fn an_open_transaction_is_asked_for_again_and_named() {
        let Err(Missing::Unstable(message)) = answered(ErrorCode::UNSTABLE_OFFSET_COMMIT) else {
            panic!("what may pass is asked for again")
        };
        for part in ["partition 1", "UNSTABLE_OFFSET_COMMIT"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
