//! Headers of dead letters: the contract of the worker, which writes them, and the operator, which reads them. In:
//! what a worker knows of a failed record, or the headers of a record of the dead letter topic. Out: names and
//! values, or a [`DeadLetterOrigin`], or why the record is no dead letter of a worker. Never trusts a header:
//! every program that may write to the topic may have written it.
//!
//! The names and encodings of `Connect` and `Spring` are those of Kafka Connect's DeadLetterQueueReporter and
//! of Spring for Apache Kafka's DeadLetterPublishingRecoverer.

mod connect;
mod native;
mod parts;
mod spring;

use std::fmt;

use crate::spec::HeaderStyle;

pub use self::parts::{KeySize, MissingParts, part};

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

    fn of_class(class: &str) -> Option<Self> {
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

/// The names of all headers that a worker writes in this style, and those of Spring that it replaces.
pub fn names(style: HeaderStyle) -> &'static [&'static str] {
    match style {
        HeaderStyle::Native => &native::ALL,
        HeaderStyle::Connect => &connect::ALL,
        HeaderStyle::Spring => &spring::ALL,
    }
}

/// The headers of a dead letter, in the style of `origin`.
pub fn write(origin: &DeadLetterOrigin) -> Vec<Header> {
    match origin.style {
        HeaderStyle::Native => native::write(origin),
        HeaderStyle::Connect => connect::write(origin),
        HeaderStyle::Spring => spring::write(origin),
    }
}

/// Reads the origin of a dead letter. A record that was a dead letter before may have headers of other styles:
/// those that come last count, because workers add theirs at the end.
pub fn read(headers: &[RawHeader<'_>]) -> Result<DeadLetterOrigin, NotADeadLetter> {
    let last = |style: HeaderStyle| {
        let is_topic = |(name, _): &RawHeader<'_>| *name == topic_of(style).as_bytes();
        headers.iter().rposition(is_topic).map(|at| (at, style))
    };
    let styles = [HeaderStyle::Native, HeaderStyle::Connect, HeaderStyle::Spring];
    let Some((_, style)) = styles.into_iter().filter_map(last).max_by_key(|(at, _)| *at) else {
        return Err(NotADeadLetter::Foreign);
    };
    let found = Found(headers);
    match style {
        HeaderStyle::Native => native::read(&found),
        HeaderStyle::Connect => connect::read(&found),
        HeaderStyle::Spring => spring::read(&found),
    }
}

/// The header that makes a record a dead letter of this style.
fn topic_of(style: HeaderStyle) -> &'static str {
    match style {
        HeaderStyle::Native => native::TOPIC,
        HeaderStyle::Connect => connect::TOPIC,
        HeaderStyle::Spring => spring::TOPIC,
    }
}

/// The headers of a record. Of several with one name, the last one counts.
struct Found<'a>(&'a [RawHeader<'a>]);

impl Found<'_> {
    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.0.iter().rev();
        headers.find(|(found, _)| *found == name.as_bytes())?.1
    }

    /// Bytes that are no UTF-8 are replaced: a message is worth showing nevertheless.
    fn text(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes(name)?).into_owned())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }

    fn must<T>(&self, name: &'static str, value: Option<T>) -> Result<T, NotADeadLetter> {
        value.ok_or(NotADeadLetter::Invalid(name))
    }
}

fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// What replaces a stack trace in the styles of others: the rest of the details, in the format of one.
mod trace {
    use super::{DeadLetterOrigin, Stage};

    const AT: &str = "\n\tat ";
    const WORKER: &str = " (worker ";
    const ATTEMPTS: &str = ", attempts ";

    pub(super) fn write(origin: &DeadLetterOrigin) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!(
            "{}: {}{AT}{}.{}{WORKER}{}{ATTEMPTS}{})",
            text(&origin.error_class),
            text(&origin.error_message),
            origin.stage.map_or("", Stage::as_str),
            text(&origin.component),
            text(&origin.worker),
            origin.attempts.unwrap_or_default()
        )
    }

    /// Stage, component, worker and attempts.
    pub(super) fn read(trace: &str) -> Option<(Stage, String, String, u32)> {
        let (_, place) = trace.rsplit_once(AT)?;
        let (stage, rest) = place.split_once('.')?;
        let (component, rest) = rest.rsplit_once(WORKER)?;
        let (worker, attempts) = rest.strip_suffix(')')?.rsplit_once(ATTEMPTS)?;
        Some((
            Stage::parse(stage)?,
            component.into(),
            worker.into(),
            attempts.parse().ok()?,
        ))
    }
}

#[cfg(test)]
mod tests;
