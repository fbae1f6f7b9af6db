//! Reads what workers report. In: the address of a worker's HTTP server. Out: its `/status`, as far as it is
//! shown, or why there is none. Never waits longer than a time limit, never takes more memory than a limit:
//! whatever listens at the address may be slow, or no worker at all.

pub mod summary;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Request, StatusCode};
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections of this process at the same time.
static CONNECTIONS: Semaphore = Semaphore::const_new(50);
/// Answers longer than [`SMALL`] that are held in memory at the same time.
static LARGE: Semaphore = Semaphore::const_new(2);
/// The status of a worker with 100 to 200 partitions.
const SMALL: u64 = 64 * 1024;
/// The status of a worker with 10,000 partitions, the maximum of a topic, has about 3 MB.
const LARGEST: usize = 4 * 1024 * 1024;
/// Partitions of one worker. Short JSON makes large objects, so bytes are no limit of memory.
const MOST_PARTITIONS: usize = 20_000;

/// Why there is no report. Quotes nothing of the answer: it may come from another program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    #[error("cannot connect to {address}: {why}")]
    Connect { address: SocketAddr, why: String },
    #[error("no answer from {address} within {} s", .limit.as_secs_f32())]
    Timeout { address: SocketAddr, limit: Duration },
    #[error("{address} does not answer as an HTTP server: {why}")]
    Http { address: SocketAddr, why: String },
    #[error("{address} answers with HTTP status {status}")]
    Status { address: SocketAddr, status: u16 },
    #[error("the answer of {address} is incomplete, or longer than {LARGEST} bytes")]
    Body { address: SocketAddr },
    #[error("the answer of {address} is not the status of a worker (line {line}, column {column})")]
    Content {
        address: SocketAddr,
        line: usize,
        column: usize,
    },
}

/// What a worker reports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerReport {
    pub worker: String,
    pub phase: String,
    pub paused: bool,
    pub records_total: u64,
    pub dead_lettered_total: u64,
    pub skipped_total: u64,
    pub last_error: Option<String>,
    #[serde(deserialize_with = "partitions")]
    pub partitions: Vec<PartitionReport>,
}

/// One partition of a worker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PartitionReport {
    pub topic: String,
    pub partition: i32,
    pub watermark: Option<i64>,
    pub lag: Option<i64>,
    pub in_flight: u64,
    pub oldest: Option<OldestReport>,
    pub paused_reason: Option<String>,
    pub stalled_since: Option<Timestamp>,
    pub skipped_by_retention: Option<SkippedReport>,
}

/// Offsets whose records retention removed before the worker read them; the second one was left.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SkippedReport {
    pub from_offset: i64,
    pub to_offset: i64,
    pub time: Timestamp,
}

/// The oldest unfinished record of a partition, and the partition's problem.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OldestReport {
    pub offset: i64,
    pub since: Timestamp,
    #[serde(default)]
    pub attempts: u32,
    pub last_error: Option<String>,
    pub error_offset: Option<i64>,
}

/// The report of the worker at `address`. Connecting and the head of the answer take at most `limit`, and the
/// body as long again.
pub async fn ask(address: SocketAddr, limit: Duration) -> Result<WorkerReport, ReadError> {
    ask_connecting_within(limit, address, limit).await
}

/// The same, and connecting alone takes at most `connect`.
pub async fn ask_connecting_within(
    connect: Duration,
    address: SocketAddr,
    limit: Duration,
) -> Result<WorkerReport, ReadError> {
    let late = |_| ReadError::Timeout { address, limit };
    // The semaphores are never closed.
    let _connection = CONNECTIONS.acquire().await;
    let (answer, connection) = tokio::time::timeout(limit, head(address, connect))
        .await
        .map_err(late)??;
    let _large = match answer.size_hint().exact() {
        Some(length) if length <= SMALL => None,
        _ => LARGE.acquire().await.ok(),
    };
    let body = tokio::time::timeout(limit, to_bytes(Body::new(answer), LARGEST)).await;
    drop(connection);
    let body = body.map_err(late)?.map_err(|_| ReadError::Body { address })?;
    serde_json::from_slice(&body).map_err(|error| ReadError::Content {
        address,
        line: error.line(),
        column: error.column(),
    })
}

/// Ends the task of a connection.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn head(
    address: SocketAddr,
    connect: Duration,
) -> Result<(hyper::body::Incoming, Connection), ReadError> {
    let http = |error: &dyn fmt::Display| ReadError::Http {
        address,
        why: error.to_string(),
    };
    let stream = tokio::time::timeout(connect, TcpStream::connect(address))
        .await
        .map_err(|_| ReadError::Timeout {
            address,
            limit: connect,
        })?
        .map_err(|error| ReadError::Connect {
            address,
            why: error.to_string(),
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    // Its errors are also those of the request.
    let connection = Connection(tokio::spawn(async { drop(connection.await) }));
    let request = Request::get("/status")
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Body::empty())
        .map_err(|error| http(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| http(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(ReadError::Status {
            address,
            status: answer.status().as_u16(),
        });
    }
    Ok((answer.into_body(), connection))
}

fn partitions<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<PartitionReport>, D::Error> {
    struct Limited;

    impl<'de> Visitor<'de> for Limited {
        type Value = Vec<PartitionReport>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST_PARTITIONS} partitions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut partitions = Vec::new();
            while let Some(partition) = items.next_element()? {
                if partitions.len() >= MOST_PARTITIONS {
                    return Err(A::Error::invalid_length(partitions.len() + 1, &self));
                }
                partitions.push(partition);
            }
            Ok(partitions)
        }
    }

    input.deserialize_seq(Limited)
}

#[cfg(test)]
mod tests;
