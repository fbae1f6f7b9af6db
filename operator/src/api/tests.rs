#![allow(clippy::unwrap_used, reason = "the helpers of these tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crds::spec::DesiredState;
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::board::Board;
use super::command::{self, Changed, Refusal, SetState};
use super::model::{Condition, EventKind, Group, Summary, Truth, Unknown};
use super::server;
use super::shared::Shared;

pub(super) fn summary(name: &str) -> Summary {
    Summary {
        namespace: "shop".into(),
        name: name.into(),
        group_id: format!("default.{name}"),
        labels: Default::default(),
        desired_state: DesiredState::Running,
        ready: Truth::True,
        reason: "AllPartitionsConsumed".into(),
        message: "every partition is being consumed".into(),
        workers: 1,
        workers_desired: 1,
        workers_reason: "1 worker per partition".into(),
        partitions: Some(1),
        stalled: 0,
        lag: Some(0),
        in_per_second: Some(1.0),
        done_per_second: None,
        catch_up_seconds: None,
        finished_total: Some(1),
        dead_lettered_total: Some(0),
        dead_letters_per_minute: Some(0),
        skipped_total: Some(0),
        unknown: Unknown::from([("donePerSecond", "measured for less than a second".to_string())]),
    }
}

fn group(name: &str) -> Group {
    let condition = |kind, status| Condition {
        kind,
        status,
        reason: "R".into(),
        message: "m".into(),
        last_transition_time: Timestamp::UNIX_EPOCH,
    };
    Group {
        summary: summary(name),
        conditions: vec![condition("Ready", Truth::True)],
        topics: [("orders".to_string(), Some(1))].into(),
        writers: vec!["out".into()],
        dead_letter_topic: None,
        origin: "orders.yaml".into(),
        partitions: vec![super::model::Partition {
            topic: "orders".into(),
            ..Default::default()
        }],
        workers: Vec::new(),
    }
}

/// A server on a free port, with two groups.
struct Server {
    address: SocketAddr,
    board: Arc<Board>,
    commands: Option<mpsc::Receiver<SetState>>,
}

impl Server {
    async fn start() -> Self {
        let board = Arc::new(Board::default());
        board.publish(vec![group("orders"), group("bills")], Timestamp::now());
        let (sender, commands) = command::channel();
        let listener = server::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(
            listener,
            Shared::new(Arc::clone(&board), sender, "local"),
        ));
        Self {
            address,
            board,
            commands: Some(commands),
        }
    }

    /// Status code, headers in lower case, body.
    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = if headers.to_lowercase().contains("host:") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        // A server that refuses early may close before everything is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_string())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send("GET", path, "", "").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn put(&self, path: &str, body: &str) -> (u16, Value) {
        let json = "Content-Type: application/json\r\n";
        let (status, _, body) = self.send("PUT", path, json, body).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Answers every command like this.
    fn answer_commands(&mut self, answer: fn(&SetState) -> Result<Changed, Refusal>) {
        let mut commands = self.commands.take().unwrap();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                let done = answer(&command);
                let _ = command.answer.send(done);
            }
        });
    }
}

#[tokio::test]
async fn groups_and_their_parts_are_served() {
    let server = Server::start().await;
    let (status, list) = server.get("/api/v1/groups?sort=name").await;
    assert_eq!((status, list["total"].as_u64()), (200, Some(2)));
    assert_eq!(list["items"][0]["name"], "bills");
    assert_eq!(list["items"][0]["donePerSecond"], Value::Null, "unknown is not 0");
    assert_eq!(
        list["items"][0]["unknown"]["donePerSecond"],
        "measured for less than a second"
    );
    let (_, one) = server.get("/api/v1/groups/shop/orders").await;
    assert_eq!(
        (&one["desiredState"], &one["ready"]),
        (&"Running".into(), &"True".into())
    );
    assert_eq!(one["conditions"][0]["type"], "Ready");
    let (_, partitions) = server.get("/api/v1/groups/shop/orders/partitions").await;
    assert_eq!(partitions["items"][0]["topic"], "orders");
    assert_eq!(
        server.get("/api/v1/groups/shop/orders/workers").await.1["items"],
        Value::Array(vec![])
    );
    let (_, points) = server
        .get("/api/v1/groups/shop/orders/series?metric=lag,in")
        .await;
    assert_eq!(
        (&points["lag"], points.get("done")),
        (&serde_json::json!([0.0]), None)
    );
    let (_, version) = server.get("/api/v1/version").await;
    assert_eq!(version["mode"], "local");
}

#[tokio::test]
async fn every_wrong_request_is_a_problem_that_says_what_to_send() {
    let server = Server::start().await;
    for (path, status, reason, part) in [
        (
            "/api/v1/groups/shop/nothing",
            404,
            "GroupNotFound",
            "GET /api/v1/groups",
        ),
        (
            "/api/v1/groups/shop/nothing/workers",
            404,
            "GroupNotFound",
            "shop/nothing",
        ),
        (
            "/api/v1/groups/shop/nothing/series",
            404,
            "GroupNotFound",
            "shop/nothing",
        ),
        ("/api/v1/nothing", 404, "RouteNotFound", "/docs"),
        ("/nothing", 404, "RouteNotFound", "/docs"),
        ("/api/v1/groups?limt=1", 400, "InvalidQuery", "limt"),
        ("/api/v1/groups?limit=many", 400, "InvalidQuery", "invalid digit"),
        (
            "/api/v1/groups/shop/orders/series?step=7",
            400,
            "InvalidQuery",
            "2, 15 or 300",
        ),
        (
            "/api/v1/groups/shop/orders/series?since=today",
            400,
            "InvalidQuery",
            "2026-",
        ),
        (
            "/api/v1/groups/shop/orders/series?metric=cpu",
            400,
            "InvalidQuery",
            "replicas",
        ),
        (
            "/api/v1/watch?groups=orders",
            400,
            "InvalidQuery",
            "NAMESPACE/NAME",
        ),
    ] {
        let (code, headers, body) = server.send("GET", path, "", "").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, problem["reason"].as_str()),
            (status, Some(reason)),
            "{path}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{path}: {problem}"
        );
        assert!(headers.contains("application/problem+json"), "{path}");
    }
    let (code, _, body) = server
        .send(
            "PUT",
            "/api/v1/groups",
            "Content-Type: application/json\r\n",
            "{}",
        )
        .await;
    assert!(code == 405 && body.contains("MethodNotAllowed"), "{code} {body}");
}

#[tokio::test]
async fn a_state_is_requested_and_answered() {
    let mut server = Server::start().await;
    server.answer_commands(|command| match command.state {
        DesiredState::Running => Ok(Changed::default()),
        DesiredState::Paused => Ok(Changed {
            changed: true,
            warning: Some("the file says Running".into()),
        }),
        DesiredState::Stopped => Err(Refusal::Invalid("no".into())),
    });
    let path = "/api/v1/groups/shop/orders/state";
    let (status, answer) = server.put(path, r#"{"desiredState":"Running"}"#).await;
    assert_eq!((status, &answer["changed"]), (200, &Value::Bool(false)));
    let (status, answer) = server.put(path, r#"{"desiredState":"Paused"}"#).await;
    assert_eq!(
        (status, &answer["warning"]),
        (202, &"the file says Running".into())
    );
    assert_eq!(answer["statusUrl"], "/api/v1/groups/shop/orders");
    let (status, answer) = server.put(path, r#"{"desiredState":"Stopped"}"#).await;
    assert_eq!((status, &answer["detail"]), (422, &"no".into()));
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"desiredState":"paused"}"#,
        r#"{"desiredState":1}"#,
        r#"{"state":"Paused"}"#,
    ] {
        let (status, answer) = server.put(path, body).await;
        assert_eq!(
            (status, &answer["reason"]),
            (400, &"InvalidBody".into()),
            "{body}"
        );
        assert!(
            answer["detail"].as_str().unwrap().contains("\"Stopped\""),
            "{answer}"
        );
    }
    let (status, answer) = server.put(path, &" ".repeat(1024 * 1024 + 1)).await;
    assert_eq!((status, &answer["reason"]), (413, &"BodyTooLarge".into()));
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let mut server = Server::start().await;
    server.answer_commands(|_| panic!("a command arrived"));
    let path = "/api/v1/groups/shop/orders/state";
    for (headers, status) in [
        ("Content-Type: text/plain\r\n", 415),
        (
            "Content-Type: application/json\r\nOrigin: http://evil.example\r\n",
            403,
        ),
        (
            "Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n",
            403,
        ),
        ("Content-Type: application/json\r\nHost: evil.example\r\n", 421),
    ] {
        let (code, _, body) = server
            .send("PUT", path, headers, r#"{"desiredState":"Stopped"}"#)
            .await;
        assert_eq!(code, status, "{headers}{body}");
    }
}

#[tokio::test]
async fn all_answers_carry_the_security_headers() {
    let server = Server::start().await;
    for path in [
        "/",
        "/groups/shop/orders",
        "/api/v1/groups",
        "/nothing",
        "/docs/",
        "/ui/app.js",
    ] {
        let (_, headers, _) = server.send("GET", path, "", "").await;
        for part in [
            "content-security-policy: default-src 'self'; script-src 'self';",
            "nosniff",
            "no-referrer",
        ] {
            assert!(headers.contains(part), "{path}: {headers}");
        }
        assert_eq!(headers.contains("unsafe-inline"), path == "/docs/", "{path}");
    }
    let (status, _, page) = server.send("GET", "/docs/", "", "").await;
    assert!(status == 200 && page.contains("swagger-ui"), "{page}");
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let server = Server::start().await;
    let (_, document) = server.get("/api/v1/openapi.json").await;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/groups",
            "/api/v1/groups/{namespace}/{name}",
            "/api/v1/groups/{namespace}/{name}/events",
            "/api/v1/groups/{namespace}/{name}/partitions",
            "/api/v1/groups/{namespace}/{name}/series",
            "/api/v1/groups/{namespace}/{name}/state",
            "/api/v1/groups/{namespace}/{name}/workers",
            "/api/v1/version",
            "/api/v1/watch",
        ]
    );
    let text = include_str!("../../../docs/api.md");
    for path in paths {
        assert!(
            text.contains(path.as_str()),
            "docs/api.md does not describe {path}"
        );
    }
}

/// An event of a stream: its name and its data.
async fn event(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let (mut name, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return None;
        }
        if let Some(text) = line.trim().strip_prefix("event: ") {
            name = text.into();
        } else if let Some(data) = line.trim().strip_prefix("data: ") {
            return Some((name, serde_json::from_str(data).unwrap()));
        }
    }
}

async fn watch(server: &Server, query: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET /api/v1/watch{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

#[tokio::test]
async fn a_stream_begins_with_everything_and_continues_with_changes() {
    let server = Server::start().await;
    let mut stream = watch(&server, "").await;
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(
        (name.as_str(), data["groups"].as_object().unwrap().len()),
        ("snapshot", 2)
    );
    assert_eq!(
        data["groups"]["shop/orders"].get("partitions"),
        Some(&1.into()),
        "as in the list"
    );
    let mut changed = group("orders");
    changed.summary.lag = None;
    changed.summary.unknown.insert("lag", "KafkaUnreachable".into());
    server.board.publish(vec![changed], Timestamp::now());
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(name, "patch");
    assert_eq!(
        data["groups"],
        serde_json::json!({"shop/bills": null, "shop/orders": {"lag": null, "unknown": {"lag": "KafkaUnreachable"}}})
    );
    server.board.close();
    assert_eq!(event(&mut stream).await.unwrap().0, "bye");
    let (status, problem) = server.get("/api/v1/watch").await;
    assert_eq!((status, &problem["reason"]), (503, &"ShuttingDown".into()));
}

#[tokio::test]
async fn a_stream_of_one_group_has_its_partitions() {
    let server = Server::start().await;
    let mut stream = watch(&server, "?groups=shop/orders").await;
    let (_, data) = event(&mut stream).await.unwrap();
    assert_eq!(data["groups"].as_object().unwrap().len(), 1);
    assert_eq!(
        data["groups"]["shop/orders"]["partitionList"][0]["topic"],
        "orders"
    );
}

#[tokio::test]
async fn streams_are_limited_and_closed_ones_are_free_again() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = watch(&server, "").await;
        event(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let (status, body) = server.get("/api/v1/watch").await;
    assert_eq!((status, &body["reason"]), (429, &"TooManyStreams".into()));
    assert_eq!(
        server.get("/api/v1/groups").await.0,
        200,
        "requests are still answered"
    );
    drop(streams);
    for _ in 0..100 {
        // The server notices that a client is gone when it writes.
        server.board.publish(vec![group("orders")], Timestamp::now());
        let mut stream = watch(&server, "").await;
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.contains("200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no stream became free");
}

#[test]
fn the_board_keeps_times_of_changes_and_reports_them() {
    let board = Board::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    board.publish(vec![group("orders")], at(100));
    board.publish(vec![group("orders")], at(101));
    let (key, time) = (group("orders").summary.key(), |board: &Board| {
        board.snapshot().groups.values().next().unwrap().conditions[0].last_transition_time
    });
    assert_eq!(time(&board), at(100));
    let mut changed = group("orders");
    changed.summary.ready = Truth::False;
    changed.summary.reason = "RecordFailed".into();
    changed.conditions[0].status = Truth::False;
    board.publish(vec![changed], at(102));
    assert_eq!(time(&board), at(102));
    let events = board.events(&key);
    assert_eq!(
        (events.len(), events[0].kind, events[0].reason),
        (1, EventKind::Warning, "ReadyChanged")
    );
    for number in 0..200 {
        board.event(&key, EventKind::Normal, "Scaled", &format!("{number}"), at(103));
    }
    let events = board.events(&key);
    assert_eq!((events.len(), events[0].message.as_str()), (100, "199"));
    board.publish(Vec::new(), at(104));
    assert!(
        board.events(&key).is_empty(),
        "a group that is gone leaves nothing"
    );
    assert_eq!(board.points(&key, 0, None, 104), None);
}

#[tokio::test]
async fn a_taken_port_is_an_error_or_the_next_free_one_is_used() {
    let taken = server::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = taken.local_addr().unwrap();
    assert!(server::bind(address, false).await.is_err());
    let next = server::bind(address, true).await.unwrap().local_addr().unwrap();
    assert!(next.port() > address.port(), "{next}");
}
