//! Who sends a request, and what the cluster allows them. In: tokens and questions. Out: the answers of the
//! API server (TokenReview, SubjectAccessReview), kept for a moment. Without an answer nothing is allowed.
//! Tokens are kept as hashes and never logged.

mod cache;
mod rights;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode};
use kube::{Client, Config};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::cache::Cache;
use super::problem::Problem;
use super::token::Token;
use crate::sync::lock;

pub use self::rights::Right;

/// Tokens that are kept: more people do not look at the same time.
const TOKENS: usize = 1000;
/// Answers about rights that are kept: of 20 people for 1,000 groups.
const RIGHTS: usize = 20_000;
/// Questions to the API server at the same time. Requests with false tokens must not overload it.
const QUESTIONS: usize = 16;
/// Questions about the rights of one user at the same time, so that nobody delays all others.
const OF_ONE_USER: usize = 4;
/// How long the places for these questions are kept.
const SLOTS_KEPT: Duration = Duration::from_secs(3600);
/// Time for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// Writes at the same time; more are refused.
const WRITES: usize = 16;

/// How long answers count.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A token that is valid, a right that is granted.
    pub allowed: Duration,
    /// A token or a right that is refused: short, because somebody may be granting it. A refused list counts
    /// as long as one that is granted: pages ask for each namespace again and again.
    pub refused: Duration,
    /// Time between two checks of an open stream.
    pub recheck: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            allowed: Duration::from_secs(60),
            refused: Duration::from_secs(10),
            recheck: Duration::from_secs(60),
        }
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    /// The user as the API server describes it, for questions about rights.
    attributes: Value,
    id: [u8; 32],
}

/// A right of a user: id of the user, right, namespace, name.
type Question = ([u8; 32], Right, String, String);

/// The API server.
pub struct Cluster {
    /// With the credentials of this program.
    own: Client,
    /// Without credentials: each request has the token of its user.
    anonymous: Client,
    times: Times,
    users: Mutex<Cache<[u8; 32], Arc<User>>>,
    /// Apart from users, so that false tokens cannot displace valid ones.
    refused: Mutex<Cache<[u8; 32], ()>>,
    rights: Mutex<Cache<Question, bool>>,
    questions: Semaphore,
    /// Limits the questions of each user, by name: a user may have several tokens.
    slots: Mutex<Cache<String, Arc<Semaphore>>>,
    writes: Semaphore,
}

impl Cluster {
    /// `config` is the one of this program.
    pub fn new(config: Config, times: Times) -> Result<Self, kube::Error> {
        // A request that fails is answered; the user repeats it.
        let mut own = config;
        own.default_retry = false;
        let mut anonymous = own.clone();
        anonymous.auth_info = Default::default();
        Ok(Self {
            own: Client::try_from(own)?,
            anonymous: Client::try_from(anonymous)?,
            times,
            users: Mutex::new(Cache::new(TOKENS)),
            refused: Mutex::new(Cache::new(TOKENS)),
            rights: Mutex::new(Cache::new(RIGHTS)),
            questions: Semaphore::new(QUESTIONS),
            slots: Mutex::new(Cache::new(TOKENS)),
            writes: Semaphore::new(WRITES),
        })
    }

    /// For requests with the token of a user.
    pub(super) fn anonymous(&self) -> &Client {
        &self.anonymous
    }

    pub(super) fn recheck(&self) -> Duration {
        self.times.recheck
    }

    /// A place among the changes that run at the same time.
    pub fn write_slot(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.writes.try_acquire().map_err(|_| Problem::too_many_changes())
    }

    /// Whose token it is. Only tokens that the API server accepts for itself count: writes forward them.
    pub async fn authenticate(&self, token: &Token) -> Result<Arc<User>, Problem> {
        let key = token.key();
        let now = Instant::now();
        if let Some(user) = lock(&self.users).get(&key, now) {
            return Ok(user);
        }
        let refused = || {
            Problem::unauthorized(
                "InvalidToken",
                "the API server does not accept the token: it is wrong or expired, or for another audience; kubectl create token NAME creates one",
            )
        };
        if lock(&self.refused).get(&key, now).is_some() {
            return Err(refused());
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token.secret()},
        });
        let answer = self
            .ask(
                "/apis/authentication.k8s.io/v1/tokenreviews",
                &review,
                "tokenreviews",
            )
            .await?;
        let now = Instant::now();
        match user(&answer["status"]) {
            Some(user) => {
                let user = Arc::new(user);
                let until = now + self.times.allowed;
                lock(&self.users).insert(key, Arc::clone(&user), until, now);
                Ok(user)
            }
            None => {
                lock(&self.refused).insert(key, (), now + self.times.refused, now);
                Err(refused())
            }
        }
    }

    /// Whether the user has a right. `name` and `namespace` may be empty, which means all of them.
    pub async fn may(&self, user: &User, right: Right, namespace: &str, name: &str) -> Result<bool, Problem> {
        let question = (user.id, right, namespace.to_string(), name.to_string());
        if let Some(known) = lock(&self.rights).get(&question, Instant::now()) {
            return Ok(known);
        }
        let slots = self.slots_of(user);
        let _slot = slots.acquire().await;
        // Meanwhile another request of the user may have asked the same.
        if let Some(known) = lock(&self.rights).get(&question, Instant::now()) {
            return Ok(known);
        }
        let mut spec = user.attributes.clone();
        spec["resourceAttributes"] = right.attributes(namespace, name);
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
        });
        let answer = self
            .ask(
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                &review,
                "subjectaccessreviews",
            )
            .await?;
        let allowed = answer["status"]["allowed"] == true;
        let now = Instant::now();
        let time = if allowed || right == Right::ListGroups {
            self.times.allowed
        } else {
            self.times.refused
        };
        lock(&self.rights).insert(question, allowed, now + time, now);
        Ok(allowed)
    }

    fn slots_of(&self, user: &User) -> Arc<Semaphore> {
        let (mut slots, now) = (lock(&self.slots), Instant::now());
        slots.get(&user.name, now).unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(OF_ONE_USER));
            slots.insert(user.name.clone(), Arc::clone(&new), now + SLOTS_KEPT, now);
            new
        })
    }

    /// Sends a review and returns it with its status.
    async fn ask(&self, path: &str, review: &Value, resource: &str) -> Result<Value, Problem> {
        let failed = |why: String| {
            tracing::warn!("{why}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "AuthenticationUnavailable", why)
        };
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, async {
            let _slot = self.questions.acquire().await;
            // As text: kube logs an answer that it cannot parse, and this one contains the token.
            self.own.request_text(request).await
        })
        .await;
        let text = match answer {
            Ok(Ok(text)) => text,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(failed(format!(
                    "this operator may not create {resource}, so it cannot check who sends a request; install the chart with api.enabled=true and rbac.create=true, or grant it"
                )));
            }
            Ok(Err(kube::Error::Api(status))) => {
                return Err(failed(format!(
                    "the API server answers {} to a request to create {resource}; try again later",
                    status.code
                )));
            }
            Ok(Err(_)) => {
                return Err(failed(format!(
                    "the API server cannot be asked to create {resource}; try again later"
                )));
            }
            Err(_) => {
                return Err(failed(format!(
                    "the API server did not create {resource} within {} s; try again later",
                    ANSWER.as_secs()
                )));
            }
        };
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        answer
            .filter(|answer| answer["status"].is_object())
            .ok_or_else(|| failed(format!("the API server created {resource} without a status")))
    }
}

/// The user of a review, if the token is valid.
fn user(status: &Value) -> Option<User> {
    let name = status["user"]["username"].as_str().unwrap_or_default();
    if status["authenticated"] != true || name.is_empty() {
        return None;
    }
    let user = &status["user"];
    let groups = user["groups"].as_array().into_iter().flatten();
    let groups = groups.filter_map(Value::as_str).map(String::from).collect();
    let mut attributes = json!({"user": name});
    for field in ["uid", "groups", "extra"] {
        if !user[field].is_null() {
            attributes[field] = user[field].clone();
        }
    }
    Some(User {
        name: name.into(),
        groups,
        id: Sha256::digest(attributes.to_string().as_bytes()).into(),
        attributes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_a_user() {
        let yes = json!({"authenticated": true, "user": {"username": "alice", "groups": ["a"], "uid": "7"}});
        let user_of_yes = user(&yes).unwrap();
        assert_eq!(
            (user_of_yes.name.as_str(), user_of_yes.groups.len()),
            ("alice", 1)
        );
        assert_eq!(
            user_of_yes.attributes,
            json!({"user": "alice", "groups": ["a"], "uid": "7"})
        );
        for no in [
            json!({}),
            json!(null),
            json!({"authenticated": false, "user": {"username": "alice"}}),
            json!({"authenticated": "true", "user": {"username": "alice"}}),
            json!({"authenticated": true}),
            json!({"authenticated": true, "user": {"username": ""}}),
        ] {
            assert!(user(&no).is_none(), "{no}");
        }
        let mut other = yes;
        other["user"]["groups"] = json!(["b"]);
        assert_ne!(
            user(&other).unwrap().id,
            user_of_yes.id,
            "rights depend on groups"
        );
    }
}
