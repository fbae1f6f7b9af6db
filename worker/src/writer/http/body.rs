//! Request bodies. Pure.

use crate::writer::{Rejected, WriteBatch, lines};

/// A request for several records.
#[derive(Debug)]
pub(super) struct Body {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    /// Positions in the batch of the records in the body, ascending.
    pub positions: Vec<usize>,
    /// Records that the body cannot contain.
    pub rejected: Vec<Rejected>,
}

/// One JSON array with the values unchanged.
pub(super) fn json_array(batch: &WriteBatch<'_>) -> Body {
    let mut body = Body {
        bytes: vec![b'['],
        content_type: "application/json",
        positions: Vec::with_capacity(batch.len()),
        rejected: Vec::new(),
    };
    for (position, record) in batch.records().enumerate() {
        let value = record.value.unwrap_or(b"null");
        if !lines::is_json(value) {
            body.rejected.push(Rejected {
                position,
                message: "the value is not JSON, so it cannot be part of a JSON array: make it JSON in a \
                          transform, or use http.format Single or Ndjson"
                    .into(),
                retryable: false,
                in_doubt: false,
            });
            continue;
        }
        if !body.positions.is_empty() {
            body.bytes.push(b',');
        }
        body.bytes.extend_from_slice(value);
        body.positions.push(position);
    }
    body.bytes.push(b']');
    body
}

/// One value per line.
pub(super) fn ndjson(batch: &WriteBatch<'_>) -> Body {
    let lines::Lines {
        bytes,
        positions,
        rejected,
    } = lines::of(batch);
    Body {
        bytes,
        content_type: "application/x-ndjson",
        positions,
        rejected,
    }
}

/// One value, unchanged.
pub(super) fn single(value: Option<&[u8]>) -> (Vec<u8>, &'static str) {
    let value = value.unwrap_or(b"null");
    let content_type = if lines::is_json(value) {
        "application/json"
    } else {
        "application/octet-stream"
    };
    (value.to_vec(), content_type)
}

/// Base64 with padding, for basic authentication.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, TopicPartition, batch::Batch};

    fn batch(values: &[Option<&[u8]>]) -> Batch {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, value) in values.iter().enumerate() {
            chunk.push(offset as i64, 0, None, *value, []);
        }
        Batch::identity(Arc::new(chunk))
    }

    #[test]
    fn an_array_contains_the_values_unchanged_without_those_that_are_not_json() {
        let batch = batch(&[
            Some(b"{\"a\": 1.10}"),
            Some(b"oops"),
            None,
            Some(b"1 2"),
            Some(b"\"\xff\""),
        ]);
        let body = json_array(&WriteBatch::new(&batch, &[0, 1, 2, 3, 4]));
        assert_eq!(body.bytes, b"[{\"a\": 1.10},null]");
        assert_eq!(body.positions, [0, 2]);
        assert_eq!(
            Vec::from_iter(body.rejected.iter().map(|rejected| rejected.position)),
            [1, 3, 4]
        );
    }

    #[test]
    fn a_single_value_says_whether_it_is_json() {
        assert_eq!(single(Some(b"{}")), (b"{}".to_vec(), "application/json"));
        assert_eq!(
            single(Some(b"\xff")),
            (b"\xff".to_vec(), "application/octet-stream")
        );
        assert_eq!(single(None), (b"null".to_vec(), "application/json"));
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
