//! What an HTTP answer means for the records of the request. Pure.

use crds::spec::HttpResults;
use serde::Deserialize;

use crate::writer::{Rejected, WriteError};

/// Maximum number of characters of an answer in a message.
const SHOWN_CHARACTERS: usize = 200;

/// The server's reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply<'a> {
    pub status: u16,
    pub retry_after: Option<&'a str>,
    pub body: &'a [u8],
    /// True if the server declares the body as JSON.
    pub is_json: bool,
    /// Why the body is incomplete, if it is.
    pub cut: Option<&'a str>,
}

/// The server's answer about the records.
#[derive(Debug, PartialEq)]
pub(super) enum HttpAnswer {
    /// All records are written.
    Written,
    /// One entry per record of the request; `None` if it is written.
    PerRecord(Vec<Option<RejectedItem>>),
}

/// What is wrong with one record.
#[derive(Debug, PartialEq)]
pub(super) struct RejectedItem {
    pub message: String,
    /// The same record may be accepted later.
    pub retryable: bool,
    /// The record may have been written.
    pub in_doubt: bool,
}

impl RejectedItem {
    pub fn rejected(self, position: usize) -> Rejected {
        let RejectedItem {
            message,
            retryable,
            in_doubt,
        } = self;
        Rejected {
            position,
            message,
            retryable,
            in_doubt,
        }
    }
}

#[derive(Deserialize)]
struct Results {
    results: Vec<RecordReply>,
}

#[derive(Deserialize)]
struct RecordReply {
    status: u16,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// What the reply to a request with `records` records means. In a `WriteError`, `Refused` means that some
/// records are rejected, the server does not say which, and none is written. With `Transient` the worker
/// sends the request again, but not with AtMostOnce, because records may have been written; `Inconclusive` is
/// the same, but one of the records may be the cause. With `Systemic` nothing is written until a user fixes
/// the cause, so the worker sends the request again whatever the guarantee is.
pub(super) fn answer(
    reply: Reply<'_>,
    records: usize,
    use_results: HttpResults,
) -> Result<HttpAnswer, WriteError> {
    let status = reply.status;
    let by_status = match status {
        200..=299 => Ok(HttpAnswer::Written),
        401 | 403 | 404 | 405 | 407 | 408 | 410 | 425 | 429 => return Err(no_answer(reply)),
        400..=499 => Err(WriteError::Refused(describe(status, reply.body))),
        _ => return Err(no_answer(reply)),
    };
    // A body of another shape does not concern us.
    if !reply.is_json || use_results == HttpResults::Ignore {
        return by_status;
    }
    // The missing part may have said which records are written and which are not.
    if let Some(cut) = reply.cut {
        return Err(WriteError::Inconclusive(format!(
            "the server answered {status}, but {cut}"
        )));
    }
    let Ok(Results { results }) = serde_json::from_slice(reply.body) else {
        return by_status;
    };
    // Not one entry for each record, so it is not about the records.
    if results.is_empty() {
        return by_status;
    }
    // Every entry concerns the only record.
    if records == 1 {
        let rejection = results.into_iter().find_map(per_record);
        return Ok(HttpAnswer::PerRecord(vec![rejection]));
    }
    if results.len() != records {
        return Err(WriteError::Inconclusive(format!(
            "the server answered {status} with {} for {records} records, so it is not known which are \
             written; make \"results\" contain one entry per record of the request, in the same order, or set \
             http.results: Ignore if they are not about the records",
            count(results.len(), "result"),
        )));
    }
    Ok(HttpAnswer::PerRecord(
        results.into_iter().map(per_record).collect(),
    ))
}

/// The error for a status that alone means that the request has to be sent again.
fn no_answer(reply: Reply<'_>) -> WriteError {
    let message = describe(reply.status, reply.body);
    let advice = match reply.status {
        // The server asks to wait, so its failure is not about a record.
        425 | 429 | 503 if reply.status != 503 || reply.retry_after.is_some() => {
            return WriteError::Transient(match reply.retry_after {
                Some(retry_after) => format!(
                    "{message} (the server asks to wait: Retry-After: {})",
                    shorten(retry_after)
                ),
                None => message,
            });
        }
        408 | 500..=599 => return WriteError::Inconclusive(message),
        // The usual end of an accepted form.
        303 => {
            return WriteError::Inconclusive(format!(
                "{message}; this status does not show whether records are written: let the server answer 2xx"
            ));
        }
        // RFC 9110: treat it as a 5xx.
        600.. => {
            return WriteError::Inconclusive(format!(
                "{message}; this is not an answer of an HTTP server: correct http.url"
            ));
        }
        401 | 403 | 407 => "the login is refused: correct the Secret of http.bearerToken or http.basicAuth",
        404 | 410 => "there is nothing at this URL: correct http.url",
        405 => "the server does not accept this method: correct http.method or http.url",
        300..=399 => "redirects are not followed: set http.url to the final address",
        _ => "this is not an answer of an HTTP server: correct http.url",
    };
    WriteError::Systemic(format!("{message}; {advice}"))
}

fn per_record(reply: RecordReply) -> Option<RejectedItem> {
    let error = match reply.error {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => format!(": {}", shorten(&text)),
        Some(other) => format!(": {}", shorten(&other.to_string())),
    };
    let status = reply.status;
    (!(200..=299).contains(&status)).then(|| RejectedItem {
        message: format!("status {status} for this record{error}"),
        retryable: matches!(status, 408 | 425 | 429 | 500..=599),
        in_doubt: matches!(status, 408 | 500..=599),
    })
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn describe(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_CHARACTERS * 4)]);
    match shorten(text.trim()).as_str() {
        "" => format!("status {status}"),
        text => format!("status {status}: {text}"),
    }
}

/// The start of a text, on one line.
fn shorten(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(SHOWN_CHARACTERS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reply: Reply<'_>, records: usize) -> Result<HttpAnswer, WriteError> {
        super::answer(reply, records, HttpResults::Auto)
    }

    fn refusal(message: &str, retryable: bool, in_doubt: bool) -> Option<RejectedItem> {
        Some(RejectedItem {
            message: message.into(),
            retryable,
            in_doubt,
        })
    }

    #[test]
    fn a_record_whose_status_does_not_show_the_result_is_in_doubt() {
        for (status, retryable, in_doubt) in [
            (408, true, true),
            (425, true, false),
            (500, true, true),
            (503, true, true),
            (400, false, false),
        ] {
            let body = format!(r#"{{"results": [{{"status": {status}}}]}}"#);
            let message = format!("status {status} for this record");
            assert_eq!(
                answer(json(200, body.as_bytes()), 1),
                Ok(HttpAnswer::PerRecord(vec![refusal(
                    &message, retryable, in_doubt
                )]))
            );
        }
    }

    fn plain(status: u16) -> Reply<'static> {
        Reply {
            status,
            ..Reply::default()
        }
    }

    fn json(status: u16, body: &[u8]) -> Reply<'_> {
        Reply {
            status,
            body,
            is_json: true,
            ..Reply::default()
        }
    }

    fn inconclusive(meaning: Result<HttpAnswer, WriteError>) -> String {
        match meaning {
            Err(WriteError::Inconclusive(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_status_decides_if_the_body_has_no_results() {
        for status in [200, 201, 202, 204, 207] {
            let meaning = answer(plain(status), 2);
            assert_eq!(meaning, Ok(HttpAnswer::Written), "{status}");
        }
        for status in [425, 429] {
            let meaning = answer(plain(status), 2);
            assert!(matches!(meaning, Err(WriteError::Transient(_))), "{status}");
        }
        for status in [303, 408, 500, 502, 503, 504, 599, 600, 999] {
            let meaning = answer(plain(status), 2);
            assert!(matches!(meaning, Err(WriteError::Inconclusive(_))), "{status}");
        }
        for status in [101, 300, 301, 302, 304, 307, 308, 401, 403, 404, 405, 407, 410] {
            let meaning = answer(plain(status), 2);
            assert!(matches!(meaning, Err(WriteError::Systemic(_))), "{status}");
        }
        for status in [
            400, 402, 406, 409, 411, 413, 415, 422, 424, 426, 428, 431, 451, 499,
        ] {
            let meaning = answer(plain(status), 2);
            assert!(matches!(meaning, Err(WriteError::Refused(_))), "{status}");
        }
        // JSON of another shape, and a body that is declared as JSON but is not JSON.
        for own in [&br#"{"results": [{"id": 1}], "took": 3}"#[..], b"OK"] {
            assert_eq!(answer(json(200, own), 2), Ok(HttpAnswer::Written));
        }
    }

    #[test]
    fn a_body_with_one_entry_per_record_has_a_result_for_each() {
        let body = br#"{"results": [{"status": 201}, {"status": 422, "error": "no such customer"}, {"status": 429}]}"#;
        let expected = || {
            Ok(HttpAnswer::PerRecord(vec![
                None,
                refusal("status 422 for this record: no such customer", false, false),
                refusal("status 429 for this record", true, false),
            ]))
        };
        assert_eq!(answer(json(207, body), 3), expected());
        assert_eq!(answer(json(422, body), 3), expected());
        // Not declared as JSON.
        let text = Reply {
            is_json: false,
            ..json(200, body)
        };
        assert_eq!(answer(text, 3), Ok(HttpAnswer::Written));
    }

    #[test]
    fn results_for_another_number_of_records_confirm_nothing_and_reject_nothing() {
        let one = br#"{"results": [{"status": 200}]}"#;
        let message = inconclusive(answer(json(200, one), 2));
        assert!(message.starts_with(
            "the server answered 200 with 1 result for 2 records, so it is not known which are written; make \
             \"results\" contain one entry per record of the request, in the same order"
        ));
        assert!(message.contains("http.results: Ignore"), "{message}");
        let two = br#"{"results": [{"status": 200}, {"status": 500}]}"#;
        assert!(inconclusive(answer(json(422, two), 3)).contains("422 with 2 results for 3 records"));
        assert_eq!(
            super::answer(json(200, two), 3, HttpResults::Ignore),
            Ok(HttpAnswer::Written)
        );
        assert_eq!(
            super::answer(json(200, two), 2, HttpResults::Ignore),
            Ok(HttpAnswer::Written)
        );
    }

    #[test]
    fn an_answer_that_is_not_about_single_records_counts_by_its_status() {
        for body in [
            &br#"{"results": []}"#[..],
            br#"{"results": null}"#,
            br#"{"results": {"status": 500}}"#,
            br#"{"results": ["ok", "ok"]}"#,
            br#"{"results": [{"id": 7}, {"id": 8}]}"#,
            br#"{"results": [{"status": "created"}, {"status": "created"}]}"#,
            b"[]",
            b"null",
        ] {
            assert_eq!(answer(json(200, body), 2), Ok(HttpAnswer::Written));
            assert!(matches!(answer(json(422, body), 2), Err(WriteError::Refused(_))));
        }
        // With one record, all entries are about it.
        let two = br#"{"results": [{"status": 200}, {"status": 422}]}"#;
        let expected = refusal("status 422 for this record", false, false);
        assert_eq!(
            answer(json(200, two), 1),
            Ok(HttpAnswer::PerRecord(vec![expected]))
        );
        let two = br#"{"results": [{"status": 200}, {"status": 201}]}"#;
        assert_eq!(answer(json(200, two), 1), Ok(HttpAnswer::PerRecord(vec![None])));
    }

    #[test]
    fn an_incomplete_answer_may_have_contained_results() {
        let cut = |status, is_json| Reply {
            is_json,
            cut: Some("its answer breaks off"),
            ..json(status, b"{")
        };
        for status in [200, 422] {
            assert_eq!(
                inconclusive(answer(cut(status, true), 2)),
                format!("the server answered {status}, but its answer breaks off")
            );
        }
        // Here the status alone is enough.
        assert!(inconclusive(answer(cut(503, true), 2)).starts_with("status 503"));
        assert!(matches!(answer(cut(401, true), 2), Err(WriteError::Systemic(_))));
        assert!(matches!(answer(cut(422, false), 2), Err(WriteError::Refused(_))));
    }

    #[test]
    fn messages_contain_the_start_of_the_answer_on_one_line() {
        let long = "x\n".repeat(500);
        let reply = Reply {
            retry_after: Some("30"),
            body: long.as_bytes(),
            ..plain(503)
        };
        let Err(WriteError::Transient(message)) = answer(reply, 1) else {
            panic!("a server that asks to wait is not transient");
        };
        assert!(message.starts_with("status 503: x x x"), "{message}");
        assert!(
            message.len() < 300 && !message.contains('\n') && message.contains("Retry-After: 30"),
            "{message}"
        );
    }
}
