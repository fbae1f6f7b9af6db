//! Reads the status of workers. In: the address of a worker's HTTP server. Out: the parts of its `/status`
//! that are shown, or None if it does not answer, which is normal while it starts. Never waits longer than
//! the timeout.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A worker on the same machine answers in milliseconds or does not run; it is asked every second.
const TIMEOUT: Duration = Duration::from_millis(800);
/// Larger than a status with 10,000 partitions, the maximum of a group.
const LARGEST: u64 = 8 * 1024 * 1024;

/// What a worker reports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerReport {
    pub phase: String,
    pub records_total: u64,
    pub dead_lettered_total: u64,
    pub skipped_total: u64,
    pub last_error: Option<String>,
    pub partitions: Vec<PartitionReport>,
}

/// One partition of a worker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PartitionReport {
    pub topic: String,
    pub partition: i32,
    pub watermark: Option<i64>,
    pub in_flight: u64,
    pub oldest: Option<OldestReport>,
    pub paused_reason: Option<String>,
    pub stalled_since: Option<Timestamp>,
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

/// The report of the worker, if it answers.
pub async fn ask(address: SocketAddr) -> Option<WorkerReport> {
    let answer = tokio::time::timeout(TIMEOUT, get(address)).await.ok()?.ok()?;
    parse(&answer)
}

/// HTTP/1.0, so that the body is neither chunked nor followed by another response.
async fn get(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<WorkerReport> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|code| *code == "200")?;
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_unknown_fields_are_ignored() {
        let body = r#"{"worker":"orders-0","phase":"Consuming","recordsTotal":7,"deadLetteredTotal":1,"new":[],"partitions":[{"topic":"orders","partition":2,"watermark":9,"inFlight":0,"oldest":null,"pausedReason":"Paused"}]}"#;
        let report = parse(format!("HTTP/1.0 200 OK\r\na: b\r\n\r\n{body}").as_bytes()).unwrap();
        assert_eq!((report.records_total, report.dead_lettered_total), (7, 1));
        assert_eq!(report.partitions[0].watermark, Some(9));
        assert_eq!(report.partitions[0].paused_reason.as_deref(), Some("Paused"));
    }

    #[test]
    fn other_answers_are_no_report() {
        for answer in ["", "HTTP/1.0 503 no\r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\nnot JSON"] {
            assert_eq!(parse(answer.as_bytes()), None, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_worker_that_does_not_listen_gives_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(address).await, None);
    }
}
