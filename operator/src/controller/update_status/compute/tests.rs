//! Tables: one change of a healthy group, and its conditions afterwards.

use std::time::Duration;

use super::inputs::Failure;
use super::*;
use crate::controller::pods::{PodFacts, PodProblem};
use crate::controller::worker_reports::ReadReports;
use crate::fixtures::{facts, group, lag};
use crate::group::members::SharedGroup;
use crate::group::rejection::Finding;
use crate::group::scaling::Limit;
use crate::kafka::model::{GroupFacts, KafkaProblem, KafkaView, MemberFacts};
use crds::spec::{DesiredState, KafkaConsumerGroupSpec};
use crds::status::WorkerStatus;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

/// Owned form of [`Inputs`], for a healthy group.
struct Scenario {
    spec: KafkaConsumerGroupSpec,
    acceptance: Result<Option<Finding>, Rejection>,
    kafka: KafkaView,
    shared: Option<SharedGroup>,
    hold: Option<&'static str>,
    waiting_image: Option<&'static str>,
    withheld: Vec<String>,
    unjudged_for: Option<Duration>,
    decision: Option<Decision>,
    deployment: Option<Deployment>,
    pods: Vec<PodFacts>,
    reports: Option<ReadReports>,
    failure: Option<Failure>,
    old: KafkaConsumerGroupStatus,
    recently_healthy: bool,
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
        reads_others: false,
    };
    GroupFacts {
        state: "Stable".into(),
        members: vec![member],
        assigned_partitions: Some(assigned),
        protocol: crds::spec::GroupProtocol::Classic,
        is_of_consumers: true,
        assignor: "cooperative-sticky".into(),
    }
}

fn pod(index: i32) -> PodFacts {
    PodFacts {
        name: format!("orders-worker-{index}"),
        ready: true,
        ..PodFacts::default()
    }
}

impl Scenario {
    fn healthy() -> Self {
        let mut facts = facts(&[("orders", Some(6))]);
        facts.group = Some(stable(6));
        facts.lag = Some(lag(&[4, 0, 0, 0, 0, 1]));
        Self {
            spec: group().spec,
            acceptance: Ok(None),
            kafka: KafkaView::Known(facts),
            shared: None,
            hold: None,
            waiting_image: None,
            withheld: Vec::new(),
            unjudged_for: None,
            decision: Some(Decision {
                replicas: 6,
                recommended: Some(6),
                limited_by: Limit::None,
                reason: "6 partitions at 1 per worker need 6 workers".into(),
            }),
            deployment: Some(deployment(6, 6, 6)),
            pods: (0..6).map(pod).collect(),
            reports: None,
            failure: None,
            old: KafkaConsumerGroupStatus::default(),
            recently_healthy: false,
        }
    }

    fn group_state(&mut self, state: &str, assigned: Option<i32>) {
        let KafkaView::Known(facts) = &mut self.kafka else {
            panic!("not known")
        };
        let group = facts.group.as_mut().unwrap();
        (group.state, group.assigned_partitions) = (state.into(), assigned);
    }

    fn failing_pod(&mut self, reason: &'static str) {
        self.deployment = Some(deployment(6, 5, 6));
        self.pods[3].ready = false;
        self.pods[3].problem = Some(PodProblem {
            reason,
            message: "because".into(),
        });
    }

    fn paused_worker(&mut self, reason: &str) {
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
            operator: Some("kco/kco".into()),
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
            waiting_image: self.waiting_image,
            withheld: &self.withheld,
            unjudged_for: self.unjudged_for,
            shared: self.shared.as_ref(),
            hold: self.hold,
            decision: self.decision.as_ref(),
            deployment: self.deployment.as_ref(),
            pods: &self.pods,
            reports: self.reports.as_ref(),
            failure: self.failure.as_ref(),
            old: &self.old,
            recently_healthy: self.recently_healthy,
            now: now(),
        })
    }
}

fn condition_of(computed: &Computed, kind: &str) -> String {
    let condition = conditions::find(&computed.status.conditions, kind).unwrap();
    format!("{}/{}", condition.status, condition.reason)
}

#[test]
fn a_healthy_group_has_healthy_conditions_only() {
    let computed = Scenario::healthy().computed();
    for (kind, expected) in [
        ("Ready", "True/AllPartitionsConsumed"),
        ("Accepted", "True/Accepted"),
        ("KafkaReachable", "True/BrokersAnswer"),
        ("LagKnown", "True/LagRead"),
        ("WorkersAvailable", "True/AllWorkersReady"),
        ("Consuming", "True/Consuming"),
        ("ScalingLimited", "False/NotLimited"),
        ("Reconciling", "False/UpToDate"),
        ("Stalled", "False/NotStalled"),
    ] {
        assert_eq!(condition_of(&computed, kind), expected, "{kind}");
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

fn shared(refuses: Option<&str>) -> SharedGroup {
    SharedGroup {
        message: "1 member".into(),
        refuses: refuses.map(String::from),
    }
}

#[test]
fn a_group_without_a_ready_worker_is_never_consuming() {
    for (assigned, recently_healthy) in [(6, false), (6, true), (3, true)] {
        let mut scenario = Scenario::healthy();
        scenario.group_state("Stable", Some(assigned));
        scenario.deployment = Some(deployment(6, 0, 6));
        scenario.recently_healthy = recently_healthy;
        let computed = scenario.computed();
        assert!(condition_of(&computed, "Consuming").starts_with("False/"));
        assert!(!computed.healthy);
    }
}

#[test]
fn a_group_is_not_consuming_when_a_topic_is_gone_however_healthy_it_was() {
    let mut scenario = Scenario::healthy();
    let KafkaView::Known(facts) = &mut scenario.kafka else {
        panic!("not known")
    };
    facts.topics.insert("orders".into(), None);
    scenario.recently_healthy = true;
    assert_eq!(
        condition_of(&scenario.computed(), "Consuming"),
        "False/TopicMissing"
    );
}

type Change = fn(&mut Scenario);

/// Change, Ready, Stalled, Reconciling.
const TABLE: &[(&str, Change, &str, &str, &str)] = &[
    (
        "a rejected spec needs action",
        |scenario| scenario.acceptance = Err(Rejection::new("TransformInvalid", "line 1")),
        "False/TransformInvalid",
        "True/TransformInvalid",
        "False/Stalled",
    ),
    (
        "other members of the group need action",
        |scenario| scenario.shared = Some(shared(None)),
        "False/GroupShared",
        "True/GroupShared",
        "False/Stalled",
    ),
    (
        "a group that waits for the rollouts of others is ready",
        |scenario| scenario.waiting_image = Some("registry/worker:2"),
        "True/AllPartitionsConsumed",
        "False/NotStalled",
        "True/WaitingForRollout",
    ),
    (
        "a change that waits for a start position is being rolled out",
        |scenario| {
            scenario.withheld = vec!["returns".into()];
            scenario.decision = None;
        },
        "True/AllPartitionsConsumed",
        "False/NotStalled",
        "True/WaitingForKafka",
    ),
    (
        "a paused group with other members needs action",
        |scenario| {
            scenario.spec.desired_state = DesiredState::Paused;
            scenario.shared = Some(shared(None));
        },
        "False/GroupShared",
        "True/GroupShared",
        "False/Stalled",
    ),
    (
        "a group that does not admit workers needs action",
        |scenario| {
            scenario.deployment = Some(deployment(6, 0, 6));
            scenario.shared = Some(shared(Some("range")));
        },
        "False/GroupRefusesWorkers",
        "True/GroupRefusesWorkers",
        "False/Stalled",
    ),
    (
        "an unreachable cluster recovers without action",
        |scenario| scenario.kafka = KafkaView::Failed(KafkaProblem::Unreachable("no route".into())),
        "False/KafkaUnreachable",
        "False/NotStalled",
        "False/UpToDate",
    ),
    (
        "a refused login needs action",
        |scenario| scenario.kafka = KafkaView::Failed(KafkaProblem::AuthenticationFailed("bad".into())),
        "False/AuthenticationFailed",
        "True/AuthenticationFailed",
        "False/Stalled",
    ),
    (
        "missing workers are a rollout",
        |scenario| scenario.deployment = Some(deployment(6, 4, 6)),
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "old pods are a rollout even when all are ready",
        |scenario| scenario.deployment = Some(deployment(6, 6, 3)),
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "a Deployment with an outdated status is a rollout",
        |scenario| {
            let deployment = scenario.deployment.as_mut().unwrap();
            deployment.metadata.generation = Some(3);
        },
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "an image that cannot be pulled",
        |scenario| scenario.failing_pod("ImagePullFailed"),
        "False/ImagePullFailed",
        "True/ImagePullFailed",
        "False/Stalled",
    ),
    (
        "a crashing worker",
        |scenario| scenario.failing_pod("CrashLooping"),
        "False/CrashLooping",
        "True/CrashLooping",
        "False/Stalled",
    ),
    (
        "the problem of a terminating pod is ignored",
        |scenario| {
            scenario.failing_pod("CrashLooping");
            scenario.pods[3].terminating = true;
        },
        "False/Progressing",
        "False/NotStalled",
        "True/Progressing",
    ),
    (
        "workers that have not joined yet",
        |scenario| scenario.group_state("PreparingRebalance", None),
        "False/PartitionsNotOwned",
        "False/NotStalled",
        "True/Joining",
    ),
    (
        "a partition without an assignment",
        |scenario| scenario.group_state("Stable", Some(5)),
        "False/PartitionsNotOwned",
        "False/NotStalled",
        "True/Joining",
    ),
    (
        "an unavailable writer needs no action",
        |scenario| scenario.paused_worker("WriterUnavailable"),
        "False/WriterUnavailable",
        "False/NotStalled",
        "False/UpToDate",
    ),
    (
        "a record that no writer accepts needs action",
        |scenario| scenario.paused_worker("RecordFailed"),
        "False/RecordFailed",
        "True/RecordFailed",
        "False/Stalled",
    ),
    (
        "a breaker that is open",
        |scenario| scenario.paused_worker("DeadLetterBreakerOpen"),
        "False/DeadLetterBreakerOpen",
        "True/DeadLetterBreakerOpen",
        "False/Stalled",
    ),
    (
        "paused is ready",
        |scenario| scenario.spec.desired_state = DesiredState::Paused,
        "True/Paused",
        "False/NotStalled",
        "False/UpToDate",
    ),
    (
        "stopped is ready once no worker is left",
        |scenario| {
            scenario.spec.desired_state = DesiredState::Stopped;
            scenario.deployment = Some(deployment(0, 0, 0));
            scenario.pods.clear();
            scenario.group_state("Empty", Some(0));
        },
        "True/Stopped",
        "False/Stopped",
        "False/UpToDate",
    ),
    (
        "an error of a stopped group stays visible",
        |scenario| {
            scenario.spec.desired_state = DesiredState::Stopped;
            scenario.deployment = Some(deployment(0, 0, 0));
            scenario.pods.clear();
            scenario.acceptance = Err(Rejection::new("TransformInvalid", "line 1"));
        },
        "False/TransformInvalid",
        "True/TransformInvalid",
        "False/Stalled",
    ),
    (
        "a paused Deployment is named when it holds a change back",
        |scenario| {
            let mut paused = deployment(6, 6, 0);
            paused.spec.as_mut().unwrap().paused = Some(true);
            scenario.deployment = Some(paused);
        },
        "False/DeploymentPaused",
        "True/DeploymentPaused",
        "False/Stalled",
    ),
    (
        "a program that is not compiled yet needs only time",
        |scenario| scenario.acceptance = Err(Rejection::new("TransformNotCompiled", "wait")),
        "False/TransformNotCompiled",
        "False/NotStalled",
        "False/Stalled",
    ),
    (
        "stopping waits for the drain",
        |scenario| {
            scenario.spec.desired_state = DesiredState::Stopped;
            scenario.deployment = Some(deployment(0, 0, 0));
        },
        "False/Stopping",
        "False/Stopped",
        "True/Stopping",
    ),
    (
        "a refused object shows the message of the API server",
        |scenario| {
            scenario.failure = Some(Failure {
                reason: "ApplyFailed".into(),
                message: "invalid value".into(),
                needs_action: true,
            });
        },
        "False/ApplyFailed",
        "True/ApplyFailed",
        "False/Stalled",
    ),
];

#[test]
fn each_problem_has_its_reason() {
    for (name, change, ready, stalled, reconciling) in TABLE {
        let mut scenario = Scenario::healthy();
        change(&mut scenario);
        let computed = scenario.computed();
        assert_eq!(condition_of(&computed, "Ready"), *ready, "{name}: Ready");
        assert_eq!(condition_of(&computed, "Stalled"), *stalled, "{name}: Stalled");
        assert_eq!(
            condition_of(&computed, "Reconciling"),
            *reconciling,
            "{name}: Reconciling"
        );
    }
}

#[test]
fn messages_count_workers_that_exist_and_know_one_from_many() {
    let message = |wanted: i32, existing: i32, ready: i32, updated: i32| {
        let mut scenario = Scenario::healthy();
        let mut deployment = deployment(wanted, ready, updated);
        deployment.status.as_mut().unwrap().replicas = Some(existing);
        scenario.deployment = Some(deployment);
        let computed = scenario.computed();
        conditions::find(&computed.status.conditions, "WorkersAvailable")
            .unwrap()
            .message
            .clone()
    };
    assert_eq!(message(1, 1, 1, 1), "1 of 1 worker ready");
    assert_eq!(
        message(2, 4, 4, 4),
        "2 of 2 workers ready, 2 more workers stopping"
    );
    assert_eq!(
        message(4, 4, 3, 1),
        "3 of 4 workers ready, 1 with the latest configuration"
    );
    assert_eq!(
        message(6, 0, 0, 0),
        "0 of 6 workers ready, 0 with the latest configuration"
    );
}

#[test]
fn a_short_rebalance_does_not_make_ready_flap_and_a_long_one_does() {
    let mut scenario = Scenario::healthy();
    scenario.old = scenario.computed().status;
    scenario.group_state("PreparingRebalance", None);
    scenario.recently_healthy = true;
    let during = scenario.computed();
    assert_eq!(condition_of(&during, "Ready"), "True/Rebalancing");
    assert!(!during.healthy);
    scenario.recently_healthy = false;
    assert_eq!(
        condition_of(&scenario.computed(), "Ready"),
        "False/PartitionsNotOwned"
    );
}

#[test]
fn one_request_without_an_answer_does_not_make_ready_flap_but_is_reported() {
    let mut scenario = Scenario::healthy();
    scenario.old = scenario.computed().status;
    scenario.kafka = KafkaView::Failed(KafkaProblem::Unreachable("timed out".into()));
    scenario.recently_healthy = true;
    let computed = scenario.computed();
    assert_eq!(condition_of(&computed, "Ready"), "True/AllPartitionsConsumed");
    assert_eq!(
        condition_of(&computed, "KafkaReachable"),
        "False/KafkaUnreachable"
    );
}

#[test]
fn stalled_partitions_are_reported_unless_a_more_specific_reason_is_known() {
    let mut scenario = Scenario::healthy();
    let stuck = crds::status::StalledPartition {
        topic: "orders".into(),
        partition: 3,
        offset: Some(17),
        since: Timestamp::from_second(999_000).unwrap(),
        attempts: 0,
        reason: "NoProgress".into(),
        last_error: Some("offset 20: too many requests".into()),
    };
    scenario.paused_worker("WriterUnavailable");
    scenario.old.workers[0].stalled = 2;
    scenario.old.workers[0].stalled_partitions = vec![stuck.clone()];
    let computed = scenario.computed();
    assert_eq!(condition_of(&computed, "Consuming"), "False/WriterUnavailable");
    assert_eq!(computed.status.partitions.as_ref().unwrap().stalled, Some(2));
    assert_eq!(computed.status.stalled_partitions, [stuck]);

    scenario.old.workers[0].paused_reason = None;
    let computed = scenario.computed();
    assert_eq!(condition_of(&computed, "Consuming"), "False/PartitionsStalled");
    assert_eq!(condition_of(&computed, "Ready"), "False/PartitionsStalled");
    assert_eq!(condition_of(&computed, "Stalled"), "False/NotStalled");
    let message = &conditions::find(&computed.status.conditions, "Consuming")
        .unwrap()
        .message;
    assert!(
        message.contains("2 partitions") && message.contains("orders-3@17 since"),
        "{message}"
    );

    scenario.spec.desired_state = DesiredState::Paused;
    assert_eq!(condition_of(&scenario.computed(), "Consuming"), "False/Paused");

    scenario.spec.desired_state = DesiredState::Running;
    scenario.old.workers[0].stalled = 0;
    scenario.old.workers[0].stalled_partitions.clear();
    let computed = scenario.computed();
    assert_eq!(condition_of(&computed, "Consuming"), "True/Consuming");
    assert_eq!(computed.status.partitions.as_ref().unwrap().stalled, Some(0));
}

#[test]
fn an_unchanged_group_has_an_unchanged_status() {
    let mut scenario = Scenario::healthy();
    let first = scenario.computed().status;
    scenario.old = first.clone();
    assert_eq!(scenario.computed().status, first);
}

#[test]
fn unknown_lag_is_absent_and_partition_counts_are_kept() {
    let mut scenario = Scenario::healthy();
    scenario.old = scenario.computed().status;
    scenario.kafka = KafkaView::Failed(KafkaProblem::Unreachable("no route".into()));
    let status = scenario.computed().status;
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
fn conditions_stay_while_the_compiler_has_not_judged_the_same_generation() {
    let mut scenario = Scenario::healthy();
    scenario.old = scenario.computed().status;
    scenario.acceptance = Err(Rejection::new("TransformNotCompiled", "wait"));
    scenario.decision = None;
    assert_eq!(scenario.computed().status, scenario.old);
    // A new generation is a new question.
    scenario.old.observed_generation = Some(1);
    assert_eq!(
        condition_of(&scenario.computed(), "Ready"),
        "False/TransformNotCompiled"
    );
    // What does not depend on the program is reported at once.
    scenario.old.observed_generation = Some(2);
    scenario.failing_pod("CrashLooping");
    assert_eq!(condition_of(&scenario.computed(), "Ready"), "False/CrashLooping");
    let mut refused = Scenario::healthy();
    refused.acceptance = Err(Rejection::new("TransformInvalid", "line 1"));
    refused.old = refused.computed().status;
    refused.acceptance = Err(Rejection::new("TransformNotCompiled", "wait"));
    assert_eq!(refused.computed().status, refused.old);
}

#[test]
fn conditions_do_not_stay_forever_while_the_compiler_does_not_run() {
    let mut scenario = Scenario::healthy();
    scenario.old = scenario.computed().status;
    scenario.acceptance = Err(Rejection::new("TransformNotCompiled", "cannot run"));
    scenario.decision = None;
    scenario.unjudged_for = Some(verdicts::KEPT - Duration::from_secs(1));
    assert_eq!(scenario.computed().status, scenario.old);
    scenario.unjudged_for = Some(verdicts::KEPT);
    let computed = scenario.computed();
    for kind in ["Accepted", "Ready"] {
        assert_eq!(condition_of(&computed, kind), "Unknown/TransformNotCompiled");
    }
    assert_eq!(condition_of(&computed, "Consuming"), "True/Consuming");
    assert_eq!(condition_of(&computed, "ScalingLimited"), "Unknown/NotDecided");
    let events = crate::controller::update_status::events::events(&scenario.old, &computed.status);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].note.as_deref(), Some("cannot run"));
}

#[test]
fn skipped_ranges_are_those_of_all_partitions_of_the_present_topic() {
    let range = |partition: i32, to_offset: i64| SkippedByRetention {
        topic: "orders".into(),
        partition,
        to_offset,
        ..Default::default()
    };
    let mut scenario = Scenario::healthy();
    let ranges = (0..20).map(|partition| range(partition, 90));
    scenario.reports = Some(ReadReports {
        complete: true,
        skipped: ranges.collect(),
        ..Default::default()
    });
    scenario.old = scenario.computed().status;
    assert_eq!(
        scenario.old.skipped_by_retention.len(),
        20,
        "not only those of the entries"
    );
    scenario.old.topics[0].id = Some("before".into());
    scenario.reports = Some(ReadReports {
        complete: true,
        skipped: vec![range(0, 7)],
        ..Default::default()
    });
    let kept = scenario.computed().status.skipped_by_retention;
    assert_eq!((kept.len(), kept[0].to_offset), (20, 90));
    let KafkaView::Known(facts) = &mut scenario.kafka else {
        panic!("not known")
    };
    facts.topic_ids.insert("orders".into(), "now".into());
    assert_eq!(scenario.computed().status.skipped_by_retention, [range(0, 7)]);
}

#[test]
fn a_warning_accepts() {
    let mut scenario = Scenario::healthy();
    scenario.acceptance = Ok(Some(Finding::new("CredentialsInClear", "no TLS")));
    let computed = scenario.computed();
    assert_eq!(condition_of(&computed, "Accepted"), "True/CredentialsInClear");
    assert_eq!(condition_of(&computed, "Ready"), "True/AllPartitionsConsumed");
}

#[test]
fn addresses_that_lead_to_another_cluster_are_shown_until_the_spec_changes() {
    let mut scenario = Scenario::healthy();
    let found = |scenario: &mut Scenario, id: &str| {
        if let KafkaView::Known(facts) = &mut scenario.kafka {
            facts.cluster_id = Some(id.into());
        }
        let computed = scenario.computed();
        scenario.old = computed.status.clone();
        computed
    };
    let reachable = |computed: &Computed| condition_of(computed, "KafkaReachable");
    assert_eq!(reachable(&found(&mut scenario, "one")), "True/BrokersAnswer");
    let computed = found(&mut scenario, "two");
    assert_eq!(reachable(&computed), "True/ClusterChanged");
    assert_eq!(condition_of(&computed, "Ready"), "True/AllPartitionsConsumed");
    let message = &conditions::find(&computed.status.conditions, "KafkaReachable")
        .unwrap()
        .message;
    for part in [
        &scenario.spec.kafka.bootstrap_servers[0],
        "id one",
        "id two",
        "DNS",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(reachable(&found(&mut scenario, "two")), "True/ClusterChanged");
    scenario.old.observed_generation = Some(0);
    assert_eq!(reachable(&found(&mut scenario, "two")), "True/BrokersAnswer");
    scenario.old.observed_generation = Some(0);
    let meant = found(&mut scenario, "three");
    assert_eq!(
        reachable(&meant),
        "True/BrokersAnswer",
        "the user has changed the spec"
    );
}

#[test]
fn a_resource_that_does_not_parse_keeps_its_other_conditions() {
    let old = Scenario::healthy().computed().status;
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

#[test]
fn a_group_that_an_offset_reset_holds_is_in_progress_and_not_stalled() {
    let mut scenario = Scenario::healthy();
    (scenario.hold, scenario.deployment) = (Some("again"), Some(deployment(0, 0, 0)));
    (scenario.pods, scenario.recently_healthy) = (vec![pod(0), pod(1)], true);
    scenario.group_state("Stable", Some(6));
    let computed = scenario.computed();
    for (kind, expected) in [
        ("Ready", "False/OffsetReset"),
        ("Accepted", "True/Accepted"),
        ("WorkersAvailable", "False/OffsetReset"),
        ("Consuming", "False/OffsetReset"),
        ("Reconciling", "True/OffsetReset"),
        ("Stalled", "False/NotStalled"),
    ] {
        assert_eq!(condition_of(&computed, kind), expected, "{kind}");
    }
    let available = conditions::find(&computed.status.conditions, "WorkersAvailable").unwrap();
    assert!(
        available.message.contains("kubectl delete kor again")
            && available.message.ends_with("2 workers left to drain"),
        "{}",
        available.message
    );
    assert!(computed.converging && !computed.healthy);
    // It stays what it is without members, with others, and while Kafka does not answer.
    scenario.pods = Vec::new();
    scenario.group_state("Empty", None);
    assert_eq!(condition_of(&scenario.computed(), "Ready"), "False/OffsetReset");
    scenario.kafka = KafkaView::Failed(KafkaProblem::Unreachable("x".into()));
    assert_eq!(condition_of(&scenario.computed(), "Stalled"), "False/NotStalled");
    // What needs action is still shown.
    scenario.acceptance = Err(Rejection::new("SecretMissing", "create it"));
    assert_eq!(condition_of(&scenario.computed(), "Ready"), "False/SecretMissing");
    assert_eq!(
        condition_of(&scenario.computed(), "Stalled"),
        "True/SecretMissing"
    );
}
