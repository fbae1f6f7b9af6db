//! The route that starts, pauses and stops a group.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use crds::spec::DesiredState;
use serde_json::json;
use tokio::sync::{mpsc::error::TrySendError, oneshot};
use utoipa::ToSchema;

use super::change::{Body, Change, ForceQuery, GroupChange};
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::command::{Changed, Commands, Refusal, SetState};
use crate::api::parameters::{GroupPath, Parameters, short};
use crate::api::problem::Problem;
use crate::api::shared::{Backend, Shared};
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

/// Starts, pauses or stops a group.
///
/// The group reaches the state later; its conditions show when.
#[utoipa::path(put, path = "/groups/{namespace}/{name}/state", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path), ForceQuery),
    request_body = StateRequest,
    responses(
        (status = 200, description = "The group has this state already", body = Change),
        (status = 202, description = "Accepted", body = Change),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
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
    caller.require(Right::PatchGroup, &key).await?;
    let state = desired_state(&body.bytes().await?)?;
    let done = match (&caller, &shared.backend) {
        (Caller::Anybody, Backend::Local(commands)) => command(commands, &key, state).await?,
        (Caller::User(session), Backend::Cluster(cluster)) => {
            let change = GroupChange::start(&shared, cluster, session, &caller, &key).await?;
            let wanted = format!("{state:?}");
            if change.resource["spec"]["desiredState"] == wanted.as_str() {
                Changed::default()
            } else {
                change.not_managed("desiredState", force.force)?;
                change
                    .patch("", &json!({"spec": {"desiredState": wanted}}))
                    .await?
            }
        }
        _ => return Err(Problem::shutting_down()),
    };
    let mut change = Change::of(&key, done);
    change.1.desired_state = Some(format!("{state:?}"));
    Ok(change)
}

/// Changes a group of local mode.
async fn command(commands: &Commands, key: &GroupKey, state: DesiredState) -> Result<Changed, Problem> {
    let (answer, answered) = oneshot::channel();
    let command = SetState {
        key: key.clone(),
        state,
        answer,
    };
    commands.try_send(command).map_err(|error| match error {
        TrySendError::Full(_) => Problem::too_many_changes(),
        TrySendError::Closed(_) => Problem::shutting_down(),
    })?;
    answered
        .await
        .map_err(|_| Problem::shutting_down())?
        .map_err(|refusal| match refusal {
            Refusal::Ending => Problem::shutting_down(),
            Refusal::NotFound => Problem::no_group(key),
            Refusal::Invalid(why) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why),
        })
}

fn desired_state(body: &[u8]) -> Result<DesiredState, Problem> {
    const EXPECTED: &str = r#"send {"desiredState": "Running"}, "Paused" or "Stopped""#;
    let state = super::change::member(body, "desiredState", EXPECTED)?;
    serde_json::from_value(state.clone()).map_err(|_| {
        let text = state.as_str().map_or_else(|| state.to_string(), str::to_string);
        let text = short(&text);
        Problem::bad_request("InvalidBody", format!("desiredState is \"{text}\"; {EXPECTED}"))
    })
}
