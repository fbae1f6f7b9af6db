//! A system behind an Http writer: an HTTP server of the test process that keeps what it is given, and can be down, which
//! means that it answers 503 and keeps nothing. HTTP/1.1, bodies with a length, JSON arrays.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use crate::systems::env::Env;

/// The running server; it ends with the value.
pub struct Sink {
    /// Where pods reach it.
    pub url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    down: AtomicBool,
    refused: AtomicU64,
    values: Mutex<Vec<Value>>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    /// Listens on any free port of all addresses.
    pub async fn start(env: &Env) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let url = format!(
            "http://{}:{}/orders",
            own_address(env).await?,
            listener.local_addr()?.port()
        );
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    // The client may go at any time.
                    let _ = serve(connection, &state).await;
                });
            }
        });
        Ok(Self { url, state, task })
    }

    /// From now on every request is answered 503, or taken again.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Requests answered 503.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Key and sequence number of the orders of a run that were taken, in the order in which they came.
    pub fn arrivals(&self, run: &str) -> Vec<(String, u64)> {
        let values = self.state.values.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .iter()
            .filter(|value| value["run"] == run)
            .filter_map(|value| Some((value["key"].as_str()?.to_string(), value["sequence"].as_u64()?)))
            .collect()
    }
}

/// The address of this machine on the way to Kafka, which pods reach on the same network.
async fn own_address(env: &Env) -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    let broker = env.kafka.split(',').next().unwrap_or_default();
    socket
        .connect(broker)
        .await
        .with_context(|| format!("no way to {broker}"))?;
    Ok(socket.local_addr()?.ip())
}

async fn serve(connection: TcpStream, state: &State) -> Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut length = 0;
        let mut line = String::new();
        if connection.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            connection.read_line(&mut line).await?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("content-length")?;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        let status = if state.down.load(Ordering::SeqCst) {
            state.refused.fetch_add(1, Ordering::SeqCst);
            "503 Service Unavailable"
        } else {
            match serde_json::from_slice(&body) {
                Ok(Value::Array(values)) => {
                    state
                        .values
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(values);
                    "200 OK"
                }
                _ => "400 Bad Request",
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(answer.as_bytes()).await?;
        connection.flush().await?;
    }
}
