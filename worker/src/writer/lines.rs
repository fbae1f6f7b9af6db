//! Values as lines of text, for files and NDJSON requests. A JSON value that contains newlines is put on one
//! line, because newlines in JSON are only white space between tokens. Any other value with newlines is
//! rejected. Pure.

use super::{Rejected, WriteBatch};

/// The lines of a batch in one buffer.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Every line ends with a newline.
    pub bytes: Vec<u8>,
    /// The position in the batch of each line.
    pub positions: Vec<usize>,
    /// Records that cannot be a line.
    pub rejected: Vec<Rejected>,
}

/// Makes a line of every value; a tombstone is `null`.
pub(super) fn of(batch: &WriteBatch<'_>) -> Lines {
    let mut lines = Lines::default();
    for (position, record) in batch.records().enumerate() {
        let value = record.value.unwrap_or(b"null");
        if !value.contains(&b'\n') {
            lines.bytes.extend_from_slice(value);
        } else if is_json(value) {
            push_compact(&mut lines.bytes, value);
        } else {
            lines.rejected.push(Rejected {
                position,
                message: "the value contains newlines and is not JSON, so it cannot be one line: encode it \
                          in a transform, for example as a JSON string or as base64"
                    .into(),
                retryable: false,
                in_doubt: false,
            });
            continue;
        }
        lines.bytes.push(b'\n');
        lines.positions.push(position);
    }
    lines
}

/// True if the bytes are one JSON value, with or without white space around it.
pub(super) fn is_json(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Copies JSON without the white space between its tokens; numbers and strings keep their bytes.
fn push_compact(out: &mut Vec<u8>, json: &[u8]) {
    let mut in_string = false;
    let mut escaped = false;
    for byte in json {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = *byte == b'"';
        }
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, TopicPartition, batch::Batch};

    fn lines(values: &[Option<&[u8]>]) -> (Vec<u8>, Vec<usize>) {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, value) in values.iter().enumerate() {
            chunk.push(offset as i64, 0, None, *value, []);
        }
        let all: Vec<u32> = (0..values.len() as u32).collect();
        let lines = of(&WriteBatch::new(&Batch::identity(Arc::new(chunk)), &all));
        (
            lines.bytes,
            lines.rejected.iter().map(|rejected| rejected.position).collect(),
        )
    }

    #[test]
    fn a_value_without_newlines_stays_as_it_is() {
        let (lines, rejected) = lines(&[Some(b"{ \"a\" : 1 }"), None, Some(b"\xff not json")]);
        assert_eq!(lines, b"{ \"a\" : 1 }\nnull\n\xff not json\n");
        assert!(rejected.is_empty());
    }

    #[test]
    fn json_with_newlines_becomes_one_line_with_the_same_numbers_and_strings() {
        let (lines, _) = lines(&[Some(
            b"{\n  \"b \\\" \\\\\": [1.10, 12345678901234567890],\r\n\t\"a\": \" x \"\n}\n",
        )]);
        assert_eq!(
            lines,
            b"{\"b \\\" \\\\\":[1.10,12345678901234567890],\"a\":\" x \"}\n"
        );
    }

    #[test]
    fn text_with_newlines_is_rejected_and_the_others_are_written() {
        let (lines, rejected) = lines(&[Some(b"a"), Some(b"b\nc"), Some(b"d")]);
        assert_eq!((lines.as_slice(), rejected), (b"a\nd\n".as_slice(), vec![1]));
    }
}
