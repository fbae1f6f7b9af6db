//! Requests to the API server in the name of a user, with the user's own token: their rights, admission and
//! the audit log apply to the person. In: a path and a change. Out: the object, or a problem.

use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use kube::Client;
use serde_json::Value;

use super::ownership::MANAGER_PREFIX;
use super::problem::Problem;
use super::token::Token;

/// Time for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest name of a field manager.
const MANAGER: usize = 128;

/// A user at the API server.
pub struct AsUser<'a> {
    /// Without credentials.
    pub client: &'a Client,
    pub token: &'a Token,
    pub user: &'a str,
}

impl AsUser<'_> {
    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Result<Value, Problem> {
        let request = Request::get(path).body(Vec::new());
        self.send(request).await
    }

    /// Creates an object in the collection at `path`.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Problem> {
        let request = Request::post(format!("{path}?fieldManager={}", manager(self.user)))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes());
        self.send(request).await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) -> Result<Value, Problem> {
        let request = Request::delete(path).body(Vec::new());
        self.send(request).await
    }

    /// Sends a merge patch. The field manager names the user.
    pub async fn patch(&self, path: &str, change: &Value) -> Result<Value, Problem> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={}", manager(self.user)))
            .header("content-type", "application/merge-patch+json")
            .body(change.to_string().into_bytes());
        self.send(request).await
    }

    async fn send(&self, request: Result<Request<Vec<u8>>, axum::http::Error>) -> Result<Value, Problem> {
        let unavailable =
            |why: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ApiServerUnavailable", why);
        let mut request = request.map_err(|error| unavailable(error.to_string()))?;
        let bearer = format!("Bearer {}", self.token.secret());
        let bearer = bearer
            .parse()
            .map_err(|_| Problem::unauthorized("InvalidToken", "this is no token"))?;
        request.headers_mut().insert("authorization", bearer);
        let sent = self.client.request_text(request);
        let text = match tokio::time::timeout(ANSWER, sent).await {
            Ok(Ok(text)) => text,
            Ok(Err(kube::Error::Api(status))) => return Err(refused(status.code, &status.message)),
            Ok(Err(_)) => {
                return Err(unavailable(
                    "the API server cannot be reached; try again later".into(),
                ));
            }
            Err(_) => {
                let seconds = ANSWER.as_secs();
                return Err(unavailable(format!(
                    "the API server did not answer within {seconds} s; look whether the change has happened before you repeat it"
                )));
            }
        };
        serde_json::from_str(&text).map_err(|_| unavailable("the API server answered no JSON".into()))
    }
}

/// The answer to what the API server has refused.
fn refused(code: u16, message: &str) -> Problem {
    let problem = |status, reason| Problem::new(status, reason, format!("the API server refuses: {message}"));
    match code {
        401 => Problem::unauthorized(
            "InvalidToken",
            "the API server does not accept the token any more",
        ),
        403 => problem(StatusCode::FORBIDDEN, "Forbidden"),
        404 => problem(StatusCode::NOT_FOUND, "NotFound"),
        409 => problem(StatusCode::CONFLICT, "Conflict"),
        429 => problem(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        400..500 => problem(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        _ => problem(StatusCode::SERVICE_UNAVAILABLE, "ApiServerUnavailable"),
    }
}

/// Names the user in `metadata.managedFields`, with characters that a query may have.
fn manager(user: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:@/".contains(c);
    let user = user.chars().map(|c| if allowed(c) { c } else { '_' });
    let name: String = MANAGER_PREFIX.chars().chain(user).collect();
    name.chars().take(MANAGER).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_manager_names_the_user_within_the_limits_of_kubernetes() {
        assert_eq!(
            manager("alice@example.com"),
            "kafka-consumer-api:alice@example.com"
        );
        assert_eq!(manager("a b&c?d"), "kafka-consumer-api:a_b_c_d");
        assert_eq!(manager(&"ä".repeat(300)).len(), 128);
    }

    #[test]
    fn what_the_api_server_refuses_is_no_error_of_this_server() {
        for (code, status, reason) in [
            (401, 401, "InvalidToken"),
            (403, 403, "Forbidden"),
            (404, 404, "NotFound"),
            (409, 409, "Conflict"),
            (422, 422, "Invalid"),
            (400, 422, "Invalid"),
            (429, 429, "TooManyRequests"),
            (500, 503, "ApiServerUnavailable"),
        ] {
            let problem = refused(code, "why");
            assert_eq!((problem.status, problem.reason), (status, reason), "{code}");
        }
    }
}
