//! What an HTTP answer means for the records of the request. Pure.

use serde::Deserialize;

/// How much of an answer goes into a message.
const SHOWN_CHARACTERS: usize = 200;

/// An answer about the records.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// All are written.
    Written,
    /// Per record of the request: None when written, else what is wrong and whether it is worth another try.
    PerRecord(Vec<Option<(String, bool)>>),
    /// Records are at fault, and it is not known which.
    Refused(String),
}

/// An answer, or why there is none.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    Answer(Answer),
    Transient(String),
    Systemic(String),
}

#[derive(Deserialize)]
struct Reply {
    results: Vec<RecordReply>,
}

#[derive(Deserialize)]
struct RecordReply {
    status: u16,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// Reads status and body of an answer to a request with `records` records.
pub(super) fn answer(
    status: u16,
    retry_after: Option<&str>,
    reply: &[u8],
    is_json: bool,
    records: usize,
) -> Meaning {
    let meaning = match status {
        200..=299 => Meaning::Answer(Answer::Written),
        408 | 425 | 429 | 500..=599 => {
            let mut message = describe(status, reply);
            if let Some(retry_after) = retry_after {
                message.push_str(&format!(
                    " (the server asks to wait: Retry-After: {})",
                    shorten(retry_after)
                ));
            }
            return Meaning::Transient(message);
        }
        400..=499 if !matches!(status, 401 | 403 | 404 | 405 | 407 | 410) => {
            Meaning::Answer(Answer::Refused(describe(status, reply)))
        }
        _ => {
            let advice = match status {
                401 | 403 | 407 => {
                    "the login is refused: correct the Secret of http.bearerToken or http.basicAuth"
                }
                404 | 410 => "there is nothing at this URL: correct http.url",
                405 => "the server does not take this method: correct http.method or http.url",
                300..=399 => "redirects are not followed: set http.url to the final address",
                _ => "this is no answer of an HTTP server: correct http.url",
            };
            return Meaning::Systemic(format!("{}; {advice}", describe(status, reply)));
        }
    };
    // A body of another shape is the server's own business.
    let Some(Reply { results }) = is_json.then(|| serde_json::from_slice(reply).ok()).flatten() else {
        return meaning;
    };
    if results.len() != records {
        return Meaning::Systemic(format!(
            "status {status}: the answer tells about {} records, but {records} were sent; \"results\" must have one entry per record, in their order",
            results.len()
        ));
    }
    Meaning::Answer(Answer::PerRecord(results.into_iter().map(per_record).collect()))
}

fn per_record(reply: RecordReply) -> Option<(String, bool)> {
    let error = match reply.error {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => format!(": {}", shorten(&text)),
        Some(other) => format!(": {}", shorten(&other.to_string())),
    };
    match reply.status {
        200..=299 => None,
        408 | 425 | 429 | 500..=599 => {
            Some((format!("status {} for this record{error}", reply.status), true))
        }
        status => Some((format!("status {status} for this record{error}"), false)),
    }
}

fn describe(status: u16, reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reply[..reply.len().min(SHOWN_CHARACTERS * 4)]);
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

    fn plain(status: u16) -> Meaning {
        answer(status, None, b"", false, 2)
    }

    #[test]
    fn the_status_decides_when_the_body_tells_nothing_about_records() {
        for status in [200, 201, 202, 204, 207] {
            assert_eq!(plain(status), Meaning::Answer(Answer::Written), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(plain(status), Meaning::Transient(_)), "{status}");
        }
        for status in [301, 302, 304, 401, 403, 404, 405, 407, 410, 600] {
            assert!(matches!(plain(status), Meaning::Systemic(_)), "{status}");
        }
        for status in [400, 402, 406, 409, 413, 415, 422] {
            assert!(
                matches!(plain(status), Meaning::Answer(Answer::Refused(_))),
                "{status}"
            );
        }
        // JSON of another shape.
        let own = answer(200, None, br#"{"results": [{"id": 1}], "took": 3}"#, true, 2);
        assert_eq!(own, Meaning::Answer(Answer::Written));
    }

    #[test]
    fn a_body_with_one_entry_per_record_tells_about_each() {
        let body = br#"{"results": [{"status": 201}, {"status": 422, "error": "no such customer"}, {"status": 429}]}"#;
        let expected = Meaning::Answer(Answer::PerRecord(vec![
            None,
            Some(("status 422 for this record: no such customer".into(), false)),
            Some(("status 429 for this record".into(), true)),
        ]));
        assert_eq!(answer(207, None, body, true, 3), expected);
        assert_eq!(answer(422, None, body, true, 3), expected);
        // Not claimed to be JSON.
        assert_eq!(
            answer(200, None, body, false, 3),
            Meaning::Answer(Answer::Written)
        );
    }

    #[test]
    fn entries_for_another_number_of_records_confirm_nothing() {
        let meaning = answer(200, None, br#"{"results": [{"status": 200}]}"#, true, 2);
        assert!(
            matches!(&meaning, Meaning::Systemic(message) if message.contains("one entry per record")),
            "{meaning:?}"
        );
    }

    #[test]
    fn messages_hold_the_beginning_of_the_answer_on_one_line() {
        let long = "x\n".repeat(500);
        let Meaning::Transient(message) = answer(503, Some("30"), long.as_bytes(), false, 1) else {
            panic!()
        };
        assert!(message.starts_with("status 503: x x x"), "{message}");
        assert!(
            message.len() < 300 && !message.contains('\n') && message.contains("Retry-After: 30"),
            "{message}"
        );
    }
}
