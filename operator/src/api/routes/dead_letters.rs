//! The routes that show dead letters. They need the right to see records, which is apart from the right to see
//! groups. Nothing of a record is logged, and no cache may keep an answer.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::groups::find;
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::dead_letters::DeadLetterList;
use crate::api::dead_letters::filter::LettersQuery;
use crate::api::dead_letters::view::{RawPart, WholeDeadLetter, WholeRecord};
use crate::api::parameters::{GroupPath, Parameters, RecordPath, short};
use crate::api::problem::Problem;
use crate::api::shared::Shared;
use crate::kafka::model::GroupKey;

const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

type Uncached<T> = ([(HeaderName, &'static str); 1], Json<T>);

/// Query parameters of one record.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordQuery {
    /// `key` or `value`: answer its bytes as they are, as a file.
    pub part: Option<String>,
}

async fn allowed(shared: &Shared, caller: &Caller, key: &GroupKey) -> Result<(), Problem> {
    find(shared, caller, key).await?;
    caller.require(Right::GetDeadLetters, key).await
}

/// Lists the dead letters of a group, the newest first.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/dead-letters", tag = "dead letters",
    params(("namespace" = String, Path), ("name" = String, Path), LettersQuery),
    responses(
        (status = 200, body = DeadLetterList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
    Parameters(query): Parameters<LettersQuery>,
) -> Result<Uncached<DeadLetterList>, Problem> {
    allowed(&shared, &caller, &key).await?;
    let page = shared.dead_letters.page(&key, query.filter()?).await?;
    Ok((NO_STORE, Json(page)))
}

/// One dead letter with its payload, or the bytes of its key or value.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/dead-letters/{partition}/{offset}", tag = "dead letters",
    params(("namespace" = String, Path), ("name" = String, Path), ("partition" = i32, Path), ("offset" = i64, Path), RecordQuery),
    responses(
        (status = 200, body = WholeDeadLetter),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "Retention has removed it", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    RecordPath(key, partition, offset): RecordPath,
    Parameters(query): Parameters<RecordQuery>,
) -> Result<Response, Problem> {
    allowed(&shared, &caller, &key).await?;
    let (letters, at) = (&shared.dead_letters, (partition, offset));
    let take: fn(&WholeRecord<'_>) -> RawPart = match query.part.as_deref() {
        None => {
            let whole = letters.record(&key, at, WholeDeadLetter::of).await?;
            return Ok((NO_STORE, Json(whole)).into_response());
        }
        Some("key") => RawPart::key,
        Some("value") => RawPart::value,
        Some(other) => {
            let detail = format!("part is \"{}\"; write key or value", short(other));
            return Err(Problem::bad_request("InvalidQuery", detail));
        }
    };
    let part = letters.record(&key, at, take).await?;
    let Some(bytes) = part.bytes else {
        let part = query.part.unwrap_or_default();
        let detail = format!("partition {partition} offset {offset}: the record has no {part}: it is null");
        return Err(Problem::new(StatusCode::NOT_FOUND, "PartIsNull", detail));
    };
    // Never a type that a browser shows: the bytes are from an untrusted program.
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_string()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}\"", part.file),
        ),
    ];
    Ok((NO_STORE, headers, bytes).into_response())
}
