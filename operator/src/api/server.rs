//! Serves the API and the dashboard. In: an address, a board, where commands go. Out: the address that it
//! listens on. Ends with the task; a slow client costs one of a limited number of connections for a limited
//! time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::middleware;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use utoipa_swagger_ui::SwaggerUi;

use super::guard::Exposure;
use super::problem::Problem;
use super::shared::Backend;
use super::shared::Shared;
use super::slow_readers::WriteLimit;
use super::{caller, guard, routes, static_files};

/// Connections at the same time: the streams, and as many requests beside them.
const CONNECTIONS: usize = 512;
/// Largest body of a request, in bytes. Those of this API have about 30.
const MAX_BODY: usize = 4 * 1024;
/// Largest first line and headers of a request, in bytes. A token has 16 KiB at most.
const MAX_HEADERS: usize = 32 * 1024;
/// Time for the headers of a request.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time for a client to take the next bytes of an answer.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which means that this process has too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Ports that are tried after the first one.
const PORTS: u16 = 20;

/// Listens on `address`. If its port is taken and `next_free`, listens on one of the next ports.
pub async fn bind(address: SocketAddr, next_free: bool) -> std::io::Result<TcpListener> {
    let mut error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    if next_free {
        for more in 1..=PORTS {
            if error.kind() != std::io::ErrorKind::AddrInUse {
                break;
            }
            // The last try takes any port.
            let port = if more == PORTS {
                0
            } else {
                address.port().saturating_add(more)
            };
            match TcpListener::bind(SocketAddr::new(address.ip(), port)).await {
                Ok(listener) => return Ok(listener),
                Err(other) => error = other,
            }
        }
    }
    Err(error)
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, shared: Shared) {
    let router = router(shared);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the API cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, router).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // HTTP/1.1 only: the limit for headers is one of HTTP/1.1.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(MAX_HEADERS)
        .header_read_timeout(HEADER_TIME);
    let service = TowerToHyperService::new(router);
    // A client that goes away is no error of ours.
    let stream = TokioIo::new(WriteLimit::new(stream, WRITE_TIME));
    let _ = builder.serve_connection(stream, service).await;
}

/// All routes.
pub(super) fn router(shared: Shared) -> Router {
    let login = matches!(shared.backend, Backend::Cluster(_));
    let (api, mut document) = routes::router().split_for_parts();
    if login {
        routes::with_login(&mut document);
    }
    // The document, Swagger UI and the pages have no data: a page needs no token before its user has one.
    let api = api
        .route_layer(middleware::from_fn_with_state(
            shared.clone(),
            caller::authenticate,
        ))
        .with_state(shared);
    let exposure = if login { Exposure::Token } else { Exposure::Open };
    Router::new()
        .merge(api)
        .merge(SwaggerUi::new("/docs").url("/api/v1/openapi.json", document))
        .merge(static_files::router())
        .fallback(async |uri: Uri| Problem::no_route(&uri))
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(move |request, next| {
            guard::guard(exposure, request, next)
        }))
}
