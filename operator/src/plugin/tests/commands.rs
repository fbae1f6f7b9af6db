//! Commands that read and change groups, against the fake API server.

use std::time::Duration;

use serde_json::{Value, json};

use super::fake::{Fake, GROUPS, PODS};
use super::{failing, group, kcg};
use crate::plugin::args::{LogsArgs, StateArgs};
use crate::plugin::cluster::Cluster;
use crate::plugin::terminal::Terminal;
use crate::plugin::{DONE, FAILED, NOT_WELL, changes, logs};
use crate::sync::lock;

fn at(name: &str, resource: Value) -> (String, Value) {
    (format!("{GROUPS}/{name}"), resource)
}

fn pod(name: &str, restarts: u32) -> (String, Value) {
    let status = json!({"containerStatuses": [
        {"name": "worker", "restartCount": restarts, "state": {"running": {}}},
    ]});
    let spec = json!({"containers": [{"env": [{"name": "KEY", "value": "hunter2"}]}]});
    let metadata = json!({"name": name, "namespace": "shop"});
    (
        format!("{PODS}/{name}"),
        json!({"metadata": metadata, "spec": spec, "status": status}),
    )
}

#[tokio::test]
async fn the_exit_code_says_whether_all_is_well() {
    let fake = Fake::start(vec![at("orders", group("orders")), at("payments", failing())]).await;
    for (line, code) in [
        ("status orders", DONE),
        ("status payments", NOT_WELL),
        ("status", NOT_WELL),
        ("status -A", NOT_WELL),
        ("status -n empty", DONE),
    ] {
        let done = kcg(&fake, line, None).await;
        assert_eq!(done.code, Ok(code), "{line}: {}{}", done.out, done.notes);
    }
    let empty = kcg(&fake, "status -n empty", None).await;
    assert!(
        empty.out.is_empty() && empty.notes.contains("namespace empty"),
        "{}",
        empty.notes
    );
}

#[tokio::test]
async fn json_and_yaml_are_the_resources() {
    let fake = Fake::start(vec![at("orders", group("orders"))]).await;
    let one = kcg(&fake, "status orders -o json", None).await;
    let one: Value = serde_json::from_str(&one.out).unwrap();
    assert_eq!(one["metadata"]["name"], "orders");
    let all = kcg(&fake, "status -o yaml", None).await;
    let all: Value = serde_yaml::from_str(&all.out).unwrap();
    assert_eq!(
        (&all["kind"], &all["items"][0]["metadata"]["name"]),
        (&json!("List"), &json!("orders"))
    );
}

#[tokio::test]
async fn errors_say_what_is_missing() {
    let fake = Fake::start(vec![at("orders", group("orders"))]).await;
    let missing = kcg(&fake, "status other", None).await.code.unwrap_err();
    assert!(
        missing.contains("no KafkaConsumerGroup other in namespace shop"),
        "{missing}"
    );
    let invalid = kcg(&fake, "status ../pods", None).await.code.unwrap_err();
    assert!(invalid.contains("not a name in Kubernetes"), "{invalid}");
    lock(&fake.forbidden).push("/kafkaconsumergroups");
    let forbidden = kcg(&fake, "status orders", None).await.code.unwrap_err();
    assert!(
        forbidden.contains("kubectl auth can-i get kafkaconsumergroups.kafka-consumer.dev -n shop"),
        "{forbidden}"
    );

    let bare = Fake::with(Vec::new(), false, false).await;
    for line in ["status", "status orders", "pause orders"] {
        let done = kcg(&bare, line, None).await;
        let text = format!("{:?}{}", done.code, done.notes);
        assert!(text.contains("not installed"), "{line}: {text}");
    }
}

#[tokio::test]
async fn events_that_may_not_be_read_do_not_hide_the_status() {
    let fake = Fake::start(vec![at("orders", group("orders"))]).await;
    lock(&fake.forbidden).extend(["/events", "/kafkaoffsetresets"]);
    let done = kcg(&fake, "status orders", None).await;
    assert_eq!(done.code, Ok(DONE));
    assert!(done.out.contains("auth can-i list events"), "{}", done.out);
}

#[tokio::test]
async fn groups_are_paused_resumed_stopped_and_started() {
    let fake = Fake::start(vec![at("orders", group("orders")), at("payments", failing())]).await;
    for (line, state, shown) in [
        ("pause orders payments", "Paused", "payments: paused"),
        (
            "resume orders",
            "Running",
            "orders: Paused -> Running requested\norders: running\n",
        ),
        ("stop orders", "Stopped", "orders: stopped"),
        ("start orders", "Running", "orders: running"),
    ] {
        let done = kcg(&fake, line, None).await;
        assert_eq!(done.code, Ok(DONE), "{line}: {}{}", done.out, done.notes);
        assert!(done.out.contains(shown), "{line}: {}", done.out);
        let (method, path, body) = fake.changes().pop().unwrap();
        assert_eq!(
            (method.as_str(), body),
            ("PATCH", json!({"spec": {"desiredState": state}}))
        );
        assert!(path.starts_with(GROUPS), "{path}");
    }
    let asked = lock(&fake.asked).clone();
    let patches = asked.iter().filter(|(method, ..)| method == "PATCH");
    assert!(
        patches.clone().count() == 5
            && patches
                .into_iter()
                .all(|(_, path, _)| path.ends_with("fieldManager=kubectl-kcg"))
    );

    let again = kcg(&fake, "start orders", None).await;
    assert_eq!(again.code, Ok(DONE));
    assert!(
        again.out.contains("Running is requested already"),
        "{}",
        again.out
    );
    assert_eq!(fake.changes().len(), 5, "nothing to change");
}

#[tokio::test]
async fn one_missing_group_does_not_keep_the_others_from_their_change() {
    let fake = Fake::start(vec![at("orders", group("orders"))]).await;
    let done = kcg(&fake, "pause missing orders", None).await;
    assert_eq!(done.code, Ok(FAILED));
    assert!(
        done.notes
            .contains("error: missing: there is no KafkaConsumerGroup"),
        "{}",
        done.notes
    );
    assert!(done.out.contains("orders: paused"), "{}", done.out);
}

#[tokio::test]
async fn groups_are_awaited_although_reading_one_fails() {
    let fake = Fake::start(vec![at("orders", group("orders")), at("payments", failing())]).await;
    // Each group is read before its change.
    fake.next("GET", [0, 0, 503, 429]);
    let done = kcg(&fake, "pause orders payments", None).await;
    assert_eq!(done.code, Ok(DONE), "{}", done.notes);
    assert!(
        done.notes.contains("orders: the state is not known now"),
        "{}",
        done.notes
    );
    assert!(
        done.out.ends_with("orders: paused\npayments: paused\n"),
        "{}",
        done.out
    );

    fake.next("GET", [0, 0, 403]);
    let done = kcg(&fake, "resume orders payments", None).await;
    assert_eq!(done.code, Ok(FAILED));
    assert!(done.notes.contains("error: orders: "), "{}", done.notes);
    assert!(done.out.ends_with("payments: running\n"), "{}", done.out);
}

#[tokio::test]
async fn a_tool_that_will_put_the_state_back_is_named() {
    let mut owned = group("orders");
    owned["metadata"]["managedFields"] = json!([{
        "manager": "argocd-controller", "operation": "Apply", "fieldsV1": {"f:spec": {"f:desiredState": {}}},
    }]);
    let fake = Fake::start(vec![at("orders", owned)]).await;
    let done = kcg(&fake, "stop orders", None).await;
    assert!(
        done.notes.contains("warning: Argo CD owns spec.desiredState"),
        "{}",
        done.notes
    );
    let paused = kcg(&fake, "pause orders", None).await;
    assert!(paused.notes.contains("its workers start now"), "{}", paused.notes);
}

#[tokio::test]
async fn what_is_awaited_is_said_when_the_time_is_over() {
    let fake = Fake::with(vec![at("orders", group("orders"))], true, false).await;
    let args = StateArgs {
        groups: vec!["orders".into()],
        wait: true,
        timeout: Duration::ZERO,
    };
    let notes = super::Buffer::default();
    let mut terminal = Terminal::buffers(Box::new(super::Buffer::default()), Box::new(notes.clone()), None);
    let cluster = Cluster::at(fake.address);
    let code = changes::run(&cluster, changes::PAUSE, &args, &mut terminal).await;
    assert_eq!(code.unwrap(), NOT_WELL);
    let notes = notes.text();
    assert!(
        notes.contains("not paused after 0 s; waiting for the operator to see the change"),
        "{notes}"
    );

    lock(&fake.objects).get_mut(&format!("{GROUPS}/orders")).unwrap()["status"]["observedGeneration"] =
        9.into();
    let args = StateArgs { wait: false, ..args };
    let code = changes::run(&cluster, changes::STOP, &args, &mut terminal).await;
    assert_eq!(code.unwrap(), DONE, "without --wait the request is enough");
}

#[tokio::test]
async fn workers_are_scaled_in_mode_manual_only_and_restarted_as_kubectl_does() {
    let mut manual = group("orders");
    manual["spec"]["scaling"] = json!({"mode": "Manual"});
    manual["spec"]["replicas"] = 2.into();
    let deployment = "/apis/apps/v1/namespaces/shop/deployments/orders-worker";
    let fake = Fake::start(vec![
        at("orders", manual),
        at("payments", failing()),
        (deployment.into(), json!({})),
    ])
    .await;
    let done = kcg(&fake, "scale orders --replicas 5", None).await;
    assert_eq!(done.code, Ok(DONE));
    assert!(
        done.out.contains("replicas 2 -> 5") && done.notes.contains("3 partitions"),
        "{}",
        done.notes
    );
    let scaled = (format!("{GROUPS}/orders/scale"), json!({"spec": {"replicas": 5}}));
    let (_, path, body) = fake.changes().pop().unwrap();
    assert_eq!((path, body), scaled);
    let same = kcg(&fake, "scale orders --replicas 5", None).await;
    assert!(
        same.out.contains("5 workers are requested already"),
        "{}",
        same.out
    );
    let refused = kcg(&fake, "scale payments --replicas 5", None)
        .await
        .code
        .unwrap_err();
    assert!(refused.contains("set it to Manual"), "{refused}");

    let done = kcg(&fake, "restart orders", None).await;
    assert_eq!(done.code, Ok(DONE));
    let (_, path, body) = fake.changes().pop().unwrap();
    assert_eq!(path, deployment);
    let annotations = &body["spec"]["template"]["metadata"]["annotations"];
    assert!(
        annotations["kubectl.kubernetes.io/restartedAt"].is_string(),
        "{body}"
    );
    let none = kcg(&fake, "restart payments", None).await.code.unwrap_err();
    assert!(none.contains("no Deployment payments-worker"), "{none}");
    kcg(&fake, "stop orders", None).await;
    let stopped = kcg(&fake, "restart orders", None).await.code.unwrap_err();
    assert!(stopped.contains("kubectl kcg start orders"), "{stopped}");
}

#[tokio::test]
async fn logs_have_the_name_of_their_pod() {
    let fake = Fake::start(vec![
        at("orders", group("orders")),
        pod("orders-worker-a", 0),
        pod("orders-worker-b", 1),
        (format!("{PODS}/orders-worker-a/log"), json!("one\ntwo\n")),
        (format!("{PODS}/orders-worker-b/log"), json!("three\n")),
    ])
    .await;
    let all = kcg(&fake, "logs orders --tail 7", None).await;
    assert_eq!(
        all.out,
        "[orders-worker-a] one\n[orders-worker-a] two\n[orders-worker-b] three\n"
    );
    let one = kcg(&fake, "logs orders --worker orders-worker-b --previous", None).await;
    assert_eq!(one.out, "[orders-worker-b] three\n");
    let asked: Vec<String> = lock(&fake.asked)
        .iter()
        .map(|(_, path, _)| path.clone())
        .collect();
    let has = |end: &str| asked.iter().any(|path| path.ends_with(end));
    assert!(has("/log?container=worker&tailLines=7"), "{asked:?}");
    assert!(
        has("/log?container=worker&previous=true&tailLines=100"),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .any(|path| path.contains("labelSelector=app.kubernetes.io%2Fname%3Dkafka-consumer-worker"))
    );
    let none = kcg(&fake, "logs orders --worker other", None)
        .await
        .code
        .unwrap_err();
    assert!(none.contains("has no worker other"), "{none}");
}

#[tokio::test]
async fn the_log_of_a_running_worker_is_read_on_after_its_connection_has_ended() {
    let log = format!("{PODS}/orders-worker-a/log");
    let lines = "2026-01-01T12:00:00.1Z one\n2026-01-01T12:00:00.2Z two\n";
    let fake = Fake::start(vec![
        at("orders", group("orders")),
        pod("orders-worker-a", 0),
        (log.clone(), json!(lines)),
    ])
    .await;
    let args = LogsArgs {
        group: "orders".into(),
        follow: true,
        worker: None,
        tail: 7,
        previous: false,
    };
    let (out, notes) = (super::Buffer::default(), super::Buffer::default());
    let mut terminal = Terminal::buffers(Box::new(out.clone()), Box::new(notes.clone()), None);
    let cluster = Cluster::at(fake.address);
    let seen = async {
        while !out.text().contains("two") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let more = format!("{lines}2026-01-01T12:00:00.3Z three\n");
        lock(&fake.objects).insert(log, json!(more));
        while !out.text().contains("three") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let followed = logs::run(&cluster, &args, &mut terminal);
    tokio::select! {
        code = followed => panic!("ended with {code:?}"),
        () = seen => (),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{}{}", out.text(), notes.text()),
    }
    assert_eq!(
        out.text(),
        "[orders-worker-a] one\n[orders-worker-a] two\n[orders-worker-a] three\n"
    );
    assert!(notes.text().contains("opened again"), "{}", notes.text());
    let asked = lock(&fake.asked).clone();
    let opened: Vec<&String> = asked
        .iter()
        .filter(|(_, path, _)| path.contains("/log?"))
        .map(|(_, path, _)| path)
        .collect();
    assert!(opened[0].contains("tailLines=7"), "{opened:?}");
    assert!(
        opened[1].ends_with("sinceTime=2026-01-01T12:00:00Z") && !opened[1].contains("tailLines"),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_report_has_what_may_be_read_and_lists_what_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let fake = Fake::start(vec![
        at("orders", group("orders")),
        pod("orders-worker-a", 1),
        (format!("{PODS}/orders-worker-a/log"), json!("line\n")),
        ("/version".into(), json!({"major": "1"})),
    ])
    .await;
    lock(&fake.forbidden).push("/namespaces/kco/");
    let done = kcg(&fake, &format!("report orders -f {}", path.display()), None).await;
    assert_eq!(done.code, Ok(DONE), "{}", done.notes);
    let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    assert!(read("group.yaml").contains("name: orders") && read("status.txt").contains("shop/orders"));
    assert_eq!(read("logs/orders-worker-a.log"), "line\n");
    assert_eq!(read("logs/orders-worker-a.previous.log"), "line\n");
    assert!(read("pods.yaml").contains("REDACTED") && !read("pods.yaml").contains("hunter2"));
    let head = read("report.txt");
    for missing in [
        "operator/pods.yaml",
        "auth can-i list pods -n kco",
        "deployment.yaml",
    ] {
        assert!(head.contains(missing), "{missing}: {head}");
    }
    let asked = lock(&fake.asked).clone();
    assert!(asked.iter().all(|(method, path, _)| method == "GET"
        && !path.contains("secrets")
        && !path.contains("configmaps")));
    let again = kcg(&fake, &format!("report orders -f {}", path.display()), None).await;
    assert!(again.code.unwrap_err().contains("name another with -f"));
}
