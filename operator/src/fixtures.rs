//! Test fixtures: a healthy group, everything it references, and the Kafka facts about it.

use std::collections::BTreeMap;

use crds::{KafkaConsumerGroup, KafkaOffsetReset, KafkaReplay};
use serde_json::json;

use crate::compiler::Programs;
use crate::group::observed::Observed;
use crate::group::references::{ObjectKind, ReferencedData, References};
use crate::group::validate::{ReportMode, ValidatedGroup, WorkerDefaults, validate};
use crate::kafka::model::{KafkaFacts, KafkaView, Lag};

/// The smallest group.
pub fn group() -> KafkaConsumerGroup {
    serde_json::from_value(json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "1-2-3", "generation": 2},
        "spec": {
            "topics": [{"name": "orders"}],
            "kafka": {"bootstrapServers": ["kafka:9092"]},
            "writers": [{"name": "out", "type": "Stdout"}],
        },
    }))
    .unwrap()
}

/// A reset of [`group`] to Earliest, with these changes of its spec.
pub fn reset(name: &str, changes: serde_json::Value) -> KafkaOffsetReset {
    let mut spec = json!({"groupRef": {"name": "orders"}, "to": {"type": "Earliest"}});
    for (field, value) in changes.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaOffsetReset",
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    }))
    .unwrap()
}

/// A replay of all records of [`group`], with these changes of its spec.
pub fn replay(name: &str, changes: serde_json::Value) -> KafkaReplay {
    let mut spec = json!({"groupRef": {"name": "orders"}, "from": {"type": "Earliest"}});
    for (field, value) in changes.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaReplay",
        "metadata": {
            "name": name, "namespace": "shop", "uid": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "generation": 1,
        },
        "spec": spec,
    }))
    .unwrap()
}

/// A group with every kind of reference.
pub fn secured_group() -> KafkaConsumerGroup {
    let mut group = group();
    group.spec = serde_json::from_value(json!({
        "topics": [{"name": "orders"}],
        "kafka": {
            "bootstrapServers": ["kafka:9093"],
            "tls": {"ca": {"configMapName": "kafka-ca"}, "clientCertificate": {"secretName": "orders-mtls"}},
            "sasl": {"mechanism": "SCRAM-SHA-512", "credentials": {"secretName": "orders-kafka"}},
        },
        "transforms": [
            {"name": "clean", "type": "Vrl", "vrl": {"configMap": {"name": "programs", "key": "clean.vrl"}}},
        ],
        "writers": [
            {"name": "api", "type": "Http", "http": {
                "url": "https://api.example.com/orders", "bearerToken": {"secretName": "api", "key": "token"},
            }},
            {"name": "db", "type": "Postgres", "postgres": {
                "connection": {"secretName": "db", "key": "url"}, "table": "orders", "keyColumns": ["id"],
            }},
        ],
    }))
    .unwrap();
    group
}

/// The data of everything that [`secured_group`] references.
pub fn data() -> ReferencedData {
    let entry = |kind, name: &str, data: &[(&str, &str)]| {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()))
            .collect();
        ((kind, name.to_string()), Some(data))
    };
    [
        entry(ObjectKind::ConfigMap, "kafka-ca", &[("ca.crt", "CA\n")]),
        entry(
            ObjectKind::ConfigMap,
            "programs",
            &[("clean.vrl", ".seen = true\n")],
        ),
        entry(
            ObjectKind::Secret,
            "orders-mtls",
            &[("tls.crt", "CERTIFICATE"), ("tls.key", "KEY")],
        ),
        entry(
            ObjectKind::Secret,
            "orders-kafka",
            &[("username", "alice"), ("password", "wonder\n")],
        ),
        entry(ObjectKind::Secret, "api", &[("token", "t0ken")]),
        entry(
            ObjectKind::Secret,
            "db",
            &[("url", "postgresql://user:pass@db/shop")],
        ),
    ]
    .into()
}

/// Facts with partition counts only.
pub fn facts(topics: &[(&str, Option<i32>)]) -> KafkaFacts {
    KafkaFacts {
        topics: topics
            .iter()
            .map(|(name, partitions)| (name.to_string(), *partitions))
            .collect(),
        cluster_id: None,
        topic_ids: Default::default(),
        missing_outputs: Vec::new(),
        lag: None,
        group: None,
        read_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// Lag of the partitions of topic orders.
pub fn lag(records: &[i64]) -> Lag {
    let per_partition: BTreeMap<_, _> = (0..)
        .zip(records)
        .map(|(partition, records)| (("orders".to_string(), partition), *records))
        .collect();
    let largest = per_partition.iter().max_by_key(|(_, records)| **records);
    Lag {
        total: records.iter().sum(),
        max: largest.map_or(0, |(_, records)| *records),
        max_partition: largest.map(|((topic, partition), _)| format!("{topic}-{partition}")),
        ends: per_partition.clone(),
        per_partition,
    }
}

/// What a reconcile of [`secured_group`] observes.
pub fn observed() -> Observed {
    let (spec, data) = (secured_group().spec, data());
    let references = References::of(&spec);
    Observed {
        credentials: references.credentials(&spec, "shop", &data),
        references,
        data,
        kafka: KafkaView::Known(facts(&[("orders", Some(6))])),
        deployment: None,
        pods: Vec::new(),
        replicas_set_by: None,
        missing_volumes: Vec::new(),
        started: Default::default(),
    }
}

pub fn defaults() -> WorkerDefaults {
    WorkerDefaults {
        image: "registry/worker:1".into(),
        image_pull_policy: None,
        reports: ReportMode::Pull,
    }
}

/// [`secured_group`], through the real validation.
pub fn validated() -> ValidatedGroup {
    validate(&secured_group(), &observed(), &Programs::default(), &defaults()).unwrap()
}
