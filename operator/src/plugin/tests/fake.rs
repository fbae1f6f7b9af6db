//! An API server with an operator for tests: stores objects by path, notes what it is asked, and reports requested
//! states at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::condition;
use crate::sync::lock;

pub const GROUPS: &str = "/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaconsumergroups";
pub const RESETS: &str = "/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaoffsetresets";
pub const PODS: &str = "/api/v1/namespaces/shop/pods";

pub struct Fake {
    pub address: SocketAddr,
    /// By path; a text is answered as it is.
    pub objects: Mutex<BTreeMap<String, Value>>,
    /// Method, path with query, body.
    pub asked: Mutex<Vec<(String, String, Value)>>,
    /// Parts of paths that the user may not ask for.
    pub forbidden: Mutex<Vec<&'static str>>,
    /// Whether the resource of groups exists.
    pub installed: bool,
    /// Codes of the next answers to a method; 0: as usual. The server does what it is asked for nevertheless.
    pub codes: Mutex<BTreeMap<&'static str, VecDeque<u16>>>,
    /// The status of resets that are created.
    pub reset: Mutex<Value>,
    /// Whether an operator runs.
    pub operator: bool,
}

impl Fake {
    pub async fn start(objects: Vec<(String, Value)>) -> Arc<Self> {
        Self::with(objects, true, true).await
    }

    pub async fn with(objects: Vec<(String, Value)>, installed: bool, operator: bool) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            objects: Mutex::new(objects.into_iter().collect()),
            asked: Mutex::default(),
            forbidden: Mutex::default(),
            codes: Mutex::default(),
            installed,
            reset: Mutex::new(json!({"phase": "Succeeded"})),
            operator,
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Changes that were asked for: method, path without query, body.
    pub fn changes(&self) -> Vec<(String, String, Value)> {
        let asked = lock(&self.asked);
        let changes = asked.iter().filter(|(method, ..)| method != "GET");
        let path = |path: &str| path.split('?').next().unwrap_or_default().to_string();
        changes
            .map(|(method, with_query, body)| (method.clone(), path(with_query), body.clone()))
            .collect()
    }

    /// Sets the codes of the next answers to a method.
    pub fn next(&self, method: &'static str, codes: impl Into<VecDeque<u16>>) {
        lock(&self.codes).insert(method, codes.into());
    }

    fn change(&self, path: &str, patch: &Value) -> Option<Value> {
        let mut objects = lock(&self.objects);
        let object = objects.get_mut(path.trim_end_matches("/scale"))?;
        merge(object, patch);
        if path.contains("kafkaconsumergroups") {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = generation.into();
            if self.operator {
                object["status"]["observedGeneration"] = generation.into();
                let state = object["spec"]["desiredState"].as_str().unwrap_or("Running");
                let reason = if state == "Running" {
                    "AllPartitionsConsumed"
                } else {
                    state
                };
                object["status"]["conditions"] = json!([condition("Ready", "True", reason, "as requested")]);
            }
        }
        Some(object.clone())
    }

    fn read(&self, path: &str) -> Option<Value> {
        let objects = lock(&self.objects);
        if let Some(object) = objects.get(path) {
            return Some(object.clone());
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        let all = format!("/{plural}/");
        let is_child = |found: &str| match path.contains("/namespaces/") {
            true => found
                .strip_prefix(path)
                .is_some_and(|rest| !rest[1..].contains('/')),
            false => found.split(&all).nth(1).is_some_and(|rest| !rest.contains('/')),
        };
        let known = ["kafkaconsumergroups", "kafkaoffsetresets", "events", "pods"];
        known.contains(&plural).then(|| {
            let items = objects.iter().filter(|(found, _)| is_child(found));
            json!({"metadata": {}, "items": items.map(|(_, object)| object.clone()).collect::<Vec<_>>()})
        })
    }
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_string());
    lock(&fake.asked).push((method.clone(), parts.uri.to_string(), body.clone()));
    if !fake.installed && path.contains("kafka-consumer.dev") {
        return (StatusCode::NOT_FOUND, "404 page not found").into_response();
    }
    if lock(&fake.forbidden).iter().any(|part| path.contains(part)) {
        return status(403, "forbidden: User \"me\" may not", &path);
    }
    let found = match method.as_str() {
        "PATCH" => fake.change(&path, &body),
        "POST" => {
            let name = body["metadata"]["generateName"].as_str().unwrap_or_default();
            let mut created = body.clone();
            let number = lock(&fake.objects).len();
            created["metadata"]["name"] = format!("{name}{number}").into();
            created["status"] = lock(&fake.reset).clone();
            lock(&fake.objects).insert(format!("{path}/{name}{number}"), created.clone());
            Some(created)
        }
        _ => fake.read(&path),
    };
    let code = lock(&fake.codes)
        .get_mut(method.as_str())
        .and_then(VecDeque::pop_front);
    if let Some(code @ 1..) = code {
        return status(code, "as the test wants", &path);
    }
    match found {
        Some(Value::String(text)) => text.into_response(),
        Some(object) => Json(object).into_response(),
        None => status(404, "not found", &path),
    }
}

fn status(code: u16, message: &str, path: &str) -> Response {
    let name = path.rsplit('/').next();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Test", "code": code,
        "message": message, "details": {"name": name},
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

/// As RFC 7396 says.
fn merge(old: &mut Value, patch: &Value) {
    match patch {
        Value::Object(changes) => {
            if !old.is_object() {
                *old = json!({});
            }
            for (name, change) in changes {
                merge(&mut old[name], change);
            }
        }
        _ => *old = patch.clone(),
    }
}
