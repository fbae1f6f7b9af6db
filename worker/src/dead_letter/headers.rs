//! Headers of dead letters. In: a failed record, what is wrong with it, who gave up on it, and
//! `errorHandling.deadLetter.headerStyle`. Out: names and values to add, beside those of the record. Pure; refuses to let
//! a record grow that is dead-lettered again and again, and never quotes a payload.
//!
//! The names and encodings of `Connect` and `Spring` are those of Kafka Connect's DeadLetterQueueReporter and of Spring for
//! Apache Kafka's DeadLetterPublishingRecoverer. They differ in what they do with a record that has such headers already
//! (Connect keeps the first, Spring appends); here the latest failure replaces the one before, because topic, partition
//! and offset must name the record that was read.

use crds::spec::HeaderStyle;

use crate::{
    health::problems::truncate,
    record::{
        Record,
        failure::{FailedRecord, Stage},
    },
    seeded_bugs::seeded_bug,
};

/// Prefix of the headers of style Native.
pub const HEADER_PREFIX: &str = "kafka-consumer.dev/";

/// Name and value.
pub(super) type Header = (&'static str, Vec<u8>);

/// Makes headers: style, and who gives up.
pub(super) struct Headers {
    pub style: HeaderStyle,
    /// Consumer group id.
    pub group: String,
    /// Name of this worker.
    pub worker: String,
}

impl Headers {
    /// What is added to the dead letter of `record`.
    pub fn of(&self, record: &Record<'_>, letter: &FailedRecord) -> Vec<Header> {
        match self.style {
            HeaderStyle::Native => self.native(record, letter),
            HeaderStyle::Connect => self.connect(record, letter),
            HeaderStyle::Spring => self.spring(record, letter),
        }
    }

    /// The record's own headers as they were, but for those of an earlier dead letter, and then `ours`.
    pub fn beside<'a>(&self, record: &Record<'a>, ours: &'a [Header]) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let forgets = seeded_bug("dead-letter-without-headers");
        let kept = record
            .headers()
            .filter(|(name, _)| !forgets && !self.replaces(name));
        let added = ours
            .iter()
            .map(|(name, value)| (name.as_bytes(), Some(value.as_slice())));
        kept.chain(added).collect()
    }

    /// Headers of style Native are nobody's but ours. Of the other styles only the exact names of the style in use: a
    /// user's own header may begin like them.
    fn replaces(&self, name: &[u8]) -> bool {
        let known: &[&str] = match self.style {
            HeaderStyle::Native => &[],
            HeaderStyle::Connect => &connect::ALL,
            HeaderStyle::Spring => &spring::ALL,
        };
        name.starts_with(HEADER_PREFIX.as_bytes()) || known.iter().any(|known| known.as_bytes() == name)
    }

    fn native(&self, record: &Record<'_>, letter: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &letter.failure;
        vec![
            ("kafka-consumer.dev/topic", text(&partition.topic)),
            ("kafka-consumer.dev/partition", text(partition.partition)),
            ("kafka-consumer.dev/offset", text(record.offset)),
            ("kafka-consumer.dev/timestamp", text(record.timestamp)),
            ("kafka-consumer.dev/group", text(&self.group)),
            ("kafka-consumer.dev/worker", text(&self.worker)),
            ("kafka-consumer.dev/stage", text(failure.stage.as_str())),
            ("kafka-consumer.dev/component", text(&failure.component)),
            ("kafka-consumer.dev/attempts", text(letter.attempts)),
            ("kafka-consumer.dev/error-class", text(class(failure.stage))),
            (
                "kafka-consumer.dev/error-message",
                text(truncate(&failure.message)),
            ),
        ]
    }

    fn connect(&self, record: &Record<'_>, letter: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &letter.failure;
        let stage = match (failure.stage, is_key(letter)) {
            (Stage::Decode, true) => "KEY_CONVERTER",
            (Stage::Decode, false) => "VALUE_CONVERTER",
            (Stage::Transform, _) => "TRANSFORMATION",
            (Stage::Write, _) => "TASK_PUT",
        };
        vec![
            (connect::TOPIC, text(&partition.topic)),
            (connect::PARTITION, text(partition.partition)),
            (connect::OFFSET, text(record.offset)),
            (connect::CONNECTOR_NAME, text(&self.group)),
            (connect::TASK_ID, text(&self.worker)),
            (connect::STAGE, text(stage)),
            (connect::CLASS_NAME, text(&failure.component)),
            (connect::EXCEPTION_CLASS_NAME, text(class(failure.stage))),
            (connect::EXCEPTION_MESSAGE, text(truncate(&failure.message))),
            (connect::EXCEPTION_STACKTRACE, text(self.trace(letter))),
        ]
    }

    fn spring(&self, record: &Record<'_>, letter: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &letter.failure;
        let timestamp_type = match (record.timestamp, record.log_append_time()) {
            (..0, _) => "NoTimestampType",
            (_, true) => "LogAppendTime",
            (_, false) => "CreateTime",
        };
        let (fqcn, message, stacktrace) = if failure.stage == Stage::Decode && is_key(letter) {
            spring::KEY_EXCEPTION
        } else {
            spring::EXCEPTION
        };
        vec![
            (spring::TOPIC, text(&partition.topic)),
            (spring::PARTITION, partition.partition.to_be_bytes().to_vec()),
            (spring::OFFSET, record.offset.to_be_bytes().to_vec()),
            (spring::TIMESTAMP, record.timestamp.to_be_bytes().to_vec()),
            (spring::TIMESTAMP_TYPE, text(timestamp_type)),
            (spring::CONSUMER_GROUP, text(&self.group)),
            (fqcn, text(class(failure.stage))),
            (message, text(truncate(&failure.message))),
            (stacktrace, text(self.trace(letter))),
        ]
    }

    /// Stands where others write a stack trace: the rest of what there is to say, in the form of one.
    fn trace(&self, letter: &FailedRecord) -> String {
        let failure = &letter.failure;
        format!(
            "{}: {}\n\tat {}.{} (worker {}, attempts {})",
            class(failure.stage),
            truncate(&failure.message),
            failure.stage.as_str(),
            failure.component,
            self.worker,
            letter.attempts
        )
    }
}

fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn class(stage: Stage) -> &'static str {
    match stage {
        Stage::Decode => "Undecodable",
        Stage::Transform => "TransformFailed",
        Stage::Write => "Rejected",
    }
}

/// Whether a decoder failed on the key.
fn is_key(letter: &FailedRecord) -> bool {
    &*letter.failure.component == "key"
}

/// All text.
mod connect {
    pub(super) const TOPIC: &str = "__connect.errors.topic";
    pub(super) const PARTITION: &str = "__connect.errors.partition";
    pub(super) const OFFSET: &str = "__connect.errors.offset";
    pub(super) const CONNECTOR_NAME: &str = "__connect.errors.connector.name";
    pub(super) const TASK_ID: &str = "__connect.errors.task.id";
    pub(super) const STAGE: &str = "__connect.errors.stage";
    pub(super) const CLASS_NAME: &str = "__connect.errors.class.name";
    pub(super) const EXCEPTION_CLASS_NAME: &str = "__connect.errors.exception.class.name";
    pub(super) const EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";
    pub(super) const EXCEPTION_STACKTRACE: &str = "__connect.errors.exception.stacktrace";

    pub(super) const ALL: [&str; 10] = [
        TOPIC,
        PARTITION,
        OFFSET,
        CONNECTOR_NAME,
        TASK_ID,
        STAGE,
        CLASS_NAME,
        EXCEPTION_CLASS_NAME,
        EXCEPTION_MESSAGE,
        EXCEPTION_STACKTRACE,
    ];
}

/// Partition, offset and timestamp are big-endian numbers of 4, 8 and 8 bytes; the rest is text.
mod spring {
    pub(super) const TOPIC: &str = "kafka_dlt-original-topic";
    pub(super) const PARTITION: &str = "kafka_dlt-original-partition";
    pub(super) const OFFSET: &str = "kafka_dlt-original-offset";
    pub(super) const TIMESTAMP: &str = "kafka_dlt-original-timestamp";
    pub(super) const TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
    pub(super) const CONSUMER_GROUP: &str = "kafka_dlt-original-consumer-group";
    /// Class, message, stack trace.
    pub(super) const EXCEPTION: (&str, &str, &str) = (
        "kafka_dlt-exception-fqcn",
        "kafka_dlt-exception-message",
        "kafka_dlt-exception-stacktrace",
    );
    /// The same for a key that cannot be decoded.
    pub(super) const KEY_EXCEPTION: (&str, &str, &str) = (
        "kafka_dlt-key-exception-fqcn",
        "kafka_dlt-key-exception-message",
        "kafka_dlt-key-exception-stacktrace",
    );

    /// With the cause, which Spring writes and we have none of: it would be that of an earlier failure.
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
}

#[cfg(test)]
mod tests;
