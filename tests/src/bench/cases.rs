//! What is measured: the data, the cases, and the configuration that the worker gets in each. Only defaults, as a user
//! would have them. Pure.

use anyhow::{Context, Result};
use crds::{WorkerConfig, spec::KafkaConsumerGroupSpec};
use serde_json::json;

/// Partitions of every topic.
pub(super) const PARTITIONS: i32 = 12;

/// A topic's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// 100 bytes each, no keys.
    P100,
    /// 1000 bytes each, no keys.
    P1k,
    /// JSON documents of about 250 bytes, keyed by user.
    Orders,
    /// Nothing.
    Empty,
}

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Data::P100 => "p100",
            Data::P1k => "p1k",
            Data::Orders => "orders",
            Data::Empty => "empty",
        }
    }

    pub fn records(self, quick: bool) -> u64 {
        let all = match self {
            Data::P100 => 10_000_000,
            Data::P1k => 2_000_000,
            Data::Orders => 3_000_000,
            Data::Empty => 0,
        };
        if quick { all / 10 } else { all }
    }

    /// The number is in the name, so that quick runs leave the large topics alone.
    pub fn topic(self, quick: bool) -> String {
        format!("bench-{}-{}", self.name(), self.records(quick))
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Raw,
    Worker,
    Java,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Raw => "raw",
            Subject::Worker => "worker",
            Subject::Java => "java",
        }
    }
}

/// What the worker does with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Bytes in, discarded.
    Identity,
    /// Parsed, changed by a VRL program, serialised, discarded.
    Transform,
    /// The same, written to another topic.
    TransformToKafka,
    /// A field dropped, one renamed, one converted and one set by a transform of type Fields, discarded.
    Fields,
    /// The same four by a VRL program.
    FieldsByVrl,
}

/// One line of comparison: subjects that read the same topic by turns.
#[derive(Debug)]
pub(super) struct Case {
    pub name: &'static str,
    pub data: Data,
    pub work: Work,
    pub subjects: &'static [Subject],
}

/// All cases, in the order of running.
pub(super) const CASES: [Case; 6] = [
    Case {
        name: "p100-identity-blackhole",
        data: Data::P100,
        work: Work::Identity,
        subjects: &[Subject::Raw, Subject::Worker, Subject::Java],
    },
    Case {
        name: "p1k-identity-blackhole",
        data: Data::P1k,
        work: Work::Identity,
        subjects: &[Subject::Raw, Subject::Worker, Subject::Java],
    },
    Case {
        name: "orders-json-vrl-blackhole",
        data: Data::Orders,
        work: Work::Transform,
        subjects: &[Subject::Raw, Subject::Worker],
    },
    Case {
        name: "orders-json-vrl-kafka",
        data: Data::Orders,
        work: Work::TransformToKafka,
        subjects: &[Subject::Raw, Subject::Worker],
    },
    Case {
        name: "orders-fields-blackhole",
        data: Data::Orders,
        work: Work::Fields,
        subjects: &[Subject::Raw, Subject::Worker],
    },
    Case {
        name: "orders-vrl-fields-blackhole",
        data: Data::Orders,
        work: Work::FieldsByVrl,
        subjects: &[Subject::Raw, Subject::Worker],
    },
];

/// Adds a field, drops a field.
pub(super) const PROGRAM: &str = ".handled_by = \"bench\"\ndel(.status)\n";

/// What [`Work::Fields`] does, as a program.
pub(super) const FIELDS_PROGRAM: &str =
    "del(.country)\n.state = del(.status)\n.amount = to_string!(.amount)\n.handled_by = \"bench\"\n";

/// Where [`Work::TransformToKafka`] writes to.
pub(super) const OUTPUT_TOPIC: &str = "bench-output";

/// The configuration document of a worker, as the operator would render it.
pub(super) fn worker_config(work: Work, bootstrap: &str, topic: &str, group: &str) -> Result<WorkerConfig> {
    let writer = match work {
        Work::TransformToKafka => json!({"name": "out", "type": "Kafka", "kafka": {"topic": OUTPUT_TOPIC}}),
        _ => json!({"name": "out", "type": "Blackhole"}),
    };
    let vrl = |source: &str| json!({"name": "change", "type": "Vrl", "vrl": {"source": source}});
    let transform = match work {
        Work::Identity => None,
        Work::Transform | Work::TransformToKafka => Some(vrl(PROGRAM)),
        Work::FieldsByVrl => Some(vrl(FIELDS_PROGRAM)),
        Work::Fields => Some(json!({"name": "change", "type": "Fields", "fields": {
            "drop": ["country"],
            "rename": {"status": "state"},
            "convert": {"amount": "String"},
            "set": {"handled_by": "bench"},
        }})),
    };
    let mut spec = json!({
        "topics": [{"name": topic}],
        "groupId": group,
        "kafka": {"bootstrapServers": [bootstrap]},
        "writers": [writer],
    });
    if let Some(transform) = transform {
        spec["decode"] = json!({"value": {"type": "Json"}});
        spec["transforms"] = json!([transform]);
    }
    let spec: KafkaConsumerGroupSpec = serde_json::from_value(spec).context("the bench's own resource")?;
    Ok(WorkerConfig::from_spec(
        "bench",
        "bench",
        &spec,
        spec.transforms.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_gives_a_worker_configuration() {
        for case in &CASES {
            let config = worker_config(case.work, "127.0.0.1:1", "t", "g").unwrap();
            assert_eq!(
                config.transforms.is_empty(),
                case.work == Work::Identity,
                "{}",
                case.name
            );
        }
    }
}
