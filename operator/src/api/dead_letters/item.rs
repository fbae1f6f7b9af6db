//! One dead letter of a list. In: a record of a dead letter topic. Out: where it comes from, why it failed, its
//! sizes and headers, without key and value. Headers are from untrusted programs: they are cut and shown as text.
//! Pure.

use crds::dead_letter::{self, DeadLetterOrigin, KeySize, MissingParts, part};
use crds::spec::HeaderStyle;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::kafka::backwards::{Entry, Record, Shown};

/// Longest error message, in bytes; workers write 1 KiB at most.
const LONGEST_MESSAGE: usize = 4096;
/// Longest name of a component and the like, in bytes.
const LONGEST_NAME: usize = 300;
/// Longest value of a header in a list, in bytes.
const LONGEST_HEADER: usize = 256;
/// Headers of one dead letter in a list.
const HEADERS: usize = 30;

/// A dead letter. What its headers do not say is null.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Partition and offset in the dead letter topic.
    pub partition: i32,
    pub offset: i64,
    /// Timestamp of the record, which is that of the record that failed; null: it has none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub timestamp: Option<Timestamp>,
    /// The record that failed; null: another program wrote this one.
    pub origin: Option<Origin>,
    /// Why there is no origin.
    pub no_origin: Option<String>,
    /// `decode`, `transform` or `write`.
    pub stage: Option<String>,
    /// Name of the transform or writer; `key` or `value` for a decoder.
    pub component: Option<String>,
    /// Error class.
    pub class: Option<String>,
    /// Error message.
    pub message: Option<String>,
    /// Number of attempts.
    pub attempts: Option<u32>,
    /// The worker that gave up.
    pub worker: Option<String>,
    /// Consumer group id.
    pub group_id: Option<String>,
    /// Size in bytes; null: the record has no key.
    pub key_size: Option<usize>,
    /// Size in bytes; null: the record has no value.
    pub value_size: Option<usize>,
    /// What the topic has refused; null: the record is complete.
    pub missing: Option<Missing>,
    /// Headers that are not about the failure, at most 30, and at most 256 bytes of each.
    pub headers: Vec<HeaderText>,
    /// Number of headers, with those about the failure.
    pub headers_total: usize,
    /// Records that cannot be read; all other fields but the partition and the offset are empty.
    pub unreadable: Option<Unreadable>,
}

/// The record that failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    topic: String,
    partition: i32,
    offset: i64,
}

/// What of the record is not in the dead letter.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// Size of the whole value in bytes; null: it is complete.
    value_size: Option<u64>,
    /// Bytes of the value that are there; null: all.
    value_kept: Option<u64>,
    /// True: the key is not that of the record that failed.
    key_replaced: bool,
    /// Size of its key in bytes; null: it has none, or the key was not replaced.
    key_size: Option<u64>,
    /// Its timestamp, in Unix milliseconds; null: it was not replaced.
    timestamp_milliseconds: Option<i64>,
    /// Number of its headers that are not there; null: none.
    headers_dropped: Option<u64>,
}

/// A header as text.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderText {
    name: String,
    /// The value, where bytes that are no UTF-8 are replaced; null: it has none.
    value: Option<String>,
    /// Size of the value in bytes; null: it has none.
    size: Option<usize>,
    /// False: the value is cut, or bytes were replaced.
    exact: bool,
}

/// Records that cannot be read.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable {
    /// The first of them; `offset` is the last.
    first_offset: i64,
    /// Why.
    why: String,
}

/// At most this much of a text, up to a character boundary.
fn cut(text: String, longest: usize) -> String {
    match text.len() > longest {
        true => format!("{}…", &text[..text.floor_char_boundary(longest)]),
        false => text,
    }
}

/// The time of a record; None: it has none, or one that does not exist.
pub fn time(milliseconds: i64) -> Option<Timestamp> {
    match milliseconds {
        0.. => Timestamp::from_millisecond(milliseconds).ok(),
        _ => None,
    }
}

impl HeaderText {
    /// At most `longest` bytes of the value.
    pub fn of(name: &[u8], value: Option<&[u8]>, longest: usize) -> Self {
        let kept = value.map(|value| &value[..value.len().min(longest)]);
        let text = kept.map(String::from_utf8_lossy);
        let whole = value.is_none_or(|value| value.len() <= longest);
        Self {
            name: cut(String::from_utf8_lossy(name).into_owned(), LONGEST_NAME),
            exact: whole && kept.is_none_or(|kept| std::str::from_utf8(kept).is_ok()),
            size: value.map(<[u8]>::len),
            value: text.map(|text| text.into_owned()),
        }
    }
}

impl Missing {
    fn of(parts: &MissingParts) -> Option<Self> {
        (!parts.is_empty()).then(|| Self {
            value_size: parts.value.map(|(size, _)| size),
            value_kept: parts.value.map(|(_, kept)| kept),
            key_replaced: parts.key.is_some(),
            key_size: parts.key.and_then(|key| match key {
                KeySize::Null => None,
                KeySize::Bytes(size) => Some(size),
            }),
            timestamp_milliseconds: parts.timestamp,
            headers_dropped: parts.headers,
        })
    }
}

impl DeadLetter {
    pub fn of(partition: i32, record: &Record<'_>) -> Self {
        let letter = Self {
            partition,
            offset: record.offset,
            timestamp: time(record.timestamp),
            key_size: record.key.map(<[u8]>::len),
            value_size: record.value.map(<[u8]>::len),
            missing: Missing::of(&MissingParts::read(&record.headers)),
            headers: others(record),
            headers_total: record.headers.len(),
            ..Self::default()
        };
        match dead_letter::read(&record.headers) {
            Ok(origin) => letter.with(origin),
            Err(why) => Self {
                no_origin: Some(why.to_string()),
                ..letter
            },
        }
    }

    fn with(self, origin: DeadLetterOrigin) -> Self {
        let name = |text: Option<String>| text.map(|text| cut(text, LONGEST_NAME));
        Self {
            stage: origin.stage.map(|stage| stage.as_str().to_string()),
            component: name(origin.component),
            class: name(origin.error_class),
            message: origin.error_message.map(|text| cut(text, LONGEST_MESSAGE)),
            attempts: origin.attempts,
            worker: name(origin.worker),
            group_id: name(origin.group),
            origin: Some(Origin {
                topic: cut(origin.topic, LONGEST_NAME),
                partition: origin.partition,
                offset: origin.offset,
            }),
            ..self
        }
    }

    pub fn of_entry(entry: Entry<Self>) -> Self {
        match entry.shown {
            Shown::Record(letter) => letter,
            Shown::Unreadable { first, why } => Self {
                partition: entry.partition,
                offset: entry.offset,
                timestamp: time(entry.timestamp),
                unreadable: Some(Unreadable {
                    first_offset: first,
                    why,
                }),
                ..Self::default()
            },
        }
    }
}

/// The headers that are not about the failure.
fn others(record: &Record<'_>) -> Vec<HeaderText> {
    let styles = [HeaderStyle::Native, HeaderStyle::Connect, HeaderStyle::Spring];
    let is_ours = |name: &[u8]| {
        let mut known = styles
            .iter()
            .flat_map(|style| dead_letter::names(*style))
            .chain(&part::ALL);
        known.any(|known| known.as_bytes() == name)
    };
    let others = record.headers.iter().filter(|(name, _)| !is_ours(name));
    others
        .take(HEADERS)
        .map(|(name, value)| HeaderText::of(name, *value, LONGEST_HEADER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_shows_its_failure_and_the_headers_of_its_record() {
        let headers: [(&[u8], Option<&[u8]>); 7] = [
            (b"trace", Some(b"abc")),
            (b"\xff", Some(&[0xff; 300])),
            (b"none", None),
            (b"kafka-consumer.dev/topic", Some(b"orders")),
            (b"kafka-consumer.dev/partition", Some(b"3")),
            (b"kafka-consumer.dev/offset", Some(b"7")),
            (b"kafka-consumer.dev/value-size", Some(b"9")),
        ];
        let record = Record {
            offset: 5,
            timestamp: -1,
            key: None,
            value: Some(b""),
            headers: headers.to_vec(),
        };
        let letter = serde_json::to_value(DeadLetter::of(2, &record)).unwrap();
        assert_eq!(
            letter["origin"],
            serde_json::json!({"topic": "orders", "partition": 3, "offset": 7})
        );
        assert_eq!(
            (&letter["keySize"], &letter["valueSize"]),
            (&().into(), &0.into())
        );
        assert!(letter["timestamp"].is_null() && letter["noOrigin"].is_null() && letter["stage"].is_null());
        assert!(
            letter["missing"].is_null(),
            "one header alone says nothing: {letter}"
        );
        let shown = letter["headers"].as_array().unwrap();
        assert_eq!((shown.len(), &letter["headersTotal"]), (3, &7.into()));
        assert_eq!(
            shown[0],
            serde_json::json!({"name": "trace", "value": "abc", "size": 3, "exact": true})
        );
        assert_eq!(
            (&shown[1]["size"], &shown[1]["exact"]),
            (&300.into(), &false.into())
        );
        assert_eq!(
            (&shown[2]["value"], &shown[2]["exact"]),
            (&().into(), &true.into())
        );
    }

    #[test]
    fn long_texts_of_other_programs_are_cut() {
        let long = vec![b'x'; 100_000];
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"kafka-consumer.dev/topic", Some(&long)),
            (b"kafka-consumer.dev/partition", Some(b"3")),
            (b"kafka-consumer.dev/offset", Some(b"7")),
            (b"kafka-consumer.dev/component", Some(&long)),
            (b"kafka-consumer.dev/error-message", Some(&long)),
            (&long, Some(&long)),
        ];
        let record = Record {
            offset: 5,
            timestamp: i64::MAX,
            key: None,
            value: None,
            headers,
        };
        let letter = serde_json::to_string(&DeadLetter::of(2, &record)).unwrap();
        assert!(letter.len() < 8000, "{}", letter.len());
    }
}
