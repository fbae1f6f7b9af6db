//! A replay whose workers run, or have run.

use crds::client_config::transactional_ids;

use super::super::super::configuration::narrowed;
use super::super::super::progress::unconfirmed;
use super::*;
use crate::fixtures::validated;

#[test]
fn progress_is_what_is_committed_and_what_is_unknown_stays_as_it_was() {
    let mut scenario = Scenario::in_phase(ReplayPhase::Running);
    scenario.replay.status.as_mut().unwrap().partitions[1].position = Some(8);
    let Next::Step(Step::Run(running)) = scenario.after_look(look([Some(3), None], Job::Active(2))) else {
        panic!("it runs");
    };
    let known: Vec<_> = running
        .partitions
        .iter()
        .map(|planned| planned.position)
        .collect();
    assert_eq!(known, [Some(3), Some(8)]);
    assert!(
        running
            .message
            .starts_with("workers: 2; to process: 20 offsets of 2 partitions"),
        "{}",
        running.message
    );
}

#[test]
fn a_worker_that_cannot_start_is_named_and_one_that_was_replaced_is_not() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    let message = |workers, exit_code| {
        let mut look = look([None, None], Job::Active(workers));
        look.ends = vec![PodEnd {
            name: "again-replay-x".into(),
            exit_code,
            problem: Some("image registry/worker:1 cannot be pulled".into()),
        }];
        match scenario.after_look(look) {
            Next::Step(Step::Run(running)) => running.message,
            other => panic!("it may start later: {other:?}"),
        }
    };
    let named = "; pod again-replay-x: image registry/worker:1 cannot be pulled";
    for (workers, exit_code, is_named) in [(1, None, true), (1, Some(137), false), (0, Some(137), true)] {
        let message = message(workers, exit_code);
        assert_eq!(message.ends_with(named), is_named, "{message}");
    }
}

#[test]
fn the_consumer_group_is_deleted_only_when_no_worker_can_start_any_more() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    let all = [Some(10), Some(15)];
    // The Job would replace a pod, and the new worker would find nothing committed.
    assert!(matches!(
        scenario.after_look(look(all, Job::Active(1))),
        Next::Settle(_)
    ));
    assert!(matches!(
        scenario.after_look(look(all, Job::Active(0))),
        Next::Settle(_)
    ));
    let mut stopping = look(all, Job::Missing);
    stopping.alive = 1;
    assert!(matches!(scenario.after_look(stopping), Next::Settle(_)));
    let done = stored_as_done();
    assert_eq!(done.after_look(look(all, Job::Missing)), Next::Finish);
    assert_eq!(done.after_look(look(all, Job::Complete)), Next::Finish);
}

/// The status says that everything is processed.
fn stored_as_done() -> Scenario {
    let mut scenario = Scenario::in_phase(ReplayPhase::Running);
    for planned in &mut scenario.replay.status.as_mut().unwrap().partitions {
        planned.position = Some(planned.to);
    }
    scenario
}

#[test]
fn the_status_says_that_everything_is_processed_before_the_consumer_group_is_deleted() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    for job in [Job::Missing, Job::Complete, Job::Failed("x".into())] {
        let next = scenario.after_look(look([Some(10), Some(15)], job));
        let Next::Step(Step::Run(running)) = next else {
            panic!("an operator that is killed now would replay everything: {next:?}");
        };
        assert!(running.partitions.iter().all(ReplayPartition::is_finished));
    }
    // The consumer group is deleted, and the end is not in the status yet.
    for job in [Job::Missing, Job::Complete] {
        assert_eq!(stored_as_done().after_look(look([None, None], job)), Next::Finish);
    }
}

#[test]
fn a_worker_that_ends_with_success_and_leaves_offsets_does_not_make_the_replay_succeed() {
    let mut scenario = Scenario::in_phase(ReplayPhase::Running);
    let left = || look([Some(10), Some(7)], Job::Complete);
    // The offsets of the last transaction may be visible in a moment.
    assert!(matches!(scenario.after_look(left()), Next::Settle(Step::Run(_))));
    scenario.done_for = COMMITTED_WITHIN;
    let Next::Step(Step::Fail(refused)) = scenario.after_look(left()) else {
        panic!("8 offsets are left");
    };
    assert_eq!(refused.reason, "WorkersFailed");
    assert!(refused.message.contains("8 offsets of 20"), "{}", refused.message);
}

#[test]
fn a_topic_that_is_deleted_after_it_was_processed_does_not_matter() {
    let mut late = look([Some(10), Some(15)], Job::Active(1));
    late.positions.topics = BTreeMap::from([("orders".to_string(), None)]);
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    assert!(matches!(scenario.after_look(late.clone()), Next::Settle(_)));
    late.positions.partitions.clear();
    assert!(matches!(
        stored_as_done().after_look(late.clone()),
        Next::Settle(_)
    ));
    let next = scenario.after_look(late);
    assert!(
        matches!(&next, Next::Step(Step::Fail(refused)) if refused.reason == "PlanOutdated"),
        "{next:?}"
    );
}

#[test]
fn what_the_workers_have_reported_counts_when_the_group_is_gone() {
    let mut scenario = stored_as_done();
    scenario.group = None;
    let situation = scenario.situation();
    let step = situation.question().unwrap_err();
    assert!(situation.has_lost_group(&step) && situation.is_stored_as_done());
    let note = unconfirmed(&scenario.replay);
    assert!(note.contains("shop.orders.replay.again.0a1b2c3d stays"), "{note}");
    let mut scenario = Scenario::in_phase(ReplayPhase::Running);
    scenario.group = None;
    assert!(!scenario.situation().is_stored_as_done());
    let mut new = Scenario::new(json!({}));
    new.group = None;
    let step = new.situation().question().unwrap_err();
    assert!(!new.situation().has_lost_group(&step) && !new.situation().is_stored_as_done());
}

#[test]
fn what_is_missing_is_awaited_once_records_may_be_processed() {
    for phase in [ReplayPhase::Planned, ReplayPhase::Running] {
        let mut scenario = Scenario::in_phase(phase);
        scenario.known_for = APPEARS_WITHIN;
        let step = scenario
            .situation()
            .appears(Rejection::new("SecretMissing", "gone"));
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
    }
}

#[test]
fn a_replay_without_records_needs_no_worker() {
    let mut scenario = Scenario::in_phase(ReplayPhase::Planned);
    scenario.replay.status.as_mut().unwrap().partitions = vec![planned(0, 4, 4)];
    assert_eq!(
        scenario.after_look(look([None, None], Job::Missing)),
        Next::Finish
    );
}

#[test]
fn a_plan_that_does_not_fit_any_more_ends_the_replay() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    let after = |edit: fn(&mut ResetPositions)| {
        let mut look = look([None, None], Job::Active(2));
        edit(&mut look.positions);
        match scenario.after_look(look) {
            Next::Step(step) => reason(&step),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(after(|_| {}), "Run");
    assert_eq!(
        after(|now| now.cluster_id = Some("elsewhere".into())),
        "GroupChanged"
    );
    assert_eq!(after(|now| now.cluster_id = None), "Run");
    assert_eq!(
        after(|now| drop(now.topic_ids.insert("orders".into(), "id-2".into()))),
        "PlanOutdated"
    );
    assert_eq!(after(|now| now.topic_ids.clear()), "Run");
    assert_eq!(
        after(|now| now.topics = BTreeMap::from([("orders".to_string(), None)])),
        "PlanOutdated"
    );
}

#[test]
fn a_job_that_has_given_up_says_why() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    let fails = |code: i32, said: &str| {
        let mut look = look([None, None], Job::Failed("BackoffLimitExceeded: too many".into()));
        look.ends = vec![PodEnd {
            name: "again-replay-x".into(),
            exit_code: Some(code),
            problem: Some(said.into()),
        }];
        match scenario.after_look(look) {
            Next::Step(Step::Fail(refused)) => refused,
            other => panic!("{other:?}"),
        }
    };
    let outdated = fails(7, "topic orders was deleted");
    assert_eq!(outdated.reason, "PlanOutdated");
    assert!(
        outdated.message.contains("topic orders was deleted"),
        "{}",
        outdated.message
    );
    let crashed = fails(101, "ended with exit code 101: panicked");
    assert_eq!(crashed.reason, "WorkersFailed");
    for part in [
        "BackoffLimitExceeded: too many",
        "panicked",
        "KafkaConsumerGroup orders",
    ] {
        assert!(crashed.message.contains(part), "{}", crashed.message);
    }
}

#[test]
fn a_replay_uses_only_its_writers_and_what_they_reference() {
    let only = replay_of("again", json!({"writers": ["db"]}));
    let group = narrowed(&only, &validated()).unwrap();
    let names: Vec<_> = group
        .spec
        .writers
        .iter()
        .map(|writer| writer.name.as_str())
        .collect();
    assert_eq!(names, ["db"]);
    let mounted: Vec<String> = group
        .references
        .mounted_objects()
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert!(
        mounted.contains(&"db".to_string()) && !mounted.contains(&"api".to_string()),
        "{mounted:?}"
    );
    let config = configuration(&only, &group, &[planned(0, 0, 10)], 1, "g");
    assert_eq!((config.group_id.as_str(), config.writers.len()), ("g", 1));
    assert_eq!(config.until.unwrap().partitions.len(), 1);
}

#[test]
fn large_plans_are_looked_at_less_often() {
    assert_eq!(interval(1).as_secs(), 3);
    assert_eq!(interval(4096).as_secs(), 35);
}

#[test]
fn transactions_of_a_replay_are_not_those_of_the_group_and_need_no_other_acl() {
    let group = "shop.orders";
    let replay = group_id_of(group, "again", "0a1b2c3d-4e5f");
    let of_group = transactional_ids(group, "orders-worker-a");
    let of_replay = transactional_ids(&replay, "again-replay-a");
    assert!(of_replay.iter().all(|id| !of_group.contains(id)));
    // A worker of another replay, or of the group, may have the same name.
    let same_name = transactional_ids(group, "again-replay-a");
    assert!(of_replay.iter().all(|id| !same_name.contains(id)));
    let prefix = format!("{group}.");
    assert!(
        of_replay.iter().all(|id| id.starts_with(&prefix)),
        "{of_replay:?}"
    );
}
