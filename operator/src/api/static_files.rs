//! The dashboard: files of this repository, compiled into the program. In: paths. Out: the files with their
//! types. A file that the browser has already is not sent again.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::digest::hash;

struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal: $kind:ident,)*) => {
        [$(File { path: concat!("/ui/", $name), kind: $kind, bytes: include_bytes!(concat!("ui/", $name)) }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

const INDEX: &[u8] = include_bytes!("ui/index.html");

static FILES: [File; 20] = files! {
    "app.js": JS,
    "chart.js": JS,
    "format.js": JS,
    "group.js": JS,
    "groups.js": JS,
    "html.js": JS,
    "icon.svg": SVG,
    "letters.js": JS,
    "live.js": JS,
    "login.js": JS,
    "parts.js": JS,
    "pretty.js": JS,
    "reset.js": JS,
    "session.js": JS,
    "state.js": JS,
    "style.css": CSS,
    "vendor/htm.mjs": JS,
    "vendor/preact.mjs": JS,
    "vendor/uPlot.iife.min.js": JS,
    "vendor/uPlot.min.css": CSS,
};

/// The routes of the pages.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = |headers: HeaderMap| async move { answer(&headers, HTML, INDEX) };
    // The page reads its own path: a link to a group can be shared and reloaded.
    let mut router = Router::new()
        .route("/", get(index))
        .route("/groups/{namespace}/{name}", get(index))
        .route("/groups/{namespace}/{name}/dead-letters", get(index));
    for file in &FILES {
        let send = move |headers: HeaderMap| async move { answer(&headers, file.kind, file.bytes) };
        router = router.route(file.path, get(send));
    }
    router
}

fn answer(headers: &HeaderMap, kind: &'static str, bytes: &'static [u8]) -> Response {
    let tag = format!("\"{}\"", hash(bytes));
    let known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let Ok(tag) = HeaderValue::from_str(&tag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    // Asked for each time: a new version of the program has new files at the same paths.
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (ETAG, tag),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, bytes).into_response()
}
