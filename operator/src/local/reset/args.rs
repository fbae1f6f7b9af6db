//! The command line of `local reset`. In: arguments. Out: a [`KafkaOffsetResetSpec`], the same that a cluster
//! takes as a resource. The flags have the names that users of `kafka-consumer-groups.sh --reset-offsets` know.

use clap::Args;
use crds::KafkaOffsetResetSpec;
use crds::offset_reset::{GroupReference, ResetTarget, ResetType};
use jiff::Timestamp;

use crate::local::offsets::{GivenOffset, Selection, of_partitions, parse_time};
use crate::local::source::GroupSource;

/// Set the committed offsets of a group once. Without --execute, only show what would change. The group must
/// have no members: stop its workers first.
#[derive(Args, Clone, Debug)]
pub struct ResetArgs {
    #[command(flatten)]
    pub group: GroupSource,

    #[command(flatten)]
    pub to: To,

    /// Topic, or some of its partitions: "orders" or "orders:0,1"; may be repeated. Default: all partitions of
    /// all topics of the group.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITION,...]")]
    pub topics: Vec<Selection>,

    /// Only show what would change. This is the default.
    #[arg(long, conflicts_with = "execute")]
    pub dry_run: bool,

    /// Commit the new offsets.
    #[arg(long)]
    pub execute: bool,
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

impl ResetArgs {
    /// What the arguments say about the group of this name.
    pub fn spec(&self, group: &str) -> Result<KafkaOffsetResetSpec, String> {
        let topics = self.topics.iter().map(|Selection(topic)| topic.clone());
        Ok(KafkaOffsetResetSpec {
            group_ref: GroupReference { name: group.into() },
            to: self.target()?,
            topics: topics.collect(),
            dry_run: !self.execute,
            stop_group: false,
            ttl_seconds_after_finished: None,
        })
    }

    fn target(&self) -> Result<ResetTarget, String> {
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        reset: ResetArgs,
    }

    fn parsed(arguments: &str) -> Result<KafkaOffsetResetSpec, String> {
        let all = ["reset", "-f", "a.yaml"]
            .into_iter()
            .chain(arguments.split_whitespace());
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        cli.reset.spec("orders")
    }

    fn target(arguments: &str) -> Value {
        serde_json::to_value(parsed(arguments).unwrap().to).unwrap()
    }

    #[test]
    fn each_target_has_the_flag_of_kafkas_tool() {
        assert_eq!(target("--to-earliest"), json!({"type": "Earliest"}));
        assert_eq!(target("--to-latest"), json!({"type": "Latest"}));
        assert_eq!(target("--shift-by -100"), json!({"type": "Shift", "by": -100}));
        assert_eq!(target("--shift-by 7"), json!({"type": "Shift", "by": 7}));
        assert_eq!(
            target("--to-datetime 2026-01-31T01:00:00+01:00"),
            json!({"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"})
        );
        let offset =
            |partition: i32, offset: i64| json!({"topic": "a", "partition": partition, "offset": offset});
        let offsets = json!({"type": "Offsets", "offsets": [offset(0, 5), offset(2, 9)]});
        assert_eq!(target("--to-offset a:0=5 --to-offset a:2=9"), offsets);
        let each = json!({"type": "Offsets", "offsets": [offset(0, 5), offset(2, 5)]});
        assert_eq!(target("--to-offset 5 --topic a:0,2"), each);
    }

    #[test]
    fn a_reset_is_a_dry_run_unless_it_is_executed() {
        assert!(parsed("--to-latest").unwrap().dry_run);
        assert!(parsed("--to-latest --dry-run").unwrap().dry_run);
        assert!(!parsed("--to-latest --execute").unwrap().dry_run);
        assert!(parsed("--to-latest --execute --dry-run").is_err());
    }

    #[test]
    fn topics_are_selected_with_their_partitions() {
        let topics = parsed("--to-latest --topic a --topic b:0,3").unwrap().topics;
        let expected = json!([{"topic": "a"}, {"topic": "b", "partitions": [0, 3]}]);
        assert_eq!(serde_json::to_value(topics).unwrap(), expected);
    }

    #[test]
    fn wrong_arguments_are_refused_with_an_example() {
        for (arguments, part) in [
            ("", "--to-earliest"),
            ("--to-earliest --to-latest", "cannot be used with"),
            ("--shift-by 0", "changes nothing"),
            ("--shift-by many", "-100"),
            ("--to-datetime 2026-01-31T00:00:00", "2026-01-31T00:00:00Z"),
            ("--to-datetime yesterday", "2026-01-31T00:00:00Z"),
            ("--to-offset -1", "orders:0=100"),
            ("--to-offset a:0", "orders:0=100"),
            ("--to-offset a:-1=5", "orders:0=100"),
            ("--to-offset :0=5", "orders:0=100"),
            ("--to-offset 5", "--topic TOPIC:PARTITION"),
            ("--to-offset 5 --topic a", "--topic TOPIC:PARTITION"),
            (
                "--to-offset a:0=5 --to-offset a:0=6",
                "two offsets for partition 0",
            ),
            ("--to-latest --topic a:", "orders:0,1"),
            ("--to-latest --topic a:0,x", "orders:0,1"),
            ("--to-latest --topic :0", "orders:0,1"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments}: {error}");
        }
    }
}
