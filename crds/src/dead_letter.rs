//! Headers of dead letters: the contract of the worker, which writes them, and the operator, which reads them. In:
//! what a worker knows of a failed record, or the headers of a record of the dead letter topic. Out: names and
//! values, or a [`DeadLetterOrigin`], or why the record is no dead letter of a worker. Never trusts a header:
//! every program that may write to the topic may have written it.
//!
//! The names and encodings of `Connect` and `Spring` are those of Kafka Connect's DeadLetterQueueReporter and
//! of Spring for Apache Kafka's DeadLetterPublishingRecoverer.

mod connect;
mod native;
mod origin;
mod parts;
mod spring;
mod trace;

use crate::spec::HeaderStyle;

use self::origin::Found;
pub use self::origin::{
    DeadLetterOrigin, HEADER_PREFIX, Header, NotADeadLetter, RawHeader, Stage, TimestampType,
};
pub use self::parts::{KeySize, MissingParts, part};

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

#[cfg(test)]
mod tests;
