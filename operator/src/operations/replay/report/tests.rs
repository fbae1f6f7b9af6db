use std::time::{Duration, Instant};

use serde_json::json;

use super::super::next_step::Waiting;
use super::*;
use crate::fixtures::{group, replay as replay_of};

fn plan() -> Plan {
    let planned = |partition, from, to| ReplayPartition {
        topic: "orders".into(),
        topic_id: None,
        partition,
        from,
        to,
        position: None,
        from_time: None,
        note: None,
    };
    let partitions = vec![planned(0, 0, 100), planned(1, 7, 7)];
    Plan {
        totals: replay::totals(&partitions),
        partitions,
        workers: 1,
        notes: Vec::new(),
        cluster_id: Some("here".into()),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn after(replay: &KafkaReplay, step: &Step, second: i64) -> KafkaReplay {
    with_rate(replay, step, &Rate::default(), second)
}

fn with_rate(replay: &KafkaReplay, step: &Step, rate: &Rate, second: i64) -> KafkaReplay {
    let mut replay = replay.clone();
    replay.status = Some(status(&replay, Some(&group()), step, rate, at(second)));
    replay
}

fn running(position: i64) -> Step {
    let mut partitions = plan().partitions;
    partitions[0].position = Some(position);
    Step::Run(Running {
        partitions,
        message: "1 worker".into(),
        again: Duration::from_secs(3),
    })
}

fn conditions_of(replay: &KafkaReplay) -> Vec<(String, String, String)> {
    let conditions = replay.status.clone().unwrap().conditions.into_iter();
    conditions.map(|it| (it.type_, it.status, it.reason)).collect()
}

#[test]
fn a_replay_goes_from_its_plan_over_progress_to_the_end() {
    let stored = after(&replay_of("again", json!({})), &Step::Store(plan()), 5);
    let first = stored.status.clone().unwrap();
    assert_eq!(
        (first.phase, first.workers),
        (Some(ReplayPhase::Planned), Some(1))
    );
    assert_eq!(
        first.group_id.as_deref(),
        Some("shop.orders.replay.again.0a1b2c3d")
    );
    assert_eq!(first.job_name.as_deref(), Some("again-replay"));
    assert_eq!(
        first.planned_for,
        Some(planned_for(&group(), Some("here".into())))
    );
    let start = Instant::now();
    let mut rate = Rate::default();
    rate.add(start, 0);
    rate.add(start + Duration::from_secs(10), 40);
    let half = with_rate(&stored, &running(40), &rate, 20);
    let status = half.status.clone().unwrap();
    assert_eq!(status.records_per_second, Some(4));
    assert_eq!(status.estimated_completion_time, Some(Time(at(35))));
    let totals = status.totals.unwrap();
    assert_eq!(
        (totals.processed, totals.records, totals.percent, totals.finished),
        (40, 100, 40, 1)
    );
    let done = after(&half, &Step::Succeed(None), 40);
    let status = done.status.clone().unwrap();
    assert_eq!(
        (status.start_time, status.completion_time),
        (Some(Time(at(5))), Some(Time(at(40))))
    );
    assert_eq!(
        (status.records_per_second, status.estimated_completion_time),
        (None, None)
    );
    assert_eq!(status.totals.unwrap().percent, 100);
    assert_eq!(
        status.message.as_deref(),
        Some("processed 100 offsets of 1 partition; nothing in 1 other partition")
    );
    let expected = |kind: &str, status: &str| (kind.to_string(), status.to_string(), "Replayed".to_string());
    assert_eq!(
        conditions_of(&done),
        [expected("Complete", "True"), expected("Failed", "False")]
    );
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn while_nothing_answers_the_rate_is_unknown_and_progress_stays() {
    let stored = after(&replay_of("again", json!({})), &Step::Store(plan()), 5);
    let half = after(&stored, &running(40), 20);
    let waiting = Step::Wait(Waiting {
        reason: "KafkaUnreachable",
        message: "no route".into(),
        again: None,
    });
    let waits = after(&half, &waiting, 30);
    let status = waits.status.clone().unwrap();
    assert_eq!(status.phase, Some(ReplayPhase::Running));
    assert_eq!(status.totals.unwrap().processed, 40);
    assert_eq!(
        (status.records_per_second, status.estimated_completion_time),
        (None, None)
    );
    // Nothing new is no write.
    assert_eq!(after(&waits, &waiting, 31), waits);
}

#[test]
fn a_failure_keeps_the_progress_and_is_a_condition() {
    let half = after(
        &after(&replay_of("again", json!({})), &Step::Store(plan()), 5),
        &running(40),
        20,
    );
    let failed = after(&half, &Step::Fail(Rejection::new("GroupChanged", "x")), 30);
    let status = failed.status.clone().unwrap();
    assert_eq!(
        (status.phase, status.totals.unwrap().processed),
        (Some(ReplayPhase::Failed), 40)
    );
    let condition =
        |kind: &str, truth: &str| (kind.to_string(), truth.to_string(), "GroupChanged".to_string());
    assert_eq!(
        conditions_of(&failed),
        [condition("Complete", "False"), condition("Failed", "True")]
    );
}

#[test]
fn a_dry_run_ends_with_its_plan_and_has_no_job() {
    let shown = after(
        &replay_of("look", json!({"dryRun": true})),
        &Step::Show(plan()),
        1,
    );
    let status = shown.status.unwrap();
    assert_eq!(
        (status.phase, status.partitions.len()),
        (Some(ReplayPhase::Succeeded), 2)
    );
    assert_eq!((status.job_name, status.group_id), (None, None));
    assert!(
        status
            .message
            .unwrap()
            .starts_with("would process 100 offsets of 1 partition")
    );
}

#[test]
fn what_else_is_to_know_at_the_end_is_in_the_message() {
    let stored = after(&replay_of("again", json!({})), &Step::Store(plan()), 5);
    let done = after(
        &stored,
        &Step::Succeed(Some("the consumer group g stays".into())),
        9,
    );
    let status = done.status.unwrap();
    assert_eq!(status.notes, ["the consumer group g stays"]);
    assert!(status.message.unwrap().ends_with("; the consumer group g stays"));
}

#[test]
fn the_start_and_each_end_have_events() {
    let new = replay_of("again", json!({}));
    let stored = after(&new, &Step::Store(plan()), 5);
    let runs = after(&stored, &running(1), 6);
    let of = |before: &KafkaReplay, step: &Step| {
        let after = after(before, step, 7).status.unwrap();
        let events = events(before, &after, step);
        let reason = |event: Option<Event>| event.map(|event| event.reason);
        (reason(events.replay), reason(events.group), events.outcome)
    };
    let named = |reason: &str| Some(reason.to_string());
    assert_eq!(of(&new, &Step::Store(plan())), (None, None, None));
    assert_eq!(
        of(&stored, &running(1)),
        (named("Started"), named("ReplayStarted"), None)
    );
    assert_eq!(of(&runs, &running(2)), (None, None, None));
    assert_eq!(
        of(&runs, &Step::Succeed(None)),
        (named("Replayed"), named("Replayed"), Some("succeeded"))
    );
    assert_eq!(
        of(&new, &Step::Show(plan())),
        (named("DryRun"), None, Some("dry_run"))
    );
    let failure = Step::Fail(Rejection::new("WorkersFailed", "x"));
    assert_eq!(
        of(&runs, &failure),
        (named("WorkersFailed"), None, Some("failed"))
    );
}

#[test]
fn only_a_look_says_how_much_is_processed() {
    assert_eq!(processed(&running(40)), Some(40));
    assert_eq!(processed(&Step::Succeed(None)), None);
}
