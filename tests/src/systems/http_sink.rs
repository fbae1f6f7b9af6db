//! A system that an Http writer writes to: an HTTP server in the test process that stores what it receives.
//! While it is down, it answers 503 and stores nothing. HTTP/1.1, bodies with a length, JSON arrays.

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

/// The running server; it stops when the value is dropped.
pub struct HttpSink {
    /// Its URL for pods.
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

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpSink {
    /// Listens on a free port of all addresses.
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
                    // The client may close the connection at any time.
                    let _ = serve(connection, &state).await;
                });
            }
        });
        Ok(Self { url, state, task })
    }

    /// From now on the server answers every request with 503, or accepts requests again.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Number of requests answered with 503.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Keys and sequence numbers of the accepted orders of a run, in the order of arrival.
    pub fn arrivals(&self, run: &str) -> Vec<(String, u64)> {
        let values = self.state.values.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .iter()
            .filter(|value| value["run"] == run)
            .filter_map(|value| Some((value["key"].as_str()?.to_string(), value["sequence"].as_u64()?)))
            .collect()
    }
}

/// The address that this machine uses to reach Kafka; pods reach it on the same network.
async fn own_address(env: &Env) -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    let broker = env.kafka.split(',').next().unwrap_or_default();
    socket
        .connect(broker)
        .await
        .with_context(|| format!("no route to {broker}"))?;
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
