use serde_json::{Value, json};

use super::*;
use crate::fixtures::replay;

fn this() -> KafkaReplay {
    replay("again", json!({}))
}

fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "kafka-consumer.dev/v1alpha1", "kind": kind, "name": name, "uid": uid}])
}

fn with_status(status: Value) -> v1::Job {
    let owner = owned_by("KafkaReplay", "again", &this().uid().unwrap());
    let job = json!({"metadata": {"name": "again-replay", "ownerReferences": owner}, "status": status});
    serde_json::from_value(job).unwrap()
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": status, "reason": "PodFailurePolicy", "message": "exit code 7"}]})
}

fn pod(name: &str, created: &str, phase: &str, state: Value) -> Pod {
    let container = json!({
        "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    });
    let pod = json!({
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"phase": phase, "containerStatuses": [container]},
    });
    serde_json::from_value(pod).unwrap()
}

fn ended(code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "message": message}})
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

#[test]
fn a_job_is_active_until_a_condition_holds() {
    let of = |status| state(Some(&with_status(status)), &this());
    assert_eq!(state(None, &this()), Job::Missing);
    assert_eq!(of(json!({})), Job::Active(0));
    assert_eq!(of(json!({"active": 2, "failed": 3})), Job::Active(2));
    assert_eq!(of(condition("Complete", "True")), Job::Complete);
    assert_eq!(of(condition("Complete", "False")), Job::Active(0));
    // Its workers still stop.
    assert_eq!(of(condition("FailureTarget", "True")), Job::Active(0));
    let failed = of(condition("Failed", "True"));
    assert_eq!(failed, Job::Failed("PodFailurePolicy: exit code 7".into()));
}

#[test]
fn a_job_of_another_owner_is_never_ours() {
    let of = |owners: Value| {
        let mut job = with_status(condition("Complete", "True"));
        job.metadata.owner_references = serde_json::from_value(owners).unwrap();
        state(Some(&job), &this())
    };
    let name = || "again-replay".to_string();
    assert_eq!(of(json!(null)), Job::Foreign(name()));
    assert_eq!(of(owned_by("CronJob", "again", "1")), Job::Foreign(name()));
    assert_eq!(of(owned_by("KafkaReplay", "other", "1")), Job::Foreign(name()));
    assert_eq!(
        of(owned_by("KafkaReplay", "again", "deleted")),
        Job::Leftover(name())
    );
    let mut deleted = with_status(json!({"active": 1}));
    deleted.metadata.deletion_timestamp = this()
        .metadata
        .creation_timestamp
        .or_else(|| serde_json::from_value(json!(EARLY)).unwrap());
    assert_eq!(state(Some(&deleted), &this()), Job::Leftover(name()));
}

#[test]
fn pods_that_have_failed_are_shown_with_their_last_words_the_latest_first() {
    let pods = [
        pod("again-replay-a", EARLY, "Failed", ended(4, "fenced")),
        pod(
            "again-replay-b",
            LATE,
            "Failed",
            ended(7, "topic orders was deleted"),
        ),
        pod("again-replay-c", LATE, "Running", json!({"running": {}})),
        pod("again-replay-d", LATE, "Succeeded", ended(0, "")),
    ];
    let shown = ends(&pods);
    let names: Vec<_> = shown
        .iter()
        .map(|end| (end.name.as_str(), end.exit_code))
        .collect();
    assert_eq!(names, [("again-replay-b", Some(7)), ("again-replay-a", Some(4))]);
    let problem = shown[0].problem.as_deref().unwrap();
    assert!(problem.contains("topic orders was deleted"), "{problem}");
}

fn deleted_at(mut pod: Pod, at: &str) -> Pod {
    pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!(at)).unwrap());
    pod
}

#[test]
fn a_pod_on_a_lost_node_is_named_and_not_awaited() {
    let deleted = "2026-01-02T00:01:00Z";
    let running = |name| pod(name, EARLY, "Running", json!({"running": {}}));
    let (in_time, late): (Timestamp, Timestamp) = (
        "2026-01-02T00:02:00Z".parse().unwrap(),
        "2026-01-02T00:02:01Z".parse().unwrap(),
    );
    let lost = deleted_at(running("again-replay-a"), deleted);
    assert!(is_alive(&lost, in_time) && !is_alive(&lost, late));
    assert!(is_alive(&running("again-replay-b"), late));
    let ended = deleted_at(pod("again-replay-c", EARLY, "Failed", ended(137, "")), deleted);
    assert!(!is_alive(&ended, in_time));
    let pods = [running("again-replay-b"), lost, ended];
    assert!(stuck(&pods, in_time).is_empty());
    let named = stuck(&pods, late);
    let names: Vec<_> = named.iter().map(|end| (&*end.name, end.exit_code)).collect();
    assert_eq!(names, [("again-replay-a", None)]);
}

#[test]
fn a_worker_may_start_until_its_job_has_ended_and_its_pods_are_gone() {
    let now: Timestamp = LATE.parse().unwrap();
    let may_run = |job: Option<&v1::Job>, pods: &[Pod]| may_run_of(job, pods, &this(), now);
    let mut running = pod("again-replay-a", EARLY, "Running", json!({"running": {}}));
    running.metadata.owner_references =
        serde_json::from_value(owned_by("Job", "again-replay", "ours")).unwrap();
    let pods = [running.clone()];
    // No pod yet, and no member: the next pod would start from the beginning.
    let active = with_status(json!({}));
    assert!(may_run(Some(&active), &[]));
    let complete = with_status(condition("Complete", "True"));
    assert!(!may_run(Some(&complete), &[]));
    assert!(may_run(Some(&complete), &pods));
    assert!(may_run(None, &pods));
    assert!(!may_run(None, &[]));
    // A later replay of this name: its pods do not matter, and ours do.
    let mut later = with_status(json!({"active": 1}));
    later.metadata.uid = Some("later".into());
    later.metadata.owner_references =
        serde_json::from_value(owned_by("KafkaReplay", "again", "another")).unwrap();
    assert!(!may_run(Some(&later), &[]));
    assert!(may_run(Some(&later), &pods));
    running.metadata.owner_references =
        serde_json::from_value(owned_by("Job", "again-replay", "later")).unwrap();
    assert!(!may_run(Some(&later), &[running]));
}

#[test]
fn workers_never_run_with_the_configuration_of_an_earlier_start() {
    let with = |config: &str| ConfigMap {
        data: Some([("config.json".to_string(), config.to_string())].into()),
        ..ConfigMap::default()
    };
    assert!(has_data_of(&with("a"), &with("a")));
    assert!(!has_data_of(&with("a"), &with("b")));
    assert!(!has_data_of(&ConfigMap::default(), &with("b")));
}

#[test]
fn only_members_whose_pods_have_ended_or_are_gone_are_dead() {
    let pods = [
        pod("again-replay-a", EARLY, "Running", json!({"running": {}})),
        pod("again-replay-b", EARLY, "Failed", ended(137, "")),
    ];
    let member = |client_id: &str| MemberFacts {
        client_id: client_id.into(),
        host: "/10.0.0.1".into(),
        assigned: 1,
        reads_others: false,
    };
    let members = [
        member("again-replay-a@1000"),
        member("again-replay-b@1000"),
        member("again-replay-gone@1000"),
        member("another-program@1000"),
        member("rdkafka"),
    ];
    let expected = [
        DeadProcess::exact("again-replay-b", 1000),
        DeadProcess::exact("again-replay-gone", 1000),
    ];
    assert_eq!(dead(&members, "again", &pods), expected);
}
