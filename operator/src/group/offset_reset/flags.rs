//! Flags that say where a reset goes. In: arguments. Out: the target and the topics of a
//! [`crds::KafkaOffsetResetSpec`]. Pure; `local reset` and the kubectl plugin have the same flags. They have the
//! names that users of `kafka-consumer-groups.sh --reset-offsets` know.

use std::str::FromStr;

use clap::Args;
use crds::offset_reset::{PartitionOffset, ResetTarget, ResetTopic, ResetType};
use jiff::Timestamp;

/// What to reset, and where to.
#[derive(Args, Clone, Debug)]
pub struct ResetFlags {
    #[command(flatten)]
    pub to: To,

    /// Topic, or some of its partitions: "orders" or "orders:0,1"; may be repeated. Default: all partitions of
    /// all topics of the group.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITION,...]")]
    pub topics: Vec<Selection>,
}

/// Where the group is to continue.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct To {
    /// The first record that Kafka still has.
    #[arg(long)]
    pub to_earliest: bool,

    /// The end: records that are there now are not read.
    #[arg(long)]
    pub to_latest: bool,

    /// The first record at or after this time, for example 2026-01-31T00:00:00Z; the end, if there is none.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to_datetime: Option<Timestamp>,

    /// This offset of one partition; may be repeated, other partitions stay. An offset alone is for the
    /// partitions that --topic lists.
    #[arg(long, value_name = "[TOPIC:PARTITION=]OFFSET", allow_negative_numbers = true)]
    pub to_offset: Vec<GivenOffset>,

    /// This number of offsets from the committed one: negative to read records again, positive to skip some.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_shift)]
    pub shift_by: Option<i64>,
}

/// A value of `--topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(ResetTopic);

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

/// A value of `--to-offset`.
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

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not a time with its zone, for example 2026-01-31T00:00:00Z or 2026-01-31T01:00:00+01:00")
    })
}

fn parse_shift(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(0) => Err(
            "0 changes nothing; use a negative number to read records again, a positive number to skip some"
                .into(),
        ),
        Ok(by) => Ok(by),
        Err(_) => Err(format!("\"{text}\" is not a number of offsets, for example -100")),
    }
}

impl ResetFlags {
    /// The selected topics; none: all.
    pub fn topics(&self) -> Vec<ResetTopic> {
        let topics = self.topics.iter().map(|Selection(topic)| topic.clone());
        topics.collect()
    }

    /// Where the partitions go.
    pub fn target(&self) -> Result<ResetTarget, String> {
        let To {
            to_earliest,
            to_datetime,
            to_offset,
            shift_by,
            ..
        } = &self.to;
        let offsets = match to_offset.is_empty() {
            true => None,
            false => Some(self.offsets(to_offset)?),
        };
        let kind = match (to_datetime, &offsets, shift_by) {
            (Some(_), ..) => ResetType::Timestamp,
            (_, Some(_), _) => ResetType::Offsets,
            (.., Some(_)) => ResetType::Shift,
            _ if *to_earliest => ResetType::Earliest,
            _ => ResetType::Latest,
        };
        Ok(ResetTarget {
            kind,
            timestamp: *to_datetime,
            offsets,
            by: *shift_by,
        })
    }

    fn offsets(&self, given: &[GivenOffset]) -> Result<Vec<PartitionOffset>, String> {
        let mut offsets: Vec<PartitionOffset> = Vec::new();
        for given in given {
            let more = match given {
                GivenOffset::Of(offset) => vec![offset.clone()],
                GivenOffset::Each(offset) => self.of_each(*offset)?,
            };
            for offset in more {
                let PartitionOffset { topic, partition, .. } = &offset;
                if offsets
                    .iter()
                    .any(|other| (&other.topic, other.partition) == (topic, *partition))
                {
                    return Err(format!(
                        "--to-offset: two offsets for partition {partition} of topic \"{topic}\"; keep one"
                    ));
                }
                offsets.push(offset);
            }
        }
        Ok(offsets)
    }

    /// The number of partitions of a topic is not known here, so they have to be listed.
    fn of_each(&self, offset: i64) -> Result<Vec<PartitionOffset>, String> {
        let selected = self.topics.iter().map(|Selection(topic)| topic);
        if selected.clone().next().is_none() || selected.clone().any(|topic| topic.partitions.is_empty()) {
            return Err(format!(
                "--to-offset {offset}: for which partitions? List them with --topic TOPIC:PARTITION,..., or write --to-offset TOPIC:PARTITION={offset}"
            ));
        }
        let of_topic = |topic: &ResetTopic| -> Vec<PartitionOffset> {
            let offset = |partition: &i32| PartitionOffset {
                topic: topic.topic.clone(),
                partition: *partition,
                offset,
            };
            topic.partitions.iter().map(offset).collect()
        };
        Ok(selected.flat_map(of_topic).collect())
    }
}
