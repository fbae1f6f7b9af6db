//! Errors of the API: `application/problem+json` (RFC 9457) with a reason that programs can compare. Every
//! problem says what is wrong and what to send instead.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::kafka::model::GroupKey;

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:kafka-consumer:problem:` and the reason.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of the status code.
    pub title: &'static str,
    /// Status code.
    pub status: u16,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// One word for programs.
    pub reason: &'static str,
}

impl Problem {
    pub fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:kafka-consumer:problem:{reason}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            reason,
        }
    }

    pub fn bad_request(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, detail)
    }

    /// The request has no valid token.
    pub fn unauthorized(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason, detail)
    }

    pub fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ShuttingDown",
            "this program is ending; try again when it runs again",
        )
    }

    pub fn too_many_changes() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "too many changes are waiting; try again in a second",
        )
    }

    pub fn no_group(key: &GroupKey) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "GroupNotFound",
            format!(
                "there is no group {}/{}; GET /api/v1/groups lists all groups",
                key.namespace, key.name
            ),
        )
    }

    pub fn no_route(uri: &Uri) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "RouteNotFound",
            format!("there is no {}; /docs lists all routes", uri.path()),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let reason = self.reason;
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750: `error` only if there was a token.
            let challenge = match reason {
                "Unauthorized" => "Bearer realm=\"kafka-consumer-operator\"",
                _ => "Bearer realm=\"kafka-consumer-operator\", error=\"invalid_token\"",
            };
            let challenge = HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
