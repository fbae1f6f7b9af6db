//! What an HTTP answer means for the records of the request. Pure.

use serde::Deserialize;

use crate::writer::{Rejected, WriteError};

/// How much of an answer goes into a message.
const SHOWN_CHARACTERS: usize = 200;

/// What a server has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply<'a> {
    pub status: u16,
    pub retry_after: Option<&'a str>,
    pub body: &'a [u8],
    /// What the server says of the body.
    pub is_json: bool,
    /// Why there is no more of the body, when it is not there as a whole.
    pub cut: Option<&'a str>,
}

/// An answer about the records.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// All are written.
    Written,
    /// Per record of the request: None when written.
    PerRecord(Vec<Option<RefusedItem>>),
}

/// What is wrong with one record.
#[derive(Debug, PartialEq)]
pub(super) struct RefusedItem {
    pub message: String,
    /// It is worth another try.
    pub retryable: bool,
    /// For all that is known, it is written.
    pub in_doubt: bool,
}

impl RefusedItem {
    pub fn rejected(self, position: usize) -> Rejected {
        let RefusedItem {
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

/// What the reply to a request with `records` records means.
pub(super) fn answer(reply: Reply<'_>, records: usize) -> Result<Answer, WriteError> {
    let status = reply.status;
    let by_status = match status {
        200..=299 => Ok(Answer::Written),
        401 | 403 | 404 | 405 | 407 | 408 | 410 | 425 | 429 => return Err(no_answer(reply)),
        400..=499 => Err(WriteError::Refused(describe(status, reply.body))),
        _ => return Err(no_answer(reply)),
    };
    // A body of another shape is the server's own business.
    if !reply.is_json {
        return by_status;
    }
    // It may have told of records that are written and of others that are not.
    if let Some(cut) = reply.cut {
        return Err(WriteError::Transient(format!(
            "the server answered {status}, but {cut}"
        )));
    }
    let Ok(Results { results }) = serde_json::from_slice(reply.body) else {
        return by_status;
    };
    if results.len() != records {
        return Err(WriteError::Transient(format!(
            "the server answered {status} with {} for {}, so it is not known which are written; let \"results\" have \
             one entry per record of the request, in their order",
            count(results.len(), "result"),
            count(records, "record")
        )));
    }
    Ok(Answer::PerRecord(results.into_iter().map(per_record).collect()))
}

/// The status alone says that the request is to be sent again.
fn no_answer(reply: Reply<'_>) -> WriteError {
    let message = describe(reply.status, reply.body);
    let advice = match reply.status {
        408 | 425 | 429 | 500..=599 => {
            return WriteError::Transient(match reply.retry_after {
                Some(retry_after) => format!(
                    "{message} (the server asks to wait: Retry-After: {})",
                    shorten(retry_after)
                ),
                None => message,
            });
        }
        // The usual end of a form that was taken.
        303 => {
            return WriteError::Transient(format!(
                "{message}; that says that something was done with the request, but not what: let the server answer 2xx"
            ));
        }
        // To be taken for a 5xx, says RFC 9110.
        600.. => {
            return WriteError::Transient(format!(
                "{message}; this is no answer of an HTTP server: correct http.url"
            ));
        }
        401 | 403 | 407 => "the login is refused: correct the Secret of http.bearerToken or http.basicAuth",
        404 | 410 => "there is nothing at this URL: correct http.url",
        405 => "the server does not take this method: correct http.method or http.url",
        300..=399 => "redirects are not followed: set http.url to the final address",
        _ => "this is no answer of an HTTP server: correct http.url",
    };
    WriteError::Systemic(format!("{message}; {advice}"))
}

fn per_record(reply: RecordReply) -> Option<RefusedItem> {
    let error = match reply.error {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => format!(": {}", shorten(&text)),
        Some(other) => format!(": {}", shorten(&other.to_string())),
    };
    let status = reply.status;
    (!(200..=299).contains(&status)).then(|| RefusedItem {
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

/// The beginning of a text on one line.
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

    fn refusal(message: &str, retryable: bool, in_doubt: bool) -> Option<RefusedItem> {
        Some(RefusedItem {
            message: message.into(),
            retryable,
            in_doubt,
        })
    }

    #[test]
    fn a_record_whose_status_leaves_it_open_is_in_doubt() {
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
                Ok(Answer::PerRecord(vec![refusal(&message, retryable, in_doubt)]))
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

    fn transient(meaning: Result<Answer, WriteError>) -> String {
        match meaning {
            Err(WriteError::Transient(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_status_decides_when_the_body_tells_nothing_about_records() {
        for status in [200, 201, 202, 204, 207] {
            let meaning = answer(plain(status), 2);
            assert_eq!(meaning, Ok(Answer::Written), "{status}");
        }
        for status in [303, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
            let meaning = answer(plain(status), 2);
            assert!(matches!(meaning, Err(WriteError::Transient(_))), "{status}");
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
        // JSON of another shape, and what is called JSON and is none.
        for own in [&br#"{"results": [{"id": 1}], "took": 3}"#[..], b"OK"] {
            assert_eq!(answer(json(200, own), 2), Ok(Answer::Written));
        }
    }

    #[test]
    fn a_body_with_one_entry_per_record_tells_about_each() {
        let body = br#"{"results": [{"status": 201}, {"status": 422, "error": "no such customer"}, {"status": 429}]}"#;
        let expected = || {
            Ok(Answer::PerRecord(vec![
                None,
                refusal("status 422 for this record: no such customer", false, false),
                refusal("status 429 for this record", true, false),
            ]))
        };
        assert_eq!(answer(json(207, body), 3), expected());
        assert_eq!(answer(json(422, body), 3), expected());
        // Not claimed to be JSON.
        let text = Reply {
            is_json: false,
            ..json(200, body)
        };
        assert_eq!(answer(text, 3), Ok(Answer::Written));
    }

    #[test]
    fn entries_for_another_number_of_records_confirm_nothing_and_refuse_nothing() {
        let one = br#"{"results": [{"status": 200}]}"#;
        assert_eq!(
            transient(answer(json(200, one), 2)),
            "the server answered 200 with 1 result for 2 records, so it is not known which are written; let \"results\" \
             have one entry per record of the request, in their order"
        );
        let message = transient(answer(json(422, br#"{"results": []}"#), 1));
        assert!(message.contains("422 with 0 results for 1 record,"), "{message}");
    }

    #[test]
    fn an_answer_that_is_not_there_as_a_whole_may_have_told_about_records() {
        let cut = |status, is_json| Reply {
            is_json,
            cut: Some("its answer breaks off"),
            ..json(status, b"{")
        };
        for status in [200, 422] {
            assert_eq!(
                transient(answer(cut(status, true), 2)),
                format!("the server answered {status}, but its answer breaks off")
            );
        }
        // Here the status has said everything.
        assert!(transient(answer(cut(503, true), 2)).starts_with("status 503"));
        assert!(matches!(answer(cut(401, true), 2), Err(WriteError::Systemic(_))));
        assert!(matches!(answer(cut(422, false), 2), Err(WriteError::Refused(_))));
    }

    #[test]
    fn messages_hold_the_beginning_of_the_answer_on_one_line() {
        let long = "x\n".repeat(500);
        let message = transient(answer(
            Reply {
                retry_after: Some("30"),
                body: long.as_bytes(),
                ..plain(503)
            },
            1,
        ));
        assert!(message.starts_with("status 503: x x x"), "{message}");
        assert!(
            message.len() < 300 && !message.contains('\n') && message.contains("Retry-After: 30"),
            "{message}"
        );
    }
}
