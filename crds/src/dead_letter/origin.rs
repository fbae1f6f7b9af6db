//! Where a dead letter comes from, and what its headers are made of. In: nothing, or the headers of a record. Out: the
//! types that the styles share. Never trusts a header.

use std::fmt;

use crate::spec::HeaderStyle;

/// Prefix of the headers of style Native, and of those that say what is missing.
pub const HEADER_PREFIX: &str = "kafka-consumer.dev/";

/// Name and value.
pub type Header = (&'static str, Vec<u8>);

/// Name and value of a header of any record.
pub type RawHeader<'a> = (&'a [u8], Option<&'a [u8]>);

/// The step at which a record failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Decode,
    Transform,
    Write,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Decode, Self::Transform, Self::Write];

    /// The name in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Transform => "transform",
            Self::Write => "write",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    /// The class of its errors.
    pub fn error_class(self) -> &'static str {
        match self {
            Self::Decode => "Undecodable",
            Self::Transform => "TransformFailed",
            Self::Write => "Rejected",
        }
    }

    pub(super) fn of_class(class: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.error_class() == class)
    }
}

/// Who has set the timestamp of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// Where a dead letter comes from, and why it is one. What a header style cannot carry is None when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterOrigin {
    pub style: HeaderStyle,
    /// Topic, partition and offset of the record that failed.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Of the record, in Unix milliseconds; negative: it has none. None: the headers do not say it.
    pub timestamp: Option<i64>,
    /// Who has set it; None: the headers do not say it.
    pub timestamp_type: Option<TimestampType>,
    /// Consumer group id.
    pub group: Option<String>,
    /// The worker that gave up.
    pub worker: Option<String>,
    pub stage: Option<Stage>,
    /// Name of the transform or writer; `key` or `value` for a decoder.
    pub component: Option<String>,
    pub attempts: Option<u32>,
    pub error_class: Option<String>,
    pub error_message: Option<String>,
}

/// Why a record is no dead letter of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotADeadLetter {
    /// It has no header of any style: another program wrote it.
    Foreign,
    /// A header of this name is missing or cannot be read.
    Invalid(&'static str),
}

impl fmt::Display for NotADeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => {
                f.write_str("the record has no headers of a dead letter: another program wrote it")
            }
            Self::Invalid(name) => write!(f, "the header {name} is missing or cannot be read"),
        }
    }
}

/// The headers of a record. Of several with one name, the last one counts.
pub(super) struct Found<'a>(pub &'a [RawHeader<'a>]);

impl Found<'_> {
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.0.iter().rev();
        headers.find(|(found, _)| *found == name.as_bytes())?.1
    }

    /// Bytes that are no UTF-8 are replaced: a message is worth showing nevertheless.
    pub fn text(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes(name)?).into_owned())
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }

    pub fn must<T>(&self, name: &'static str, value: Option<T>) -> Result<T, NotADeadLetter> {
        value.ok_or(NotADeadLetter::Invalid(name))
    }
}

pub(super) fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}
