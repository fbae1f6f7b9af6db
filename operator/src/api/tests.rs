#![allow(clippy::unwrap_used, reason = "the helpers of these tests")]

mod board;
mod changes;
mod cluster;
mod dead_letters;
mod fake_api_server;
mod limits;
mod offset_resets;
mod routes;
mod streams;
mod visible;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use crds::spec::DesiredState;
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::board::Board;
use super::command::{self, Changed, Refusal, SetState};
use super::model::{Condition, Group, Summary, Topic, Truth};
use super::places::{Find, NoPlace};
use super::server;
use super::shared::{Backend, Shared};
use super::unknown::Unknown;

pub(super) fn summary(name: &str) -> Summary {
    Summary {
        namespace: "shop".into(),
        name: name.into(),
        group_id: format!("default.{name}"),
        labels: Default::default(),
        desired_state: Some(DesiredState::Running),
        ready: Truth::True,
        reason: "AllPartitionsConsumed".into(),
        message: "every partition is being consumed".into(),
        workers: Some(1),
        workers_desired: Some(1),
        workers_reason: "1 worker per partition".into(),
        partitions: Some(1),
        stalled: Some(0),
        lag: Some(0),
        in_per_second: Some(1.0),
        done_per_second: None,
        catch_up_seconds: None,
        finished_total: Some(1),
        dead_lettered_total: Some(0),
        dead_letters_per_minute: Some(0),
        skipped_total: Some(0),
        unknown: Unknown::all(&["donePerSecond"], "measured for less than a second"),
    }
}

fn group(name: &str) -> Group {
    let condition = |kind, status| Condition {
        kind: Cow::Borrowed(kind),
        status,
        reason: "R".into(),
        message: "m".into(),
        last_transition_time: Timestamp::UNIX_EPOCH,
    };
    Group {
        summary: summary(name),
        conditions: vec![condition("Ready", Truth::True)],
        topics: vec![Topic {
            name: "orders".into(),
            partitions: Some(1),
        }],
        writers: vec!["out".into()],
        dead_letter_topic: None,
        origin: "orders.yaml".into(),
        deployment: Some(format!("{name}-worker")),
        listed: Default::default(),
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
        let address = serve(&board, Backend::Local(sender)).await;
        Self {
            address,
            board,
            commands: Some(commands),
        }
    }

    /// Status code, headers in lower case, body.
    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        send(self.address, method, path, headers, body).await
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

/// A server on a free port.
async fn serve(board: &Arc<Board>, backend: Backend) -> SocketAddr {
    serve_at(
        board,
        backend,
        Arc::new(|_| Box::pin(async { Err(NoPlace::NoTopic) })),
    )
    .await
}

/// The same, with dead letters.
async fn serve_at(board: &Arc<Board>, backend: Backend, find: Find) -> SocketAddr {
    let listener = server::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Shared::new(Arc::clone(board), backend, find);
    tokio::spawn(server::serve(listener, shared));
    address
}

/// Status code, headers in lower case, body.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if headers.to_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
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
    watch_at(server.address, query, "").await
}

async fn watch_at(address: SocketAddr, query: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/watch{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}
