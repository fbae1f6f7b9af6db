//! The route that says who sends a request and what they may do, so that a page shows no button in vain.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::groups::find;
use crate::api::caller::{Caller, Session};
use crate::api::cluster::Right;
use crate::api::model::Role;
use crate::api::ownership::owner;
use crate::api::parameters::{Parameters, group_of};
use crate::api::problem::Problem;
use crate::api::resource::{not_manual, resource_path};
use crate::api::shared::Shared;
use crate::kafka::model::GroupKey;

/// Query parameters of the route.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MeQuery {
    /// `NAMESPACE/NAME`: also what the user may do with this group.
    group: Option<String>,
}

/// Who sends the request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// Name of the user; null in local mode, which has no login.
    user: Option<String>,
    /// Groups of the user.
    groups: Vec<String>,
    role: Role,
    /// What the user may do with the group of the query.
    actions: Option<Actions>,
}

/// What a user may do with a group.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actions {
    state: Action,
    scale: Action,
    restart: Action,
    /// To reset the committed offsets.
    reset: Action,
    /// To see its dead letters, with their payload.
    dead_letters: Action,
}

/// Whether a user may do something.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    allowed: bool,
    /// Why not.
    why: Option<String>,
    /// The GitOps tool that will undo it; the change then needs `force=true`.
    managed_by: Option<String>,
}

impl Action {
    fn allowed() -> Self {
        Self {
            allowed: true,
            ..Self::default()
        }
    }

    fn no(why: impl Into<String>) -> Self {
        Self {
            why: Some(why.into()),
            ..Self::default()
        }
    }
}

/// Shows who sends the request, and what they may do with a group.
#[utoipa::path(get, path = "/me", tag = "about", params(MeQuery),
    responses(
        (status = 200, body = Me),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    Parameters(query): Parameters<MeQuery>,
) -> Result<Json<Me>, Problem> {
    let actions = match &query.group {
        None => None,
        Some(group) => {
            let key = group_of(group)
                .map_err(|why| Problem::bad_request("InvalidQuery", format!("group: {why}")))?;
            let (group, _) = find(&shared, &caller, &key).await?;
            Some(match &caller {
                Caller::Anybody => Actions {
                    state: Action::allowed(),
                    scale: Action::no("local mode runs as many workers as the file and --max-workers say"),
                    restart: Action::no("local mode restarts workers when the file changes"),
                    reset: Action::no("end local mode and run `kafka-consumer-operator local reset`"),
                    dead_letters: Action::allowed(),
                },
                Caller::User(session) => {
                    actions(session, &key, group.deployment.as_deref().unwrap_or_default()).await?
                }
            })
        }
    };
    let user = match &caller {
        Caller::Anybody => None,
        Caller::User(session) => Some(&session.user),
    };
    Ok(Json(Me {
        user: user.map(|user| user.name.clone()),
        groups: user.map(|user| user.groups.clone()).unwrap_or_default(),
        role: shared.board.snapshot().role,
        actions,
    }))
}

async fn actions(session: &Session, key: &GroupKey, deployment: &str) -> Result<Actions, Problem> {
    let may = async |right: Right, name: &str| {
        let allowed = session.may(right, &key.namespace, name).await?;
        Ok::<_, Problem>(if allowed {
            Action::allowed()
        } else {
            Action::no(format!("you may not {right}"))
        })
    };
    let mut state = may(Right::PatchGroup, &key.name).await?;
    let mut scale = may(Right::ScaleGroup, &key.name).await?;
    let restart = may(Right::PatchDeployment, deployment).await?;
    // Kubernetes cannot restrict create to a name.
    let reset = may(Right::CreateOffsetReset, "").await?;
    let dead_letters = may(Right::GetDeadLetters, &key.name).await?;
    if state.allowed || scale.allowed {
        let resource: Value = session.api_server().get(&resource_path(key)).await?;
        let tool = |field| owner(&resource, field).map(|owner| owner.tool.to_string());
        state.managed_by = tool("desiredState");
        scale.managed_by = tool("replicas");
        if scale.allowed
            && let Some(why) = not_manual(&resource)
        {
            scale = Action::no(why);
        }
    }
    Ok(Actions {
        state,
        scale,
        restart,
        reset,
        dead_letters,
    })
}
