//! The routes below `/api/v1` and their documentation. In: requests that passed the guard. Out: what the board
//! shows, or a problem.

mod change;
mod dead_letters;
mod events;
mod groups;
mod lists;
mod me;
mod offset_resets;
mod restart;
mod scale;
mod state;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use serde::Serialize;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::Role;
use super::problem::Problem;
use super::shared::Shared;
use super::watch;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Kafka consumer operator",
        description = "What is known of KafkaConsumerGroups, and how to start, pause, stop, scale and restart them, and to reset their offsets. A value that is not known is null, and `unknown` says why. Errors are problems (RFC 9457) with a `reason`. Records are shown only as dead letters, to those who have the right for it."
    ),
    tags(
        (name = "groups", description = "Groups, their partitions, workers, events and history"),
        (name = "offsets", description = "Resets of committed offsets"),
        (name = "dead letters", description = "Records that failed; with payload, so they need a separate right"),
        (name = "about", description = "This server")
    )
)]
struct Document;

/// Says in the document that requests need a token.
pub fn with_login(document: &mut utoipa::openapi::OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
}

/// All routes of the API.
pub fn router() -> OpenApiRouter<Shared> {
    let api = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(version))
        .routes(routes!(me::get))
        .routes(routes!(groups::list))
        .routes(routes!(groups::get))
        .routes(routes!(groups::partitions))
        .routes(routes!(groups::workers))
        .routes(routes!(groups::events))
        .routes(routes!(groups::series))
        .routes(routes!(state::put))
        .routes(routes!(scale::put))
        .routes(routes!(restart::post))
        .routes(routes!(offset_resets::list, offset_resets::post))
        .routes(routes!(offset_resets::get, offset_resets::delete))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
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
    /// What this program does for the groups.
    role: Role,
}

/// The version of this server.
#[utoipa::path(get, path = "/version", tag = "about", responses((status = 200, body = Version)))]
async fn version(State(shared): State<Shared>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        role: shared.board.snapshot().role,
    })
}
