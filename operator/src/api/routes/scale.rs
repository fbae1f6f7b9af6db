//! The route that sets the number of workers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;
use utoipa::ToSchema;

use super::change::{Body, Change, ForceQuery, GroupChange, member};
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::command::Changed;
use crate::api::parameters::{GroupPath, Parameters, short};
use crate::api::problem::Problem;
use crate::api::resource::not_manual;
use crate::api::shared::{Backend, Shared};

/// The body of a request for a number of workers.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "documents the body, which is read by hand for clear errors"
)]
pub struct ScaleRequest {
    replicas: u32,
}

/// Sets the number of workers of a group with scaling mode Manual.
#[utoipa::path(put, path = "/groups/{namespace}/{name}/scale", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path), ForceQuery),
    request_body = ScaleRequest,
    responses(
        (status = 200, description = "This is the number already", body = Change),
        (status = 202, description = "Accepted", body = Change),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
    Parameters(force): Parameters<ForceQuery>,
    body: Body,
) -> Result<(StatusCode, Json<Change>), Problem> {
    caller.require(Right::ScaleGroup, &key).await?;
    let replicas = replicas(&body.bytes().await?)?;
    let (Caller::User(session), Backend::Cluster(cluster)) = (&caller, &shared.backend) else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "NotInLocalMode",
            "local mode runs as many workers as the file and --max-workers say; change them there",
        ));
    };
    let change = GroupChange::start(&shared, cluster, session, &caller, &key).await?;
    if let Some(why) = not_manual(&change.resource) {
        return Err(Problem::new(StatusCode::CONFLICT, "ScalingModeNotManual", why));
    }
    let done = if change.resource["spec"]["replicas"] == replicas {
        Changed::default()
    } else {
        change.not_managed("replicas", force.force)?;
        change
            .patch("/scale", &json!({"spec": {"replicas": replicas}}))
            .await?
    };
    let mut answer = Change::of(&key, done);
    answer.1.replicas = Some(replicas);
    Ok(answer)
}

fn replicas(body: &[u8]) -> Result<u32, Problem> {
    const EXPECTED: &str = r#"send {"replicas": 3}"#;
    let replicas = member(body, "replicas", EXPECTED)?;
    let number = replicas.as_u64().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| i32::try_from(*number).is_ok())
        .ok_or_else(|| {
            let text = replicas.to_string();
            let text = short(&text);
            Problem::bad_request("InvalidBody", format!("replicas is {text}; {EXPECTED}"))
        })
}
