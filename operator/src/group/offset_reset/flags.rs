//! Flags that say where a reset goes. In: arguments. Out: the target and the topics of a
//! [`crds::KafkaOffsetResetSpec`]. Pure; `local reset` and the kubectl plugin have the same flags. They have the
//! names that users of `kafka-consumer-groups.sh --reset-offsets` know.

use clap::Args;
use crds::offset_reset::{ResetTarget, ResetTopic, ResetType};
use jiff::Timestamp;

use crate::group::partition_flags::{GivenOffset, Selection, of_partitions, parse_time};

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
            false => Some(of_partitions("--to-offset", to_offset, &self.topics)?),
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
}
