//! The route that starts, pauses and stops a group.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use crds::spec::DesiredState;
use serde::Serialize;
use tokio::sync::{mpsc::error::TrySendError, oneshot};
use utoipa::ToSchema;

use crate::api::command::{Refusal, SetState};
use crate::api::problem::Problem;
use crate::api::shared::Shared;
use crate::kafka::model::GroupKey;

/// The body of a request for a state.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "documents the body, which is read by hand for clear errors"
)]
#[schema(rename_all = "camelCase")]
pub struct StateRequest {
    /// `Running`, `Paused` (workers stay, but read nothing) or `Stopped` (no workers).
    desired_state: String,
}

/// The answer to a request for a state.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateAnswer {
    desired_state: String,
    /// False: the group had this state already.
    changed: bool,
    /// Where to see when the state is reached.
    status_url: String,
    /// What to know about this change, for example that a file says something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Starts, pauses or stops a group.
///
/// The group reaches the state later; its conditions show when.
#[utoipa::path(put, path = "/groups/{namespace}/{name}/state", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    request_body = StateRequest,
    responses(
        (status = 200, description = "The group has this state already", body = StateAnswer),
        (status = 202, description = "Accepted", body = StateAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn put(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<StateAnswer>), Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            rejection.status(),
            "BodyTooLarge",
            "the body is larger than 1 MiB",
        ),
        status => Problem::new(status, "InvalidBody", rejection.body_text()),
    })?;
    let state = desired_state(&body)?;
    let key = GroupKey { namespace, name };
    let status_url = format!("/api/v1/groups/{}/{}", key.namespace, key.name);
    let (answer, answered) = oneshot::channel();
    let command = SetState {
        key: key.clone(),
        state,
        answer,
    };
    shared.commands.try_send(command).map_err(|error| match error {
        TrySendError::Full(_) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "too many changes are waiting; try again in a second",
        ),
        TrySendError::Closed(_) => Problem::shutting_down(),
    })?;
    match answered.await.map_err(|_| Problem::shutting_down())? {
        Ok(done) => {
            let status = if done.changed {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            let answer = StateAnswer {
                desired_state: format!("{state:?}"),
                changed: done.changed,
                status_url,
                warning: done.warning,
            };
            Ok((status, Json(answer)))
        }
        Err(Refusal::Ending) => Err(Problem::shutting_down()),
        Err(Refusal::NotFound) => Err(Problem::no_group(&key)),
        Err(Refusal::Invalid(why)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why)),
    }
}

fn desired_state(body: &[u8]) -> Result<DesiredState, Problem> {
    const EXPECTED: &str = r#"send {"desiredState": "Running"}, "Paused" or "Stopped""#;
    let invalid = |why: String| Problem::bad_request("InvalidBody", format!("{why}; {EXPECTED}"));
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not JSON: {error}")))?;
    let object = value
        .as_object()
        .ok_or_else(|| invalid("the body is not an object".into()))?;
    if let Some(name) = object.keys().find(|name| *name != "desiredState") {
        return Err(invalid(format!(
            "the body has the unknown field \"{}\"",
            short(name)
        )));
    }
    let state = object
        .get("desiredState")
        .ok_or_else(|| invalid("desiredState is missing".into()))?;
    serde_json::from_value(state.clone()).map_err(|_| {
        let text = state.as_str().map_or_else(|| state.to_string(), str::to_string);
        invalid(format!("desiredState is \"{}\"", short(&text)))
    })
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(40)]
}
