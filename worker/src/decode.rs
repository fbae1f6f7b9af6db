//! Decoders: check that keys and values have the format that `spec.decode` names. They change nothing and
//! keep nothing. A record that does not decode becomes a [`Failure`] with the position of the error, never
//! with the payload. Nulls pass.

use std::sync::Arc;

use crds::spec::{Decode, DecoderType};
use serde::de::IgnoredAny;

use crate::record::{
    batch::Batch,
    failure::{Failure, Stage},
};

/// The checks for keys and values.
#[derive(Clone, Debug)]
pub struct Decoders {
    key: DecoderType,
    value: DecoderType,
    key_name: Arc<str>,
    value_name: Arc<str>,
}

impl Decoders {
    /// The checks that `decode` asks for. If `values_decoded_later` is true, the first transform decodes the
    /// values.
    pub fn new(decode: &Decode, values_decoded_later: bool) -> Self {
        let value = if values_decoded_later {
            DecoderType::Bytes
        } else {
            decode.value.kind
        };
        Self {
            key: decode.key.kind,
            value,
            key_name: "key".into(),
            value_name: "value".into(),
        }
    }

    /// True if there is nothing to check.
    pub fn accept_anything(&self) -> bool {
        self.key == DecoderType::Bytes && self.value == DecoderType::Bytes
    }

    /// Moves the records that do not decode from the outputs of `batch` to its failures.
    pub fn check(&self, batch: &mut Batch) {
        if self.accept_anything() {
            return;
        }
        let mut failures = Vec::new();
        for record in batch.outputs() {
            let mut fail = |component: &Arc<str>, message| {
                let component = component.clone();
                failures.push(Failure {
                    source: record.source,
                    stage: Stage::Decode,
                    component,
                    message,
                });
            };
            if let Err(message) = check(self.key, record.key) {
                fail(&self.key_name, message);
            } else if let Err(message) = check(self.value, record.value) {
                fail(&self.value_name, message);
            }
        }
        batch.fail(failures);
    }
}

/// What is wrong with a key or value, as the rest of a sentence that starts with its name.
pub(crate) fn check(decoder: DecoderType, bytes: Option<&[u8]>) -> Result<(), String> {
    let Some(bytes) = bytes else { return Ok(()) };
    match decoder {
        DecoderType::Bytes => Ok(()),
        DecoderType::String => utf8(bytes).map(drop),
        // serde_json does not check the bytes of a string that it skips, so UTF-8 is checked separately.
        DecoderType::Json => serde_json::from_str::<IgnoredAny>(utf8(bytes)?)
            .map(drop)
            .map_err(not_json),
    }
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        format!(
            "is not UTF-8: the byte at position {} is invalid",
            error.valid_up_to()
        )
    })
}

/// What is wrong with a JSON document and where; serde_json's syntax errors never quote the input.
pub(crate) fn not_json(error: serde_json::Error) -> String {
    format!("is not JSON: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Chunk, TopicPartition};

    fn decoders(yaml: &str) -> Decoders {
        Decoders::new(&serde_json::from_str(yaml).unwrap(), false)
    }

    type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

    fn failures(decoders: &Decoders, records: &[KeyValue<'_>]) -> (usize, Vec<String>) {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, (key, value)) in records.iter().enumerate() {
            chunk.push(offset as i64, 0, *key, *value, []);
        }
        let mut batch = Batch::identity(Arc::new(chunk));
        decoders.check(&mut batch);
        let failures = batch.failures().iter();
        (
            batch.len(),
            failures
                .map(|f| format!("{} {} {}", f.source, f.component, f.message))
                .collect(),
        )
    }

    #[test]
    fn bytes_are_never_checked() {
        let decoders = decoders("{}");
        assert!(decoders.accept_anything());
        assert_eq!(
            failures(&decoders, &[(Some(&[0xff]), Some(&[0xfe]))]),
            (1, vec![])
        );
    }

    #[test]
    fn nulls_decode_as_anything() {
        let decoders = decoders(r#"{"key": {"type": "Json"}, "value": {"type": "Json"}}"#);
        assert_eq!(failures(&decoders, &[(None, None)]), (1, vec![]));
    }

    #[test]
    fn an_error_has_its_position_and_never_the_payload() {
        let decoders = decoders(r#"{"key": {"type": "String"}, "value": {"type": "Json"}}"#);
        let (left, failures) = failures(
            &decoders,
            &[
                (Some(b"ok"), Some(b"{\"a\": [1, 2.5e3, \"\\u00e9\", null]}")),
                (Some(b"ab\xff"), Some(b"1")),
                (None, Some(b"{\"secret\": }")),
                (None, Some(b"{} {}")),
                (None, Some(b"\"\xff\"")),
                (None, Some(b"")),
            ],
        );
        assert_eq!(left, 1);
        assert_eq!(
            failures,
            [
                "1 key is not UTF-8: the byte at position 2 is invalid",
                "2 value is not JSON: expected value at line 1 column 12",
                "3 value is not JSON: trailing characters at line 1 column 4",
                "4 value is not UTF-8: the byte at position 1 is invalid",
                "5 value is not JSON: EOF while parsing a value at line 1 column 0",
            ]
        );
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = "[".repeat(1_000_000);
        let closed = format!("{deep}{}", "]".repeat(1_000_000));
        let decoders = decoders(r#"{"value": {"type": "Json"}}"#);
        assert_eq!(failures(&decoders, &[(None, Some(closed.as_bytes()))]).0, 1);
        assert_eq!(failures(&decoders, &[(None, Some(deep.as_bytes()))]).0, 0);
    }

    #[test]
    fn a_value_that_a_transform_decodes_is_not_checked_twice() {
        let decode = serde_json::from_str(r#"{"value": {"type": "Json"}}"#).unwrap();
        assert!(Decoders::new(&decode, true).accept_anything());
    }

    proptest::proptest! {
        #[test]
        fn json_is_accepted_exactly_when_serde_json_can_parse_it(bytes in proptest::collection::vec(proptest::sample::select(b"[]{}:,\"\\a1-.e \xc3\xa9".to_vec()), 0..12)) {
            let parsed = serde_json::from_slice::<serde_json::Value>(&bytes);
            let out_of_range = parsed.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            proptest::prop_assert!(out_of_range || check(DecoderType::Json, Some(&bytes)).is_ok() == parsed.is_ok());
        }
    }
}
