//! The status of a reset. In: the old status and a step. Out: the new status, Events. Pure.

use crds::offset_reset::{ResetPhase, ResetTotals};
use crds::{KafkaConsumerGroup, KafkaOffsetReset, KafkaOffsetResetStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::events::Event;

use super::next_step::{Step, Waiting};
use crate::controller::update_status::conditions::whole_seconds;
use crate::controller::update_status::events::{normal, warning};
use crate::group::id::id_of;
use crate::group::offset_reset::Plan;
use crate::group::rejection::Rejection;
use crate::group::reset_order::phase;
use crate::group::wording::count;
use crate::operations::planned_for::planned_for;
use crate::operations::status::{End, conditions};

/// The status after a step.
pub fn status(
    reset: &KafkaOffsetReset,
    group: Option<&KafkaConsumerGroup>,
    step: &Step,
    now: Timestamp,
) -> KafkaOffsetResetStatus {
    let now = whole_seconds(now);
    let old = reset.status.clone().unwrap_or_default();
    // A stored plan stays with the group id that it was made for.
    let current = group.filter(|_| old.planned_for.is_none()).map(id_of);
    let mut new = KafkaOffsetResetStatus {
        group_id: current.or_else(|| old.group_id.clone()),
        start_time: old.start_time.clone().or(Some(Time(now))),
        ..old.clone()
    };
    let (phase, reason, message) = match step {
        Step::Wait(Waiting {
            phase,
            reason,
            message,
            ..
        }) => (*phase, *reason, message.clone()),
        Step::Fail(Rejection { reason, message }) => (ResetPhase::Failed, *reason, message.clone()),
        Step::Store(plan) => {
            keep(&mut new, plan);
            new.planned_for = group.map(|group| planned_for(group, plan.cluster_id.clone()));
            let partitions = count(plan.totals.changed, "partition");
            let message = format!("setting the offsets of {partitions}");
            (ResetPhase::Resetting, "Resetting", message)
        }
        Step::Show(plan) => {
            keep(&mut new, plan);
            let message = summary(&plan.totals, &plan.notes, true);
            (ResetPhase::Succeeded, "DryRun", message)
        }
        Step::Succeed => {
            let totals = old.totals.clone().unwrap_or_default();
            let message = summary(&totals, &old.notes, false);
            (ResetPhase::Succeeded, "OffsetsReset", message)
        }
    };
    let end = match phase {
        ResetPhase::Succeeded => Some(End::Complete),
        ResetPhase::Failed => Some(End::Failed),
        ResetPhase::Pending | ResetPhase::Stopping | ResetPhase::Resetting => None,
    };
    let generation = reset.metadata.generation;
    new.conditions = conditions(&old.conditions, end, reason, &message, generation, now);
    new.phase = Some(phase);
    new.message = Some(message);
    new.completion_time = phase.is_final().then_some(Time(now));
    new
}

fn keep(status: &mut KafkaOffsetResetStatus, plan: &Plan) {
    status.partitions.clone_from(&plan.partitions);
    status.totals = Some(plan.totals.clone());
    status.notes.clone_from(&plan.notes);
}

/// What a reset did, or would do.
fn summary(totals: &ResetTotals, notes: &[String], dry_run: bool) -> String {
    let verb = if dry_run { "would change" } else { "changed" };
    let mut message = format!(
        "{verb} the offsets of {} of {}: {} to read again, {} skipped",
        totals.changed,
        count(totals.partitions, "partition"),
        count(totals.again, "offset"),
        totals.skipped,
    );
    for note in notes {
        message.push_str("; ");
        message.push_str(note);
    }
    message
}

/// What is published about the reset, and about its group.
#[derive(Default)]
pub struct Events {
    pub reset: Option<Event>,
    pub group: Option<Event>,
    /// Label of the metric, once the reset has ended.
    pub outcome: Option<&'static str>,
}

/// Events of a transition.
pub fn events(reset: &KafkaOffsetReset, new: &KafkaOffsetResetStatus, step: &Step) -> Events {
    let message = new.message.as_deref().unwrap_or_default();
    match step {
        Step::Wait(waiting) if waiting.phase == ResetPhase::Stopping => {
            let entered = phase(reset) != ResetPhase::Stopping;
            Events {
                reset: entered.then(|| normal("Stopping", message)),
                ..Events::default()
            }
        }
        Step::Wait(_) | Step::Store(_) => Events::default(),
        Step::Fail(failure) => Events {
            reset: Some(warning(failure.reason, message)),
            group: None,
            outcome: Some("failed"),
        },
        Step::Show(_) => Events {
            reset: Some(normal("DryRun", message)),
            group: None,
            outcome: Some("dry_run"),
        },
        Step::Succeed => Events {
            reset: Some(normal("OffsetsReset", message)),
            group: Some(normal(
                "OffsetsReset",
                &format!("KafkaOffsetReset {}: {message}", reset.name_any()),
            )),
            outcome: Some("succeeded"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{group, reset};
    use crds::offset_reset::PlannedPartition;

    fn plan() -> Plan {
        Plan {
            partitions: vec![PlannedPartition {
                topic: "orders".into(),
                partition: 0,
                committed: Some(7),
                new: 0,
                difference: Some(-7),
                clears_metadata: false,
                log_start: 0,
                end: 9,
                record_time: None,
                note: None,
            }],
            totals: ResetTotals {
                partitions: 1,
                changed: 1,
                again: 7,
                skipped: 0,
            },
            notes: vec!["1 partition left out".into()],
            cluster_id: Some("here".into()),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn after(reset: &KafkaOffsetReset, step: &Step, second: i64) -> KafkaOffsetReset {
        let mut reset = reset.clone();
        reset.status = Some(status(&reset, Some(&group()), step, at(second)));
        reset
    }

    fn conditions(reset: &KafkaOffsetReset) -> Vec<(String, String, String)> {
        let status = reset.status.clone().unwrap();
        let conditions = status.conditions.into_iter();
        conditions.map(|it| (it.type_, it.status, it.reason)).collect()
    }

    #[test]
    fn a_reset_keeps_its_plan_from_the_commit_to_the_end() {
        let stored = after(&reset("again", json!({})), &Step::Store(plan()), 5);
        let status = stored.status.clone().unwrap();
        assert_eq!(
            (status.phase, status.partitions.len()),
            (Some(ResetPhase::Resetting), 1)
        );
        assert_eq!(
            (status.start_time, status.completion_time),
            (Some(Time(at(5))), None)
        );
        let expected = Some(planned_for(&group(), Some("here".into())));
        assert_eq!(status.planned_for, expected);
        // Whatever the group is by then.
        let mut renamed = group();
        renamed.spec.group_id = Some("other".into());
        let later = super::status(&stored, Some(&renamed), &Step::Succeed, at(9));
        assert_eq!(
            (later.group_id.as_deref(), later.planned_for),
            (Some("shop.orders"), expected)
        );
        let ended = after(&stored, &Step::Succeed, 9);
        let status = ended.status.clone().unwrap();
        assert_eq!(status.partitions, plan().partitions);
        assert_eq!(
            (status.start_time, status.completion_time),
            (Some(Time(at(5))), Some(Time(at(9))))
        );
        assert_eq!(
            status.message.as_deref(),
            Some(
                "changed the offsets of 1 of 1 partition: 7 offsets to read again, 0 skipped; 1 partition left out"
            )
        );
        let expected =
            |kind: &str, status: &str| (kind.to_string(), status.to_string(), "OffsetsReset".to_string());
        assert_eq!(
            conditions(&ended),
            [expected("Complete", "True"), expected("Failed", "False")]
        );
    }

    #[test]
    fn a_failure_is_a_condition_with_its_reason_and_a_wait_is_neither() {
        let waiting = Step::Wait(Waiting {
            phase: ResetPhase::Stopping,
            reason: "WaitingForMembers",
            message: "2 workers left".into(),
            again: None,
            obstructed: false,
        });
        let waits = after(&reset("again", json!({})), &waiting, 1);
        let truths = |reset: &KafkaOffsetReset| -> Vec<String> {
            conditions(reset)
                .into_iter()
                .map(|(_, status, _)| status)
                .collect()
        };
        assert_eq!(truths(&waits), ["False", "False"]);
        // Nothing new is no write.
        assert_eq!(after(&waits, &waiting, 2), waits);
        let failed = after(&waits, &Step::Fail(Rejection::new("GroupNotEmpty", "x")), 3);
        assert_eq!(truths(&failed), ["False", "True"]);
        let status = failed.status.unwrap();
        assert_eq!(status.phase, Some(ResetPhase::Failed));
        assert!(status.partitions.is_empty() && status.completion_time.is_some());
    }

    #[test]
    fn a_dry_run_ends_with_its_plan() {
        let shown = after(&reset("look", json!({"dryRun": true})), &Step::Show(plan()), 1);
        let status = shown.status.unwrap();
        assert_eq!(
            (status.phase, status.partitions),
            (Some(ResetPhase::Succeeded), plan().partitions)
        );
        assert!(
            status
                .message
                .unwrap()
                .starts_with("would change the offsets of 1 of 1 partition")
        );
    }

    #[test]
    fn each_end_has_one_event_and_success_one_at_the_group() {
        let reset = reset("again", json!({}));
        let of = |step: &Step| {
            let new = status(&reset, None, step, at(1));
            let events = events(&reset, &new, step);
            let reason = |event: Option<Event>| event.map(|event| event.reason);
            (reason(events.reset), reason(events.group), events.outcome)
        };
        let named = |reason: &str| Some(reason.to_string());
        assert_eq!(of(&Step::Store(plan())), (None, None, None));
        assert_eq!(
            of(&Step::Succeed),
            (named("OffsetsReset"), named("OffsetsReset"), Some("succeeded"))
        );
        assert_eq!(of(&Step::Show(plan())), (named("DryRun"), None, Some("dry_run")));
        let failure = Step::Fail(Rejection::new("GroupNotEmpty", "x"));
        assert_eq!(of(&failure), (named("GroupNotEmpty"), None, Some("failed")));
    }
}
