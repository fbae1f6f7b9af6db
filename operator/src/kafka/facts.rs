//! Reads the facts about one group: partition counts, ends, starts, committed offsets, members. In: an open
//! client and a query. Out: [`KafkaFacts`]; an incomplete answer is None. The lag computation is pure. Never
//! fills a gap with a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Cluster, Timeouts};
use super::ffi::{self, GroupDescription};
use super::model::{FactsQuery, GroupFacts, KafkaFacts, KafkaProblem, Lag, MemberFacts, Partition};

/// Offsets by partition; a partition without an entry was not answered.
pub(super) type Offsets = BTreeMap<Partition, i64>;

/// Why offsets could not be read.
pub(super) enum Missing {
    /// Permanently; shown to the user.
    Refused(KafkaProblem),
    /// This time; the message goes to the log.
    Unknown(String),
}

/// Whether brokers are asked about group members; the embedded broker cannot describe a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Members {
    #[default]
    Ask,
    Skip,
}

pub(super) fn read(
    cluster: &Cluster,
    query: &FactsQuery,
    members: Members,
    timeouts: Timeouts,
) -> Result<KafkaFacts, KafkaProblem> {
    let topics = topics(cluster, &query.topics, timeouts.connect)?;
    let timeout = timeouts.answer;
    let partitions = all_partitions(&topics);
    let complete = !topics.is_empty() && topics.values().all(Option::is_some);
    let read_at = Timestamp::now();
    // Independent requests to different brokers run concurrently, so that one dead broker costs one timeout
    // and not five.
    let (ends, starts, committed, group, missing_outputs) = std::thread::scope(|scope| {
        let ends = scope.spawn(|| offsets(cluster, &partitions, Offset::End, timeout));
        let starts = scope.spawn(|| offsets(cluster, &partitions, Offset::Beginning, timeout));
        let group = scope.spawn(|| match members {
            Members::Ask => describe(cluster, &query.group_id, timeout),
            Members::Skip => Err(Missing::Unknown("not asked".into())),
        });
        let missing = scope.spawn(|| missing(cluster, &query.outputs, timeout));
        let committed = committed(cluster, &query.group_id, &partitions, timeout);
        let missing = missing.join().unwrap_or_default();
        (joined(ends), joined(starts), committed, joined(group), missing)
    });
    let group =
        known("members of the group", group)?.map(|description| group_facts(&description, &query.topics));
    let ends = known("ends of the partitions", ends)?;
    let starts = known("starts of the partitions", starts)?;
    let committed = known("committed offsets", committed)?;
    let lag = match (ends, starts, committed) {
        (Some(ends), Some(starts), Some(committed)) if complete => {
            lag(&partitions, &ends, &starts, &committed)
        }
        _ => None,
    };
    Ok(KafkaFacts {
        topics,
        missing_outputs,
        lag,
        group,
        read_at,
    })
}

/// Partition counts of `names`.
pub(super) fn topics(
    cluster: &Cluster,
    names: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, Option<i32>>, KafkaProblem> {
    let deadline = Instant::now() + timeout;
    names
        .iter()
        .map(|name| Ok((name.clone(), cluster.partitions(name, deadline)?)))
        .collect()
}

/// The topics of `names` that do not exist according to the brokers. A topic without an answer, or one that
/// this user may not describe, is not among them: a failing write will report it.
fn missing(cluster: &Cluster, names: &[String], timeout: Duration) -> Vec<String> {
    let deadline = Instant::now() + timeout;
    let missing = |name: &&String| match cluster.partitions(name, deadline) {
        Ok(partitions) => partitions.is_none(),
        Err(problem) => {
            tracing::debug!(topic = name.as_str(), "existence unknown: {problem}");
            false
        }
    };
    names.iter().filter(missing).cloned().collect()
}

pub(super) fn all_partitions(topics: &BTreeMap<String, Option<i32>>) -> Vec<Partition> {
    topics
        .iter()
        .flat_map(|(topic, count)| (0..count.unwrap_or(0)).map(|partition| (topic.clone(), partition)))
        .collect()
}

/// The offsets for `at`, which is the end, the beginning, or a time in milliseconds; one request per leader.
pub(super) fn offsets(
    cluster: &Cluster,
    partitions: &[Partition],
    at: Offset,
    timeout: Duration,
) -> Result<Offsets, Missing> {
    if partitions.is_empty() {
        return Ok(Offsets::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, at)
            .map_err(|error| Missing::Unknown(error.to_string()))?;
    }
    let answer = cluster
        .consumer
        .offsets_for_times(list, timeout)
        .map_err(|error| {
            let code = error.rdkafka_error_code();
            match cluster.refused(code, "offsets of the topics") {
                Some(problem) => Missing::Refused(problem),
                None => Missing::Unknown(error.to_string()),
            }
        })?;
    let mut offsets = Offsets::new();
    for element in answer.elements() {
        if let Err(error) = element.error() {
            let what = format!("topic \"{}\"", element.topic());
            return Err(match cluster.refused(error.rdkafka_error_code(), &what) {
                Some(problem) => Missing::Refused(problem),
                None => Missing::Unknown(format!("{what} partition {}: {error}", element.partition())),
            });
        }
        // Offset::End stands for "no record at or after that time".
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert((element.topic().to_string(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

/// Committed offsets of a group; partitions without one are left out.
pub(super) fn committed(
    cluster: &Cluster,
    group: &str,
    partitions: &[Partition],
    timeout: Duration,
) -> Result<Offsets, Missing> {
    if partitions.is_empty() {
        return Ok(Offsets::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let missing = |code: Code, message: &str| {
        let what = format!("offsets of group \"{group}\"");
        match cluster.refused(Some(code), &what) {
            Some(problem) => Missing::Refused(problem),
            None => Missing::Unknown(format!("{what}: {message}")),
        }
    };
    let answers = ffi::committed(&cluster.consumer, group, &list, timeout)
        .map_err(|failure| missing(failure.code, &failure.message))?;
    if answers.len() != partitions.len() {
        return Err(Missing::Unknown(format!(
            "{} of {} partitions answered",
            answers.len(),
            partitions.len()
        )));
    }
    let mut offsets = Offsets::new();
    for answer in answers {
        if let Some(code) = answer.error {
            return Err(missing(code, &code.to_string()));
        }
        if answer.offset >= 0 {
            offsets.insert((answer.topic, answer.partition), answer.offset);
        }
    }
    Ok(offsets)
}

pub(super) fn describe(
    cluster: &Cluster,
    group: &str,
    timeout: Duration,
) -> Result<GroupDescription, Missing> {
    ffi::describe(&cluster.consumer, group, timeout).map_err(|failure| {
        match cluster.refused(Some(failure.code), &format!("group \"{group}\"")) {
            Some(problem) => Missing::Refused(problem),
            None => Missing::Unknown(failure.message),
        }
    })
}

/// Turns "unknown this time" into None and returns refusals as errors.
pub(super) fn known<T>(what: &str, answer: Result<T, Missing>) -> Result<Option<T>, KafkaProblem> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Missing::Refused(problem)) => Err(problem),
        Err(Missing::Unknown(message)) => {
            tracing::debug!("{what} unknown: {message}");
            Ok(None)
        }
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Missing>>) -> Result<T, Missing> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Missing::Unknown("the requesting thread has panicked".into())))
}

/// None if any partition has no end or no start. A partition without a committed offset counts from its
/// start.
fn lag(partitions: &[Partition], ends: &Offsets, starts: &Offsets, committed: &Offsets) -> Option<Lag> {
    let mut lag = Lag::default();
    for partition in partitions {
        let (end, start) = (*ends.get(partition)?, *starts.get(partition)?);
        let from = committed.get(partition).copied().unwrap_or(start).max(start);
        // Ends and commits are read at slightly different times; a commit may be ahead of an older end.
        let behind = (end - from).max(0);
        lag.total += behind;
        if behind > lag.max {
            lag.max = behind;
            lag.max_partition = Some(format!("{}-{}", partition.0, partition.1));
        }
        lag.per_partition.insert(partition.clone(), behind);
    }
    Some(lag)
}

/// Counts only partitions of `topics`: the group may have other members that read other topics.
fn group_facts(description: &GroupDescription, topics: &[String]) -> GroupFacts {
    let mut owned = BTreeSet::new();
    let members = description
        .members
        .iter()
        .map(|member| {
            let ours: Vec<_> = member
                .assigned
                .iter()
                .filter(|(topic, _)| topics.contains(topic))
                .collect();
            owned.extend(ours.iter().copied());
            MemberFacts {
                client_id: member.client_id.clone(),
                host: member.host.trim_start_matches('/').to_string(),
                assigned: i32::try_from(ours.len()).unwrap_or(i32::MAX),
            }
        })
        .collect();
    // librdkafka knows the states of classic groups. The additional states of the consumer protocol,
    // Assigning and Reconciling, mean the same here: partitions are being assigned.
    let state = match description.state.as_str() {
        "Unknown" if description.broker_assigns => "Reconciling",
        state => state,
    };
    let stable = matches!(state, "Stable" | "Empty" | "Dead");
    GroupFacts {
        state: state.into(),
        members,
        assigned_partitions: stable.then(|| i32::try_from(owned.len()).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ffi::GroupMember;
    use super::*;

    fn partition(index: i32) -> Partition {
        ("orders".into(), index)
    }

    fn offsets_of(values: &[i64]) -> Offsets {
        values
            .iter()
            .zip(0..)
            .map(|(offset, index)| (partition(index), *offset))
            .collect()
    }

    #[test]
    fn lag_counts_from_the_commit_or_the_log_start_whichever_is_later() {
        let partitions: Vec<_> = (0..3).map(partition).collect();
        let committed = Offsets::from([(partition(0), 40), (partition(1), 5)]);
        let lag = lag(
            &partitions,
            &offsets_of(&[100, 50, 30]),
            &offsets_of(&[0, 20, 10]),
            &committed,
        )
        .unwrap();
        assert_eq!(
            lag.per_partition.values().copied().collect::<Vec<_>>(),
            [60, 30, 20]
        );
        assert_eq!(
            (lag.total, lag.max, lag.max_partition.as_deref()),
            (110, 60, Some("orders-0"))
        );
    }

    #[test]
    fn a_partition_that_was_not_answered_makes_the_lag_unknown() {
        let partitions: Vec<_> = (0..2).map(partition).collect();
        let all = offsets_of(&[10, 10]);
        assert!(lag(&partitions, &offsets_of(&[10]), &all, &all).is_none());
        assert!(lag(&partitions, &all, &offsets_of(&[10]), &all).is_none());
    }

    #[test]
    fn a_commit_ahead_of_an_older_end_is_no_negative_lag() {
        let lag = lag(
            &[partition(0)],
            &offsets_of(&[10]),
            &offsets_of(&[0]),
            &offsets_of(&[12]),
        )
        .unwrap();
        assert_eq!((lag.total, lag.max_partition), (0, None));
    }

    #[test]
    fn assigned_partitions_count_only_our_topics_and_only_in_a_stable_group() {
        let member = |client: &str, assigned: &[(&str, i32)]| GroupMember {
            client_id: client.into(),
            host: "/10.0.0.1".into(),
            assigned: assigned
                .iter()
                .map(|(topic, index)| (topic.to_string(), *index))
                .collect(),
        };
        let mut description = GroupDescription {
            state: "Stable".into(),
            broker_assigns: false,
            members: vec![
                member("a", &[("orders", 0), ("orders", 1)]),
                member("b", &[("orders", 2), ("other", 0)]),
            ],
        };
        let facts = group_facts(&description, &["orders".into()]);
        assert_eq!(facts.assigned_partitions, Some(3));
        assert_eq!(facts.members[1].assigned, 1);
        assert_eq!(facts.members[0].host, "10.0.0.1");
        description.state = "PreparingRebalance".into();
        assert_eq!(
            group_facts(&description, &["orders".into()]).assigned_partitions,
            None
        );
        // A state that librdkafka has no name for.
        (description.state, description.broker_assigns) = ("Unknown".into(), true);
        let facts = group_facts(&description, &["orders".into()]);
        assert_eq!(
            (facts.state.as_str(), facts.assigned_partitions),
            ("Reconciling", None)
        );
    }
}
