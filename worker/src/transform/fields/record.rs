//! Writes parts of a Kafka record as JSON. Refuses keys that are not text and timestamps that RFC 3339 cannot
//! express.

use std::io::Write;

use crds::spec::{DecoderType, RecordPart};
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

use crate::{decode, record::batch::OutputRecord};

/// All timestamps have the same length, so that they sort as text.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Appends this part of the record. `key` is the decoder of keys in `spec.decode.key`.
pub(super) fn write(
    part: RecordPart,
    record: &OutputRecord<'_>,
    key: DecoderType,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let of = record.record;
    // Writing to memory does not fail.
    let _ = match part {
        RecordPart::Topic => return string(&of.partition().topic, out),
        RecordPart::Key => return write_key(record.key, key, out),
        RecordPart::Timestamp if of.timestamp >= 0 => return rfc_3339(of.timestamp, out),
        RecordPart::Timestamp | RecordPart::TimestampMilliseconds if of.timestamp < 0 => write!(out, "null"),
        RecordPart::Timestamp | RecordPart::TimestampMilliseconds => write!(out, "{}", of.timestamp),
        RecordPart::Partition => write!(out, "{}", of.partition().partition),
        RecordPart::Offset => write!(out, "{}", of.offset),
    };
    Ok(())
}

fn rfc_3339(milliseconds: i64, out: &mut Vec<u8>) -> Result<(), String> {
    let timestamp = Timestamp::from_millisecond(milliseconds)
        .map_err(|_| "the record's timestamp is later than the year 9999; use TimestampMilliseconds")?;
    out.push(b'"');
    PRINTER
        .print_timestamp(&timestamp, &mut *out)
        .map_err(|error| error.to_string())?;
    out.push(b'"');
    Ok(())
}

fn write_key(key: Option<&[u8]>, decoder: DecoderType, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(key) = key else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    // An earlier transform may have changed the key that the decoder has checked.
    match decoder {
        DecoderType::Json => {
            decode::check(decoder, Some(key)).map_err(|fault| format!("the key {fault}"))?;
            out.extend_from_slice(key.trim_ascii());
            Ok(())
        }
        DecoderType::String | DecoderType::Bytes => {
            let text = decode::utf8(key).map_err(|fault| format!("the key {fault}"))?;
            string(text, out)
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(out, text).map_err(|error| error.to_string())
}
