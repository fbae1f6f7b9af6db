//! The routes that show dead letters. They need the right to see records, which is apart from the right to see
//! groups. Nothing of a record is logged, and no cache may keep an answer.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::groups::find;
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::dead_letters::filter::LettersQuery;
use crate::api::dead_letters::view::{RawPart, WholeDeadLetter, WholeRecord};
use crate::api::dead_letters::{DeadLetterList, Slot};
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
            let (whole, _) = letters.record(&key, at, WholeDeadLetter::of).await?;
            return Ok((NO_STORE, Json(whole)).into_response());
        }
        Some("key") => RawPart::key,
        Some("value") => RawPart::value,
        Some(other) => {
            let detail = format!("part is \"{}\"; write key or value", short(other));
            return Err(Problem::bad_request("InvalidQuery", detail));
        }
    };
    let (part, slot) = letters.record(&key, at, take).await?;
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
        (CONTENT_LENGTH, bytes.len().to_string()),
    ];
    Ok((NO_STORE, headers, body(bytes, slot)).into_response())
}

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Keeps the slot until the client has taken the bytes: clients that are slow must not collect records in memory.
fn body(bytes: Vec<u8>, slot: Slot) -> Body {
    let pieces = stream::unfold((Bytes::from(bytes), slot), |(mut left, slot)| async move {
        let piece = left.split_to(left.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (left, slot)))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_slow_client_keeps_its_slot_until_it_has_all_bytes() {
        let slots = Arc::new(Semaphore::new(1));
        let slot = Arc::clone(&slots).try_acquire_owned().unwrap();
        let bytes: Vec<u8> = (0..PIECE * 2 + 1).map(|at| at as u8).collect();
        let mut pieces = body(bytes.clone(), slot).into_data_stream();
        let mut sent = Vec::new();
        while let Some(piece) = pieces.next().await {
            assert_eq!(slots.available_permits(), 0);
            sent.extend(piece.unwrap());
        }
        assert_eq!((sent, slots.available_permits()), (bytes, 1));
        let slot = Arc::clone(&slots).try_acquire_owned().unwrap();
        drop(body(vec![1], slot));
        assert_eq!(slots.available_permits(), 1, "the client has gone");
    }
}
