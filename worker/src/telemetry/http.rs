//! The worker's HTTP server: `/livez`, `/readyz`, `/status`, `/metrics`. Reads only; serves no records and no
//! secrets.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use thiserror::Error;
use tokio::net::TcpListener;

use super::{Liveness, Metrics};
use crate::health::snapshot::{Phase, SharedSnapshot};

/// A poll thread that has not ticked for this long is stuck. Its longest legitimate wait is a revocation:
/// drain (10 s) and a synchronous commit (socket timeout 10 s, within which librdkafka repeats it once).
const LIVE_WITHIN: Duration = Duration::from_secs(30);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The address cannot be listened on.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address}: {source}; choose another address with --http-address, or port 0 for any free port"
)]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The latest snapshot.
    pub snapshot: SharedSnapshot,
    /// The metrics.
    pub metrics: Metrics,
    /// Ticks of the poll thread.
    pub liveness: Liveness,
}

/// Listens on `address`.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { address, source })
}

/// Serves `shown` until `stop` completes.
pub async fn serve(listener: TcpListener, shown: Shown, stop: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = axum::serve(listener, router(shown))
        .with_graceful_shutdown(stop)
        .await
    {
        tracing::warn!("the HTTP server has stopped: {error}");
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(shown))
}

async fn live(State(shown): State<Arc<Shown>>) -> (StatusCode, String) {
    let age = shown.liveness.age();
    if age < LIVE_WITHIN {
        return (StatusCode::OK, "alive\n".into());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the poll thread has not run for {} s\n", age.as_secs()),
    )
}

async fn ready(State(shown): State<Arc<Shown>>) -> (StatusCode, &'static str) {
    match shown.snapshot.read().phase {
        Phase::Consuming => (StatusCode::OK, "consuming\n"),
        Phase::Joining => (StatusCode::SERVICE_UNAVAILABLE, "joining the group\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n"),
    }
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    Json(&*shown.snapshot.read()).into_response()
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    match shown.metrics.encode(&shown.snapshot.read(), shown.liveness.age()) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::health::snapshot::Snapshot;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_string())
    }

    async fn start(liveness: Liveness) -> (SocketAddr, SharedSnapshot) {
        let snapshot = SharedSnapshot::default();
        let shown = Shown {
            snapshot: snapshot.clone(),
            metrics: Metrics::new(),
            liveness,
        };
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, shown, std::future::pending()));
        (address, snapshot)
    }

    #[tokio::test]
    async fn ready_means_consuming() {
        let (address, snapshot) = start(Liveness::new()).await;
        for (phase, code) in [
            (Phase::Joining, 503),
            (Phase::Consuming, 200),
            (Phase::Draining, 503),
            (Phase::Stopped, 503),
        ] {
            snapshot.publish(Snapshot {
                phase,
                ..Snapshot::default()
            });
            assert_eq!(get(address, "/readyz").await.0, code, "{phase:?}");
        }
    }

    #[tokio::test]
    async fn a_poll_thread_that_does_not_tick_is_not_alive() {
        assert_eq!(get(start(Liveness::new()).await.0, "/livez").await.0, 200);
        let (code, body) = get(
            start(Liveness::ticked_ago(Duration::from_secs(31))).await.0,
            "/livez",
        )
        .await;
        assert_eq!(code, 503);
        assert!(body.contains("31 s"), "{body}");
    }

    #[tokio::test]
    async fn status_and_metrics_show_the_snapshot() {
        let (address, snapshot) = start(Liveness::new()).await;
        snapshot.publish(Snapshot {
            group_id: "shop.orders".into(),
            ..Snapshot::default()
        });
        let (_, body) = get(address, "/status").await;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&status["groupId"], &status["phase"]),
            (&"shop.orders".into(), &"Joining".into())
        );
        assert!(
            get(address, "/metrics")
                .await
                .1
                .contains("kcg_worker_build_info{version=")
        );
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_that_says_what_to_do() {
        let taken = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("--http-address"), "{error}");
    }
}
