//! Headers of style Spring. In: an origin or headers. Out: the other. Partition, offset and timestamp are
//! big-endian numbers of 4, 8 and 8 bytes; the rest is text.

use super::origin::{DeadLetterOrigin, Found, Header, NotADeadLetter, Stage, TimestampType, text};
use super::trace;
use crate::spec::HeaderStyle;

pub(super) const TOPIC: &str = "kafka_dlt-original-topic";
const PARTITION: &str = "kafka_dlt-original-partition";
const OFFSET: &str = "kafka_dlt-original-offset";
const TIMESTAMP: &str = "kafka_dlt-original-timestamp";
const TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
const CONSUMER_GROUP: &str = "kafka_dlt-original-consumer-group";
/// Class, message, stack trace.
const EXCEPTION: (&str, &str, &str) = (
    "kafka_dlt-exception-fqcn",
    "kafka_dlt-exception-message",
    "kafka_dlt-exception-stacktrace",
);
/// The same for a key that cannot be decoded.
const KEY_EXCEPTION: (&str, &str, &str) = (
    "kafka_dlt-key-exception-fqcn",
    "kafka_dlt-key-exception-message",
    "kafka_dlt-key-exception-stacktrace",
);
const NO_TIMESTAMP: &str = "NoTimestampType";
const LOG_APPEND_TIME: &str = "LogAppendTime";
const CREATE_TIME: &str = "CreateTime";

/// Includes the cause, which Spring writes and workers do not: it would belong to an earlier failure.
pub(super) const ALL: [&str; 13] = [
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    TIMESTAMP_TYPE,
    CONSUMER_GROUP,
    EXCEPTION.0,
    EXCEPTION.1,
    EXCEPTION.2,
    KEY_EXCEPTION.0,
    KEY_EXCEPTION.1,
    KEY_EXCEPTION.2,
    "kafka_dlt-exception-cause-fqcn",
];

pub(super) fn write(origin: &DeadLetterOrigin) -> Vec<Header> {
    let optional = |value: &Option<String>| text(value.as_deref().unwrap_or_default());
    let timestamp = origin.timestamp.unwrap_or(-1);
    let timestamp_type = match (timestamp, origin.timestamp_type) {
        (..0, _) => NO_TIMESTAMP,
        (_, Some(TimestampType::LogAppendTime)) => LOG_APPEND_TIME,
        (_, _) => CREATE_TIME,
    };
    let is_key = origin.stage == Some(Stage::Decode) && origin.component.as_deref() == Some("key");
    let (fqcn, message, stacktrace) = if is_key { KEY_EXCEPTION } else { EXCEPTION };
    vec![
        (TOPIC, text(&origin.topic)),
        (PARTITION, origin.partition.to_be_bytes().to_vec()),
        (OFFSET, origin.offset.to_be_bytes().to_vec()),
        (TIMESTAMP, timestamp.to_be_bytes().to_vec()),
        (TIMESTAMP_TYPE, text(timestamp_type)),
        (CONSUMER_GROUP, optional(&origin.group)),
        (fqcn, optional(&origin.error_class)),
        (message, optional(&origin.error_message)),
        (stacktrace, text(trace::write(origin))),
    ]
}

pub(super) fn read(found: &Found<'_>) -> Result<DeadLetterOrigin, NotADeadLetter> {
    let long = |name: &str| Some(i64::from_be_bytes(found.bytes(name)?.try_into().ok()?));
    let partition = found.bytes(PARTITION).and_then(|bytes| bytes.try_into().ok());
    let (class, message, stacktrace) = match found.bytes(KEY_EXCEPTION.0) {
        Some(_) => KEY_EXCEPTION,
        None => EXCEPTION,
    };
    let of_trace = found.text(stacktrace).and_then(|trace| trace::read(&trace));
    let error_class = found.text(class);
    let (stage, component, worker, attempts) = match of_trace {
        Some((stage, component, worker, attempts)) => {
            (Some(stage), Some(component), Some(worker), Some(attempts))
        }
        None => (error_class.as_deref().and_then(Stage::of_class), None, None, None),
    };
    Ok(DeadLetterOrigin {
        style: HeaderStyle::Spring,
        topic: found.must(TOPIC, found.text(TOPIC))?,
        partition: found.must(PARTITION, partition.map(i32::from_be_bytes))?,
        offset: found.must(OFFSET, long(OFFSET))?,
        timestamp: long(TIMESTAMP),
        timestamp_type: match found.text(TIMESTAMP_TYPE).as_deref() {
            Some(LOG_APPEND_TIME) => Some(TimestampType::LogAppendTime),
            Some(CREATE_TIME) => Some(TimestampType::CreateTime),
            _ => None,
        },
        group: found.text(CONSUMER_GROUP),
        worker,
        stage,
        component,
        attempts,
        error_class,
        error_message: found.text(message),
    })
}
