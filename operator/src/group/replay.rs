//! Plans a replay of a bounded part of the log. In: what a user wants, the group, where its partitions start and
//! end in Kafka. Out: the bounds of each partition, the writers and workers, or why the replay is refused. Pure; on
//! Kubernetes and on one machine the same. Never plans an offset outside of the log.

use std::collections::BTreeMap;

use crds::KafkaReplaySpec;
use crds::offset_reset::PartitionOffset;
use crds::replay::{MAX_PARTITIONS, ReplayFromType, ReplayPartition, ReplayToType, ReplayTotals};
use crds::spec::{KafkaConsumerGroupSpec, OnOffsetOutOfRange, Writer};
use crds::worker_config::{BoundedPartition, Until, WorkerConfig};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::offset_reset::offsets_in_postgres;
use super::partition_selection::{self, Selection};
use super::rejection::Rejection;
use super::wording::count;
use crate::kafka::model::{Partition, ResetPosition, ResetPositions, ResetQuery};

/// The consumer group id of a replay. It has a part of the uid: a later replay with this name must not continue at
/// the offsets of this one.
pub fn group_id_of(group_id: &str, name: &str, uid: &str) -> String {
    let part: String = uid.chars().take(8).collect();
    format!("{group_id}.replay.{name}.{part}")
}

/// What a replay will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order of topics and partitions.
    pub partitions: Vec<ReplayPartition>,
    pub totals: ReplayTotals,
    /// Number of workers to start; 0: there is nothing to process.
    pub workers: i32,
    /// What the user should know beside the notes of the partitions, as sentences.
    pub notes: Vec<String>,
    /// The Kafka cluster that it is for, if the brokers report it.
    pub cluster_id: Option<String>,
}

/// The questions to Kafka that [`plan`] needs the answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    /// Where the partitions start and end, and the first record at or after the time in from.
    pub from: ResetQuery,
    /// The first record at or after the time in to.
    pub to: Option<ResetQuery>,
}

/// The answers to [`Queries`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub from: ResetPositions,
    pub to: Option<ResetPositions>,
}

/// The questions about a replay whose consumer group is `group_id`. Refuses topics and writers that the group does
/// not have.
pub fn queries(
    replay: &KafkaReplaySpec,
    group_id: &str,
    group: &KafkaConsumerGroupSpec,
) -> Result<Queries, Rejection> {
    writers(replay, group)?;
    let topics = selected(replay, group)?;
    let at = |time: Option<Timestamp>| ResetQuery {
        at: time.map(|time| time.as_millisecond()),
        ..query(group_id, group, topics.clone())
    };
    let to = replay.to.timestamp.is_some().then(|| at(replay.to.timestamp));
    Ok(Queries {
        from: at(replay.from.timestamp),
        to,
    })
}

/// Where the consumer group of a replay is, in the partitions that are not finished.
pub fn progress_query(
    partitions: &[ReplayPartition],
    group_id: &str,
    group: &KafkaConsumerGroupSpec,
) -> ResetQuery {
    let is_left = |planned: &&ReplayPartition| !planned.is_finished();
    // Kafka need not know topics that are done, which may be deleted. If all are done, only the members matter.
    let all_done = !partitions.iter().any(|planned| is_left(&planned));
    let mut topics = Selection::new();
    for planned in partitions.iter().filter(|planned| all_done || is_left(planned)) {
        let indexes = topics.entry(planned.topic.clone()).or_default();
        indexes.push(planned.partition);
    }
    query(group_id, group, topics)
}

fn query(group_id: &str, group: &KafkaConsumerGroupSpec, topics: Selection) -> ResetQuery {
    ResetQuery {
        group_id: group_id.into(),
        topics,
        isolation: group.consumer.isolation_level,
        protocol: group.consumer.group_protocol,
        at: None,
        stable: false,
    }
}

/// The writers of the group that get the records, in its order.
pub fn writers(replay: &KafkaReplaySpec, group: &KafkaConsumerGroupSpec) -> Result<Vec<Writer>, Rejection> {
    let names = || group.writers.iter().map(|writer| writer.name.as_str());
    if let Some(foreign) = replay
        .writers
        .iter()
        .find(|wanted| !names().any(|name| name == *wanted))
    {
        return Err(Rejection::new(
            "WriterNotInGroup",
            format!(
                "writer \"{foreign}\" is not a writer of the group; it has {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        ));
    }
    let is_wanted = |writer: &&Writer| replay.writers.is_empty() || replay.writers.contains(&writer.name);
    Ok(group.writers.iter().filter(is_wanted).cloned().collect())
}

/// Numbers of partitions by topic; empty: all.
fn selected(replay: &KafkaReplaySpec, group: &KafkaConsumerGroupSpec) -> Result<Selection, Rejection> {
    let from = replay.from.offsets.as_deref();
    let from = from.map(|offsets| partition_selection::of_offsets(offsets, "from.offsets"));
    let to = replay.to.offsets.as_deref();
    let to = to.map(|offsets| partition_selection::of_offsets(offsets, "to.offsets"));
    let topics = match (from.transpose()?, to.transpose()?) {
        (Some(from), Some(to)) => {
            missing_in(&from, &to, "from.offsets", "to.offsets")?;
            missing_in(&to, &from, "to.offsets", "from.offsets")?;
            from
        }
        (Some(listed), None) | (None, Some(listed)) => listed,
        (None, None) if replay.topics.is_empty() => partition_selection::of_group(group),
        (None, None) => partition_selection::of_topics(&replay.topics),
    };
    partition_selection::check_topics(topics, group)
}

/// Refuses a partition that one list of offsets has and the other has not.
fn missing_in(these: &Selection, others: &Selection, field: &str, other: &str) -> Result<(), Rejection> {
    for (topic, partitions) in these {
        let has = |partition: &&i32| others.get(topic).is_some_and(|others| others.contains(partition));
        if let Some(partition) = partitions.iter().find(|partition| !has(partition)) {
            return Err(Rejection::new(
                "OffsetMissing",
                format!(
                    "{field} lists partition {partition} of topic \"{topic}\", and {other} does not; list it in both, or in neither"
                ),
            ));
        }
    }
    Ok(())
}

/// The plan. Nothing may be started if this is an error.
pub fn plan(
    replay: &KafkaReplaySpec,
    group: &KafkaConsumerGroupSpec,
    answers: &Answers,
) -> Result<Plan, Rejection> {
    writers(replay, group)?;
    let selected = selected(replay, group)?;
    let positions = &answers.from;
    let wanted = partition_selection::wanted(&selected, positions, MAX_PARTITIONS, "replay")?;
    let mut partitions = Vec::with_capacity(wanted.len());
    for (partition, position) in wanted {
        let to = answers.to.as_ref();
        let to = to.and_then(|to| to.partitions.get(partition)?.at);
        let topic_id = positions.topic_ids.get(&partition.0).cloned();
        partitions.push(planned(replay, partition, topic_id, position, to)?);
    }
    let busy = partitions.iter().filter(|planned| planned.records() > 0).count();
    let (workers, mut notes) = workers(replay, i32::try_from(busy).unwrap_or(i32::MAX));
    if let Some(postgres) = offsets_in_postgres(group).filter(|_| workers > 0) {
        notes.push(format!(
            "with deliveryGuarantee ExactlyOnce the rows of the replay in table {} of PostgreSQL stay after it; delete those with its group_id (status.groupId)",
            postgres.offsets_table
        ));
    }
    Ok(Plan {
        totals: totals(&partitions),
        partitions,
        workers,
        notes,
        cluster_id: positions.cluster_id.clone(),
    })
}

/// No more workers than partitions, and none without a record per second.
fn workers(replay: &KafkaReplaySpec, partitions: i32) -> (i32, Vec<String>) {
    let allowed = replay.records_per_second.unwrap_or(i32::MAX).max(1);
    let workers = replay.workers.max(1).min(partitions).min(allowed);
    let mut notes = Vec::new();
    if partitions == 0 {
        notes.push("there is nothing to replay in these bounds".into());
    } else if workers < replay.workers {
        let why = match allowed < partitions {
            true => format!("recordsPerSecond is {allowed}"),
            false => format!("{} to process", count(partitions, "partition")),
        };
        notes.push(format!(
            "{} instead of {}: {why}",
            count(workers, "worker"),
            replay.workers
        ));
    }
    (workers, notes)
}

fn planned(
    replay: &KafkaReplaySpec,
    partition: &Partition,
    topic_id: Option<String>,
    at: &ResetPosition,
    to_time: Option<i64>,
) -> Result<ReplayPartition, Rejection> {
    let (first, end) = (at.log_start, at.end.max(at.log_start));
    let listed = |offsets: &Option<Vec<PartitionOffset>>| {
        let mut offsets = offsets.iter().flatten();
        let found = offsets.find(|given| (&given.topic, given.partition) == (&partition.0, partition.1));
        found.map(|given| given.offset)
    };
    let (listed_from, listed_to) = (listed(&replay.from.offsets), listed(&replay.to.offsets));
    if let (Some(from), Some(to)) = (listed_from, listed_to)
        && from > to
    {
        return Err(Rejection::new(
            "RangeReversed",
            format!(
                "partition {} of topic \"{}\" is to be replayed from {from} to {to}; from.offsets must not be larger than to.offsets",
                partition.1, partition.0
            ),
        ));
    }
    let mut notes = Vec::new();
    let wanted_from = match replay.from.kind {
        ReplayFromType::Earliest => first,
        ReplayFromType::Timestamp => at.at.unwrap_or_else(|| {
            notes.push("no record at or after from.timestamp".to_string());
            end
        }),
        ReplayFromType::Offsets => listed_from.unwrap_or(first),
    };
    let wanted_to = match replay.to.kind {
        ReplayToType::Latest => end,
        ReplayToType::Timestamp => to_time.unwrap_or(end),
        ReplayToType::Offsets => listed_to.unwrap_or(end),
    };
    let from = wanted_from.clamp(first, end);
    let to = wanted_to.clamp(first, end);
    for (name, wanted) in [("from", wanted_from), ("to", wanted_to)] {
        if wanted < first {
            notes.push(format!(
                "{name} {wanted} is below the first offset that Kafka still has, {first}"
            ));
        } else if wanted > end {
            notes.push(format!("{name} {wanted} is beyond the end, {end}"));
        }
    }
    if to < from {
        notes.push(format!("nothing to replay: to {to} lies before from {from}"));
    }
    Ok(ReplayPartition {
        topic: partition.0.clone(),
        topic_id,
        partition: partition.1,
        from,
        to: to.max(from),
        position: None,
        from_time: None,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

/// Sums over partitions, with what is processed of them.
pub fn totals(partitions: &[ReplayPartition]) -> ReplayTotals {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let sum = |of: fn(&ReplayPartition) -> i64| {
        let values = partitions.iter().map(of);
        values.fold(0_i64, i64::saturating_add)
    };
    let (records, processed) = (sum(ReplayPartition::records), sum(processed));
    let finished = partitions.iter().filter(|planned| planned.is_finished()).count();
    let percent = i128::from(processed) * 100 / i128::from(records.max(1));
    ReplayTotals {
        partitions: number(partitions.len()),
        finished: number(finished),
        records,
        processed,
        percent: match finished == partitions.len() {
            true => 100,
            // 100 says that nothing is left.
            false => i32::try_from(percent).unwrap_or(99).min(99),
        },
    }
}

fn processed(planned: &ReplayPartition) -> i64 {
    let position = planned.position.unwrap_or(planned.from);
    position.clamp(planned.from, planned.to) - planned.from
}

/// The offsets that the consumer group starts with: where the status says that the workers were, if the offsets are
/// gone. What it has committed already stays.
pub fn start_offsets(
    partitions: &[ReplayPartition],
    positions: &BTreeMap<Partition, ResetPosition>,
) -> BTreeMap<Partition, i64> {
    let of = |planned: &ReplayPartition| (planned.topic.clone(), planned.partition);
    let is_new = |planned: &&ReplayPartition| {
        let position = positions.get(&of(planned));
        !planned.is_finished() && position.is_none_or(|position| position.committed.is_none())
    };
    let new = partitions.iter().filter(is_new);
    new.map(|planned| (of(planned), planned.position.unwrap_or(planned.from)))
        .collect()
}

/// Records whose times are worth showing: the first of each partition.
pub fn record_offsets(plan: &Plan) -> BTreeMap<Partition, i64> {
    start_offsets(&plan.partitions, &BTreeMap::new())
}

/// Adds the times that are known.
pub fn set_record_times(plan: &mut Plan, times: &BTreeMap<Partition, Timestamp>) {
    for planned in &mut plan.partitions {
        let time = times.get(&(planned.topic.clone(), planned.partition));
        planned.from_time = time.copied().map(Time);
    }
}

/// What the workers of a replay process, and how fast each of them may be.
pub fn until(partitions: &[ReplayPartition], records_per_second: Option<i32>, workers: i32) -> Until {
    let bounded = |planned: &ReplayPartition| BoundedPartition {
        topic: planned.topic.clone(),
        topic_id: planned.topic_id.clone(),
        partition: planned.partition,
        from: planned.from,
        to: planned.to,
    };
    let busy = partitions.iter().filter(|planned| planned.records() > 0);
    Until {
        partitions: busy.map(bounded).collect(),
        records_per_second: records_per_second.map(|all| (all / workers.max(1)).max(1)),
    }
}

/// Turns the configuration of the workers of a group into that of a replay: another consumer group, the topics of
/// the plan, its bounds. The writers are those of `config`.
pub fn bounded(mut config: WorkerConfig, group_id: &str, until: Until) -> WorkerConfig {
    let has = |topic: &String| until.partitions.iter().any(|planned| planned.topic == *topic);
    config.topics.retain(has);
    config.group_id = group_id.into();
    // Latest would jump over the rest of the bounds, and Stop would wait for a user.
    config.consumer.on_offset_out_of_range = OnOffsetOutOfRange::Earliest;
    config.until = Some(until);
    config
}

#[cfg(test)]
mod tests;
