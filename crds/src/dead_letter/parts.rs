//! Headers that say what of a record is missing in its dead letter, in every style. In: headers. Out: the
//! missing parts. All values are text.

use super::origin::{Found, RawHeader};

/// The names of these headers.
pub mod part {
    pub const VALUE_SIZE: &str = "kafka-consumer.dev/value-size";
    pub const VALUE_KEPT: &str = "kafka-consumer.dev/value-kept";
    pub const VALUE_SHA256: &str = "kafka-consumer.dev/value-sha256";
    /// `null` if the record has no key.
    pub const KEY_SIZE: &str = "kafka-consumer.dev/key-size";
    pub const KEY_SHA256: &str = "kafka-consumer.dev/key-sha256";
    pub const TIMESTAMP_REFUSED: &str = "kafka-consumer.dev/timestamp-refused";
    pub const HEADERS_DROPPED: &str = "kafka-consumer.dev/headers-dropped";
    pub const HEADERS_SIZE: &str = "kafka-consumer.dev/headers-size";
    pub const HEADERS_SHA256: &str = "kafka-consumer.dev/headers-sha256";

    pub const ALL: [&str; 9] = [
        VALUE_SIZE,
        VALUE_KEPT,
        VALUE_SHA256,
        KEY_SIZE,
        KEY_SHA256,
        TIMESTAMP_REFUSED,
        HEADERS_DROPPED,
        HEADERS_SIZE,
        HEADERS_SHA256,
    ];
}

/// The key of the record that failed, where the dead letter has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySize {
    /// It has no key.
    Null,
    Bytes(u64),
}

/// What is missing. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingParts {
    /// Size of the whole value, and how much of it is kept.
    pub value: Option<(u64, u64)>,
    /// The key is the record id instead.
    pub key: Option<KeySize>,
    /// The timestamp of the record, in Unix milliseconds, which the topic has refused.
    pub timestamp: Option<i64>,
    /// Number of headers of the record that are not kept.
    pub headers: Option<u64>,
}

impl MissingParts {
    pub fn read(headers: &[RawHeader<'_>]) -> Self {
        let found = Found(headers);
        let key = match found.text(part::KEY_SIZE).as_deref() {
            Some("null") => Some(KeySize::Null),
            Some(size) => size.parse().ok().map(KeySize::Bytes),
            None => None,
        };
        Self {
            value: found.number(part::VALUE_SIZE).zip(found.number(part::VALUE_KEPT)),
            key,
            timestamp: found.number(part::TIMESTAMP_REFUSED),
            headers: found.number(part::HEADERS_DROPPED),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
