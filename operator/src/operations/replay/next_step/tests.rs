//! Tables: a phase and what surrounds the replay, and the next step.

use std::collections::BTreeMap;

use crds::KafkaReplayStatus;
use crds::offset_reset::PlannedFor;
use crds::replay::ReplayPartition;
use serde_json::json;

use super::*;
use crate::fixtures::{group, replay as replay_of, secured_group, validated};
use crate::kafka::model::{MemberFacts, PartlyCommitted, ResetPosition};

mod workers;

/// Owned form of [`Situation`].
struct Scenario {
    replay: KafkaReplay,
    group: Option<KafkaConsumerGroup>,
    known_for: Duration,
    done_for: Duration,
}

impl Scenario {
    fn new(changes: serde_json::Value) -> Self {
        Self {
            replay: replay_of("again", changes),
            group: Some(group()),
            known_for: Duration::ZERO,
            done_for: Duration::ZERO,
        }
    }

    /// With a stored plan of two partitions.
    fn in_phase(phase: ReplayPhase) -> Self {
        let mut scenario = Self::new(json!({}));
        scenario.replay.status = Some(KafkaReplayStatus {
            phase: Some(phase),
            group_id: Some("shop.orders.replay.again.0a1b2c3d".into()),
            workers: Some(2),
            partitions: vec![planned(0, 0, 10), planned(1, 5, 15)],
            planned_for: Some(PlannedFor {
                group_uid: "1-2-3".into(),
                cluster_id: Some("here".into()),
                bootstrap_servers: vec!["kafka:9092".into()],
            }),
            ..Default::default()
        });
        scenario
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            replay: &self.replay,
            group: self
                .group
                .as_ref()
                .map_or(GroupState::Missing, GroupState::Present),
            known_for: self.known_for,
            done_for: self.done_for,
        }
    }

    fn after_look(&self, look: Look) -> Next {
        self.situation().after_look(&group(), Ok(look))
    }
}

fn planned(partition: i32, from: i64, to: i64) -> ReplayPartition {
    ReplayPartition {
        topic: "orders".into(),
        topic_id: Some("id-1".into()),
        partition,
        from,
        to,
        position: None,
        from_time: None,
        note: None,
    }
}

fn positions(committed: [Option<i64>; 2]) -> ResetPositions {
    let position = |committed| ResetPosition {
        committed,
        metadata: Default::default(),
        log_start: 0,
        end: 20,
        at: None,
    };
    let partitions = (0..).zip(committed);
    ResetPositions {
        cluster_id: Some("here".into()),
        topics: BTreeMap::from([("orders".to_string(), Some(2))]),
        topic_ids: BTreeMap::from([("orders".to_string(), "id-1".to_string())]),
        partitions: partitions
            .map(|(index, committed)| (("orders".to_string(), index), position(committed)))
            .collect(),
        members: Vec::new(),
    }
}

fn look(committed: [Option<i64>; 2], job: Job) -> Look {
    Look {
        positions: positions(committed),
        job,
        ends: Vec::new(),
        alive: 0,
    }
}

fn reason(step: &Step) -> &'static str {
    match step {
        Step::Wait(waiting) => waiting.reason,
        Step::Fail(refused) => refused.reason,
        Step::Show(_) => "Show",
        Step::Store(_) => "Store",
        Step::Run(_) => "Run",
        Step::Succeed(_) => "Succeed",
    }
}

fn unreachable() -> KafkaProblem {
    KafkaProblem::Unreachable("no route".into())
}

fn forbidden() -> KafkaProblem {
    KafkaProblem::AuthorizationFailed("group: GROUP_AUTHORIZATION_FAILED".into())
}

#[test]
fn a_group_may_appear_within_seconds_and_its_deletion_ends_a_replay_that_runs() {
    let mut scenario = Scenario::new(json!({}));
    scenario.group = None;
    let step = |scenario: &Scenario| scenario.situation().question().unwrap_err();
    let waits = step(&scenario);
    assert!(
        matches!(&waits, Step::Wait(waiting) if waiting.reason == "GroupNotFound"),
        "{waits:?}"
    );
    scenario.known_for = APPEARS_WITHIN;
    assert!(matches!(step(&scenario), Step::Fail(refused) if refused.reason == "GroupNotFound"));
    for phase in [ReplayPhase::Planned, ReplayPhase::Running] {
        let mut scenario = Scenario::in_phase(phase);
        scenario.group = None;
        assert!(matches!(step(&scenario), Step::Fail(refused) if refused.reason == "GroupChanged"));
        scenario.group = Some(group());
        assert!(scenario.situation().question().is_ok());
        scenario.group.as_mut().unwrap().metadata.uid = Some("another".into());
        assert!(matches!(step(&scenario), Step::Fail(refused) if refused.reason == "GroupChanged"));
    }
}

#[test]
fn a_stored_plan_is_never_made_again_and_keeps_its_consumer_group() {
    let scenario = Scenario::new(json!({}));
    let Ok(Question::Plan(_, queries)) = scenario.situation().question() else {
        panic!("there is no plan yet");
    };
    assert_eq!(queries.from.group_id, "shop.orders.replay.again.0a1b2c3d");
    let mut scenario = Scenario::in_phase(ReplayPhase::Planned);
    scenario.group.as_mut().unwrap().spec.group_id = Some("renamed".into());
    let Ok(Question::Progress(_, query)) = scenario.situation().question() else {
        panic!("the plan is stored");
    };
    assert_eq!(query.group_id, "shop.orders.replay.again.0a1b2c3d");
    assert_eq!(query.topics["orders"], [0, 1]);
}

#[test]
fn later_replays_of_the_same_name_have_another_consumer_group() {
    let first = group_id_of("shop.orders", "again", "0a1b2c3d-4e5f");
    let second = group_id_of("shop.orders", "again", "99999999-4e5f");
    assert_ne!(first, second);
    assert!(first.starts_with("shop.orders.replay.again."), "{first}");
}

#[test]
fn a_plan_is_shown_or_stored_if_the_group_could_run() {
    let answers = || Answers {
        from: positions([None, None]),
        to: None,
    };
    let valid = validated();
    let after = |changes, answers| {
        let scenario = Scenario::new(changes);
        scenario
            .situation()
            .after_answers(&secured_group(), &valid, answers)
    };
    assert!(matches!(after(json!({}), Ok(answers())), Step::Store(plan) if plan.totals.records == 40));
    assert!(matches!(
        after(json!({"dryRun": true}), Ok(answers())),
        Step::Show(_)
    ));
    assert_eq!(
        reason(&after(json!({"writers": ["typo"]}), Ok(answers()))),
        "WriterNotInGroup"
    );
    assert!(matches!(after(json!({}), Err(unreachable())), Step::Wait(_)));
    assert!(matches!(after(json!({}), Err(forbidden())), Step::Fail(_)));
    // A topic with provision may be created in a moment.
    let mut missing = answers();
    missing.from.topics.insert("orders".into(), None);
    let waits = after(json!({}), Ok(missing));
    assert!(
        matches!(&waits, Step::Wait(waiting) if waiting.reason == "TopicMissing"),
        "{waits:?}"
    );
}

#[test]
fn a_plan_that_does_not_fit_into_a_config_map_is_refused_before_it_is_stored() {
    let topic = "o".repeat(140);
    let mut many = positions([None, None]);
    let position = many.partitions[&("orders".to_string(), 0)];
    let of = |index| ((topic.clone(), index), position);
    many.partitions = (0..4000).map(of).collect();
    many.topics = BTreeMap::from([(topic.clone(), Some(4000))]);
    let mut group = secured_group();
    group.spec.topics[0].name = topic;
    let answers = Answers { from: many, to: None };
    let mut valid = validated();
    valid.spec = group.spec.clone();
    let scenario = Scenario::new(json!({}));
    let after = |valid: &ValidatedGroup| {
        let answers = answers.clone();
        scenario.situation().after_answers(&group, valid, Ok(answers))
    };
    assert_eq!(reason(&after(&valid)), "Store");
    let program = json!({"name": "long", "type": "Vrl", "vrl": {"source": "#".repeat(300_000)}});
    valid.transforms = vec![serde_json::from_value(program).unwrap()];
    let Step::Fail(refused) = after(&valid) else {
        panic!("the API server would refuse the ConfigMap, after the plan is stored");
    };
    assert!(refused.message.contains("ConfigMap"), "{}", refused.message);
}

#[test]
fn a_group_that_could_not_run_is_refused_and_a_program_that_is_compiled_is_awaited() {
    let mut scenario = Scenario::new(json!({}));
    let why = |reason| Rejection::new(reason, "because");
    let of = |scenario: &Scenario, reason| scenario.situation().not_accepted(&group(), why(reason));
    assert!(matches!(of(&scenario, "SecretMissing"), Step::Wait(_)));
    scenario.known_for = APPEARS_WITHIN;
    assert_eq!(reason(&of(&scenario, "SecretMissing")), "GroupNotAccepted");
    assert!(matches!(of(&scenario, NOT_COMPILED), Step::Wait(_)));
}

#[test]
fn workers_are_created_while_they_are_missing_also_if_somebody_has_deleted_them() {
    for phase in [ReplayPhase::Planned, ReplayPhase::Running] {
        let scenario = Scenario::in_phase(phase);
        assert_eq!(
            scenario.after_look(look([None, Some(7)], Job::Missing)),
            Next::Launch
        );
    }
}

#[test]
fn kafka_may_be_unreachable_or_refuse_while_workers_run() {
    let scenario = Scenario::in_phase(ReplayPhase::Running);
    for problem in [unreachable(), forbidden()] {
        let step = scenario.situation().after_look(&group(), Err(problem));
        assert!(matches!(step, Next::Step(Step::Wait(_))), "{step:?}");
    }
}

#[test]
fn workers_wait_for_the_start_offsets() {
    let scenario = Scenario::in_phase(ReplayPhase::Planned);
    let after = |answer| {
        scenario
            .situation()
            .after_commit(answer)
            .map(|step| reason(&step))
    };
    assert_eq!(after(Ok(ResetOutcome::Committed)), None);
    assert_eq!(
        after(Ok(ResetOutcome::Members(Vec::<MemberFacts>::new()))),
        Some("CommittingStart")
    );
    let partly = PartlyCommitted::default();
    assert_eq!(after(Ok(ResetOutcome::Partly(partly))), Some("CommittingStart"));
    assert_eq!(
        after(Ok(ResetOutcome::OtherCluster("x".into()))),
        Some("GroupChanged")
    );
    assert_eq!(after(Err(unreachable())), Some("KafkaUnreachable"));
    // Who corrects the rights need not create the replay again.
    let step = scenario.situation().after_commit(Err(forbidden()));
    assert!(matches!(step, Some(Step::Wait(_))), "{step:?}");
}

#[test]
fn a_consumer_group_that_cannot_be_deleted_does_not_make_a_replay_fail() {
    let mut scenario = Scenario::in_phase(ReplayPhase::Running);
    let after = |scenario: &Scenario, answer| scenario.situation().after_delete("g", answer);
    assert_eq!(after(&scenario, Ok(Deleted::Gone)), Step::Succeed(None));
    assert!(matches!(after(&scenario, Ok(Deleted::HasMembers)), Step::Wait(_)));
    assert!(matches!(after(&scenario, Err(unreachable())), Step::Wait(_)));
    let Step::Succeed(Some(note)) = after(&scenario, Err(forbidden())) else {
        panic!("all records are processed");
    };
    assert!(
        note.contains("consumer group g stays") && note.contains("ACL Delete"),
        "{note}"
    );
    scenario.done_for = LEAVES_WITHIN;
    for answer in [Ok(Deleted::HasMembers), Err(unreachable())] {
        assert!(matches!(after(&scenario, answer), Step::Succeed(Some(_))));
    }
}
