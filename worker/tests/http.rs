//! The HTTP writer against a real server on a loopback port; one test runs it in a whole worker against
//! librdkafka's mock cluster.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "http")]

#[path = "poll_loop/worker.rs"]
mod worker;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use crds::spec;
use kafka_consumer_worker::{
    Batch, Chunk, Extensions, Rejected, WriteBatch, WriteError, Writer, record::TopicPartition,
    secrets::SecretFiles, writer::http::HttpWriter,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::worker::{Cluster, Worker, eventually};

struct Request {
    method: Method,
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Answers as the test defines and records the requests.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    async fn start(answer: impl Fn(usize, &Request) -> Response + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let answer = Arc::new(answer);
        let app = Router::new().fallback(move |method: Method, headers: HeaderMap, body: Bytes| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move {
                let request = Request {
                    method,
                    headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                let mut seen = seen.lock().unwrap();
                let response = answer(seen.len(), &request);
                seen.push(request);
                response
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, requests }
    }

    fn bodies(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.body.clone())
            .collect()
    }
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

fn json_reply(code: u16, body: serde_json::Value) -> Response {
    (
        StatusCode::from_u16(code).unwrap(),
        [(CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}

fn writer_with(url: &str, secrets: &std::path::Path, more: serde_json::Value) -> HttpWriter {
    let mut config = json!({"url": url, "timeoutSeconds": 5});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config: spec::HttpWriter = serde_json::from_value(config).unwrap();
    HttpWriter::new(&config, SecretFiles::new(secrets.into(), secrets.into())).unwrap()
}

fn writer(url: &str, format: &str) -> HttpWriter {
    writer_with(url, "/nonexistent".as_ref(), json!({"format": format}))
}

fn batch(values: &[Option<&str>]) -> Batch {
    let mut chunk = Chunk::new(TopicPartition::new("orders", 2), 1);
    for (offset, value) in (10..).zip(values) {
        chunk.push(offset, 0, None, value.map(str::as_bytes), []);
    }
    Batch::identity(Arc::new(chunk))
}

async fn write(writer: &HttpWriter, batch: &Batch) -> Result<Vec<Rejected>, WriteError> {
    let all: Vec<u32> = (0..batch.len() as u32).collect();
    writer.write(WriteBatch::new(batch, &all)).await
}

fn rejected(result: Result<Vec<Rejected>, WriteError>) -> Vec<(usize, bool)> {
    result
        .unwrap()
        .iter()
        .map(|rejected| (rejected.position, rejected.retryable))
        .collect()
}

const VALUES: [Option<&str>; 3] = [Some("{\"a\": 1}"), None, Some("\"x\"")];

#[tokio::test]
async fn an_array_contains_the_batch_and_the_idempotency_key_names_it() {
    let server = Server::start(|_, _| status(204)).await;
    let writer = writer_with(
        &server.url,
        "/nonexistent".as_ref(),
        json!({"method": "PUT", "headers": [{"name": "X-Source", "value": "kafka"}]}),
    );
    assert_eq!(write(&writer, &batch(&VALUES)).await, Ok(vec![]));
    let requests = server.requests.lock().unwrap();
    let request = &requests[0];
    assert_eq!(request.body, "[{\"a\": 1},null,\"x\"]");
    assert_eq!(request.method, Method::PUT);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.header("idempotency-key"),
        Some("orders-2-10..orders-2-12")
    );
    assert_eq!(request.header("x-source"), Some("kafka"));
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("kafka-consumer-worker/")
    );
}

#[tokio::test]
async fn each_line_contains_one_value() {
    let server = Server::start(|_, _| status(200)).await;
    let batch = batch(&[Some("{\n\"a\": 1}"), Some("plain"), Some("two\nlines")]);
    assert_eq!(
        rejected(write(&writer(&server.url, "Ndjson"), &batch).await),
        [(2, false)]
    );
    assert_eq!(server.bodies(), ["{\"a\":1}\nplain\n"]);
    assert_eq!(
        server.requests.lock().unwrap()[0].header("content-type"),
        Some("application/x-ndjson")
    );
}

#[tokio::test]
async fn an_answer_with_one_result_per_record_skips_the_records_that_were_never_sent() {
    let server = Server::start(|_, _| {
        json_reply(
            207,
            json!({"results": [{"status": 422, "error": "bad"}, {"status": 503}, {"status": 201}]}),
        )
    })
    .await;
    let batch = batch(&[Some("no json"), Some("1"), Some("2"), Some("3")]);
    let result = write(&writer(&server.url, "JsonArray"), &batch).await;
    assert_eq!(rejected(result), [(0, false), (1, false), (2, true)]);
    assert_eq!(server.bodies(), ["[1,2,3]"]);
}

#[tokio::test]
async fn a_status_without_results_applies_to_the_whole_batch() {
    // The 429 is last, because the writer waits after it.
    let codes = [503, 422, 401, 404, 302, 429];
    let server = Server::start(move |n, _| match codes[n] {
        429 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "slow down").into_response(),
        code => (
            StatusCode::from_u16(code).unwrap(),
            [("location", "/elsewhere")],
            "why",
        )
            .into_response(),
    })
    .await;
    let writer = writer(&server.url, "JsonArray");
    let batch = batch(&VALUES);
    for code in codes {
        let result = write(&writer, &batch).await;
        match (code, &result) {
            (503, Err(WriteError::Inconclusive(message))) => {
                assert!(message.contains("status 503: why"), "{message}")
            }
            (429, Err(WriteError::Transient(message))) => {
                assert!(message.contains("Retry-After: 7"), "{message}")
            }
            (422, Err(WriteError::Refused(message))) => {
                assert!(message.contains("status 422: why"), "{message}")
            }
            (401 | 404 | 302, Err(WriteError::Systemic(_))) => {}
            _ => panic!("{code}: {result:?}"),
        }
    }
    assert_eq!(server.bodies().len(), codes.len());
}

#[tokio::test]
async fn an_answer_that_leaves_the_outcome_unknown_is_inconclusive_and_the_error_says_what_to_fix() {
    let large = "x".repeat(17 * 1024 * 1024);
    let server = Server::start(move |n, _| match n {
        0 => json_reply(200, json!({"results": [{"status": 201}]})),
        1 => json_reply(200, json!(large)),
        2 => status(303),
        _ => (StatusCode::SERVICE_UNAVAILABLE, large.clone()).into_response(),
    })
    .await;
    let writer = writer(&server.url, "JsonArray");
    let batch = batch(&VALUES);
    for says in [
        "the server answered 200 with 1 result for 3 records",
        "the server answered 200, but its answer is larger than 16777216 bytes",
        "let the server answer 2xx",
        // However long its body is.
        "status 503: xxx",
    ] {
        match write(&writer, &batch).await {
            Err(WriteError::Inconclusive(message)) => assert!(message.contains(says), "{message}"),
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_truncated_answer_leaves_the_outcome_unknown_if_it_may_contain_results_of_records() {
    for (status, kind, transient) in [
        ("200 OK", "application/json", true),
        ("422 Unprocessable Content", "application/json", true),
        ("422 Unprocessable Content", "text/plain", false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: 100\r\n\r\n{{\"re");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The client would not take an answer that arrives before its request.
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // Closing the socket with unread data would reset the connection, and the answer might be lost.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let result = write(&writer(&url, "JsonArray"), &batch(&VALUES)).await;
        match &result {
            Err(WriteError::Inconclusive(message)) if transient => {
                assert!(message.contains("but its answer breaks off"), "{message}");
            }
            Err(WriteError::Refused(_)) if !transient => {}
            _ => panic!("{status}, {kind}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_sends_a_batch_once_when_the_answer_leaves_the_outcome_unknown() {
    // The answer has one result more than the request has records.
    let server = Server::start(|_, request| {
        let sent: Vec<u32> = serde_json::from_str(&request.body).unwrap();
        json_reply(
            200,
            json!({"results": vec![json!({"status": 201}); sent.len() + 1]}),
        )
    })
    .await;
    let cluster = Cluster::new(&[], 1);
    let values: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let records = values.iter().map(|value| (None, value.as_str()));
    cluster.produce(0, records).await;

    let config = cluster.config(json!({
        "processing": {"deliveryGuarantee": "AtMostOnce", "batch": {"maxRecords": 4}},
        "writers": [{"name": "api", "type": "Http", "http": {"url": server.url}}],
        "errorHandling": {"retry": {"initialBackoffMilliseconds": 1, "maxBackoffSeconds": 1}},
        "drainSeconds": 5,
    }));
    let worker = Worker::start(config, "worker-0", &Extensions::new()).await;
    let (snapshot, metrics) = (worker.snapshot.clone(), worker.metrics.clone());
    let finished = || (snapshot.read().records_total >= 8).then_some(());
    if eventually(finished).await.is_none() {
        panic!(
            "never finished: {:#?}; sent: {:?}",
            snapshot.read(),
            server.bodies()
        );
    }
    worker.stop().await;

    let bodies = server.bodies();
    let sent: Vec<u32> = bodies
        .iter()
        .flat_map(|body| serde_json::from_str::<Vec<u32>>(body).unwrap())
        .collect();
    assert_eq!(sent, (0..8).collect::<Vec<u32>>(), "{bodies:?}");
    let metrics = metrics.encode(&snapshot.read(), Duration::ZERO).unwrap();
    let given_up = "kcg_worker_records_given_up_total{writer=\"api\"} 8\n";
    assert!(metrics.contains(given_up), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_which_the_server_fails_is_found_and_all_others_are_written() {
    let server = Server::start(|_, request| {
        let sent: Vec<u32> = serde_json::from_str(&request.body).unwrap();
        status(if sent.contains(&5) { 500 } else { 200 })
    })
    .await;
    let cluster = Cluster::new(&[], 1);
    let values: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    cluster
        .produce(0, values.iter().map(|value| (None, value.as_str())))
        .await;
    let config = cluster.config(json!({
        "writers": [{"name": "api", "type": "Http", "http": {"url": server.url}}],
        "errorHandling": {
            "retry": {"initialBackoffMilliseconds": 1, "maxBackoffSeconds": 1, "maxAttempts": 2},
            "onExhausted": "Skip",
        },
        "drainSeconds": 5,
    }));
    let worker = Worker::start(config, "worker-0", &Extensions::new()).await;
    worker
        .until("everything is finished", |snapshot| snapshot.records_total == 8)
        .await;
    let metrics = worker
        .metrics
        .encode(&Default::default(), Duration::ZERO)
        .unwrap();
    assert!(metrics.contains("kcg_worker_skipped_total 1"), "{metrics}");
    let written: std::collections::BTreeSet<u32> = (server.bodies().iter())
        .map(|body| serde_json::from_str::<Vec<u32>>(body).unwrap())
        .filter(|sent| !sent.contains(&5))
        .flatten()
        .collect();
    assert_eq!(Vec::from_iter(written), [0, 1, 2, 3, 4, 6, 7]);
    worker.stop().await;
}

#[tokio::test]
async fn single_records_are_sent_in_order_and_a_retry_continues_where_it_failed() {
    let server = Server::start(|n, request| match (n, request.body.as_str()) {
        (2, _) => status(500),
        (_, "\"bad\"") => status(400),
        _ => status(201),
    })
    .await;
    let writer = writer(&server.url, "Single");
    let batch = batch(&[Some("1"), Some("\"bad\""), Some("3"), Some("raw")]);
    assert!(matches!(
        write(&writer, &batch).await,
        Err(WriteError::Inconclusive(_))
    ));
    assert_eq!(rejected(write(&writer, &batch).await), [(1, false)]);
    assert_eq!(server.bodies(), ["1", "\"bad\"", "3", "\"bad\"", "3", "raw"]);
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests[5].header("idempotency-key"), Some("orders-2-13"));
    assert_eq!(
        requests[5].header("content-type"),
        Some("application/octet-stream")
    );
}

#[tokio::test]
async fn a_corrected_token_is_used_without_a_restart() {
    let server = Server::start(|_, request| match request.header("authorization") {
        Some("Bearer right") => status(200),
        _ => status(401),
    })
    .await;
    let secrets = tempfile::tempdir().unwrap();
    fs::create_dir(secrets.path().join("api")).unwrap();
    fs::write(secrets.path().join("api/token"), "wrong\n").unwrap();
    let token = json!({"bearerToken": {"secretName": "api", "key": "token"}});
    let writer = writer_with(&server.url, secrets.path(), token);
    let batch = batch(&VALUES);
    match write(&writer, &batch).await {
        Err(WriteError::Systemic(message)) => assert!(!message.contains("wrong"), "{message}"),
        other => panic!("{other:?}"),
    }
    fs::write(secrets.path().join("api/token"), "right\n").unwrap();
    // Nothing was written, so the writer must not report an error: with AtMostOnce an error would cost the
    // batch.
    assert_eq!(write(&writer, &batch).await, Ok(vec![]));
    assert_eq!(server.bodies().len(), 3);
}

#[tokio::test]
async fn basic_authentication_comes_from_the_secret() {
    let server = Server::start(|_, _| status(200)).await;
    let secrets = tempfile::tempdir().unwrap();
    fs::create_dir(secrets.path().join("login")).unwrap();
    fs::write(secrets.path().join("login/username"), "Aladdin").unwrap();
    fs::write(secrets.path().join("login/password"), "open sesame").unwrap();
    let writer = writer_with(
        &server.url,
        secrets.path(),
        json!({"basicAuth": {"secretName": "login"}}),
    );
    write(&writer, &batch(&VALUES)).await.unwrap();
    let expected = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(
        server.requests.lock().unwrap()[0].header("authorization"),
        expected
    );
}

#[tokio::test]
async fn an_unreachable_server_is_transient_and_a_missing_answer_is_inconclusive() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in?token=s3cret", listener.local_addr().unwrap());
    let silent = writer_with(&url, "/nonexistent".as_ref(), json!({"timeoutSeconds": 1}));
    let batch = batch(&VALUES);
    let result = write(&silent, &batch).await;
    assert!(
        matches!(&result, Err(WriteError::Inconclusive(message)) if message.contains("timeoutSeconds")),
        "{result:?}"
    );
    drop(listener);
    let result = write(&writer(&url, "JsonArray"), &batch).await;
    match result {
        Err(WriteError::Transient(message)) => assert!(!message.contains("s3cret"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_configuration_that_cannot_work_is_rejected_with_the_reason() {
    let new = |config: serde_json::Value| {
        let config: spec::HttpWriter = serde_json::from_value(config).unwrap();
        let secrets = SecretFiles::new("/nonexistent".into(), "/nonexistent".into());
        HttpWriter::new(&config, secrets).err().unwrap().to_string()
    };
    let message = new(json!({"url": "https://u:s3cret@h/"}));
    assert!(
        message.contains("basicAuth") && !message.contains("s3cret"),
        "{message}"
    );
    let message = new(json!({"url": "https://h/", "bearerToken": {"secretName": "api", "key": "token"}}));
    assert!(message.contains("Secret \"api\""), "{message}");
    assert!(new(json!({"url": "http://[oops"})).contains("http.url"));
}
