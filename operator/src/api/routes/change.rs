//! What all routes that change a group share: bodies, answers, and changes in the name of a user.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::SemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::groups::find;
use crate::api::caller::{Caller, Session};
use crate::api::cluster::Cluster;
use crate::api::command::Changed;
use crate::api::model::Group;
use crate::api::ownership::owner;
use crate::api::parameters::short;
use crate::api::problem::Problem;
use crate::api::resource::resource_path;
use crate::api::shared::Shared;
use crate::kafka::model::GroupKey;

/// Query parameters of a change.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// `true`: also if a GitOps tool such as Argo CD or Flux owns the field and will put it back.
    pub force: bool,
}

/// The answer to a change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The requested state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<String>,
    /// The requested number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// False: it was so already.
    changed: bool,
    /// Where to see when the change is complete.
    status_url: String,
    /// What to know about this change, for example that a file says something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl Change {
    pub fn of(key: &GroupKey, done: Changed) -> (StatusCode, Json<Self>) {
        let status = if done.changed {
            StatusCode::ACCEPTED
        } else {
            StatusCode::OK
        };
        let change = Self {
            desired_state: None,
            replicas: None,
            changed: done.changed,
            status_url: format!("/api/v1/groups/{}/{}", key.namespace, key.name),
            warning: done.warning,
        };
        (status, Json(change))
    }
}

/// A body that is read later: first comes the question whether the caller may send it.
pub struct Body(axum::extract::Request);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: axum::extract::Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

impl Body {
    pub async fn bytes(self) -> Result<Bytes, Problem> {
        let read = Bytes::from_request(self.0, &()).await;
        read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                rejection.status(),
                "BodyTooLarge",
                "the body is larger than 4 KiB",
            ),
            status => Problem::new(status, "InvalidBody", rejection.body_text()),
        })
    }
}

/// The only member of the object in a body.
pub fn member(body: &[u8], name: &str, expected: &str) -> Result<Value, Problem> {
    let invalid = |why: String| Problem::bad_request("InvalidBody", format!("{why}; {expected}"));
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not JSON: {error}")))?;
    let object = value
        .as_object()
        .ok_or_else(|| invalid("the body is not an object".into()))?;
    if let Some(other) = object.keys().find(|other| *other != name) {
        return Err(invalid(format!(
            "the body has the unknown field \"{}\"",
            short(other)
        )));
    }
    let member = object.get(name).cloned();
    member.ok_or_else(|| invalid(format!("{name} is missing")))
}

/// A change of a resource, in the name of a user.
pub struct GroupChange<'a> {
    session: &'a Session,
    path: String,
    pub group: Arc<Group>,
    /// The resource as the API server has it now.
    pub resource: Value,
    _slot: SemaphorePermit<'a>,
}

impl<'a> GroupChange<'a> {
    /// Reads the resource. Only resources that the board shows can be changed.
    pub async fn start(
        shared: &Shared,
        cluster: &'a Cluster,
        session: &'a Session,
        caller: &Caller,
        key: &GroupKey,
    ) -> Result<Self, Problem> {
        let slot = cluster.write_slot()?;
        let (group, _) = find(shared, caller, key).await?;
        let path = resource_path(key);
        let resource = session.api_server().get(&path).await.map_err(|problem| {
            if problem.status == 404 {
                Problem::no_group(key)
            } else {
                problem
            }
        })?;
        Ok(Self {
            session,
            path,
            group,
            resource,
            _slot: slot,
        })
    }

    /// Refuses a change of a field that a GitOps tool will put back.
    pub fn not_managed(&self, field: &str, force: bool) -> Result<(), Problem> {
        match owner(&self.resource, field) {
            Some(owner) if !force => Err(Problem::new(
                StatusCode::CONFLICT,
                "ManagedByGitOps",
                format!(
                    "{} owns spec.{field} (field manager {}) and will put it back; change it there, or repeat the request with ?force=true",
                    owner.tool, owner.manager
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Patches the resource or one of its subresources.
    pub async fn patch(&self, subresource: &str, change: &Value) -> Result<Changed, Problem> {
        let path = format!("{}{subresource}", self.path);
        self.session.api_server().patch(&path, change).await?;
        Ok(Changed {
            changed: true,
            warning: None,
        })
    }
}
