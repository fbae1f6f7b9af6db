//! Computes the status of a group. In: everything that was observed, decided and applied, and the old status.
//! Out: the new one. Pure: the same input gives the same status, byte for byte, so that an idle cluster
//! causes no writes.

mod counts;
pub mod inputs;
pub(super) mod verdicts;

use crds::KafkaConsumerGroupStatus;
use crds::status::{LagStatus, PartitionsStatus, ScalingStatus, SkippedByRetention, TopicStatus, condition};
use jiff::Timestamp;

use self::counts::WorkerCounts;
use self::inputs::Inputs;
use self::verdicts::{
    Assigned, accepted, assigned, available, consuming, lag_known, limited, reachable, ready, reconciling,
    stalled, stopped,
};
use super::conditions::{self, Truth, Verdict, whole_seconds};
use super::workers;
use crate::controller::names::selector_text;
use crate::group::rejection::Rejection;
use crate::group::scaling::Decision;
use crate::kafka::model::KafkaFacts;

/// The new status, and what the caller remembers.
#[derive(Clone, Debug)]
pub struct Computed {
    pub status: KafkaConsumerGroupStatus,
    /// Brokers answered and every partition was assigned.
    pub healthy: bool,
    /// The group is converging and should be reconciled again soon.
    pub converging: bool,
    /// New ranges that retention removed and that the status has no place for.
    pub unlisted_skipped: usize,
}

pub fn compute(inputs: &Inputs<'_>) -> Computed {
    let now = whole_seconds(inputs.now);
    let facts = inputs.kafka.known();
    let group = facts.and_then(|facts| facts.group.as_ref());
    let topics = topics(inputs, facts);
    let total = topics
        .iter()
        .try_fold(0, |sum, topic| Some(sum + topic.partitions?));
    let deployed = WorkerCounts::of(inputs);

    let accepted = accepted(inputs);
    let reachable = reachable(inputs);
    let available = available(inputs, &deployed);
    let assigned = assigned(group, total);
    let present = |name: &str| inputs.pods.iter().any(|pod| pod.name == name);
    let stuck = workers::stalled(inputs.workers(), present, inputs.now);
    let consuming = consuming(inputs, facts.is_some(), &assigned, &deployed, stuck.as_ref());
    let stalled = stalled(inputs, &accepted, &reachable, &available, &consuming);
    let tolerant = inputs.recently_healthy && conditions::is_true(&inputs.old.conditions, condition::READY);
    let ready = ready(
        inputs,
        &[&accepted, &reachable, &available, &consuming],
        &assigned,
        tolerant,
    );
    let reconciling = reconciling(inputs, &accepted, &available, &assigned, &ready, &stalled);
    // Nothing about a group that waits for its turn changes soon.
    let waits = matches!(&*reconciling.reason, "WaitingForRollout" | "WaitingForKafka");
    let converging =
        (reconciling.is_true() && !waits) || (!ready.is_true() && !stalled.is_true() && !stopped(inputs));
    let verdicts = vec![
        (condition::READY, ready),
        (condition::ACCEPTED, accepted),
        (condition::KAFKA_REACHABLE, reachable),
        (condition::LAG_KNOWN, lag_known(facts)),
        (condition::WORKERS_AVAILABLE, available),
        (condition::CONSUMING, consuming),
        (condition::SCALING_LIMITED, limited(inputs)),
        (condition::RECONCILING, reconciling),
        (condition::STALLED, stalled),
    ];
    let read = inputs.reports.filter(|read| read.complete);
    let (skipped_by_retention, unlisted_skipped) =
        workers::skipped_by_retention(&inputs.skipped(), &skipped_before(inputs.old, &topics), |name| {
            inputs.spec.topics.iter().any(|topic| topic.name == name)
        });
    let status = KafkaConsumerGroupStatus {
        observed_generation: inputs.generation,
        conditions: conditions::merge(&inputs.old.conditions, verdicts, inputs.generation, now),
        operator: inputs.operator.clone(),
        group_id: Some(inputs.group_id.clone()),
        cluster_id: facts
            .and_then(|facts| facts.cluster_id.clone())
            .or_else(|| inputs.old.cluster_id.clone()),
        group_state: group.map(|group| group.state.clone()),
        selector: Some(selector_text(inputs.name)),
        replicas: Some(deployed.wanted),
        ready_replicas: Some(deployed.ready),
        updated_replicas: Some(deployed.updated),
        worker_image: inputs
            .image
            .map(String::from)
            .or_else(|| inputs.old.worker_image.clone()),
        partitions: total.map(|total| PartitionsStatus {
            total,
            assigned: group.and_then(|group| group.assigned_partitions),
            stalled: stuck.as_ref().map(|(count, _)| *count),
        }),
        topics,
        lag: lag(inputs.old, facts, now),
        scaling: inputs
            .decision
            .map(scaling_status)
            .or_else(|| inputs.old.scaling.clone()),
        stalled_partitions: stuck.map(|(_, shown)| shown).unwrap_or_default(),
        skipped_by_retention,
        workers: read.map_or_else(
            || inputs.old.workers.clone(),
            |read| workers::shown(&read.entries, &inputs.old.workers),
        ),
        worker_totals: match read {
            Some(read) => workers::totals(read, inputs.now),
            None => inputs
                .old
                .worker_totals
                .clone()
                .filter(|_| inputs.reports.is_some()),
        },
    };
    Computed {
        status,
        healthy: matches!(assigned, Assigned::All) && deployed.ready > 0 && inputs.shared.is_none(),
        converging,
        unlisted_skipped,
    }
}

/// The status of a resource that does not parse.
pub fn unreadable(
    old: &KafkaConsumerGroupStatus,
    generation: Option<i64>,
    rejection: &Rejection,
    now: Timestamp,
) -> KafkaConsumerGroupStatus {
    let no = |reason: &str| Verdict::new(Truth::False, reason, rejection.message.clone());
    let mut kept: Vec<_> = old.conditions.clone();
    let verdicts = vec![
        (condition::READY, no(rejection.reason)),
        (condition::ACCEPTED, no(rejection.reason)),
        (
            condition::RECONCILING,
            Verdict::new(Truth::False, rejection.reason, ""),
        ),
        (
            condition::STALLED,
            Verdict::new(Truth::True, rejection.reason, rejection.message.clone()),
        ),
    ];
    let merged = conditions::merge(&old.conditions, verdicts, generation, whole_seconds(now));
    kept.retain(|condition| merged.iter().all(|new| new.type_ != condition.type_));
    KafkaConsumerGroupStatus {
        observed_generation: generation,
        conditions: merged.into_iter().chain(kept).collect(),
        ..old.clone()
    }
}

fn scaling_status(decision: &Decision) -> ScalingStatus {
    ScalingStatus {
        recommended_replicas: decision.recommended,
        limited_by: Some(decision.limited_by.as_str().into()),
        reason: Some(decision.reason.clone()),
    }
}

/// The current partition counts, else the last known ones: a count stays valid while brokers are unavailable.
fn topics(inputs: &Inputs<'_>, facts: Option<&KafkaFacts>) -> Vec<TopicStatus> {
    let cluster = facts.and_then(|facts| facts.cluster_id.as_ref());
    // Topics of another cluster are other topics.
    let other = inputs
        .old
        .cluster_id
        .as_ref()
        .zip(cluster)
        .is_some_and(|(old, new)| old != new);
    let topics = inputs.spec.topics.iter().map(|topic| {
        let mut before = inputs.old.topics.iter();
        let before = before.find(|before| before.name == topic.name && !other);
        let partitions = match facts.and_then(|facts| facts.topics.get(&topic.name)) {
            Some(partitions) => *partitions,
            None => before.and_then(|before| before.partitions),
        };
        let id = facts.and_then(|facts| facts.topic_ids.get(&topic.name));
        TopicStatus {
            name: topic.name.clone(),
            partitions,
            // While the topic does not exist, the id before says that the next one is another topic.
            id: id.or(before.and_then(|before| before.id.as_ref())).cloned(),
        }
    });
    topics.collect()
}

/// The ranges that retention removed from the same topics. Offsets of a deleted topic say nothing about the one
/// that has replaced it.
fn skipped_before(old: &KafkaConsumerGroupStatus, topics: &[TopicStatus]) -> Vec<SkippedByRetention> {
    let id = |topics: &[TopicStatus], name: &str| {
        let topic = topics.iter().find(|topic| topic.name == name);
        topic.and_then(|topic| topic.id.clone())
    };
    let is_replaced = |skipped: &&SkippedByRetention| {
        let ids = id(&old.topics, &skipped.topic).zip(id(topics, &skipped.topic));
        ids.is_some_and(|(before, now)| before != now)
    };
    let kept = old.skipped_by_retention.iter();
    kept.filter(|skipped| !is_replaced(skipped)).cloned().collect()
}

/// Keeps its time while the numbers stay the same, so that an idle group causes no write.
fn lag(old: &KafkaConsumerGroupStatus, facts: Option<&KafkaFacts>, now: Timestamp) -> Option<LagStatus> {
    let lag = facts?.lag.as_ref()?;
    let as_of = match &old.lag {
        Some(before)
            if (before.total, before.max, &before.max_partition)
                == (lag.total, lag.max, &lag.max_partition) =>
        {
            before.as_of
        }
        _ => now,
    };
    Some(LagStatus {
        total: lag.total,
        max: lag.max,
        max_partition: lag.max_partition.clone(),
        as_of,
    })
}

#[cfg(test)]
mod tests;
