//! The route that restarts the workers of a group.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;

use super::change::{Change, GroupChange};
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::command::Changed;
use crate::api::parameters::GroupPath;
use crate::api::problem::Problem;
use crate::api::resource::{deployment_path, restart_patch};
use crate::api::shared::{Backend, Shared};
use crate::kafka::model::GroupKey;

/// Restarts the workers of a group one after the other, as `kubectl rollout restart` does.
#[utoipa::path(post, path = "/groups/{namespace}/{name}/restart", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 202, description = "Accepted", body = Change),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn post(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<(StatusCode, Json<Change>), Problem> {
    let (Caller::User(session), Backend::Cluster(cluster)) = (&caller, &shared.backend) else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "NotInLocalMode",
            "local mode restarts workers when the file changes; stop and start the group instead",
        ));
    };
    // The right for the Deployment has its own message below; who may not see the group learns nothing.
    let change = GroupChange::start(&shared, cluster, session, &caller, &key).await?;
    let deployment = change.group.deployment.clone().unwrap_or_default();
    let workers = GroupKey::new(&key.namespace, &deployment);
    caller.require(Right::PatchDeployment, &workers).await?;
    if change.resource["spec"]["desiredState"] == "Stopped" {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "GroupStopped",
            "the group is stopped, so there are no workers to restart; request the state Running instead",
        ));
    }
    session
        .api_server()
        .patch(&deployment_path(&workers), &restart_patch(Timestamp::now()))
        .await?;
    let done = Changed {
        changed: true,
        warning: None,
    };
    Ok(Change::of(&key, done))
}
