//! Reads the facts about many groups of one cluster at once: topics and offsets are asked for once, however
//! many groups read them, and groups once per coordinator. In: queries. Out: facts or the problem of each
//! query; what is missing concerns only the groups that need it.

use std::collections::{BTreeMap, BTreeSet};

use crds::spec::IsolationLevel;
use jiff::Timestamp;

use super::cluster::Cluster;
use super::committed;
use super::facts;
use super::groups::{self, GroupDescription};
use super::missing::{Answers, Missing, answer_of};
use super::model::{FactsQuery, GroupFacts, KafkaFacts, KafkaProblem, Lag, Partition};
use super::topics::{self, At, Offsets, Topics};

/// Everything that one look has read.
struct Findings {
    topics: Topics,
    starts: Answers<Partition, Option<i64>>,
    committed_ends: Answers<Partition, Option<i64>>,
    uncommitted_ends: Answers<Partition, Option<i64>>,
    committed: Answers<String, Offsets>,
    groups: Answers<String, Option<GroupDescription>>,
    cluster_id: Option<String>,
    read_at: Timestamp,
}

/// Facts in the order of the queries.
pub(super) async fn look(cluster: &Cluster, queries: &[FactsQuery]) -> Vec<Result<KafkaFacts, KafkaProblem>> {
    let names: BTreeSet<String> = queries
        .iter()
        .flat_map(|query| query.topics.iter().chain(&query.outputs).cloned())
        .collect();
    let topics = match topics::topics(cluster, &names).await {
        Ok(topics) => topics,
        Err(problem) => return queries.iter().map(|_| Err(problem.clone())).collect(),
    };
    let read = read(cluster, queries, topics).await;
    queries.iter().map(|query| facts_of(query, &read)).collect()
}

async fn read(cluster: &Cluster, queries: &[FactsQuery], topics: Topics) -> Findings {
    let read_at = Timestamp::now();
    let partitions_of = |query: &FactsQuery| partitions(&topics, &query.topics);
    let all: BTreeSet<Partition> = queries.iter().flat_map(partitions_of).collect();
    let ends = |isolation| {
        let wanted = queries.iter().filter(|query| query.isolation == isolation);
        let wanted: BTreeSet<Partition> = wanted.flat_map(partitions_of).collect();
        topics::offsets(cluster, &topics, wanted.into_iter().collect(), At::end(isolation))
    };
    // Two resources may use the same group id for different topics.
    let mut wanted: BTreeMap<String, BTreeSet<Partition>> = BTreeMap::new();
    for query in queries {
        wanted
            .entry(query.group_id.clone())
            .or_default()
            .extend(partitions_of(query));
    }
    let wanted: BTreeMap<String, Vec<Partition>> = wanted
        .into_iter()
        .map(|(group, partitions)| (group, partitions.into_iter().collect()))
        .collect();
    let protocols = queries
        .iter()
        .map(|query| (query.group_id.clone(), query.protocol))
        .collect();
    let (starts, committed_ends, uncommitted_ends, committed, groups) = futures::join!(
        topics::offsets(cluster, &topics, all.into_iter().collect(), At::Start),
        ends(IsolationLevel::ReadCommitted),
        ends(IsolationLevel::ReadUncommitted),
        committed::offsets(cluster, &wanted),
        groups::describe(cluster, &protocols),
    );
    Findings {
        starts,
        committed_ends,
        uncommitted_ends,
        committed,
        groups,
        cluster_id: cluster.id(),
        read_at,
        topics,
    }
}

/// All partitions of those topics that exist.
pub(super) fn partitions(topics: &Topics, names: &[String]) -> Vec<Partition> {
    let found = |name: &String| match topics.get(name) {
        Some(Ok(Some(topic))) => topic.leaders.keys().map(|index| (name.clone(), *index)).collect(),
        _ => Vec::new(),
    };
    names.iter().flat_map(found).collect()
}

fn facts_of(query: &FactsQuery, read: &Findings) -> Result<KafkaFacts, KafkaProblem> {
    let counts = counts(query, &read.topics)?;
    let complete = !counts.is_empty() && counts.values().all(Option::is_some);
    let partitions = partitions(&read.topics, &query.topics);
    let ends = match query.isolation {
        IsolationLevel::ReadCommitted => &read.committed_ends,
        IsolationLevel::ReadUncommitted => &read.uncommitted_ends,
    };
    let ends = all_of(&partitions, ends);
    let starts = all_of(&partitions, &read.starts);
    let committed = answer_of(&read.committed, &query.group_id);
    if let (Err(Missing::Unreachable(why)), Err(Missing::Unreachable(_)), false) =
        (&ends, &committed, partitions.is_empty())
    {
        // A broker has answered, and none that has this group's data can be reached.
        return Err(KafkaProblem::Unreachable(format!(
            "a broker answers, but those that have the group's topics and offsets do not, at the addresses that they advertise: {why}; do they run, and does advertised.listeners name addresses that can be reached from here?"
        )));
    }
    let lag = match (known(ends)?, known(starts)?, known(committed)?) {
        (Some(ends), Some(starts), Some(committed)) if complete => {
            facts::lag(&partitions, &ends, &starts, &committed)
        }
        _ => None::<Lag>,
    };
    let group: Option<GroupFacts> = known(answer_of(&read.groups, &query.group_id))?
        .flatten()
        .map(|description| facts::group_facts(&description, &query.topics));
    Ok(KafkaFacts {
        topics: counts,
        cluster_id: read.cluster_id.clone(),
        topic_ids: topic_ids(query, &read.topics),
        missing_outputs: missing_outputs(query, &read.topics),
        lag,
        group,
        read_at: read.read_at,
    })
}

/// Partition counts of the input topics. Without them nothing can be said about the group.
fn counts(query: &FactsQuery, topics: &Topics) -> Result<BTreeMap<String, Option<i32>>, KafkaProblem> {
    let count = |name: &String| {
        let found = answer_of(topics, name).map_err(Missing::problem)?;
        Ok((name.clone(), found.map(|topic| topic.partitions())))
    };
    query.topics.iter().map(count).collect()
}

/// Ids of the input topics, as far as the brokers have them.
fn topic_ids(query: &FactsQuery, topics: &Topics) -> BTreeMap<String, String> {
    let id = |name: &String| {
        let found = topics.get(name)?.as_ref().ok()?.as_ref()?;
        Some((name.clone(), found.id.clone()?))
    };
    query.topics.iter().filter_map(id).collect()
}

/// Outputs that do not exist according to the brokers. A topic without an answer, or one that this user may
/// not describe, is not among them: a failing write will report it.
fn missing_outputs(query: &FactsQuery, topics: &Topics) -> Vec<String> {
    let missing = |name: &&String| matches!(topics.get(*name), Some(Ok(None)));
    query.outputs.iter().filter(missing).cloned().collect()
}

/// The answers for these partitions, or what is missing: a refusal first, because the user has to know of it.
fn all_of(partitions: &[Partition], answers: &Answers<Partition, Option<i64>>) -> Result<Offsets, Missing> {
    let mut offsets = Offsets::new();
    let (mut unreachable, mut other) = (None, None);
    for partition in partitions {
        match answer_of(answers, partition) {
            Ok(Some(offset)) => drop(offsets.insert(partition.clone(), offset)),
            Err(refused @ Missing::Refused(_)) => return Err(refused),
            Err(missing @ Missing::Unreachable(_)) => unreachable = Some(missing),
            Err(missing @ (Missing::Unknown(_) | Missing::Unstable(_))) => other = Some(missing),
            Ok(None) => {
                let (topic, index) = partition;
                other = Some(Missing::Unknown(format!(
                    "topic \"{topic}\" partition {index}: no offset"
                )));
            }
        }
    }
    let nothing = offsets.is_empty();
    match (other, unreachable) {
        (None, None) => Ok(offsets),
        (None, Some(unreachable)) if nothing => Err(unreachable),
        (Some(missing), _) | (None, Some(missing)) => {
            // Some leaders have answered, so the cluster can be reached.
            Err(Missing::Unknown(missing.problem().to_string()))
        }
    }
}

/// Turns "unknown this time" into None and returns refusals as errors.
fn known<T>(answer: Result<T, Missing>) -> Result<Option<T>, KafkaProblem> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Missing::Refused(problem)) => Err(problem),
        Err(Missing::Unreachable(message) | Missing::Unknown(message) | Missing::Unstable(message)) => {
            tracing::debug!("a fact is unknown: {message}");
            Ok(None)
        }
    }
}
