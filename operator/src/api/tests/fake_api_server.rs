//! An API server for tests: knows tokens, rights and one group, and notes what it is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::sync::lock;

/// Answers each review with this status code; 200: as it should.
#[derive(Default)]
pub struct Fake {
    pub reviews_answer: AtomicU16,
    pub asked: Mutex<Vec<Asked>>,
    pub resource: Mutex<Value>,
    /// Questions about rights at this moment, and the most that there were at the same time.
    rights: AtomicUsize,
    pub most_rights: AtomicUsize,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub token: String,
    pub body: Value,
}

impl Fake {
    pub async fn start() -> (Arc<Self>, SocketAddr) {
        let fake = Arc::new(Self {
            reviews_answer: AtomicU16::new(200),
            resource: Mutex::new(json!({
                "metadata": {"name": "orders", "namespace": "shop"},
                "spec": {"desiredState": "Running", "replicas": 2, "scaling": {"mode": "Manual"}},
            })),
            ..Self::default()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, address)
    }

    /// Requests whose path contains a text.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = lock(&self.asked);
        let found = asked.iter().filter(|asked| asked.path.contains(part));
        found.cloned().collect()
    }
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        token: header(AUTHORIZATION).unwrap_or_default().replace("Bearer ", ""),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    lock(&fake.asked).push(asked.clone());
    if asked.path.ends_with("reviews") {
        let code = fake.reviews_answer.load(Ordering::Relaxed);
        if code == 0 {
            return format!("no JSON: {}", asked.body).into_response();
        }
        if code != 200 {
            return status(code, "no reviews here");
        }
        let mut review = asked.body.clone();
        review["status"] = if asked.path.contains("tokenreviews") {
            token(asked.body["spec"]["token"].as_str().unwrap_or_default())
        } else {
            let now = fake.rights.fetch_add(1, Ordering::Relaxed) + 1;
            fake.most_rights.fetch_max(now, Ordering::Relaxed);
            // Long enough for others to arrive.
            tokio::time::sleep(Duration::from_millis(5)).await;
            fake.rights.fetch_sub(1, Ordering::Relaxed);
            json!({"allowed": allowed(&asked.body["spec"])})
        };
        return (StatusCode::CREATED, Json(review)).into_response();
    }
    if !["viewer", "reader", "writer", "admin"].contains(&asked.token.as_str()) {
        return status(401, "Unauthorized");
    }
    if asked.path.contains("/events?") {
        let event = |reason: &str, hour: u8| {
            json!({
                "metadata": {}, "involvedObject": {}, "type": "Warning", "reason": reason,
                "message": "m", "lastTimestamp": format!("2026-11-30T{hour:02}:00:00Z"),
            })
        };
        // The API server lists by name, so the latest one may be on the last page.
        let list = if asked.path.ends_with("&continue=a-b_c") {
            json!({"metadata": {}, "items": [event("Late", 8)]})
        } else {
            json!({"metadata": {"continue": "a-b_c"}, "items": [event("Early", 6), event("Later", 7)]})
        };
        return Json(list).into_response();
    }
    if asked.method != "GET" && asked.token == "reader" {
        return status(
            403,
            "kafkaoffsetresets.kafka-consumer.dev is forbidden: reader cannot write",
        );
    }
    if asked.path.contains("/kafkaoffsetresets") {
        return resets(&asked);
    }
    Json(lock(&fake.resource).clone()).into_response()
}

/// Resets named `done` of the group orders, and `other` of another group.
fn resets(asked: &Asked) -> Response {
    let reset = |name: &str, group: &str| {
        json!({
            "metadata": {"name": name, "creationTimestamp": "2026-11-30T06:00:00Z"},
            "spec": {"groupRef": {"name": group}, "to": {"type": "Earliest"}},
            "status": {"phase": "Succeeded", "partitions": [{"topic": "orders", "partition": 0, "new": 7}]},
        })
    };
    let (path, _) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    match (asked.method.as_str(), path.rsplit('/').next().unwrap_or_default()) {
        ("POST", _) => {
            let mut created = asked.body.clone();
            created["metadata"]["name"] = "orders-x7k2p".into();
            (StatusCode::CREATED, Json(created)).into_response()
        }
        (_, "kafkaoffsetresets") if asked.path.ends_with("&continue=a-b_c") => {
            Json(json!({"metadata": {}, "items": [reset("done", "orders")]})).into_response()
        }
        (_, "kafkaoffsetresets") => {
            let items = [reset("other", "payments")];
            Json(json!({"metadata": {"continue": "a-b_c"}, "items": items})).into_response()
        }
        (_, "done") => Json(reset("done", "orders")).into_response(),
        (_, "other") => Json(reset("other", "payments")).into_response(),
        _ => status(404, "not found"),
    }
}

fn status(code: u16, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Test", "code": code,
        "message": message,
    });
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

/// The status of a TokenReview.
fn token(token: &str) -> Value {
    match token {
        "nobody" | "viewer" | "reader" | "writer" | "admin" => json!({
            "authenticated": true,
            "user": {"username": token, "uid": "1", "groups": ["system:authenticated"], "extra": {"a": ["b"]}},
        }),
        "expired" => json!({"error": "token has expired"}),
        _ => json!({"authenticated": false, "error": "invalid bearer token"}),
    }
}

/// As RBAC would answer: `viewer`, `reader` and `writer` have rights in the namespace shop; `viewer` may not see
/// records.
fn allowed(spec: &Value) -> bool {
    let wanted = &spec["resourceAttributes"];
    let write = ["create", "patch"].contains(&wanted["verb"].as_str().unwrap_or_default());
    let known = spec["groups"][0] == "system:authenticated" && spec["extra"]["a"][0] == "b";
    let shop = wanted["namespace"] == "shop";
    known
        && match spec["user"].as_str() {
            Some("admin") => true,
            Some("writer") => shop,
            Some("reader") => shop && !write,
            Some("viewer") => shop && !write && wanted["subresource"] != "deadletters",
            _ => false,
        }
}
