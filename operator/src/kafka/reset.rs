//! Resets of committed offsets. In: a cluster and a query, or a group and the offsets to set. Out: all
//! positions that a plan needs, complete or an error; what was committed and what was not. Decides nothing:
//! `group::offset_reset` does. Never changes a group with members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::spec::GroupProtocol;

use super::cluster::Cluster;
use super::commit::{self, Taken};
use super::committed;
use super::facts;
use super::groups;
use super::missing::{Answers, Missing, answer_of};
use super::model::{
    CommitMetadata, KafkaProblem, MemberFacts, Partition, PartlyCommitted, ResetOutcome, ResetPosition,
    ResetPositions, ResetQuery,
};
use super::topics::{self, At, Offsets, Topics};

/// Timeout of a read; the caller tries again later.
const READ: Duration = Duration::from_secs(10);

/// Reads everything that a plan needs.
pub(super) async fn positions(cluster: &Cluster, query: &ResetQuery) -> Result<ResetPositions, KafkaProblem> {
    let read = tokio::time::timeout(READ, read(cluster, query));
    read.await.unwrap_or_else(|_| {
        let seconds = READ.as_secs();
        Err(KafkaProblem::Unreachable(format!("no answer within {seconds} s")))
    })
}

async fn read(cluster: &Cluster, query: &ResetQuery) -> Result<ResetPositions, KafkaProblem> {
    let names: BTreeSet<String> = query.topics.keys().cloned().collect();
    let topics = topics::topics(cluster, &names).await?;
    let mut counts = BTreeMap::new();
    for name in names {
        let found = answer_of(&topics, &name).map_err(Missing::problem)?;
        counts.insert(name, found.map(|topic| topic.partitions()));
    }
    let wanted = wanted(query, &topics);
    let offsets = |at| topics::offsets(cluster, &topics, wanted.clone(), at);
    let at_time = async {
        match query.at {
            Some(time) => offsets(At::Time(time)).await,
            None => Answers::new(),
        }
    };
    let members = members(
        cluster,
        &query.group_id,
        query.protocol,
        query.topics.keys().cloned().collect(),
    )
    .await?;
    // Workers that run may always have a transaction open, and what they commit comes before the reset anyway.
    let stable = query.stable && members.is_empty();
    let of_group = BTreeMap::from([(query.group_id.clone(), wanted.clone())]);
    let (starts, ends, at_time, committed) = futures::join!(
        offsets(At::Start),
        offsets(At::end(query.isolation)),
        at_time,
        committed::commits(cluster, &of_group, stable),
    );
    let cluster_id = cluster.id();
    let committed = answer_of(&committed, &query.group_id).map_err(Missing::problem)?;
    let topic_ids = counts.keys();
    let topic_ids = topic_ids.filter_map(|name| Some((name.clone(), topic_id(&topics, name)?.to_string())));
    let topic_ids = topic_ids.collect();
    let mut partitions = BTreeMap::new();
    for partition in wanted {
        let log_start = known(&starts, &partition)?;
        let commit = committed.get(&partition);
        let id = topic_id(&topics, &partition.0).zip(cluster_id.as_deref());
        let position = ResetPosition {
            committed: commit.map(|commit| commit.offset),
            metadata: commit.map_or_else(CommitMetadata::default, |commit| said(&commit.metadata, id)),
            log_start,
            // Retention may have removed records between the two answers.
            end: known(&ends, &partition)?.max(log_start),
            at: match query.at {
                Some(_) => answer_of(&at_time, &partition).map_err(Missing::problem)?,
                None => None,
            },
        };
        partitions.insert(partition, position);
    }
    Ok(ResetPositions {
        cluster_id,
        topics: counts,
        topic_ids,
        partitions,
        members,
    })
}

/// The requested partitions that exist.
fn wanted(query: &ResetQuery, topics: &Topics) -> Vec<Partition> {
    let of_topic = |(name, selected): (&String, &Vec<i32>)| -> Vec<Partition> {
        let Some(Ok(Some(topic))) = topics.get(name) else {
            return Vec::new();
        };
        let is_wanted = |index: &&i32| selected.is_empty() || selected.contains(index);
        let indexes = topic.leaders.keys().filter(is_wanted);
        indexes.map(|index| (name.clone(), *index)).collect()
    };
    query.topics.iter().flat_map(of_topic).collect()
}

fn known(offsets: &Answers<Partition, Option<i64>>, partition: &Partition) -> Result<i64, KafkaProblem> {
    answer_of(offsets, partition)
        .map_err(Missing::problem)?
        .ok_or_else(|| {
            let (topic, index) = partition;
            KafkaProblem::Unreachable(format!("topic \"{topic}\" partition {index}: no offset"))
        })
}

/// None: the brokers have no topic ids.
fn topic_id<'a>(topics: &'a Topics, name: &str) -> Option<&'a str> {
    topics.get(name)?.as_ref().ok()?.as_ref()?.id.as_deref()
}

/// Reads metadata as workers write it: `t1:`, the id of the topic, `.`, a checksum of the cluster and `;`, then
/// `k1:` and the finished records. Each part may be absent. What other programs wrote says nothing. `present` is
/// the id of the topic and that of the cluster, if the brokers report both.
fn said(metadata: &str, present: Option<(&str, &str)>) -> CommitMetadata {
    const ID: usize = 22;
    let tagged = || {
        let (tag, rest) = metadata.strip_prefix("t1:")?.split_once(';')?;
        let (id, cluster) = tag.split_once('.')?;
        (id.len() == ID).then_some((Some((id, cluster)), rest))
    };
    let (tag, rest) = tagged().unwrap_or((None, metadata));
    // A commit that was mirrored from another cluster counts, as it does for workers.
    let other_topic = tag.zip(present).is_some_and(|((id, cluster), (topic, here))| {
        id != topic && cluster == format!("{:08x}", checksum(here.as_bytes()))
    });
    CommitMetadata {
        finished_above: rest.starts_with("k1:"),
        other_topic,
    }
}

/// FNV-1a, 32 bits, as workers write it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// None of a group that does not exist. A broker that does not describe groups refuses the commit itself.
async fn members(
    cluster: &Cluster,
    group: &str,
    protocol: GroupProtocol,
    topics: Vec<String>,
) -> Result<Vec<MemberFacts>, KafkaProblem> {
    let protocols = BTreeMap::from([(group.to_string(), protocol)]);
    let described = groups::describe(cluster, &protocols).await;
    let described = answer_of(&described, group).map_err(Missing::problem)?;
    let members = described.map(|group| facts::group_facts(&group, &topics).members);
    Ok(members.unwrap_or_default())
}

/// Commits the offsets, or says what is in the way.
pub(super) async fn commit(
    cluster: &Cluster,
    group: &str,
    offsets: &Offsets,
    expected: Option<&str>,
) -> Result<ResetOutcome, KafkaProblem> {
    if offsets.is_empty() {
        return Ok(ResetOutcome::Committed);
    }
    let names: BTreeSet<String> = offsets.keys().map(|(topic, _)| topic.clone()).collect();
    // To learn the brokers, and which cluster they are: after a restart, this may be the first request.
    topics::topics(cluster, &names).await?;
    if let Some((expected, found)) = expected.zip(cluster.id())
        && expected != found
    {
        return Ok(ResetOutcome::OtherCluster(found));
    }
    let answers = commit::commit(cluster, group, offsets).await;
    let mut done = PartlyCommitted::default();
    let (mut occupied, mut problem) = (false, None);
    for partition in offsets.keys() {
        let why = match answer_of(&answers, partition) {
            Ok(Taken::Committed) => {
                done.committed.push(partition.clone());
                continue;
            }
            Ok(Taken::GroupHasMembers) => {
                occupied = true;
                "the group has members".to_string()
            }
            Err(missing) => {
                let why = missing.message();
                problem.get_or_insert(missing.problem());
                why
            }
        };
        done.failed.insert(partition.clone(), why);
    }
    if done.failed.is_empty() {
        return Ok(ResetOutcome::Committed);
    }
    match problem {
        _ if !done.committed.is_empty() => Ok(ResetOutcome::Partly(done)),
        Some(problem) if !occupied => Err(problem),
        _ => {
            // If the group uses the other protocol, the coordinator is asked for that too.
            let members = members(
                cluster,
                group,
                GroupProtocol::Classic,
                names.into_iter().collect(),
            );
            Ok(ResetOutcome::Members(members.await.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_workers_is_read_and_that_of_others_says_nothing() {
        let id = "ZD6bC7i9QUO1dWlbyS9QNg";
        let of = |metadata: &str| {
            // The checksum of "a" is a published test vector.
            let said = said(metadata, Some((id, "a")));
            (said.finished_above, said.other_topic)
        };
        assert_eq!(of(""), (false, false));
        assert_eq!(of("k1:AQE"), (true, false));
        assert_eq!(of(&format!("t1:{id}.e40c292c;")), (false, false));
        assert_eq!(of(&format!("t1:{id}.e40c292c;k1:AQE")), (true, false));
        assert_eq!(of("t1:AAAAAAAAAAAAAAAAAAAAAA.e40c292c;"), (false, true));
        assert_eq!(of("t1:AAAAAAAAAAAAAAAAAAAAAA.e40c292c;k1:AQE"), (true, true));
        for other in ["deployed by hand; k1:", "t1:", "t1:;", "t1:by.hand;k1:", "K1:AQE"] {
            assert_eq!(of(other), (false, false), "{other}");
        }
    }

    #[test]
    fn a_topic_that_cannot_be_compared_is_not_another_one() {
        let metadata = "t1:ZD6bC7i9QUO1dWlbyS9QNg.e40c292c;k1:AQE";
        for present in [None, Some(("AAAAAAAAAAAAAAAAAAAAAA", "another cluster"))] {
            let said = said(metadata, present);
            assert!(said.finished_above && !said.other_topic, "{present:?}");
        }
        assert!(said(metadata, Some(("AAAAAAAAAAAAAAAAAAAAAA", "a"))).other_topic);
    }
}
