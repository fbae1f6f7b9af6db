//! What every request must pass, and what every answer carries. In: requests. Out: a problem for those that a
//! foreign page may have caused (DNS rebinding, cross-site requests) or that take too long; security headers
//! on all answers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Time for an answer; streams only have to begin within it.
const TIME_LIMIT: Duration = Duration::from_secs(30);

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
);
/// Swagger UI sets style attributes.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
);

/// What protects the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Nothing: a page that reaches it may use it, so foreign pages must not reach it.
    Open,
    /// A token in a header, which a browser never sends for a foreign page.
    Token,
}

/// The outermost layer.
pub async fn guard(exposure: Exposure, request: Request, next: Next) -> Response {
    let docs = request.uri().path().starts_with("/docs");
    let stream = request.uri().path().ends_with("/watch");
    let checked = match exposure {
        Exposure::Open => check(request.method(), request.uri().path(), request.headers()),
        Exposure::Token => Ok(()),
    };
    let mut response = match checked {
        Err(problem) => problem.into_response(),
        Ok(()) => answer(request, next).await,
    };
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: HeaderValue| {
        headers.insert(name, value);
    };
    set(
        header::CONTENT_SECURITY_POLICY,
        if docs { DOCS_POLICY } else { POLICY },
    );
    set(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    set(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if stream {
        set(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn answer(request: Request<Body>, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TimedOut",
            format!("no answer within {} s; try again later", TIME_LIMIT.as_secs()),
        )
        .into_response(),
    }
}

/// Refuses requests that a page of another site may have caused.
fn check(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if !is_local(host) {
        // A page whose host name resolves to this machine is of the same origin for the browser.
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "HostNotAllowed",
            format!("the request is for the host \"{host}\"; use http://localhost:PORT or the IP address"),
        ));
    }
    let cross_site = |detail: &str| Problem::new(StatusCode::FORBIDDEN, "CrossSiteRequest", detail);
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let api = path.starts_with("/api/");
    if (api || changes) && matches!(site, Some("cross-site" | "same-site")) {
        return Err(cross_site(
            "a page of another site sent this request; only pages of this server may",
        ));
    }
    if !changes {
        return Ok(());
    }
    if site.is_some_and(|site| site != "same-origin") {
        return Err(cross_site(
            "only a page of this server may send this request from a browser",
        ));
    }
    // A browser without Sec-Fetch-Site sends Origin; other programs send neither.
    if site.is_none()
        && let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").map(|(_, host)| host) != Some(host)
    {
        return Err(cross_site("the header Origin names another server"));
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        // A form of another site cannot send this type.
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!("the header Content-Type is \"{kind}\"; send application/json"),
        ));
    }
    Ok(())
}

/// An IP address or localhost, with any port: no name that somebody else's DNS server answers for.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn reason(method: Method, pairs: &[(&'static str, &'static str)]) -> Option<&'static str> {
        check(&method, "/api/v1/groups", &headers(pairs))
            .err()
            .map(|problem| problem.reason)
    }

    #[test]
    fn a_name_that_resolves_to_this_machine_is_refused() {
        for host in [
            "localhost:8081",
            "LOCALHOST",
            "127.0.0.1:8081",
            "[::1]:8081",
            "10.1.2.3",
            "a.localhost:1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil]",
            "[",
            ":8081",
        ] {
            assert!(!is_local(host), "{host}");
        }
        assert_eq!(
            reason(Method::GET, &[("host", "evil.example")]),
            Some("HostNotAllowed")
        );
        assert_eq!(reason(Method::GET, &[]), Some("HostNotAllowed"));
    }

    #[test]
    fn a_foreign_page_can_neither_read_nor_write() {
        let (host, json) = (("host", "localhost:1"), ("content-type", "application/json"));
        let own = ("sec-fetch-site", "same-origin");
        for (pairs, expected) in [
            (vec![host, json, own], None),
            (vec![host, json], None),
            (vec![host, json, ("origin", "http://localhost:1")], None),
            (
                vec![host, json, ("sec-fetch-site", "cross-site")],
                Some("CrossSiteRequest"),
            ),
            (
                vec![host, json, ("sec-fetch-site", "none")],
                Some("CrossSiteRequest"),
            ),
            (
                vec![host, json, ("origin", "http://localhost:2")],
                Some("CrossSiteRequest"),
            ),
            (vec![host, json, ("origin", "null")], Some("CrossSiteRequest")),
            (
                vec![host, own, ("content-type", "text/plain")],
                Some("UnsupportedMediaType"),
            ),
            (vec![host, own], Some("UnsupportedMediaType")),
        ] {
            assert_eq!(reason(Method::PUT, &pairs), expected, "{pairs:?}");
        }
        assert_eq!(reason(Method::GET, &[host, ("sec-fetch-site", "none")]), None);
        assert_eq!(
            reason(Method::GET, &[host, ("sec-fetch-site", "cross-site")]),
            Some("CrossSiteRequest")
        );
        // A link on another site may open the dashboard.
        assert_eq!(
            check(
                &Method::GET,
                "/",
                &headers(&[host, ("sec-fetch-site", "cross-site")])
            ),
            Ok(())
        );
    }
}
