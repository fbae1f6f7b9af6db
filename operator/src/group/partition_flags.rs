//! Topics, partitions, offsets and times on the command line. In: texts. Out: values, or what to write instead.
//! Pure.

use std::str::FromStr;

use crds::offset_reset::{PartitionOffset, ResetTopic};
use jiff::Timestamp;

/// A value of `--topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(pub ResetTopic);

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is neither a topic nor topic:partitions, for example orders:0,1");
        let (topic, partitions) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((topic, list)) => {
                let partitions = list.split(',').map(number::<i32>);
                (topic, partitions.collect::<Option<_>>().ok_or_else(wrong)?)
            }
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(Self(ResetTopic {
            topic: topic.into(),
            partitions,
        }))
    }
}

/// An offset, or that of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenOffset {
    /// Of each partition that `--topic` lists.
    Each(i64),
    Of(PartitionOffset),
}

impl FromStr for GivenOffset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let Some((partition, offset)) = text.split_once('=') else {
                return Some(Self::Each(number(text)?));
            };
            let (topic, partition) = partition.split_once(':')?;
            let given = PartitionOffset {
                topic: topic.into(),
                partition: number(partition)?,
                offset: number(offset)?,
            };
            (!topic.is_empty()).then_some(Self::Of(given))
        };
        parse().ok_or_else(|| {
            format!(
                "\"{text}\" is neither an offset from 0 nor topic:partition=offset, for example orders:0=100"
            )
        })
    }
}

/// Partitions and offsets count from 0.
fn number<N: FromStr + PartialOrd + Default>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number| *number >= N::default())
}

pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not a time with its zone, for example 2026-01-31T00:00:00Z or 2026-01-31T01:00:00+01:00")
    })
}

/// The values of `flag` as offsets of partitions; an offset alone is for those that `topics` lists.
pub fn of_partitions(
    flag: &str,
    given: &[GivenOffset],
    topics: &[Selection],
) -> Result<Vec<PartitionOffset>, String> {
    let mut offsets: Vec<PartitionOffset> = Vec::new();
    for given in given {
        let more = match given {
            GivenOffset::Of(offset) => vec![offset.clone()],
            GivenOffset::Each(offset) => of_each(flag, *offset, topics)?,
        };
        for offset in more {
            let PartitionOffset { topic, partition, .. } = &offset;
            if offsets
                .iter()
                .any(|other| (&other.topic, other.partition) == (topic, *partition))
            {
                return Err(format!(
                    "{flag}: two offsets for partition {partition} of topic \"{topic}\"; keep one"
                ));
            }
            offsets.push(offset);
        }
    }
    Ok(offsets)
}

/// The number of partitions of a topic is not known here, so they have to be listed.
fn of_each(flag: &str, offset: i64, topics: &[Selection]) -> Result<Vec<PartitionOffset>, String> {
    if topics.is_empty() || topics.iter().any(|Selection(topic)| topic.partitions.is_empty()) {
        return Err(format!(
            "{flag} {offset}: for which partitions? List them with --topic TOPIC:PARTITION,..., or write {flag} TOPIC:PARTITION={offset}"
        ));
    }
    let of_topic = |Selection(topic): &Selection| -> Vec<PartitionOffset> {
        let offset = |partition: &i32| PartitionOffset {
            topic: topic.topic.clone(),
            partition: *partition,
            offset,
        };
        topic.partitions.iter().map(offset).collect()
    };
    Ok(topics.iter().flat_map(of_topic).collect())
}
