//! The command line of `local replay`. In: arguments. Out: a [`KafkaReplaySpec`], the same that a cluster takes as a
//! resource.

use std::path::PathBuf;

use clap::Args;
use crds::KafkaReplaySpec;
use crds::offset_reset::{GroupReference, PartitionOffset};
use crds::replay::{ReplayFrom, ReplayFromType, ReplayTo, ReplayToType};
use jiff::Timestamp;

use crate::group::partition_flags::{GivenOffset, Selection, of_partitions, parse_time};
use crate::local::source::GroupSource;

/// Run a part of the log through the transforms and writers of a group once more, in its own consumer group. The
/// offsets of the group itself do not change, and it may run meanwhile. Ctrl-C stops it, and shows how to process
/// the rest.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub group: GroupSource,

    #[command(flatten)]
    pub from: From,

    #[command(flatten)]
    pub to: To,

    /// Topic, or some of its partitions: "orders" or "orders:0,1"; may be repeated. Default: all partitions of
    /// all topics of the group.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITION,...]")]
    pub topics: Vec<Selection>,

    /// Name of a writer that gets the records; may be repeated. Default: all writers of the group.
    #[arg(long = "writer", value_name = "NAME")]
    pub writers: Vec<String>,

    /// Most records per second of all workers together. Default: no limit but that of the group.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000_000))]
    pub records_per_second: Option<i32>,

    /// Number of workers. More than there are partitions to replay are not started.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub workers: i32,

    /// Only show what would be replayed.
    #[arg(long)]
    pub dry_run: bool,

    /// The worker program. Default: kafka-consumer-worker beside this program, then in PATH.
    #[arg(long, value_name = "PATH", env = "KAFKA_CONSUMER_WORKER")]
    pub worker_binary: Option<PathBuf>,
}

/// Where the replay starts.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct From {
    /// Start at the first record that Kafka still has.
    #[arg(long)]
    pub from_earliest: bool,

    /// Start at the first record at or after this time, for example 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from_datetime: Option<Timestamp>,

    /// Start at this offset of one partition; may be repeated, other partitions are not replayed. An offset
    /// alone is for the partitions that --topic lists.
    #[arg(long, value_name = "[TOPIC:PARTITION=]OFFSET", allow_negative_numbers = true)]
    pub from_offset: Vec<GivenOffset>,
}

/// Where the replay ends.
#[derive(Args, Clone, Debug)]
#[group(required = false, multiple = false)]
pub struct To {
    /// End at the end: records that arrive later are not replayed. This is the default.
    #[arg(long)]
    pub to_latest: bool,

    /// End before the first record at or after this time; at the end, if there is none.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to_datetime: Option<Timestamp>,

    /// End before this offset of one partition; may be repeated, other partitions are not replayed. An offset
    /// alone is for the partitions that --topic lists.
    #[arg(long, value_name = "[TOPIC:PARTITION=]OFFSET", allow_negative_numbers = true)]
    pub to_offset: Vec<GivenOffset>,
}

impl ReplayArgs {
    /// What the arguments say about the group of this name.
    pub fn spec(&self, group: &str) -> Result<KafkaReplaySpec, String> {
        let from = self.offsets("--from-offset", &self.from.from_offset)?;
        let to = self.offsets("--to-offset", &self.to.to_offset)?;
        if let (Some(from), Some(to)) = (self.from.from_datetime, self.to.to_datetime)
            && from >= to
        {
            return Err(format!(
                "--from-datetime {from} is not before --to-datetime {to}; swap them"
            ));
        }
        // Offsets list their partitions themselves.
        let listed = from.is_some() || to.is_some();
        let topics = self.topics.iter().filter(|_| !listed);
        Ok(KafkaReplaySpec {
            group_ref: GroupReference { name: group.into() },
            from: ReplayFrom {
                kind: match (&from, self.from.from_datetime) {
                    (Some(_), _) => ReplayFromType::Offsets,
                    (None, Some(_)) => ReplayFromType::Timestamp,
                    (None, None) => ReplayFromType::Earliest,
                },
                timestamp: self.from.from_datetime,
                offsets: from,
            },
            to: ReplayTo {
                kind: match (&to, self.to.to_datetime) {
                    (Some(_), _) => ReplayToType::Offsets,
                    (None, Some(_)) => ReplayToType::Timestamp,
                    (None, None) => ReplayToType::Latest,
                },
                timestamp: self.to.to_datetime,
                offsets: to,
            },
            topics: topics.map(|Selection(topic)| topic.clone()).collect(),
            writers: self.writers.clone(),
            records_per_second: self.records_per_second,
            workers: self.workers,
            dry_run: self.dry_run,
            ttl_seconds_after_finished: None,
        })
    }

    fn offsets(&self, flag: &str, given: &[GivenOffset]) -> Result<Option<Vec<PartitionOffset>>, String> {
        let lists_partitions = |given: &GivenOffset| matches!(given, GivenOffset::Of(_));
        if given.iter().any(lists_partitions) && !self.topics.is_empty() {
            return Err(format!(
                "--topic is not allowed with {flag} TOPIC:PARTITION=OFFSET, which lists the partitions; leave it out"
            ));
        }
        match given {
            [] => Ok(None),
            given => of_partitions(flag, given, &self.topics).map(Some),
        }
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
        replay: ReplayArgs,
    }

    fn parsed(arguments: &str) -> Result<KafkaReplaySpec, String> {
        let all = ["replay", "-f", "a.yaml"]
            .into_iter()
            .chain(arguments.split_whitespace());
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        cli.replay.spec("orders")
    }

    fn bounds(arguments: &str) -> (Value, Value) {
        let spec = parsed(arguments).unwrap();
        let json = |value| serde_json::to_value(value).unwrap();
        (json(json!(spec.from)), json(json!(spec.to)))
    }

    #[test]
    fn each_start_and_end_has_a_flag() {
        let latest = json!({"type": "Latest"});
        assert_eq!(
            bounds("--from-earliest"),
            (json!({"type": "Earliest"}), latest.clone())
        );
        assert_eq!(
            bounds("--from-earliest --to-latest"),
            (json!({"type": "Earliest"}), latest)
        );
        assert_eq!(
            bounds("--from-datetime 2026-01-31T01:00:00+01:00 --to-datetime 2026-01-31T01:00:00Z"),
            (
                json!({"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"}),
                json!({"type": "Timestamp", "timestamp": "2026-01-31T01:00:00Z"})
            )
        );
        let offset =
            |partition: i32, offset: i64| json!({"topic": "a", "partition": partition, "offset": offset});
        let offsets = |list: &[Value]| json!({"type": "Offsets", "offsets": list});
        assert_eq!(
            bounds("--from-offset a:0=5 --to-offset a:0=9"),
            (offsets(&[offset(0, 5)]), offsets(&[offset(0, 9)]))
        );
        assert_eq!(
            bounds("--from-offset 5 --to-offset 9 --topic a:0,2"),
            (
                offsets(&[offset(0, 5), offset(2, 5)]),
                offsets(&[offset(0, 9), offset(2, 9)])
            )
        );
        let spec = parsed("--from-offset 5 --topic a:0").unwrap();
        assert!(spec.topics.is_empty(), "the offsets list the partitions");
    }

    #[test]
    fn the_rest_of_the_resource_has_flags_with_the_same_defaults() {
        let spec = parsed("--from-earliest").unwrap();
        assert_eq!(
            (spec.workers, spec.dry_run, spec.records_per_second),
            (1, false, None)
        );
        assert!(spec.writers.is_empty() && spec.topics.is_empty());
        let spec = parsed(
            "--from-earliest --topic a --topic b:0,3 --writer x --writer y --records-per-second 50 --workers 3 --dry-run",
        )
        .unwrap();
        let expected = json!([{"topic": "a"}, {"topic": "b", "partitions": [0, 3]}]);
        assert_eq!(serde_json::to_value(&spec.topics).unwrap(), expected);
        assert_eq!(spec.writers, ["x", "y"]);
        assert_eq!(
            (spec.workers, spec.dry_run, spec.records_per_second),
            (3, true, Some(50))
        );
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_to_write() {
        for (arguments, part) in [
            ("", "--from-earliest"),
            ("--to-latest", "--from-earliest"),
            ("--from-earliest --from-offset a:0=5", "cannot be used with"),
            (
                "--from-earliest --to-latest --to-offset a:0=5",
                "cannot be used with",
            ),
            ("--from-datetime 2026-01-31T00:00:00", "2026-01-31T00:00:00Z"),
            (
                "--from-datetime 2026-01-31T01:00:00Z --to-datetime 2026-01-31T00:00:00Z",
                "is not before",
            ),
            ("--from-offset -1", "orders:0=100"),
            ("--from-offset 5", "--topic TOPIC:PARTITION"),
            ("--from-offset 5 --topic a", "--from-offset TOPIC:PARTITION=5"),
            ("--from-earliest --to-offset 5", "--to-offset TOPIC:PARTITION=5"),
            (
                "--from-offset a:0=5 --from-offset a:0=6",
                "--from-offset: two offsets for partition 0",
            ),
            ("--from-offset a:0=5 --topic a", "--topic is not allowed"),
            ("--from-earliest --workers 0", "1..=1000"),
            ("--from-earliest --records-per-second 0", "1..=10000000"),
        ] {
            let error = parsed(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments}: {error}");
        }
    }
}
