//! One whole record for people. In: a record. Out: its failure, all headers, and key and value as JSON, text and
//! bytes, each at most 64 KiB; or the key or the value as they are. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::item::{DeadLetter, HeaderText};
use super::json::pretty;
use crate::kafka::backwards::Record;

/// Bytes of a key or a value that are shown.
const SHOWN: usize = 64 * 1024;
/// Bytes of one header that are shown.
const LONGEST_HEADER: usize = 8 * 1024;
/// Headers that are shown.
const HEADERS: usize = 200;

/// A record of a dead letter topic.
pub struct WholeRecord<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub record: &'a Record<'a>,
}

/// A dead letter with its payload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WholeDeadLetter {
    /// The dead letter topic.
    topic: String,
    #[serde(flatten)]
    letter: DeadLetter,
    /// All headers, at most 200, and at most 8 KiB of each.
    all_headers: Vec<HeaderText>,
    /// Null: the record has no key.
    key: Option<Content>,
    /// Null: the record has no value.
    value: Option<Content>,
}

/// A key or a value.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Size in bytes.
    size: usize,
    /// True: only the first 64 KiB are here; `?part=key` and `?part=value` answer all bytes.
    truncated: bool,
    /// As JSON, one member per line, with exactly the digits that it has; null: it is no JSON, or truncated.
    json: Option<String>,
    /// As text; null: it is no UTF-8.
    text: Option<String>,
    /// The bytes in Base64.
    base64: String,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let truncated = bytes.len() > SHOWN;
        let shown = &bytes[..bytes.len().min(SHOWN)];
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // The last character is cut.
            Err(error) if truncated && error.error_len().is_none() => {
                std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            size: bytes.len(),
            truncated,
            json: if truncated { None } else { pretty(shown) },
            text: text.map(String::from),
            base64: BASE64_STANDARD.encode(shown),
        }
    }
}

impl WholeDeadLetter {
    pub fn of(whole: &WholeRecord<'_>) -> Self {
        let headers = whole.record.headers.iter().take(HEADERS);
        Self {
            topic: whole.topic.into(),
            letter: DeadLetter::of(whole.partition, whole.record),
            all_headers: headers
                .map(|(name, value)| HeaderText::of(name, *value, LONGEST_HEADER))
                .collect(),
            key: whole.record.key.map(Content::of),
            value: whole.record.value.map(Content::of),
        }
    }
}

/// The bytes of a part, and a name for their file. Topics have no characters that a file name cannot have.
pub struct RawPart {
    pub bytes: Option<Vec<u8>>,
    pub file: String,
}

impl RawPart {
    pub fn key(whole: &WholeRecord<'_>) -> Self {
        Self::of(whole, "key", whole.record.key)
    }

    pub fn value(whole: &WholeRecord<'_>) -> Self {
        Self::of(whole, "value", whole.record.value)
    }

    fn of(whole: &WholeRecord<'_>, part: &str, bytes: Option<&[u8]>) -> Self {
        let allowed = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
        let topic: String = whole.topic.chars().filter(allowed).collect();
        Self {
            bytes: bytes.map(<[u8]>::to_vec),
            file: format!("{topic}-{}-{}.{part}", whole.partition, whole.record.offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_shown_as_json_text_and_bytes_as_far_as_it_is_these() {
        let json = Content::of(br#"{"n":1.10}"#);
        assert_eq!(json.json.as_deref(), Some("{\n  \"n\": 1.10\n}"));
        assert_eq!(json.text.as_deref(), Some(r#"{"n":1.10}"#));
        let binary = Content::of(&[0, 0xff]);
        assert_eq!(
            (binary.json, binary.text, binary.base64.as_str()),
            (None, None, "AP8=")
        );
        let empty = Content::of(b"");
        assert_eq!(
            (empty.size, empty.text.as_deref(), empty.truncated),
            (0, Some(""), false)
        );
    }

    #[test]
    fn long_content_is_cut_between_characters() {
        let long = "ä".repeat(SHOWN);
        let cut = Content::of(format!("x{long}").as_bytes());
        assert!(cut.truncated && cut.json.is_none());
        assert_eq!((cut.size, cut.text.unwrap().len()), (2 * SHOWN + 1, SHOWN - 1));
        let mut binary = long.into_bytes();
        binary[10] = 0xff;
        assert_eq!(Content::of(&binary).text, None);
        assert!(!Content::of(&vec![b'x'; SHOWN]).truncated);
    }
}
