//! Tables: one edit of a group that is well, and what its conditions say then.

use super::inputs::Failure;
use super::*;
use crate::controller::pods::{PodFacts, PodProblem};
use crate::fixtures::{facts, group, lag};
use crate::group::rejection::Finding;
use crate::group::scaling::Limit;
use crate::kafka::model::{GroupFacts, KafkaProblem, KafkaView, MemberFacts};
use crds::spec::{DesiredState, KafkaConsumerGroupSpec};
use crds::status::WorkerStatus;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

/// Owned form of [`Inputs`], of a group that is well.
struct World {
    spec: KafkaConsumerGroupSpec,
    acceptance: Result<Option<Finding>, Rejection>,
    kafka: KafkaView,
    decision: Option<Decision>,
    deployment: Option<Deployment>,
    pods: Vec<PodFacts>,
    failure: Option<Failure>,
    old: KafkaConsumerGroupStatus,
    settling: bool,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn deployment(wanted: i32, ready: i32, updated: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "orders-worker", "generation": 2},
        "spec": {"replicas": wanted, "selector": {}, "template": {}},
        "status": {"observedGeneration": 2, "replicas": wanted, "readyReplicas": ready, "updatedReplicas": updated},
    }))
    .unwrap()
}

fn stable(assigned: i32) -> GroupFacts {
    let member = MemberFacts {
        client_id: "a".into(),
        host: "/10.0.0.1".into(),
        assigned,
    };
    GroupFacts {
        state: "Stable".into(),
        members: vec![member],
        assigned_partitions: Some(assigned),
    }
}

fn pod(index: i32) -> PodFacts {
    PodFacts {
        name: format!("orders-worker-{index}"),
        ready: true,
        ..PodFacts::default()
    }
}

impl World {
    fn well() -> Self {
        let mut facts = facts(&[("orders", Some(6))]);
        facts.group = Some(stable(6));
        facts.lag = Some(lag(&[4, 0, 0, 0, 0, 1]));
        Self {
            spec: group().spec,
            acceptance: Ok(None),
            kafka: KafkaView::Known(facts),
            decision: Some(Decision {
                replicas: 6,
                recommended: Some(6),
                limited_by: Limit::None,
                reason: "6 partitions, 1 per worker, ask for 6".into(),
            }),
            deployment: Some(deployment(6, 6, 6)),
            pods: (0..6).map(pod).collect(),
            failure: None,
            old: KafkaConsumerGroupStatus::default(),
            settling: false,
        }
    }

    fn group_state(&mut self, state: &str, assigned: Option<i32>) {
        let KafkaView::Known(facts) = &mut self.kafka else {
            panic!("not known")
        };
        let group = facts.group.as_mut().unwrap();
        (group.state, group.assigned_partitions) = (state.into(), assigned);
    }

    fn trouble(&mut self, reason: &'static str) {
        self.deployment = Some(deployment(6, 5, 6));
        self.pods[3].ready = false;
        self.pods[3].problem = Some(PodProblem {
            reason,
            message: "because".into(),
        });
    }

    fn complain(&mut self, reason: &str) {
        self.old.workers = vec![WorkerStatus {
            name: "orders-worker-1".into(),
            paused_reason: Some(reason.into()),
            last_error: Some("connection refused".into()),
            reported_at: Some(now()),
            ..Default::default()
        }];
    }

    fn computed(&self) -> Computed {
        compute(&Inputs {
            name: "orders",
            generation: Some(2),
            spec: &self.spec,
            group_id: "shop.orders".into(),
            image: Some("registry/worker:1"),
            acceptance: match &self.acceptance {
                Ok(warning) => Ok(warning.as_ref()),
                Err(rejection) => Err(rejection),
            },
            kafka: &self.kafka,
            decision: self.decision.as_ref(),
            deployment: self.deployment.as_ref(),
            pods: &self.pods,
            failure: self.failure.as_ref(),
            old: &self.old,
            settling: self.settling,
            now: now(),
        })
    }
}

fn says(computed: &Computed, kind: &str) -> String {
    let condition = conditions::find(&computed.status.conditions, kind).unwrap();
    format!("{}/{}", condition.status, condition.reason)
}

#[test]
fn a_group_that_is_well_says_so_everywhere() {
    let computed = World::well().computed();
    for (kind, expected) in [
        ("Ready", "True/AllPartitionsConsumed"),
        ("Accepted", "True/Accepted"),
        ("KafkaReachable", "True/BrokersAnswer"),
        ("LagKnown", "True/LagRead"),
        ("WorkersAvailable", "True/AllWorkersReady"),
        ("Consuming", "True/Consuming"),
        ("ScalingLimited", "False/NotLimited"),
        ("Reconciling", "False/Settled"),
        ("Stalled", "False/NotStalled"),
    ] {
        assert_eq!(says(&computed, kind), expected, "{kind}");
    }
    assert!(computed.healthy && !computed.converging);
    let status = computed.status;
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas),
        (Some(6), Some(6), Some(6))
    );
    assert_eq!(
        status.partitions,
        Some(PartitionsStatus {
            total: 6,
            assigned: Some(6),
            stalled: None,
        })
    );
    let lag = status.lag.unwrap();
    assert_eq!(
        (lag.total, lag.max, lag.max_partition.as_deref()),
        (5, 4, Some("orders-0"))
    );
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(status.group_state.as_deref(), Some("Stable"));
}

type Edit = fn(&mut World);

/// Edit, Ready, Stalled, Reconciling.
const TABLE: &[(&str, Edit, &str, &str, &str)] = &[
    (
        "a rejected spec waits for a human",
        |world| world.acceptance = Err(Rejection::new("TransformInvalid", "line 1")),
        "False/TransformInvalid",
        "True/TransformInvalid",
        "False/Stalled",
    ),
    (
        "an unreachable cluster comes back by itself",
        |world| world.kafka = KafkaView::Failed(KafkaProblem::Unreachable("no route".into())),
        "False/KafkaUnreachable",
        "False/NotStalled",
        "False/Settled",
    ),
    (
        "a refused login needs a human",
        |world| world.kafka = KafkaView::Failed(KafkaProblem::AuthenticationFailed("bad".into())),
        "False/AuthenticationFailed",
        "True/AuthenticationFailed",
        "False/Stalled",
    ),
    (
        "missing workers are a rollout",
        |world| world.deployment = Some(deployment(6, 4, 6)),
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "old pods are a rollout even when all are ready",
        |world| world.deployment = Some(deployment(6, 6, 3)),
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "a Deployment that has not seen its spec is a rollout",
        |world| {
            let deployment = world.deployment.as_mut().unwrap();
            deployment.metadata.generation = Some(3);
        },
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "an image that cannot be pulled",
        |world| world.trouble("ImagePullFailed"),
        "False/ImagePullFailed",
        "True/ImagePullFailed",
        "False/Stalled",
    ),
    (
        "a crashing worker",
        |world| world.trouble("CrashLooping"),
        "False/CrashLooping",
        "True/CrashLooping",
        "False/Stalled",
    ),
    (
        "the trouble of a pod that leaves is no trouble",
        |world| {
            world.trouble("CrashLooping");
            world.pods[3].terminating = true;
        },
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "workers that have not joined yet",
        |world| world.group_state("PreparingRebalance", None),
        "False/PartitionsNotOwned",
        "False/NotStalled",
        "True/Joining",
    ),
    (
        "a partition without owner",
        |world| world.group_state("Stable", Some(5)),
        "False/PartitionsNotOwned",
        "False/NotStalled",
        "True/Joining",
    ),
    (
        "a writer that is down will come back",
        |world| world.complain("WriterUnavailable"),
        "False/WriterUnavailable",
        "False/NotStalled",
        "False/Settled",
    ),
    (
        "a record that nothing can write needs a human",
        |world| world.complain("RecordFailed"),
        "False/RecordFailed",
        "True/RecordFailed",
        "False/Stalled",
    ),
    (
        "a breaker that is open",
        |world| world.complain("DeadLetterBreakerOpen"),
        "False/DeadLetterBreakerOpen",
        "True/DeadLetterBreakerOpen",
        "False/Stalled",
    ),
    (
        "paused is ready",
        |world| world.spec.desired_state = DesiredState::Paused,
        "True/Paused",
        "False/NotStalled",
        "False/Settled",
    ),
    (
        "stopped is not ready, and that is fine",
        |world| {
            world.spec.desired_state = DesiredState::Stopped;
            world.deployment = Some(deployment(0, 0, 0));
            world.pods.clear();
            world.group_state("Empty", Some(0));
        },
        "False/Stopped",
        "False/Stopped",
        "False/Settled",
    ),
    (
        "stopping takes its time",
        |world| {
            world.spec.desired_state = DesiredState::Stopped;
            world.deployment = Some(deployment(0, 0, 0));
        },
        "False/Stopping",
        "False/Stopped",
        "True/Stopping",
    ),
    (
        "a refused object is told with the API server's words",
        |world| {
            world.failure = Some(Failure {
                reason: "ApplyFailed".into(),
                message: "invalid value".into(),
                needs_human: true,
            });
        },
        "False/ApplyFailed",
        "True/ApplyFailed",
        "False/Stalled",
    ),
];

#[test]
fn each_trouble_has_its_reason() {
    for (name, edit, ready, stalled, reconciling) in TABLE {
        let mut world = World::well();
        edit(&mut world);
        let computed = world.computed();
        assert_eq!(says(&computed, "Ready"), *ready, "{name}: Ready");
        assert_eq!(says(&computed, "Stalled"), *stalled, "{name}: Stalled");
        assert_eq!(
            says(&computed, "Reconciling"),
            *reconciling,
            "{name}: Reconciling"
        );
    }
}

#[test]
fn a_short_rebalance_does_not_make_ready_flap_and_a_long_one_does() {
    let mut world = World::well();
    world.old = world.computed().status;
    world.group_state("PreparingRebalance", None);
    world.settling = true;
    let during = world.computed();
    assert_eq!(says(&during, "Ready"), "True/Rebalancing");
    assert!(!during.healthy);
    world.settling = false;
    assert_eq!(says(&world.computed(), "Ready"), "False/PartitionsNotOwned");
}

#[test]
fn one_unanswered_question_does_not_make_ready_flap_but_is_told() {
    let mut world = World::well();
    world.old = world.computed().status;
    world.kafka = KafkaView::Failed(KafkaProblem::Unreachable("timed out".into()));
    world.settling = true;
    let computed = world.computed();
    assert_eq!(says(&computed, "Ready"), "True/AllPartitionsConsumed");
    assert_eq!(says(&computed, "KafkaReachable"), "False/KafkaUnreachable");
}

#[test]
fn partitions_that_make_no_progress_are_shown_and_told_unless_something_more_specific_is_known() {
    let mut world = World::well();
    let stuck = crds::status::StalledPartition {
        topic: "orders".into(),
        partition: 3,
        offset: Some(17),
        since: Timestamp::from_second(999_000).unwrap(),
        attempts: 0,
        reason: "NoProgress".into(),
        last_error: Some("offset 20: too many requests".into()),
    };
    world.complain("WriterUnavailable");
    world.old.workers[0].stalled = 2;
    world.old.workers[0].stalled_partitions = vec![stuck.clone()];
    let computed = world.computed();
    assert_eq!(says(&computed, "Consuming"), "False/WriterUnavailable");
    assert_eq!(computed.status.partitions.as_ref().unwrap().stalled, Some(2));
    assert_eq!(computed.status.stalled_partitions, [stuck]);

    world.old.workers[0].paused_reason = None;
    let computed = world.computed();
    assert_eq!(says(&computed, "Consuming"), "False/PartitionsStalled");
    assert_eq!(says(&computed, "Ready"), "False/PartitionsStalled");
    assert_eq!(says(&computed, "Stalled"), "False/NotStalled");
    let message = &conditions::find(&computed.status.conditions, "Consuming")
        .unwrap()
        .message;
    assert!(
        message.contains("2 partitions") && message.contains("orders-3@17 since"),
        "{message}"
    );

    world.spec.desired_state = DesiredState::Paused;
    assert_eq!(says(&world.computed(), "Consuming"), "False/Paused");

    world.spec.desired_state = DesiredState::Running;
    world.old.workers[0].stalled = 0;
    world.old.workers[0].stalled_partitions.clear();
    let computed = world.computed();
    assert_eq!(says(&computed, "Consuming"), "True/Consuming");
    assert_eq!(computed.status.partitions.as_ref().unwrap().stalled, Some(0));
}

#[test]
fn a_quiet_group_gives_the_same_status_again() {
    let mut world = World::well();
    let first = world.computed().status;
    world.old = first.clone();
    assert_eq!(world.computed().status, first);
}

#[test]
fn unknown_lag_is_absent_and_partition_counts_are_remembered() {
    let mut world = World::well();
    world.old = world.computed().status;
    world.kafka = KafkaView::Failed(KafkaProblem::Unreachable("no route".into()));
    let status = world.computed().status;
    assert_eq!(status.lag, None);
    assert_eq!(
        status.partitions,
        Some(PartitionsStatus {
            total: 6,
            assigned: None,
            stalled: None,
        })
    );
}

#[test]
fn a_warning_accepts() {
    let mut world = World::well();
    world.acceptance = Ok(Some(Finding::new("CredentialsInClear", "no TLS")));
    let computed = world.computed();
    assert_eq!(says(&computed, "Accepted"), "True/CredentialsInClear");
    assert_eq!(says(&computed, "Ready"), "True/AllPartitionsConsumed");
}

#[test]
fn a_resource_that_does_not_parse_keeps_what_was_known() {
    let old = World::well().computed().status;
    let rejection = Rejection::new("InvalidSpec", "missing field writers");
    let status = unreadable(&old, Some(3), &rejection, now());
    assert_eq!(
        conditions::reason(&status.conditions, "Accepted"),
        Some("InvalidSpec")
    );
    assert!(!conditions::is_true(&status.conditions, "Ready"));
    assert_eq!(
        conditions::reason(&status.conditions, "KafkaReachable"),
        Some("BrokersAnswer")
    );
    assert_eq!((status.observed_generation, status.replicas), (Some(3), Some(6)));
}
