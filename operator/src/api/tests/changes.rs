//! Changes in local mode, and who may not make them.

use crds::spec::DesiredState;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Server;
use crate::api::command::{Changed, Refusal};

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
    for (method, path) in [
        ("PUT", "scale"),
        ("POST", "restart"),
        ("POST", "offset-resets"),
        ("GET", "offset-resets"),
        ("GET", "offset-resets/a"),
        ("DELETE", "offset-resets/a"),
    ] {
        let path = format!("/api/v1/groups/shop/orders/{path}");
        let json = "Content-Type: application/json\r\n";
        let (status, _, body) = server.send(method, &path, json, r#"{"replicas": 2}"#).await;
        assert!(
            status == 409 && body.contains("NotInLocalMode"),
            "{status} {body}"
        );
    }
    let (status, answer) = server.put(path, &" ".repeat(4 * 1024 + 1)).await;
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
async fn headers_beyond_a_token_are_refused() {
    let server = Server::start().await;
    let header = |kib: usize| format!("X: {}\r\n", "a".repeat(kib * 1024));
    // As long as the longest token.
    assert_eq!(server.send("GET", "/api/v1/groups", &header(16), "").await.0, 200);
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /api/v1/groups HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        header(100)
    );
    let mut answer = Vec::new();
    // The server may close before it has read everything, and then its answer may be lost.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{answer:?}"
    );
}
