//! The status of a replay. In: the old status and a step. Out: the new status, Events. Pure.

use crds::replay::{ReplayPartition, ReplayPhase, ReplayTotals};
use crds::{KafkaConsumerGroup, KafkaReplay, KafkaReplayStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::events::Event;

use super::next_step::{Step, group_id, phase};
use super::progress::Running;
use super::rate::Rate;
use crate::controller::names::replay_name;
use crate::controller::update_status::conditions::whole_seconds;
use crate::controller::update_status::events::{normal, warning};
use crate::group::rejection::Rejection;
use crate::group::replay::{self, Plan};
use crate::group::wording::count;
use crate::operations::planned_for::planned_for;
use crate::operations::status::{End, conditions};

/// The status after a step.
pub fn status(
    replay: &KafkaReplay,
    group: Option<&KafkaConsumerGroup>,
    step: &Step,
    rate: &Rate,
    now: Timestamp,
) -> KafkaReplayStatus {
    let now = whole_seconds(now);
    let old = replay.status.clone().unwrap_or_default();
    let mut new = KafkaReplayStatus {
        observed_generation: replay.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(now))),
        // What was measured counts only while the workers are known to run.
        estimated_completion_time: None,
        records_per_second: None,
        ..old.clone()
    };
    let before = phase(replay);
    let (phase, reason, message) = match step {
        Step::Wait(waiting) => (before, waiting.reason, waiting.message.clone()),
        Step::Fail(Rejection { reason, message }) => (ReplayPhase::Failed, *reason, message.clone()),
        Step::Show(plan) => {
            keep(&mut new, plan);
            (ReplayPhase::Succeeded, "DryRun", summary("would process", &new))
        }
        Step::Store(plan) => {
            keep(&mut new, plan);
            new.planned_for = group.map(|group| planned_for(group, plan.cluster_id.clone()));
            new.group_id = group.map(|group| group_id(replay, group));
            new.job_name = (plan.workers > 0).then(|| replay_name(&replay.name_any()));
            new.workers = Some(plan.workers);
            let message = format!("starting {}", count(plan.workers, "worker"));
            (ReplayPhase::Planned, "Planned", message)
        }
        Step::Run(running) => {
            advance(&mut new, running, rate, now);
            (ReplayPhase::Running, "Running", running.message.clone())
        }
        Step::Succeed(note) => {
            for planned in &mut new.partitions {
                planned.position = Some(planned.to);
            }
            new.totals = Some(replay::totals(&new.partitions));
            new.notes.extend(note.clone());
            (ReplayPhase::Succeeded, "Replayed", summary("processed", &new))
        }
    };
    let end = match phase {
        ReplayPhase::Succeeded => Some(End::Complete),
        ReplayPhase::Failed => Some(End::Failed),
        ReplayPhase::Pending | ReplayPhase::Planned | ReplayPhase::Running => None,
    };
    let generation = replay.metadata.generation;
    new.conditions = conditions(&old.conditions, end, reason, &message, generation, now);
    new.phase = Some(phase);
    new.message = Some(message);
    new.completion_time = phase.is_final().then_some(Time(now));
    new
}

fn keep(status: &mut KafkaReplayStatus, plan: &Plan) {
    status.partitions.clone_from(&plan.partitions);
    status.totals = Some(plan.totals.clone());
    status.notes.clone_from(&plan.notes);
}

fn advance(status: &mut KafkaReplayStatus, running: &Running, rate: &Rate, now: Timestamp) {
    status.partitions.clone_from(&running.partitions);
    let totals = replay::totals(&running.partitions);
    let left = totals.records.saturating_sub(totals.processed);
    status.records_per_second = rate.per_second().map(|rate| rate.round() as i64);
    let ends = rate.time_for(left).and_then(|left| {
        let left = SignedDuration::try_from(left).ok()?;
        now.checked_add(left).ok()
    });
    status.estimated_completion_time = ends.map(whole_seconds).map(Time);
    status.totals = Some(totals);
}

/// What a replay did, or would do.
fn summary(verb: &str, status: &KafkaReplayStatus) -> String {
    let totals = status.totals.clone().unwrap_or_default();
    let ReplayTotals {
        partitions, records, ..
    } = totals;
    let busy = status
        .partitions
        .iter()
        .filter(|planned| planned.records() > 0)
        .count();
    let mut message = format!(
        "{verb} {} of {}",
        count(records, "offset"),
        count(busy, "partition")
    );
    let empty = usize::try_from(partitions).unwrap_or(0).saturating_sub(busy);
    if empty > 0 {
        message.push_str(&format!("; nothing in {}", count(empty, "other partition")));
    }
    for note in &status.notes {
        message.push_str("; ");
        message.push_str(note);
    }
    message
}

/// What is published about the replay, and about its group.
#[derive(Default)]
pub struct Events {
    pub replay: Option<Event>,
    pub group: Option<Event>,
    /// Label of the metric, once the replay has ended.
    pub outcome: Option<&'static str>,
}

/// Events of a transition.
pub fn events(replay: &KafkaReplay, new: &KafkaReplayStatus, step: &Step) -> Events {
    let message = new.message.as_deref().unwrap_or_default();
    let of_group = |what: &str| format!("KafkaReplay {} {what}", replay.name_any());
    match step {
        Step::Run(_) if phase(replay) != ReplayPhase::Running => Events {
            replay: Some(normal("Started", message)),
            group: Some(normal(
                "ReplayStarted",
                &of_group(&format!("has started: {message}")),
            )),
            outcome: None,
        },
        Step::Wait(_) | Step::Store(_) | Step::Run(_) => Events::default(),
        Step::Fail(failure) => Events {
            replay: Some(warning(failure.reason, message)),
            group: None,
            outcome: Some("failed"),
        },
        Step::Show(_) => Events {
            replay: Some(normal("DryRun", message)),
            group: None,
            outcome: Some("dry_run"),
        },
        Step::Succeed(_) => Events {
            replay: Some(normal("Replayed", message)),
            group: Some(normal("Replayed", &of_group(&format!("has ended: {message}")))),
            outcome: Some("succeeded"),
        },
    }
}

/// Offsets that are processed according to a step. None: the step does not say.
pub fn processed(step: &Step) -> Option<i64> {
    match step {
        Step::Run(Running { partitions, .. }) => Some(processed_of(partitions)),
        _ => None,
    }
}

fn processed_of(partitions: &[ReplayPartition]) -> i64 {
    replay::totals(partitions).processed
}

#[cfg(test)]
mod tests;
