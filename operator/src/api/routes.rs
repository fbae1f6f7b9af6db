//! The routes below `/api/v1` and their documentation. In: requests that passed the guard. Out: what the board
//! shows, or a problem.

mod groups;
mod state;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use serde::Serialize;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::shared::Shared;
use super::watch;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Kafka consumer operator",
        description = "What is known of KafkaConsumerGroups, and how to start, pause and stop them. A value that is not known is null, and `unknown` says why. Errors are problems (RFC 9457) with a `reason`. Records are never shown."
    ),
    tags(
        (name = "groups", description = "Groups, their partitions, workers, events and history"),
        (name = "about", description = "This server")
    )
)]
struct Document;

/// All routes of the API.
pub fn router() -> OpenApiRouter<Shared> {
    let api = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(version))
        .routes(routes!(groups::list))
        .routes(routes!(groups::get))
        .routes(routes!(groups::partitions))
        .routes(routes!(groups::workers))
        .routes(routes!(groups::events))
        .routes(routes!(groups::series))
        .routes(routes!(state::put))
        .routes(routes!(watch::watch));
    OpenApiRouter::new().nest("/api/v1", api)
}

/// Answers requests with a method that a route does not have.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        format!(
            "{} does not answer {method}; /docs lists the methods of all routes",
            uri.path()
        ),
    )
}

/// This server.
#[derive(Serialize, utoipa::ToSchema)]
struct Version {
    /// Version of the program.
    version: &'static str,
    /// What runs the groups: `local`.
    mode: &'static str,
}

/// The version of this server.
#[utoipa::path(get, path = "/version", tag = "about", responses((status = 200, body = Version)))]
async fn version(State(shared): State<Shared>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        mode: shared.mode,
    })
}
