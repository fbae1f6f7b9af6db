//! Reads reports of real servers: good ones, slow ones, and programs that are no workers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);
/// For answers that never come.
const SHORT: Duration = Duration::from_millis(50);

/// Answers each connection with these bytes after the request, and closes it unless `open`.
async fn server(answer: Vec<u8>, open: bool) -> SocketAddr {
    server_at("127.0.0.1:0", answer, open).await
}

async fn server_at(address: &str, answer: Vec<u8>, open: bool) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0_u8; 1024];
                let length = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..length].starts_with(b"GET /status HTTP/1.1\r\n"));
                // The client may have closed the connection.
                let _ = stream.write_all(&answer).await;
                if open {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const BODY: &str = r#"{"worker":"orders-0","phase":"Consuming","recordsTotal":7,"deadLetteredTotal":1,"new":[],
    "partitions":[{"topic":"orders","partition":2,"watermark":9,"inFlight":0,"oldest":null,"pausedReason":"Paused"}]}"#;

#[tokio::test]
async fn a_report_is_read_and_unknown_fields_are_ignored() {
    let report = ask(server(ok(BODY), true).await, LIMIT).await.unwrap();
    assert_eq!((report.records_total, report.dead_lettered_total), (7, 1));
    assert_eq!(report.partitions[0].watermark, Some(9));
    assert_eq!(report.partitions[0].paused_reason.as_deref(), Some("Paused"));
}

#[tokio::test]
async fn other_forms_of_an_answer_are_read() {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n0\r\n\r\n",
        BODY.len()
    );
    let until_closed = format!("HTTP/1.0 200 OK\r\n\r\n{BODY}");
    for answer in [chunked, until_closed] {
        let report = ask(server(answer.clone().into_bytes(), false).await, LIMIT).await;
        assert_eq!(report.unwrap().worker, "orders-0", "{answer}");
    }
}

#[tokio::test]
async fn a_worker_with_an_ipv6_address_is_read() {
    let address = server_at("[::1]:0", ok(BODY), false).await;
    assert_eq!(ask(address, LIMIT).await.unwrap().worker, "orders-0");
}

#[tokio::test]
async fn a_worker_that_does_not_listen_has_no_report() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(address, LIMIT).await.unwrap_err();
    assert!(matches!(error, ReadError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_stops_in_the_middle_takes_limited_time() {
    let halves = [Vec::new(), b"HTTP/1.1 200 OK\r\ncontent-len".to_vec(), {
        let mut half = ok(BODY);
        half.truncate(half.len() - 1);
        half
    }];
    for answer in halves {
        let error = ask(server(answer, true).await, SHORT).await.unwrap_err();
        assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_takes_no_connection_costs_only_the_time_to_connect() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Connections that nobody accepts fill the queue; the kernel does not answer the next one.
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(4 * SHORT, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let error = ask_connecting_within(SHORT, address, LIMIT).await.unwrap_err();
    assert_eq!(
        error,
        ReadError::Timeout {
            address,
            limit: SHORT
        }
    );
}

#[tokio::test]
async fn what_is_no_report_is_an_error_that_quotes_nothing() {
    let secret = "c2VjcmV0";
    let closed = |answer: &[u8]| answer.to_vec();
    let mut cut = ok(BODY);
    cut.truncate(cut.len() - 1);
    let cases = [
        (closed(b""), "does not answer as an HTTP server"),
        (
            closed(&[0x15, 0x03, 0x03, 0, 2, 2, 80]),
            "does not answer as an HTTP server",
        ),
        (
            closed(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n"),
            "answers with HTTP status 503",
        ),
        (
            closed(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n"),
            "answers with HTTP status 404",
        ),
        (cut, "is incomplete"),
        (ok(secret), "is not the status of a worker"),
        (
            ok(&format!(r#"{{"worker": 1, "{secret}": "{secret}"}}"#)),
            "is not the status of a worker",
        ),
        (
            ok(&format!(r#"{{"partitions": "{secret}"}}"#)),
            "is not the status of a worker",
        ),
        (ok(&"[".repeat(100_000)), "is not the status of a worker"),
    ];
    for (answer, expected) in cases {
        let error = ask(server(answer, false).await, LIMIT)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error} is not: {expected}");
        assert!(!error.contains(secret), "{error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_and_one_with_too_many_partitions_are_refused() {
    let endless = format!("HTTP/1.0 200 OK\r\n\r\n{{\"x\": \"{}", "y".repeat(LARGEST));
    let error = ask(server(endless.into_bytes(), false).await, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Body { .. }), "{error}");
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LARGEST + 1);
    let error = ask(server(announced.into_bytes(), false).await, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Body { .. }), "{error}");
    let many = format!("{{\"partitions\":[{}{{}}]}}", "{},".repeat(MOST_PARTITIONS));
    let error = ask(server(ok(&many), false).await, LIMIT).await.unwrap_err();
    assert!(matches!(error, ReadError::Content { .. }), "{error}");
}

#[tokio::test]
async fn ten_thousand_partitions_are_read() {
    let partition = r#"{"topic":"orders","partition":1,"assignmentEpoch":1,"committed":123456789,"watermark":123456789,
        "lag":123,"inFlight":0,"oldest":null,"pausedReason":null,"stalledSince":null}"#;
    let body = format!("{{\"partitions\":[{}]}}", vec![partition; 10_000].join(","));
    let report = ask(server(ok(&body), false).await, LIMIT).await.unwrap();
    assert_eq!(report.partitions.len(), 10_000);
    let mut report = report;
    report.partitions.truncate(1);
    assert_eq!(report.partitions[0].lag, Some(123));
}
