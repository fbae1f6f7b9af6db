//! Plans a reset of committed offsets. In: what a user wants, the group, its positions in Kafka. Out: the offset
//! of each partition with its effect, or why the reset is refused. Pure; on Kubernetes and on one machine the
//! same. Never plans an offset outside of the log.

pub mod flags;
pub mod table;

use std::collections::BTreeMap;

use crds::KafkaOffsetResetSpec;
use crds::offset_reset::{MAX_PARTITIONS, PartitionOffset, PlannedPartition, ResetTotals, ResetType};
use crds::spec::{DeliveryGuarantee, KafkaConsumerGroupSpec, PostgresWriter};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::partition_selection::{self, Selection};
use super::rejection::Rejection;
use super::wording::count;
use crate::kafka::model::{
    CommitMetadata, Partition, ResetPosition, ResetPositions, ResetQuery, partition_names,
};

/// What a reset will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order of topics and partitions.
    pub partitions: Vec<PlannedPartition>,
    pub totals: ResetTotals,
    /// What the user should know beside the notes of the partitions, as sentences.
    pub notes: Vec<String>,
    /// The Kafka cluster that it is for, if the brokers report it.
    pub cluster_id: Option<String>,
}

/// The question to Kafka that [`plan`] needs the answer to. Refuses topics that the group does not have.
pub fn query(
    reset: &KafkaOffsetResetSpec,
    group_id: &str,
    group: &KafkaConsumerGroupSpec,
) -> Result<ResetQuery, Rejection> {
    let topics = selected(reset, group)?;
    let at = match reset.to.kind {
        ResetType::Timestamp => reset.to.timestamp.map(|time| time.as_millisecond()),
        _ => None,
    };
    Ok(ResetQuery {
        group_id: group_id.into(),
        topics,
        isolation: group.consumer.isolation_level,
        protocol: group.consumer.group_protocol,
        at,
        // Workers that run may always have a transaction open, and a look changes nothing.
        stable: !reset.dry_run,
    })
}

/// Numbers of partitions by topic; empty: all.
fn selected(reset: &KafkaOffsetResetSpec, group: &KafkaConsumerGroupSpec) -> Result<Selection, Rejection> {
    let mut topics = partition_selection::of_topics(&reset.topics);
    if let (ResetType::Offsets, Some(offsets)) = (reset.to.kind, &reset.to.offsets) {
        let listed = partition_selection::of_offsets(offsets, "to.offsets")?;
        let is_selected = |offset: &&PartitionOffset| {
            let selection = topics.get(&offset.topic);
            topics.is_empty()
                || selection.is_some_and(|some| some.is_empty() || some.contains(&offset.partition))
        };
        if let Some(offset) = offsets.iter().find(|offset| !is_selected(offset)) {
            return Err(Rejection::new(
                "PartitionNotSelected",
                format!(
                    "there is an offset for partition {} of topic \"{}\", which is not among the selected topics and partitions; select it, or remove its offset",
                    offset.partition, offset.topic
                ),
            ));
        }
        topics = listed;
    } else if topics.is_empty() {
        topics = partition_selection::of_group(group);
    }
    partition_selection::check_topics(topics, group)
}

/// The plan. Nothing may be committed if this is an error.
pub fn plan(
    reset: &KafkaOffsetResetSpec,
    group: &KafkaConsumerGroupSpec,
    positions: &ResetPositions,
) -> Result<Plan, Rejection> {
    let selected = selected(reset, group)?;
    let wanted = partition_selection::wanted(&selected, positions, MAX_PARTITIONS, "reset")?;
    let postgres = offsets_in_postgres(group);
    let mut plan = Plan {
        cluster_id: positions.cluster_id.clone(),
        ..Plan::default()
    };
    let mut without_commit = Vec::new();
    for (partition, position) in wanted {
        match target(reset, partition, position) {
            Some(target) => {
                let metadata = CommitMetadata {
                    // The table lists finished records, and a reset does not change it.
                    finished_above: position.metadata.finished_above && postgres.is_none(),
                    ..position.metadata
                };
                let position = ResetPosition {
                    metadata,
                    ..*position
                };
                plan.partitions.push(planned(partition, &position, target));
            }
            None => without_commit.push(partition),
        }
    }
    if let Some(first) = without_commit.first() {
        let message = format!(
            "a committed offset to move from is missing: {}",
            partition_names(without_commit.iter().copied())
        );
        if plan.partitions.is_empty() {
            return Err(Rejection::new(
                "NothingCommitted",
                format!(
                    "{message}; use another type than Shift, for example Offsets with an offset for partition {} of topic \"{}\"",
                    first.1, first.0
                ),
            ));
        }
        let left_out = count(
            i64::try_from(without_commit.len()).unwrap_or(i64::MAX),
            "partition",
        );
        plan.notes.push(format!("{left_out} left out, because {message}"));
    }
    plan.totals = totals(&plan.partitions);
    if let Some(postgres) = postgres
        && let Some(refused) = going_back(&plan, positions, postgres)
    {
        match reset.dry_run {
            true => plan
                .notes
                .push(format!("this reset will be refused: {}", refused.message)),
            false => return Err(refused),
        }
    }
    Ok(plan)
}

/// The offsets to commit. A partition whose offset stays is left out, unless its commit says more than the
/// offset: that would count on, and the group would not continue at the offset.
pub fn changes(partitions: &[PlannedPartition]) -> BTreeMap<Partition, i64> {
    let changed = partitions.iter().filter(|planned| is_changed(planned));
    changed
        .map(|planned| ((planned.topic.clone(), planned.partition), planned.new))
        .collect()
}

/// The new offsets at which there is a record, whose time [`set_record_times`] adds.
pub fn record_offsets(plan: &Plan) -> BTreeMap<Partition, i64> {
    let readable = plan.partitions.iter().filter(|planned| planned.new < planned.end);
    readable
        .map(|planned| ((planned.topic.clone(), planned.partition), planned.new))
        .collect()
}

/// Adds the times that are known.
pub fn set_record_times(plan: &mut Plan, times: &BTreeMap<Partition, Timestamp>) {
    for planned in &mut plan.partitions {
        let time = times.get(&(planned.topic.clone(), planned.partition));
        planned.record_time = time.copied().map(Time);
    }
}

fn is_changed(planned: &PlannedPartition) -> bool {
    planned.clears_metadata || planned.committed != Some(planned.new)
}

/// The offset that was asked for, and why it is another one than the user might expect.
struct Target {
    offset: i64,
    note: Option<String>,
}

/// None: the partition has no committed offset to shift.
fn target(reset: &KafkaOffsetResetSpec, partition: &Partition, at: &ResetPosition) -> Option<Target> {
    let exact = |offset| Target { offset, note: None };
    Some(match reset.to.kind {
        ResetType::Earliest => exact(at.log_start),
        ResetType::Latest => exact(at.end),
        ResetType::Timestamp => match at.at {
            Some(offset) => exact(offset),
            None => Target {
                offset: at.end,
                note: Some("no record at or after that time, so this is the end".into()),
            },
        },
        ResetType::Offsets => {
            let mut offsets = reset.to.offsets.iter().flatten();
            let found = offsets.find(|given| (&given.topic, given.partition) == (&partition.0, partition.1));
            exact(found?.offset)
        }
        ResetType::Shift => exact(comparable(at)?.saturating_add(reset.to.by.unwrap_or_default())),
    })
}

/// The committed offset, if it is one of this topic.
fn comparable(at: &ResetPosition) -> Option<i64> {
    at.committed.filter(|_| !at.metadata.other_topic)
}

/// Notes of a partition, short because a plan has thousands of them.
const OTHER_TOPIC: &str = "committed is of another topic with this name, such as a deleted one";
const FINISHED: &str = "records above committed that are finished already are read again";

fn planned((topic, partition): &Partition, at: &ResetPosition, target: Target) -> PlannedPartition {
    let (first, end) = (at.log_start, at.end.max(at.log_start));
    let new = target.offset.clamp(first, end);
    let outside = match target.offset {
        wanted if wanted < first => Some(format!(
            "{wanted} is below the first offset that Kafka still has, so this is {first}"
        )),
        wanted if wanted > end => Some(format!("{wanted} is beyond the end, so this is {end}")),
        _ => None,
    };
    let other_topic = at.metadata.other_topic.then_some(OTHER_TOPIC);
    let finished = (at.metadata.finished_above && !at.metadata.other_topic && new < end).then_some(FINISHED);
    let of_metadata = [other_topic, finished].into_iter().flatten().map(String::from);
    let notes: Vec<String> = outside.or(target.note).into_iter().chain(of_metadata).collect();
    PlannedPartition {
        topic: topic.clone(),
        partition: *partition,
        committed: at.committed,
        new,
        difference: comparable(at).map(|committed| new.saturating_sub(committed)),
        clears_metadata: at.metadata.matters(),
        log_start: first,
        end,
        record_time: None,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

fn totals(partitions: &[PlannedPartition]) -> ResetTotals {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut totals = ResetTotals {
        partitions: number(partitions.len()),
        changed: number(partitions.iter().filter(|planned| is_changed(planned)).count()),
        ..ResetTotals::default()
    };
    for planned in partitions {
        // Without a commit, nothing is known to be read, so whatever is left out is skipped.
        let from_start = || planned.new.saturating_sub(planned.log_start);
        match planned.difference.unwrap_or_else(from_start) {
            back if back < 0 => totals.again = totals.again.saturating_sub(back),
            forth => totals.skipped = totals.skipped.saturating_add(forth),
        }
    }
    totals
}

/// The writer whose database has the group's offsets too.
pub(super) fn offsets_in_postgres(group: &KafkaConsumerGroupSpec) -> Option<&PostgresWriter> {
    let exactly_once = group.processing.delivery_guarantee == DeliveryGuarantee::ExactlyOnce;
    let mut writers = group.writers.iter().filter(|_| exactly_once);
    writers.find_map(|writer| writer.postgres.as_ref())
}

/// The table lists finished records, and Kafka's offsets only say where reading starts. A later start is
/// therefore followed; from an earlier one, workers would leave out all records that the table lists. Without a
/// commit in Kafka, the table may still list any record. It does not list those of another topic.
fn going_back(plan: &Plan, positions: &ResetPositions, postgres: &PostgresWriter) -> Option<Rejection> {
    let of = |planned: &PlannedPartition| (planned.topic.clone(), planned.partition);
    let back = |planned: &&PlannedPartition| {
        let position = positions.partitions.get(&of(planned));
        let other_topic = position.is_some_and(|position| position.metadata.other_topic);
        let may_be_listed = || planned.new < planned.end;
        !other_topic
            && planned
                .difference
                .map_or_else(may_be_listed, |difference| difference < 0)
    };
    let back: Vec<Partition> = plan.partitions.iter().filter(back).map(of).collect();
    let table = &postgres.offsets_table;
    (!back.is_empty()).then(|| {
        Rejection::new(
            "OffsetsInDatabase",
            format!(
                "{} would go back, or has no committed offset to compare with, but with deliveryGuarantee ExactlyOnce the table {table} in PostgreSQL lists the records that are finished, so workers would not write them again; stop the group, delete the rows of its group_id and these topics from {table}, and set the offsets with kafka-consumer-groups.sh --reset-offsets",
                partition_names(back.iter())
            ),
        )
    })
}

#[cfg(test)]
mod tests;
