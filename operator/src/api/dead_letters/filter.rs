//! Which dead letters are asked for. In: query parameters. Out: a filter, or a problem that names the wrong
//! parameter; then whether a record matches. Pure.

use crds::dead_letter::Stage;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::cursor::Cursor;
use super::item::DeadLetter;
use crate::api::parameters::short;
use crate::api::problem::Problem;
use crate::kafka::backwards::Record;

/// Records of a page if the request does not say.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
/// Longest text of a filter, in bytes.
const LONGEST: usize = 500;

/// Query parameters of a list of dead letters.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LettersQuery {
    /// Only this partition of the dead letter topic.
    pub partition: Option<String>,
    /// Only records with this timestamp or a later one, as RFC 3339: `2026-12-01T05:00:00Z`. A dead letter has the
    /// timestamp of the record that failed.
    pub from: Option<String>,
    /// Only records with an earlier timestamp.
    pub to: Option<String>,
    /// Only records whose key, value, headers or error message contain this text; the case of ASCII letters does
    /// not matter.
    pub search: Option<String>,
    /// Only records that failed at this stage: `decode`, `transform` or `write`.
    pub stage: Option<String>,
    /// Only records that failed in the transform or writer with this name, or in the decoder of `key` or `value`.
    pub component: Option<String>,
    /// Only records with this error class: `Undecodable`, `TransformFailed` or `Rejected`.
    pub class: Option<String>,
    /// Records per page, 1 to 200. Default: 50.
    pub limit: Option<String>,
    /// `nextCursor` of the page before, with the same other parameters.
    pub cursor: Option<String>,
}

/// What to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub partition: Option<i32>,
    pub limit: usize,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// In lower case.
    search: Option<Vec<u8>>,
    stage: Option<Stage>,
    component: Option<String>,
    class: Option<String>,
    cursor: Option<String>,
}

fn invalid(name: &str, text: &str, expected: &str) -> Problem {
    let detail = format!("{name} is \"{}\"; write {expected}", short(text));
    Problem::bad_request("InvalidQuery", detail)
}

impl LettersQuery {
    /// An empty parameter is one that is not there: a form sends it.
    pub fn filter(self) -> Result<Filter, Problem> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let time = |name: &str, value: Option<String>| match given(value) {
            None => Ok(None),
            Some(text) => match text.parse::<Timestamp>() {
                Ok(time) => Ok(Some(time)),
                Err(_) => Err(invalid(
                    name,
                    &text,
                    "a time with its zone, such as 2026-12-01T05:00:00Z",
                )),
            },
        };
        let text = |name: &str, value: Option<String>| match given(value) {
            Some(text) if text.len() > LONGEST => {
                Err(invalid(name, &text, &format!("at most {LONGEST} bytes")))
            }
            text => Ok(text),
        };
        let partition = match given(self.partition) {
            None => None,
            Some(text) => Some(
                (text.parse().ok())
                    .filter(|partition: &i32| *partition >= 0)
                    .ok_or_else(|| invalid("partition", &text, "the number of a partition, such as 0"))?,
            ),
        };
        let limit = match given(self.limit) {
            None => LIMIT,
            Some(text) => (text.parse().ok())
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| invalid("limit", &text, &format!("a number from 1 to {MAX_LIMIT}")))?,
        };
        let stage = match given(self.stage) {
            None => None,
            Some(text) => Some(
                Stage::parse(&text).ok_or_else(|| invalid("stage", &text, "decode, transform or write"))?,
            ),
        };
        let (from, to) = (time("from", self.from)?, time("to", self.to)?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(invalid("to", &to.to_string(), "a later time than that of from"));
        }
        Ok(Filter {
            partition,
            limit,
            from,
            to,
            search: text("search", self.search)?.map(|text| text.to_ascii_lowercase().into_bytes()),
            stage,
            component: text("component", self.component)?,
            class: text("class", self.class)?,
            cursor: given(self.cursor),
        })
    }
}

impl Filter {
    /// Where the page begins in this topic; None: at the end.
    pub fn cursor(&self, topic: &str) -> Result<Option<Cursor>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let cursor = Cursor::read(cursor, topic).map_err(|why| {
            let detail = format!("cursor: {why}; begin without a cursor");
            Problem::bad_request("InvalidQuery", detail)
        })?;
        Ok(Some(cursor))
    }

    /// Whether a record matches. A foreign record has no stage, component and class.
    pub fn selects(&self, letter: &DeadLetter, record: &Record<'_>) -> bool {
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        let time = Timestamp::from_millisecond(record.timestamp).ok();
        let time = time.filter(|_| record.timestamp >= 0);
        let stage = self.stage.map(Stage::as_str);
        (self.from.is_none() || time.is_some_and(|time| Some(time) >= self.from))
            && self.to.is_none_or(|to| time.is_some_and(|time| time < to))
            && (stage.is_none() || stage == letter.stage.as_deref())
            && is(&self.component, &letter.component)
            && is(&self.class, &letter.class)
            && self.search.as_ref().is_none_or(|search| found_in(record, search))
    }
}

/// Whether the text is in the key, the value or a header. The error message is in a header.
fn found_in(record: &Record<'_>, search: &[u8]) -> bool {
    let has = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| contains(bytes, search));
    let headers = &record.headers;
    has(record.key) || has(record.value) || headers.iter().any(|(name, value)| has(Some(name)) || has(*value))
}

/// `search` is in lower case and not empty.
fn contains(bytes: &[u8], search: &[u8]) -> bool {
    let Some((&first, rest)) = search.split_first() else {
        return true;
    };
    let starts = bytes.iter().enumerate();
    starts
        .filter(|(_, byte)| byte.to_ascii_lowercase() == first)
        .any(|(at, _)| {
            let after = bytes.get(at + 1..at + 1 + rest.len());
            after.is_some_and(|after| after.eq_ignore_ascii_case(rest))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_wrong_parameter_is_named() {
        for (query, name) in [
            (r#"{"partition": "-1"}"#, "partition"),
            (r#"{"partition": "x"}"#, "partition"),
            (r#"{"limit": "0"}"#, "limit"),
            (r#"{"limit": "201"}"#, "limit"),
            (r#"{"stage": "Write"}"#, "stage"),
            (r#"{"from": "yesterday"}"#, "from"),
            (r#"{"to": "2026-12-01"}"#, "to"),
            (
                r#"{"from": "2026-12-01T05:00:00Z", "to": "2026-12-01T05:00:00Z"}"#,
                "to",
            ),
        ] {
            let query: LettersQuery = serde_json::from_str(query).unwrap();
            let problem = query.filter().unwrap_err();
            assert_eq!((problem.status, problem.reason), (400, "InvalidQuery"));
            assert!(
                problem.detail.starts_with(&format!("{name} is ")),
                "{}",
                problem.detail
            );
        }
        for name in ["search", "component", "class"] {
            let query = serde_json::json!({name: "x".repeat(501)});
            let query: LettersQuery = serde_json::from_value(query).unwrap();
            let problem = query.filter().unwrap_err();
            assert!(
                problem.detail.starts_with(&format!("{name} is ")),
                "{}",
                problem.detail
            );
        }
        let filter = LettersQuery {
            cursor: Some("bogus".into()),
            ..LettersQuery::default()
        };
        let problem = filter.filter().unwrap().cursor("t").unwrap_err();
        assert!(problem.detail.starts_with("cursor: "), "{}", problem.detail);
    }

    #[test]
    fn a_form_with_empty_fields_asks_for_everything() {
        let query: LettersQuery =
            serde_json::from_str(r#"{"partition": "", "limit": "", "search": "", "from": "", "class": ""}"#)
                .unwrap();
        let everything = LettersQuery::default().filter().unwrap();
        assert_eq!(query.filter().unwrap(), everything);
        assert_eq!(everything.limit, 50);
    }

    fn record<'a>(timestamp: i64, headers: &'a [(&'a [u8], Option<&'a [u8]>)]) -> Record<'a> {
        Record {
            offset: 5,
            timestamp,
            key: Some(b"Key"),
            value: None,
            headers: headers.to_vec(),
        }
    }

    fn selects(query: &str, record: &Record<'_>) -> bool {
        let query: LettersQuery = serde_json::from_str(query).unwrap();
        let letter = DeadLetter::of(0, record);
        query.filter().unwrap().selects(&letter, record)
    }

    #[test]
    fn a_record_has_to_match_every_parameter() {
        let headers: [(&[u8], Option<&[u8]>); 6] = [
            (b"kafka-consumer.dev/topic", Some(b"orders")),
            (b"kafka-consumer.dev/partition", Some(b"0")),
            (b"kafka-consumer.dev/offset", Some(b"1")),
            (b"kafka-consumer.dev/stage", Some(b"write")),
            (b"kafka-consumer.dev/component", Some(b"pg")),
            (
                b"kafka-consumer.dev/error-message",
                Some(b"Violates a constraint"),
            ),
        ];
        let letter = record(1_000, &headers);
        for (query, expected) in [
            ("{}", true),
            (
                r#"{"stage": "write", "component": "pg", "search": "CONSTRAINT"}"#,
                true,
            ),
            (r#"{"stage": "decode"}"#, false),
            (r#"{"component": "other"}"#, false),
            (r#"{"class": "Rejected"}"#, false),
            (r#"{"search": "kEY"}"#, true),
            (r#"{"search": "nothing"}"#, false),
            (r#"{"from": "1970-01-01T00:00:01Z"}"#, true),
            (r#"{"from": "1970-01-01T00:00:01.001Z"}"#, false),
            (r#"{"to": "1970-01-01T00:00:01Z"}"#, false),
            (r#"{"to": "1970-01-01T00:00:01.001Z"}"#, true),
        ] {
            assert_eq!(selects(query, &letter), expected, "{query}");
        }
        let foreign = record(-1, &[]);
        assert!(selects("{}", &foreign));
        for query in [
            r#"{"stage": "write"}"#,
            r#"{"from": "1970-01-01T00:00:00Z"}"#,
            r#"{"to": "2100-01-01T00:00:00Z"}"#,
        ] {
            assert!(!selects(query, &foreign), "{query}");
        }
    }

    proptest! {
        #[test]
        fn bytes_contain_what_is_in_them(bytes in proptest::collection::vec(any::<u8>(), 0..30), search in "[a-b]{1,3}") {
            let lower = bytes.to_ascii_lowercase();
            let expected = lower.windows(search.len()).any(|window| window == search.as_bytes());
            prop_assert_eq!(contains(&bytes, search.as_bytes()), expected);
        }
    }
}
