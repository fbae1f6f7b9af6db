//! Headers of dead letters. In: a failed record, its failure, the group and worker that processed it, and
//! `errorHandling.deadLetter.headerStyle`. Out: names and values to add to those of the record. Pure. A
//! record that is dead-lettered repeatedly does not grow, and no header quotes a payload.
//!
//! The names and encodings of `Connect` and `Spring` are those of Kafka Connect's DeadLetterQueueReporter and
//! of Spring for Apache Kafka's DeadLetterPublishingRecoverer. They differ in what they do with a record that
//! has such headers already (Connect keeps the first, Spring appends); here the latest failure replaces the
//! one before, because topic, partition and offset must name the record that was read.

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

/// Makes the headers of dead letters in one style, for one worker.
pub(super) struct Headers {
    pub style: HeaderStyle,
    /// Consumer group id.
    pub group: String,
    /// Name of this worker.
    pub worker: String,
}

impl Headers {
    /// The headers to add to the dead letter of `record`.
    pub fn of(&self, record: &Record<'_>, failed: &FailedRecord) -> Vec<Header> {
        match self.style {
            HeaderStyle::Native => self.native(record, failed),
            HeaderStyle::Connect => self.connect(record, failed),
            HeaderStyle::Spring => self.spring(record, failed),
        }
    }

    /// The headers of the record, except those of an earlier dead letter, followed by `ours`.
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

    /// Whether this header of the record is replaced. Only workers write headers with the prefix of style
    /// Native. For the other styles, only the exact names of the present style count, because headers of
    /// users may start like them.
    fn replaces(&self, name: &[u8]) -> bool {
        let known: &[&str] = match self.style {
            HeaderStyle::Native => &[],
            HeaderStyle::Connect => &connect::ALL,
            HeaderStyle::Spring => &spring::ALL,
        };
        name.starts_with(HEADER_PREFIX.as_bytes()) || known.iter().any(|known| known.as_bytes() == name)
    }

    fn native(&self, record: &Record<'_>, failed: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &failed.failure;
        vec![
            ("kafka-consumer.dev/topic", text(&partition.topic)),
            ("kafka-consumer.dev/partition", text(partition.partition)),
            ("kafka-consumer.dev/offset", text(record.offset)),
            ("kafka-consumer.dev/timestamp", text(record.timestamp)),
            ("kafka-consumer.dev/group", text(&self.group)),
            ("kafka-consumer.dev/worker", text(&self.worker)),
            ("kafka-consumer.dev/stage", text(failure.stage.as_str())),
            ("kafka-consumer.dev/component", text(&failure.component)),
            ("kafka-consumer.dev/attempts", text(failed.attempts)),
            ("kafka-consumer.dev/error-class", text(class(failure.stage))),
            (
                "kafka-consumer.dev/error-message",
                text(truncate(&failure.message)),
            ),
        ]
    }

    fn connect(&self, record: &Record<'_>, failed: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &failed.failure;
        let stage = match (failure.stage, is_key(failed)) {
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
            (connect::EXCEPTION_STACKTRACE, text(self.trace(failed))),
        ]
    }

    fn spring(&self, record: &Record<'_>, failed: &FailedRecord) -> Vec<Header> {
        let partition = record.partition();
        let failure = &failed.failure;
        let timestamp_type = match (record.timestamp, record.log_append_time()) {
            (..0, _) => "NoTimestampType",
            (_, true) => "LogAppendTime",
            (_, false) => "CreateTime",
        };
        let (fqcn, message, stacktrace) = if failure.stage == Stage::Decode && is_key(failed) {
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
            (stacktrace, text(self.trace(failed))),
        ]
    }

    /// Replaces a stack trace: the rest of the details, in the format of one.
    fn trace(&self, failed: &FailedRecord) -> String {
        let failure = &failed.failure;
        format!(
            "{}: {}\n\tat {}.{} (worker {}, attempts {})",
            class(failure.stage),
            truncate(&failure.message),
            failure.stage.as_str(),
            failure.component,
            self.worker,
            failed.attempts
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

/// Whether the decoder of keys failed.
fn is_key(failed: &FailedRecord) -> bool {
    &*failed.failure.component == "key"
}

/// All values are text.
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
}

#[cfg(test)]
mod tests;
