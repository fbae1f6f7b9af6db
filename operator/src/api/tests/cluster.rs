//! The API in a cluster: tokens, rights, and changes in the name of the user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use kube::Config;
use serde_json::{Value, json};

use super::fake_api_server::Fake;
use super::{event, group, send, serve, watch_at};
use crate::api::board::Board;
use crate::api::cluster::{Cluster, Times};
use crate::api::model::Role;
use crate::api::shared::Backend;
use crate::sync::lock;

/// The API of an operator, with the groups shop/orders and bank/bills.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    pub(super) board: Arc<Board>,
    pub(super) fake: Arc<Fake>,
}

pub(super) const STATE: &str = "/api/v1/groups/shop/orders/state";
pub(super) const SCALE: &str = "/api/v1/groups/shop/orders/scale";

impl Api {
    pub(super) async fn start(times: Times) -> Self {
        let (fake, server) = Fake::start().await;
        let config = Config::new(format!("http://{server}").parse().unwrap());
        let cluster = Cluster::new(config, times).unwrap();
        let board = Arc::new(Board::default());
        let address = serve(&board, Backend::Cluster(Arc::new(cluster))).await;
        let api = Self { address, board, fake };
        api.show(0);
        api
    }

    pub(super) fn show(&self, lag: i64) {
        let (mut orders, mut bills) = (group("orders"), group("bills"));
        orders.summary.lag = Some(lag);
        bills.summary.namespace = "bank".into();
        let groups = vec![Arc::new(orders), Arc::new(bills)];
        self.board.show(groups, Role::Leader, Timestamp::now());
    }

    /// Status code, headers, answer.
    pub(super) async fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String, Value) {
        let headers = header(token);
        let (status, headers, body) = send(self.address, method, path, &headers, body).await;
        (status, headers, serde_json::from_str(&body).unwrap_or_default())
    }

    pub(super) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let (status, _, answer) = self.ask(token, "GET", path, "").await;
        (status, answer)
    }
}

pub(super) fn header(token: &str) -> String {
    let json = "Content-Type: application/json\r\n";
    match token {
        "" => json.to_string(),
        token => format!("{json}Authorization: Bearer {token}\r\n"),
    }
}

/// The status of a stream without its events.
pub(super) async fn watch_status(api: &Api, token: &str) -> u16 {
    use tokio::io::AsyncBufReadExt as _;
    let mut stream = watch_at(api.address, "?groups=shop/orders", &header(token)).await;
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_route_needs_a_token_and_the_right() {
    let api = Api::start(Times::default()).await;
    let (_, document) = api.get("", "/api/v1/openapi.json").await;
    assert!(
        document["security"][0]["token"].is_array(),
        "{}",
        document["security"]
    );
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "parameters")
        {
            routes += 1;
            let mut path = path.clone();
            for (parameter, value) in [
                ("{namespace}", "shop"),
                ("{name}", "orders"),
                ("{reset}", "done"),
                ("{partition}", "0"),
                ("{offset}", "0"),
            ] {
                path = path.replace(parameter, value);
            }
            let method = method.to_uppercase();
            let body = match path.rsplit('/').next() {
                Some("state") => r#"{"desiredState": "Paused"}"#,
                Some("scale") => r#"{"replicas": 3}"#,
                Some("offset-resets") => r#"{"to": {"type": "Latest"}}"#,
                _ => "",
            };
            let about = ["/api/v1/me", "/api/v1/version"].contains(&path.as_str());
            for (token, read, write) in [
                ("", 401, 401),
                ("garbage", 401, 401),
                ("expired", 401, 401),
                ("other-audience", 401, 401),
                ("nobody", if about { 200 } else { 403 }, 403),
                ("reader", 200, 403),
                ("writer", 200, 202),
            ] {
                let expected = match (method.as_str(), path.contains("/offset-resets"), write) {
                    // Here, groups have no dead letters.
                    ("GET", ..) if path.contains("/dead-letters") && read == 200 => 409,
                    ("GET", ..) => read,
                    ("POST", true, 202) => 201,
                    ("DELETE", true, 202) => 200,
                    _ => write,
                };
                if path.ends_with("/watch") {
                    assert_eq!(
                        watch_status(&api, token).await,
                        expected,
                        "{token} {method} {path}"
                    );
                    continue;
                }
                let (status, headers, answer) = api.ask(token, &method, &path, body).await;
                assert_eq!(status, expected, "{token} {method} {path}: {answer}");
                if status >= 400 {
                    assert!(
                        headers.contains("application/problem+json"),
                        "{token} {method} {path}"
                    );
                    assert_eq!(headers.contains("www-authenticate: bearer "), status == 401);
                }
                if status == 403 {
                    let detail = answer["detail"].as_str().unwrap();
                    assert!(
                        detail.contains(".kafka-consumer.dev") || detail.contains("deployments.apps"),
                        "{detail}"
                    );
                }
                assert!(!answer.to_string().contains("bills"), "{token} {path}");
            }
        }
    }
    assert_eq!(routes, 18);
    // Pages have no data; the log in needs them.
    for path in ["/", "/ui/app.js", "/docs/", "/groups/shop/orders"] {
        assert_eq!(api.get("", path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn without_an_answer_of_the_api_server_nothing_is_allowed() {
    let api = Api::start(Times::default()).await;
    for (code, part) in [
        (500, "answers 500"),
        (403, "may not create"),
        (0, "without a status"),
    ] {
        api.fake.reviews_answer.store(code, Ordering::Relaxed);
        let (status, answer) = api.get("admin", "/api/v1/groups").await;
        assert_eq!(
            (status, &answer["reason"]),
            (503, &"AuthenticationUnavailable".into())
        );
        assert!(answer["detail"].as_str().unwrap().contains(part), "{answer}");
    }
    api.fake.reviews_answer.store(200, Ordering::Relaxed);
    assert_eq!(api.get("admin", "/api/v1/groups").await.0, 200);
    // A valid token is known for a while, a right that was never asked about is not.
    api.fake.reviews_answer.store(500, Ordering::Relaxed);
    assert_eq!(api.get("admin", "/api/v1/groups").await.0, 200);
    assert_eq!(api.get("admin", "/api/v1/groups/shop/orders").await.0, 503);
}

#[tokio::test]
async fn answers_are_kept_for_a_while_and_then_asked_again() {
    let times = Times {
        allowed: Duration::from_millis(300),
        refused: Duration::from_millis(300),
        ..Times::default()
    };
    let api = Api::start(times).await;
    for _ in 0..3 {
        api.get("reader", "/api/v1/groups/shop/orders").await;
        api.get("garbage", "/api/v1/groups/shop/orders").await;
    }
    let counts = || ["tokenreviews", "subjectaccessreviews"].map(|part| api.fake.asked(part).len());
    assert_eq!(counts(), [2, 1]);
    tokio::time::sleep(Duration::from_millis(400)).await;
    api.get("reader", "/api/v1/groups/shop/orders").await;
    api.get("garbage", "/api/v1/groups/shop/orders").await;
    assert_eq!(counts(), [4, 2]);
}

#[tokio::test]
async fn changes_are_sent_with_the_token_of_the_user() {
    let api = Api::start(Times::default()).await;
    let (status, _, answer) = api
        .ask("writer", "PUT", STATE, r#"{"desiredState": "Paused"}"#)
        .await;
    assert_eq!((status, &answer["desiredState"]), (202, &"Paused".into()));
    let (status, _, answer) = api
        .ask("writer", "PUT", STATE, r#"{"desiredState": "Running"}"#)
        .await;
    assert_eq!((status, &answer["changed"]), (200, &false.into()));
    let (status, _, answer) = api.ask("writer", "PUT", SCALE, r#"{"replicas": 3}"#).await;
    assert_eq!((status, &answer["replicas"]), (202, &3.into()));
    let restart = "/api/v1/groups/shop/orders/restart";
    assert_eq!(api.ask("writer", "POST", restart, "").await.0, 202);
    let patches: Vec<_> = {
        let asked = lock(&api.fake.asked);
        asked
            .iter()
            .filter(|asked| asked.method == "PATCH")
            .cloned()
            .collect()
    };
    let base = "/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaconsumergroups/orders";
    let manager = "?fieldManager=kafka-consumer-api:writer";
    assert_eq!(
        patches
            .iter()
            .map(|it| (it.path.clone(), it.token.as_str()))
            .collect::<Vec<_>>(),
        [
            (format!("{base}{manager}"), "writer"),
            (format!("{base}/scale{manager}"), "writer"),
            (
                format!("/apis/apps/v1/namespaces/shop/deployments/orders-worker{manager}"),
                "writer"
            ),
        ]
    );
    assert_eq!(patches[0].body, json!({"spec": {"desiredState": "Paused"}}));
    assert_eq!(patches[1].body, json!({"spec": {"replicas": 3}}));
    let annotations = &patches[2].body["spec"]["template"]["metadata"]["annotations"];
    assert!(
        annotations["kubectl.kubernetes.io/restartedAt"].is_string(),
        "{annotations}"
    );
    let (_, events) = api.get("writer", "/api/v1/groups/shop/orders/events").await;
    let items = events["items"].as_array().unwrap();
    let reasons: Vec<_> = items.iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["Late", "Later", "Early"]);
    assert_eq!(api.fake.asked("/events?")[0].token, "writer");
}

#[tokio::test]
async fn a_change_that_cannot_last_is_refused_with_the_reason() {
    let api = Api::start(Times::default()).await;
    for body in [
        r#"{"replicas": -1}"#,
        r#"{"replicas": "3"}"#,
        r#"{"replicas": 1.5}"#,
        "{}",
    ] {
        let (status, _, answer) = api.ask("writer", "PUT", SCALE, body).await;
        assert_eq!(
            (status, &answer["reason"]),
            (400, &"InvalidBody".into()),
            "{body}"
        );
    }
    let fields = |field: &str| json!({"f:spec": {format!("f:{field}"): {}}});
    let owned = ["desiredState", "replicas"].map(
        |field| json!({"manager": "argocd-controller", "operation": "Apply", "fieldsV1": fields(field)}),
    );
    lock(&api.fake.resource)["metadata"]["managedFields"] = json!(owned);
    for (path, body) in [
        (STATE, r#"{"desiredState": "Paused"}"#),
        (SCALE, r#"{"replicas": 3}"#),
    ] {
        let (status, _, answer) = api.ask("writer", "PUT", path, body).await;
        assert_eq!((status, &answer["reason"]), (409, &"ManagedByGitOps".into()));
        assert!(
            answer["detail"].as_str().unwrap().contains("Argo CD owns spec."),
            "{answer}"
        );
        let forced = format!("{path}?force=true");
        assert_eq!(api.ask("writer", "PUT", &forced, body).await.0, 202);
    }
    let (_, me) = api.get("writer", "/api/v1/me?group=shop/orders").await;
    assert_eq!(
        me["actions"]["state"],
        json!({"allowed": true, "why": null, "managedBy": "Argo CD"})
    );
    lock(&api.fake.resource)["spec"] =
        json!({"desiredState": "Stopped", "scaling": {"mode": "PartitionCount"}});
    let (status, _, answer) = api.ask("writer", "PUT", SCALE, r#"{"replicas": 3}"#).await;
    assert_eq!((status, &answer["reason"]), (409, &"ScalingModeNotManual".into()));
    let restart = "/api/v1/groups/shop/orders/restart";
    let (status, _, answer) = api.ask("writer", "POST", restart, "").await;
    assert_eq!((status, &answer["reason"]), (409, &"GroupStopped".into()));
    let (_, me) = api.get("writer", "/api/v1/me?group=shop/orders").await;
    assert_eq!(me["user"], "writer");
    assert!(
        me["actions"]["scale"]["why"]
            .as_str()
            .unwrap()
            .contains("PartitionCount"),
        "{me}"
    );
    let (_, me) = api.get("reader", "/api/v1/me?group=shop/orders").await;
    let why = &me["actions"]["state"]["why"];
    assert_eq!(why, "you may not patch kafkaconsumergroups.kafka-consumer.dev");
}

#[tokio::test]
async fn a_stream_ends_when_the_user_has_no_right_any_more() {
    let times = Times {
        allowed: Duration::from_millis(100),
        recheck: Duration::from_millis(100),
        ..Times::default()
    };
    let api = Api::start(times).await;
    let mut stream = watch_at(api.address, "?groups=shop/orders", &header("reader")).await;
    assert_eq!(event(&mut stream).await.unwrap().0, "snapshot");
    api.show(1);
    assert_eq!(
        event(&mut stream).await.unwrap().0,
        "patch",
        "the right is still there"
    );
    api.fake.reviews_answer.store(500, Ordering::Relaxed);
    api.show(2);
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(
        (name.as_str(), &data["reason"]),
        ("bye", &"AuthenticationUnavailable".into())
    );
    assert_eq!(event(&mut stream).await, None);
}

#[tokio::test]
async fn an_operator_that_has_just_started_says_so() {
    let (_, server) = Fake::start().await;
    let config = Config::new(format!("http://{server}").parse().unwrap());
    let cluster = Cluster::new(config, Times::default()).unwrap();
    let address = serve(&Arc::default(), Backend::Cluster(Arc::new(cluster))).await;
    let (status, _, body) = send(address, "GET", "/api/v1/groups", &header("admin"), "").await;
    assert!(status == 503 && body.contains("Starting"), "{status} {body}");
}
