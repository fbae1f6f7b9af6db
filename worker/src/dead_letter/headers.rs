//! Headers of dead letters. In: a failed record, its failure, the group and worker that processed it, and
//! `errorHandling.deadLetter.headerStyle`. Out: names and values to add to those of the record. Pure. A
//! record that is dead-lettered repeatedly does not grow, and no header quotes a payload.
//!
//! The names and encodings are those of [`crds::dead_letter`]. Kafka Connect and Spring differ in what they do with
//! a record that has such headers already (Connect keeps the first, Spring appends); here the latest failure
//! replaces the one before, because topic, partition and offset must name the record that was read.

use crds::dead_letter::{self, DeadLetterOrigin, TimestampType};
use crds::spec::HeaderStyle;

use crate::{
    health::problems::truncate,
    record::{
        Record,
        failure::{FailedRecord, Stage},
    },
    seeded_bugs::seeded_bug,
};

pub use crds::dead_letter::HEADER_PREFIX;
pub(super) use crds::dead_letter::Header;

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
        let partition = record.partition();
        let failure = &failed.failure;
        let stage = match failure.stage {
            Stage::Decode => dead_letter::Stage::Decode,
            Stage::Transform => dead_letter::Stage::Transform,
            Stage::Write => dead_letter::Stage::Write,
        };
        dead_letter::write(&DeadLetterOrigin {
            style: self.style,
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: record.offset,
            timestamp: Some(record.timestamp),
            timestamp_type: Some(match record.log_append_time() {
                true => TimestampType::LogAppendTime,
                false => TimestampType::CreateTime,
            }),
            group: Some(self.group.clone()),
            worker: Some(self.worker.clone()),
            stage: Some(stage),
            component: Some(failure.component.to_string()),
            attempts: Some(failed.attempts),
            error_class: Some(stage.error_class().into()),
            error_message: Some(truncate(&failure.message)),
        })
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
        let known = dead_letter::names(self.style);
        name.starts_with(HEADER_PREFIX.as_bytes()) || known.iter().any(|known| known.as_bytes() == name)
    }
}

#[cfg(test)]
mod tests;
