//! Who sends a request, and what they may see and do. In: requests to the API. Out: a [`Caller`] for the
//! handlers, or a problem: 401 without a valid token, 403 without the right. In local mode everybody may do
//! everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};

use super::as_user::AsUser;
use super::cluster::{Cluster, Right, User};
use super::model::{Role, Snapshot};
use super::problem::Problem;
use super::shared::{Backend, Shared};
use super::token::Token;
use crate::kafka::model::GroupKey;

/// Questions about namespaces at the same time, for one request.
const AT_ONCE: usize = 8;

/// Who sends a request.
#[derive(Clone)]
pub enum Caller {
    /// Local mode has no login.
    Anybody,
    User(Session),
}

/// A user with a valid token.
#[derive(Clone)]
pub struct Session {
    cluster: Arc<Cluster>,
    token: Token,
    pub user: Arc<User>,
}

/// The namespaces whose groups somebody may see in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visible {
    All,
    Only {
        namespaces: BTreeSet<String>,
        /// Those that were asked about.
        known: BTreeSet<String>,
    },
}

impl Visible {
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only { namespaces, .. } => namespaces.contains(namespace),
        }
    }

    /// Whether all namespaces of the groups were asked about.
    pub fn covers(&self, snapshot: &Snapshot) -> bool {
        match self {
            Self::All => true,
            Self::Only { known, .. } => snapshot.groups.keys().all(|key| known.contains(&key.namespace)),
        }
    }
}

/// Finds out who sends a request to the API.
pub async fn authenticate(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let caller = match &shared.backend {
        Backend::Local(_) => Ok(Caller::Anybody),
        Backend::Cluster(cluster) => match Token::of(request.headers()) {
            Ok(token) => Session::open(cluster, token).await.map(Caller::User),
            Err(problem) => Err(problem),
        },
    };
    match caller {
        Err(problem) => problem.into_response(),
        Ok(_) if shared.board.snapshot().role == Role::Starting => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Starting",
            "this operator has just started and knows no groups yet; try again in a few seconds",
        )
        .into_response(),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A route without authentication is a fault of this program: nothing is allowed.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::unauthorized("Unauthorized", "this route does not know its caller"))
    }
}

impl Session {
    async fn open(cluster: &Arc<Cluster>, token: Token) -> Result<Self, Problem> {
        let user = cluster.authenticate(&token).await?;
        Ok(Self {
            cluster: Arc::clone(cluster),
            token,
            user,
        })
    }

    /// The API server, in the name of the user.
    pub fn api_server(&self) -> AsUser<'_> {
        AsUser {
            client: self.cluster.anonymous(),
            token: &self.token,
            user: &self.user.name,
        }
    }

    pub async fn may(&self, right: Right, namespace: &str, name: &str) -> Result<bool, Problem> {
        self.cluster.may(&self.user, right, namespace, name).await
    }

    /// The namespaces of a snapshot that the user may list, or of the one that is asked for.
    async fn visible(&self, snapshot: &Snapshot, namespace: Option<&str>) -> Result<Visible, Problem> {
        if self.may(Right::ListGroups, "", "").await? {
            return Ok(Visible::All);
        }
        let known: BTreeSet<String> = match namespace {
            Some(namespace) => BTreeSet::from([namespace.to_string()]),
            None => snapshot.groups.keys().map(|key| key.namespace.clone()).collect(),
        };
        let asked = stream::iter(known.clone()).map(async |namespace| {
            let allowed = self.may(Right::ListGroups, &namespace, "").await?;
            Ok::<_, Problem>(allowed.then_some(namespace))
        });
        let allowed: Vec<Option<String>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        let namespaces: BTreeSet<String> = allowed.into_iter().flatten().collect();
        // Without groups, there is no namespace to ask about.
        if namespaces.is_empty() && !known.is_empty() {
            return Err(self.forbidden(Right::ListGroups, namespace.unwrap_or_default(), ""));
        }
        Ok(Visible::Only { namespaces, known })
    }

    fn forbidden(&self, right: Right, namespace: &str, name: &str) -> Problem {
        let place = match (namespace, name) {
            ("", _) => " in all namespaces, nor in one that has groups (a right in a namespace without groups is not seen; add ?namespace=NAMESPACE to the list to ask about it)".to_string(),
            (namespace, "") => format!(" in namespace {namespace}"),
            (namespace, name) => format!(" {name} in namespace {namespace}"),
        };
        let user = &self.user.name;
        Problem::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!(
                "{user} may not {right}{place}; grant it by RBAC, for example with one of the ClusterRoles of the chart (docs/api.md)"
            ),
        )
    }
}

impl Caller {
    /// Fails if the caller does not have this right for a group.
    pub async fn require(&self, right: Right, key: &GroupKey) -> Result<(), Problem> {
        let Self::User(session) = self else { return Ok(()) };
        if session.may(right, &key.namespace, &key.name).await? {
            return Ok(());
        }
        Err(session.forbidden(right, &key.namespace, &key.name))
    }

    /// What the caller may see in a list. Fails if that is nothing although there are groups.
    pub async fn visible(&self, snapshot: &Snapshot, namespace: Option<&str>) -> Result<Visible, Problem> {
        match self {
            Self::Anybody => Ok(Visible::All),
            Self::User(session) => session.visible(snapshot, namespace).await,
        }
    }

    /// Asks again whether the token is valid.
    pub async fn again(&self) -> Result<Self, Problem> {
        match self {
            Self::Anybody => Ok(Self::Anybody),
            Self::User(session) => {
                let again = Session::open(&session.cluster, session.token.clone()).await?;
                Ok(Self::User(again))
            }
        }
    }

    /// Time after which a stream asks again; None: it never does.
    pub fn recheck(&self) -> Option<std::time::Duration> {
        match self {
            Self::Anybody => None,
            Self::User(session) => Some(session.cluster.recheck()),
        }
    }
}
