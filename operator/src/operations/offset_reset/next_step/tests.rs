//! Tables: a phase and what surrounds the reset, and the next step.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::fixtures::{group, reset};
use crate::kafka::model::ResetPosition;

mod stored_plan;

/// Owned form of [`Situation`]: a stopped group, and a reset that nobody has looked at.
struct Scenario {
    reset: KafkaOffsetReset,
    group: Option<KafkaConsumerGroup>,
    before: Option<&'static str>,
    known_for: Duration,
    workers: Workers,
    obstructed_for: Duration,
    positions: ResetPositions,
}

impl Scenario {
    fn new(changes: serde_json::Value) -> Self {
        let mut group = group();
        group.spec.desired_state = DesiredState::Stopped;
        group.status = Some(crds::KafkaConsumerGroupStatus {
            observed_generation: group.metadata.generation,
            ..Default::default()
        });
        Self {
            reset: reset("again", changes),
            group: Some(group),
            before: None,
            known_for: Duration::ZERO,
            workers: Workers::default(),
            obstructed_for: Duration::ZERO,
            positions: positions(),
        }
    }

    /// A running group with two workers, which the reset may stop.
    fn running() -> Self {
        let mut scenario = Self::new(json!({"stopGroup": true}));
        scenario.desired(DesiredState::Running);
        scenario.workers = Workers { wanted: 2, left: 2 };
        scenario.positions.members = vec![member(), member()];
        scenario
    }

    fn desired(&mut self, state: DesiredState) {
        self.group.as_mut().unwrap().spec.desired_state = state;
    }

    fn phase(mut self, phase: ResetPhase) -> Self {
        let partitions = match phase {
            ResetPhase::Resetting => vec![planned()],
            _ => Vec::new(),
        };
        self.reset.status = Some(KafkaOffsetResetStatus {
            phase: Some(phase),
            partitions,
            ..Default::default()
        });
        self
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            reset: &self.reset,
            group: self
                .group
                .as_ref()
                .map_or(GroupState::Missing, GroupState::Present),
            before: self.before.map(String::from),
            known_for: self.known_for,
            workers: self.workers,
            obstructed_for: self.obstructed_for,
        }
    }

    /// The next step, with Kafka's answer if it is asked.
    fn step(&self) -> Step {
        self.step_with(Ok(self.positions.clone()))
    }

    fn step_with(&self, answer: Result<ResetPositions, KafkaProblem>) -> Step {
        let situation = self.situation();
        match situation.question() {
            Err(step) => step,
            Ok(Question::Positions(group, _)) => situation.after_positions(group, answer),
            Ok(Question::Commit(_)) => panic!("the plan is to be committed"),
        }
    }
}

fn positions() -> ResetPositions {
    let position = ResetPosition {
        committed: Some(7),
        metadata: Default::default(),
        log_start: 2,
        end: 9,
        at: None,
    };
    ResetPositions {
        cluster_id: None,
        topic_ids: BTreeMap::new(),
        topics: BTreeMap::from([("orders".to_string(), Some(1))]),
        partitions: BTreeMap::from([(("orders".to_string(), 0), position)]),
        members: Vec::new(),
    }
}

fn member() -> MemberFacts {
    MemberFacts {
        client_id: "console-consumer".into(),
        host: "/10.0.0.9".into(),
        assigned: 1,
        reads_others: false,
    }
}

fn planned() -> PlannedPartition {
    PlannedPartition {
        topic: "orders".into(),
        partition: 0,
        committed: Some(7),
        new: 2,
        difference: Some(-5),
        clears_metadata: false,
        log_start: 2,
        end: 9,
        record_time: None,
        note: None,
    }
}

/// A step as phase and reason.
fn short(step: &Step) -> String {
    match step {
        Step::Wait(waiting) => format!("{} {}", waiting.phase, waiting.reason),
        Step::Fail(failure) => format!("Failed {}", failure.reason),
        Step::Show(_) => "show".into(),
        Step::Store(_) => "store".into(),
        Step::Succeed => "succeed".into(),
    }
}

fn message(step: Step) -> String {
    match step {
        Step::Wait(waiting) => waiting.message,
        Step::Fail(failure) => failure.message,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_stopped_group_is_reset_at_once() {
    let Step::Store(plan) = Scenario::new(json!({})).step() else {
        panic!("no plan")
    };
    assert_eq!((plan.partitions[0].new, plan.totals.again), (2, 5));
}

#[test]
fn a_running_group_is_reset_after_its_workers_are_gone() {
    let mut scenario = Scenario::running();
    assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
    scenario = scenario.phase(ResetPhase::Stopping);
    // The Deployment is not scaled yet, then workers drain, then the last one is still a member.
    assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
    scenario.workers = Workers { wanted: 0, left: 1 };
    let waits = message(scenario.step());
    assert!(waits.starts_with("1 worker left to drain"), "{waits}");
    scenario.workers.left = 0;
    assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
    scenario.positions.members = Vec::new();
    assert_eq!(short(&scenario.step()), "store");
    // A pod on a node that does not answer is no member.
    scenario.workers.left = 1;
    assert_eq!(short(&scenario.step()), "store");
    // Not before the group is held, even if no worker has joined yet.
    scenario.workers.wanted = 2;
    assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
}

#[test]
fn a_group_that_is_to_be_stopped_is_reset_when_its_workers_have_drained() {
    for stops in [true, false] {
        let mut scenario = Scenario::new(json!({"stopGroup": stops}));
        scenario.workers = Workers { wanted: 0, left: 1 };
        scenario.positions.members = vec![member()];
        assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
        scenario = scenario.phase(ResetPhase::Stopping);
        scenario.workers.left = 0;
        scenario.positions.members = Vec::new();
        assert_eq!(short(&scenario.step()), "store");
    }
}

#[test]
fn a_group_that_runs_is_refused_without_stop_group_also_if_it_was_started_meanwhile() {
    for state in [DesiredState::Running, DesiredState::Paused] {
        let mut scenario = Scenario::new(json!({}));
        scenario.desired(state);
        assert_eq!(short(&scenario.step()), "Failed GroupNotStopped");
        let why = message(scenario.step());
        assert!(
            why.contains("stopGroup: true") && why.contains("kubectl patch kcg orders -n shop"),
            "{why}"
        );
        assert_eq!(
            short(&scenario.phase(ResetPhase::Stopping).step()),
            "Failed GroupNotStopped"
        );
    }
}

#[test]
fn other_members_are_waited_for_and_then_named() {
    let mut scenario = Scenario::new(json!({})).phase(ResetPhase::Stopping);
    scenario.positions.members = vec![member()];
    let Step::Wait(waiting) = scenario.step() else {
        panic!("no wait")
    };
    assert!(waiting.obstructed, "{waiting:?}");
    scenario.obstructed_for = LEAVES_WITHIN;
    let failed = scenario.step();
    assert_eq!(short(&failed), "Failed GroupNotEmpty");
    let why = message(failed);
    assert!(
        why.contains("console-consumer") && why.contains("10.0.0.9") && why.contains("nothing was changed"),
        "{why}"
    );
    // As long as a worker drains, nothing else is in the way.
    scenario.workers.left = 1;
    let Step::Wait(waiting) = scenario.step() else {
        panic!("no wait")
    };
    assert!(!waiting.obstructed, "{waiting:?}");
}

#[test]
fn a_dry_run_needs_nothing_but_kafka() {
    let mut scenario = Scenario::running();
    scenario.reset = reset("look", json!({"dryRun": true}));
    scenario.before = Some("first");
    assert_eq!(short(&scenario.step()), "show");
    scenario.positions.topics = BTreeMap::from([("orders".to_string(), None)]);
    scenario.known_for = APPEARS_WITHIN;
    assert_eq!(short(&scenario.step()), "Failed TopicMissing");
}

#[test]
fn one_reset_of_a_group_at_a_time() {
    let mut scenario = Scenario::new(json!({}));
    scenario.before = Some("first");
    assert_eq!(short(&scenario.step()), "Pending WaitingForReset");
    let why = message(scenario.step());
    assert!(why.contains("kubectl delete kor first -n shop"), "{why}");
}

#[test]
fn what_was_applied_together_with_the_reset_may_come_later() {
    let mut scenario = Scenario::new(json!({}));
    scenario.group = None;
    assert_eq!(short(&scenario.step()), "Pending GroupNotFound");
    scenario.known_for = APPEARS_WITHIN;
    assert_eq!(short(&scenario.step()), "Failed GroupNotFound");
    let mut scenario = Scenario::new(json!({}));
    scenario.positions.topics = BTreeMap::from([("orders".to_string(), None)]);
    assert_eq!(short(&scenario.step()), "Pending TopicMissing");
    scenario.known_for = APPEARS_WITHIN;
    assert_eq!(short(&scenario.step()), "Failed TopicMissing");
    let missing = || Rejection::new("SecretMissing", "create it");
    assert_eq!(
        short(&scenario.situation().appears(missing())),
        "Failed SecretMissing"
    );
    // A stored plan is not given up for that.
    let scenario = scenario.phase(ResetPhase::Resetting);
    assert_eq!(
        short(&scenario.situation().appears(missing())),
        "Resetting SecretMissing"
    );
}

#[test]
fn a_topic_of_another_group_is_refused_before_the_group_is_stopped() {
    let mut scenario = Scenario::running();
    scenario.reset = reset(
        "again",
        json!({"stopGroup": true, "topics": [{"topic": "retruns"}]}),
    );
    let failed = scenario.step();
    assert_eq!(short(&failed), "Failed TopicNotInGroup");
    assert!(
        message(failed).contains("orders"),
        "names the topics that there are"
    );
}

#[test]
fn a_group_that_could_not_start_again_is_not_stopped() {
    let mut scenario = Scenario::running();
    let group = scenario.group.as_mut().unwrap();
    group.status = Some(crds::KafkaConsumerGroupStatus {
        observed_generation: group.metadata.generation,
        conditions: serde_json::from_value(json!([{
            "type": "Accepted", "status": "False", "reason": "SecretMissing", "message": "create it",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]))
        .unwrap(),
        ..Default::default()
    });
    assert_eq!(short(&scenario.step()), "Failed GroupNotAccepted");
    // Once it is stopped, it is stopped.
    scenario = scenario.phase(ResetPhase::Stopping);
    assert_eq!(short(&scenario.step()), "Stopping WaitingForMembers");
    let mut stopped = Scenario::new(json!({}));
    stopped.group.as_mut().unwrap().status = scenario.group.and_then(|group| group.status);
    assert_eq!(short(&stopped.step()), "store");
}

#[test]
fn a_group_whose_spec_is_not_checked_yet_is_not_stopped() {
    let mut scenario = Scenario::running();
    scenario.group.as_mut().unwrap().metadata.generation = Some(3);
    assert_eq!(short(&scenario.step()), "Pending WaitingForGroup");
    let status = scenario.group.as_mut().unwrap().status.take();
    assert_eq!(short(&scenario.step()), "Pending WaitingForGroup");
    // Neither does a stopped group wait, nor one that is stopped for the reset already.
    scenario.desired(DesiredState::Stopped);
    scenario.workers = Workers::default();
    scenario.positions.members = Vec::new();
    assert_eq!(short(&scenario.step()), "store");
    scenario.group.as_mut().unwrap().status = status;
    scenario.desired(DesiredState::Running);
    assert_eq!(short(&scenario.phase(ResetPhase::Stopping).step()), "store");
}

#[test]
fn an_unreadable_group_fails() {
    let scenario = Scenario::new(json!({}));
    let mut situation = scenario.situation();
    situation.group = GroupState::Unreadable("missing field `topics`");
    let Err(step) = situation.question() else {
        panic!("a question")
    };
    assert_eq!(short(&step), "Failed GroupUnreadable");
}

#[test]
fn an_unreachable_kafka_is_waited_for_in_every_phase_and_a_refusal_fails() {
    let unreachable = || KafkaProblem::Unreachable("no answer (after 5ms in state CONNECT)".into());
    let denied = || KafkaProblem::AuthorizationFailed("group".into());
    let open = KafkaProblem::TransactionOpen("offsets".into());
    let stopping = Scenario::new(json!({})).phase(ResetPhase::Stopping);
    assert_eq!(short(&stopping.step_with(Err(open))), "Stopping TransactionOpen");
    for phase in [ResetPhase::Pending, ResetPhase::Stopping] {
        let scenario = Scenario::new(json!({})).phase(phase);
        let Step::Wait(waiting) = scenario.step_with(Err(unreachable())) else {
            panic!("no wait")
        };
        assert_eq!((waiting.phase, waiting.again), (phase, None));
        assert!(
            !waiting.message.contains("5ms"),
            "each attempt would be a write: {}",
            waiting.message
        );
        assert_eq!(
            short(&scenario.step_with(Err(denied()))),
            "Failed AuthorizationFailed"
        );
    }
    let scenario = Scenario::new(json!({})).phase(ResetPhase::Resetting);
    let situation = scenario.situation();
    assert_eq!(
        short(&situation.after_commit(Err(unreachable()))),
        "Resetting KafkaUnreachable"
    );
    let failed = situation.after_commit(Err(denied()));
    assert_eq!(short(&failed), "Failed AuthorizationFailed");
    assert!(
        message(failed).contains("may be set"),
        "says what may have changed"
    );
}
