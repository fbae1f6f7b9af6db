//! The work of the worker: its configuration document in each case, as the operator would render it.
//! Defaults, as most users have them, except for the subject of the case. Pure.

use anyhow::{Context, Result};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::{Value, json};

use super::{copy_merge::TABLE, database};

/// What the worker does with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Reads bytes and discards them.
    Identity,
    /// Parses, changes by a VRL program, serializes, discards.
    Transform,
    /// The same, written to another topic.
    TransformToKafka,
    /// Drops a field, renames one, converts one and sets one by a transform of type Fields, then discards.
    Fields,
    /// The same four by a VRL program.
    FieldsByVrl,
    /// Reads bytes in the order of each key, up to [`CONCURRENCY`] at a time.
    ByKey(ByKey),
    /// Reads bytes and writes them to another topic.
    Copy(CopyGuarantee),
    /// Writes bytes to another topic, with default settings.
    Forward,
    /// Upserts JSON objects into a table with a primary key.
    Postgres,
}

/// What happens to each record of [`Work::ByKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByKey {
    /// Discarded.
    NoWork,
    /// Delayed, by the worker in `tests/bench-worker`.
    OneMillisecond,
}

/// The guarantee of [`Work::Copy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyGuarantee {
    AtLeastOnce,
    ExactlyOnce,
}

impl CopyGuarantee {
    pub fn name(self) -> &'static str {
        match self {
            CopyGuarantee::AtLeastOnce => "at-least-once",
            CopyGuarantee::ExactlyOnce => "exactly-once",
        }
    }
}

/// Records processed at the same time by key.
pub(super) const CONCURRENCY: u32 = 100;
/// The interval between two commits of a copy, and the length of a transaction: consumers never see a record
/// later than this, whatever the guarantee, so both are compared under the same promise.
const COMMIT_MILLISECONDS: u32 = 100;

/// Adds a field, drops a field.
const PROGRAM: &str = ".handled_by = \"bench\"\ndel(.status)\n";
/// The work of [`Work::Fields`] as a program.
const FIELDS_PROGRAM: &str =
    "del(.country)\n.state = del(.status)\n.amount = to_string!(.amount)\n.handled_by = \"bench\"\n";

/// The output topic of [`Work::writes_to_kafka`].
pub(super) const OUTPUT_TOPIC: &str = "bench-output";

impl Work {
    /// Whether the result is in [`OUTPUT_TOPIC`].
    pub fn writes_to_kafka(self) -> bool {
        matches!(self, Work::TransformToKafka | Work::Copy(_) | Work::Forward)
    }

    fn writer(self) -> Value {
        match self {
            Work::TransformToKafka | Work::Copy(_) | Work::Forward => {
                json!({"name": "out", "type": "Kafka", "kafka": {"topic": OUTPUT_TOPIC}})
            }
            Work::ByKey(ByKey::OneMillisecond) => {
                json!({"name": "out", "type": "Custom", "custom": {"name": "wait", "config": {"microseconds": 1000}}})
            }
            Work::Postgres => {
                let (secret, key) = database::SECRET;
                json!({"name": "out", "type": "Postgres", "postgres": {
                    "connection": {"secretName": secret, "key": key},
                    "table": TABLE,
                    "keyColumns": ["order_id"],
                }})
            }
            _ => json!({"name": "out", "type": "Blackhole"}),
        }
    }

    fn transform(self) -> Option<Value> {
        let vrl = |source: &str| json!({"name": "change", "type": "Vrl", "vrl": {"source": source}});
        match self {
            Work::Identity | Work::ByKey(_) | Work::Copy(_) | Work::Forward | Work::Postgres => None,
            Work::Transform | Work::TransformToKafka => Some(vrl(PROGRAM)),
            Work::FieldsByVrl => Some(vrl(FIELDS_PROGRAM)),
            Work::Fields => Some(json!({"name": "change", "type": "Fields", "fields": {
                "drop": ["country"],
                "rename": {"status": "state"},
                "convert": {"amount": "String"},
                "set": {"handled_by": "bench"},
            }})),
        }
    }

    fn processing(self) -> Option<Value> {
        match self {
            Work::ByKey(_) => Some(json!({"ordering": "PerKey", "concurrency": CONCURRENCY})),
            Work::Copy(guarantee) => Some(json!({
                "deliveryGuarantee": match guarantee {
                    CopyGuarantee::AtLeastOnce => "AtLeastOnce",
                    CopyGuarantee::ExactlyOnce => "ExactlyOnce",
                },
                "commitIntervalMilliseconds": COMMIT_MILLISECONDS,
            })),
            _ => None,
        }
    }

    /// The configuration document of the worker.
    pub fn config(self, bootstrap: &str, topic: &str, group: &str) -> Result<WorkerConfig> {
        let mut spec = json!({
            "topics": [{"name": topic}],
            "groupId": group,
            "kafka": {"bootstrapServers": [bootstrap]},
            "writers": [self.writer()],
        });
        if let Some(transform) = self.transform() {
            spec["decode"] = json!({"value": {"type": "Json"}});
            spec["transforms"] = json!([transform]);
        }
        if let Some(processing) = self.processing() {
            spec["processing"] = processing;
        }
        let spec: KafkaConsumerGroupSpec =
            serde_json::from_value(spec).context("the bench's own resource")?;
        Ok(WorkerConfig::from_spec(
            "bench",
            "bench",
            &spec,
            spec.transforms.clone(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{CASES, Subject};

    #[test]
    fn every_case_gives_a_worker_configuration() {
        for case in CASES {
            for subject in case.subjects {
                let Subject::Worker(work) = subject else { continue };
                let config = work.config("127.0.0.1:1", "t", "g").unwrap();
                assert_eq!(
                    config.transforms.is_empty(),
                    work.transform().is_none(),
                    "{}",
                    case.name
                );
            }
        }
    }
}
