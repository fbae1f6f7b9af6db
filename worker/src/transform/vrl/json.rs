//! Writes a VRL value as bytes, numbers with the digits that were read. Refuses values that JSON cannot hold instead of changing them: strings that
//! are not UTF-8, and infinite numbers.

use ::vrl::value::Value;
use crds::spec::DecoderType;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use super::numbers::Numbers;
use crate::record::batch::builder::Payload;

/// The payload for `value` in the format of `decoder`, which read it. `buffer` holds the bytes that have to
/// be written.
pub(super) fn payload<'a>(
    value: &'a Value,
    decoder: DecoderType,
    numbers: &Numbers,
    buffer: &'a mut Vec<u8>,
) -> Result<Payload<'a>, String> {
    match (value, decoder) {
        (Value::Null, _) => Ok(Payload::Null),
        (Value::Bytes(bytes), DecoderType::String | DecoderType::Bytes) => Ok(Payload::New(bytes)),
        (Value::String(text), DecoderType::String | DecoderType::Bytes) => Ok(Payload::New(text.as_bytes())),
        _ => {
            buffer.clear();
            serde_json::to_writer(&mut *buffer, &Json(value, numbers)).map_err(|error| error.to_string())?;
            Ok(Payload::New(buffer))
        }
    }
}

struct Json<'a>(&'a Value, &'a Numbers);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => Err(S::Error::custom(
                    "it holds a string that is not UTF-8; encode it, for example with encode_base64",
                )),
            },
            Value::String(text) => serializer.serialize_str(text),
            Value::Float(number) if !number.is_finite() => {
                Err(S::Error::custom("it holds an infinite number"))
            }
            Value::Float(number) => match self.1.digits(number.into_inner()) {
                Some(digits) => serde_json::from_str::<&RawValue>(digits)
                    .map_err(S::Error::custom)?
                    .serialize(serializer),
                None => self.0.serialize(serializer),
            },
            Value::Object(object) => serializer.collect_map(
                object
                    .iter()
                    .map(|(key, value)| (key.as_str(), Json(value, self.1))),
            ),
            Value::Array(elements) => {
                serializer.collect_seq(elements.iter().map(|element| Json(element, self.1)))
            }
            Value::Regex(_) | Value::Integer(_) | Value::Boolean(_) | Value::Timestamp(_) | Value::Null => {
                self.0.serialize(serializer)
            }
        }
    }
}
