//! `%`: what a program can read about its record besides the value. Only the parts that programs mention are
//! built.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use ::vrl::{
    path::{OwnedSegment, OwnedTargetPath, PathPrefix},
    value::{KeyString, ObjectMap, Value},
};

use crate::record::{Chunk, batch::OutputRecord};

/// The last millisecond that VRL's timestamps can express, in the year 262142.
const MAX_TIMESTAMP: i64 = 8_210_266_876_799_999;

/// MetadataParts of `%` that programs mention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MetadataParts {
    pub topic: bool,
    pub partition: bool,
    pub offset: bool,
    pub timestamp: bool,
    pub key: bool,
    pub headers: bool,
}

impl MetadataParts {
    /// Adds the parts that `paths` name; the root names all of them.
    pub fn add<'a>(&mut self, paths: impl Iterator<Item = &'a OwnedTargetPath>) {
        for path in paths.filter(|path| path.prefix == PathPrefix::Metadata) {
            match path.path.segments.first() {
                None => {
                    *self = Self {
                        topic: true,
                        partition: true,
                        offset: true,
                        timestamp: true,
                        key: true,
                        headers: true,
                    }
                }
                Some(OwnedSegment::Field(name)) => match name.as_str() {
                    "topic" => self.topic = true,
                    "partition" => self.partition = true,
                    "offset" => self.offset = true,
                    "timestamp" => self.timestamp = true,
                    "key" => self.key = true,
                    "headers" => self.headers = true,
                    _ => {}
                },
                Some(OwnedSegment::Index(_)) => {}
            }
        }
    }
}

/// Builds `%` for the records of one chunk.
pub(super) struct Metadata {
    parts: MetadataParts,
    topic: Value,
    partition: Value,
}

impl Metadata {
    pub fn new(parts: MetadataParts, chunk: &Arc<Chunk>) -> Self {
        let topic = if parts.topic {
            Value::from(&*chunk.partition.topic)
        } else {
            Value::Null
        };
        Self {
            parts,
            topic,
            partition: Value::Integer(chunk.partition.partition.into()),
        }
    }

    /// Sets `target` to the metadata of `record`. If `changed` is true, programs may have changed it, so it
    /// is built from nothing; otherwise the entries of the previous record are overwritten.
    pub fn fill(&mut self, record: &OutputRecord<'_>, key: Value, changed: bool, target: &mut Value) {
        let mut object = match std::mem::replace(target, Value::Null) {
            Value::Object(object) if !changed => object,
            _ => ObjectMap::new(),
        };
        let mut set = |name: &str, value: Value| match object.get_mut(name) {
            Some(slot) => *slot = value,
            None => drop(object.insert(KeyString::from(name), value)),
        };
        let MetadataParts {
            topic,
            partition,
            offset,
            timestamp,
            key: wants_key,
            headers,
        } = self.parts;
        if topic {
            set("topic", self.topic.clone());
        }
        if partition {
            set("partition", self.partition.clone());
        }
        if offset {
            set("offset", Value::Integer(record.record.offset));
        }
        if timestamp {
            set("timestamp", time(record.record.timestamp));
        }
        if wants_key {
            set("key", key);
        }
        if headers {
            set("headers", header_object(record));
        }
        *target = Value::Object(object);
    }
}

/// The final `%key`; null if there is none.
pub(super) fn key(metadata: &Value) -> &Value {
    match metadata {
        Value::Object(object) => object.get("key").unwrap_or(&Value::Null),
        _ => &Value::Null,
    }
}

fn time(milliseconds: i64) -> Value {
    match u64::try_from(milliseconds) {
        Ok(positive) if milliseconds <= MAX_TIMESTAMP => {
            Value::Timestamp((UNIX_EPOCH + Duration::from_millis(positive)).into())
        }
        _ => Value::Null,
    }
}

fn header_object(record: &OutputRecord<'_>) -> Value {
    let entry = |(name, value): (&[u8], Option<&[u8]>)| {
        (
            KeyString::from(String::from_utf8_lossy(name).into_owned()),
            value.map_or(Value::Null, Value::from),
        )
    };
    Value::Object(record.record.headers().map(entry).collect())
}
