//! The contract as its users see it: the committed CRD is the generated one and complete, every example
//! parses, and the document that operator and worker exchange survives a round trip through JSON.

#![allow(clippy::unwrap_used, clippy::panic)] // Clippy's exception for tests does not cover the helpers of a test crate.

use std::{fs, ops::RangeInclusive, path::Path};

use crds::{
    KafkaConsumerGroup, WorkerConfig,
    spec::{OnExhausted, WriterType, bounds},
};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn groups(file: &Path) -> Vec<KafkaConsumerGroup> {
    let text = fs::read_to_string(file).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| document["kind"] == "KafkaConsumerGroup")
        .map(|document| {
            serde_json::from_value(document).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}

#[test]
fn the_committed_crds_are_the_generated_ones_and_small() {
    for crd in crds::crd::all() {
        let file = crds::crd::file_name(&crd);
        let committed = fs::read_to_string(root().join("crds").join(&file)).unwrap();
        assert!(
            committed == crds::crd::yaml(&crd).unwrap(),
            "run `make generate` and commit crds/{file}"
        );
        assert!(committed.len() < 150_000, "{file} has {} bytes", committed.len());
    }
}

#[test]
fn every_field_has_a_description_and_replicas_has_no_default() {
    let mut missing = Vec::new();
    for crd in crds::crd::all() {
        let schema = crds::crd::schema_of(&crd);
        for part in ["spec", "status"] {
            walk(&schema["properties"][part], part, &mut missing);
        }
    }
    assert!(missing.is_empty(), "fields without description: {missing:?}");
    let schema = crds::crd::schema();
    assert!(schema["properties"]["spec"]["properties"]["replicas"]["default"].is_null());
}

/// Kubernetes documents its own types, which these fields embed.
const EMBEDDED: [&str; 6] = [
    "affinity",
    "env",
    "imagePullSecrets",
    "resources",
    "tolerations",
    "topologySpreadConstraints",
];

fn walk(schema: &Value, path: &str, missing: &mut Vec<String>) {
    if schema["description"].as_str().is_none_or(str::is_empty) {
        missing.push(path.to_owned());
    }
    let items = &schema["items"];
    for (name, child) in schema["properties"]
        .as_object()
        .into_iter()
        .chain(items["properties"].as_object())
        .flatten()
    {
        let path = format!("{path}.{name}");
        if EMBEDDED.contains(&name.as_str()) || path == "status.conditions" {
            continue;
        }
        walk(child, &path, missing);
    }
}

#[test]
fn every_scalar_default_is_in_its_description() {
    let mut found = 0;
    for crd in crds::crd::all() {
        let schema = crds::crd::schema_of(&crd);
        defaults(&schema["properties"]["spec"], "spec", &mut found);
    }
    assert!(found >= 40, "only {found} defaults");
}

fn defaults(schema: &Value, path: &str, found: &mut usize) {
    let default = match &schema["default"] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    if let Some(default) = default {
        *found += 1;
        let description = schema["description"].as_str().unwrap_or_default();
        // The text may be wrapped after the colon.
        let words = description.split_whitespace().collect::<Vec<_>>().join(" ");
        let stated = words
            .split_once("Default: ")
            .is_some_and(|(_, rest)| rest.starts_with(&default));
        assert!(
            stated,
            "{path} has the default {default}, but its description says: {words}"
        );
    }
    for (name, child) in schema["properties"]
        .as_object()
        .into_iter()
        .chain(schema["items"]["properties"].as_object())
        .flatten()
    {
        if !EMBEDDED.contains(&name.as_str()) {
            defaults(child, &format!("{path}.{name}"), found);
        }
    }
}

#[test]
fn the_schema_has_the_bounds_that_the_worker_checks() {
    let cases: [(&str, RangeInclusive<i64>); 14] = [
        ("processing.concurrency", bounds::CONCURRENCY),
        (
            "processing.commitIntervalMilliseconds",
            bounds::COMMIT_INTERVAL_MILLISECONDS,
        ),
        ("processing.recordsPerSecond", bounds::RECORDS_PER_SECOND),
        ("processing.batch.maxRecords", bounds::BATCH_MAX_RECORDS),
        ("processing.batch.maxBytes", bounds::BATCH_MAX_BYTES),
        (
            "processing.batch.lingerMilliseconds",
            bounds::BATCH_LINGER_MILLISECONDS,
        ),
        ("errorHandling.retry.maxAttempts", bounds::RETRY_MAX_ATTEMPTS),
        (
            "errorHandling.retry.initialBackoffMilliseconds",
            bounds::RETRY_INITIAL_BACKOFF_MILLISECONDS,
        ),
        (
            "errorHandling.retry.maxBackoffSeconds",
            bounds::RETRY_MAX_BACKOFF_SECONDS,
        ),
        ("errorHandling.retry.jitterPercent", bounds::RETRY_JITTER_PERCENT),
        (
            "errorHandling.transformTimeoutSeconds",
            bounds::TRANSFORM_TIMEOUT_SECONDS,
        ),
        ("errorHandling.stalledAfterSeconds", bounds::STALLED_AFTER_SECONDS),
        (
            "errorHandling.deadLetter.breaker.maxConsecutive",
            bounds::BREAKER_MAX_CONSECUTIVE,
        ),
        (
            "errorHandling.deadLetter.breaker.maxRatioPercent",
            bounds::BREAKER_MAX_RATIO_PERCENT,
        ),
    ];
    let schema = crds::crd::schema();
    for (path, range) in cases {
        let field = path
            .split('.')
            .fold(&schema["properties"]["spec"], |schema, name| {
                &schema["properties"][name]
            });
        let limits = [&field["minimum"], &field["maximum"]].map(|limit| limit.as_f64().unwrap() as i64);
        assert_eq!(limits, [*range.start(), *range.end()], "{path}");
        if let Some(default) = field["default"].as_i64() {
            assert!(range.contains(&default), "{path}: {default}");
        }
    }
}

#[test]
fn no_enum_offers_null_and_a_null_for_one_is_dropped() {
    let schema = crds::crd::schema();
    let mut enums = Vec::new();
    collect_enums(&schema, "", &mut enums);
    for (path, schema) in &enums {
        let values = schema["enum"].as_array().unwrap();
        assert!(!values.contains(&Value::Null), "{path}: {values:?}");
        assert!(schema["nullable"].is_null(), "{path} may be null");
    }
    let found: Vec<&str> = enums.iter().map(|(path, _)| path.as_str()).collect();
    for optional in [".spec.errorHandling.onExhausted", ".spec.worker.imagePullPolicy"] {
        assert!(found.contains(&optional), "{optional} is not among {found:?}");
    }
    // Other optional fields accept null, as server-side apply sends it.
    assert_eq!(
        schema.pointer("/properties/spec/properties/groupId/nullable"),
        Some(&Value::Bool(true))
    );
}

fn collect_enums<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    if schema["enum"].is_array() {
        found.push((path.to_owned(), schema));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        collect_enums(child, &format!("{path}.{name}"), found);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            collect_enums(&schema[below], &format!("{path}.{below}"), found);
        }
    }
}

#[test]
fn a_step_of_fields_without_an_entry_does_not_count_as_a_step() {
    let schema = crds::crd::schema();
    let fields = schema
        .pointer("/properties/spec/properties/transforms/items/properties/fields")
        .unwrap();
    let rule = fields["x-kubernetes-validations"]
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| {
            rule["message"]
                .as_str()
                .unwrap()
                .starts_with("fields changes nothing")
        })
        .unwrap();
    let rule = rule["rule"].as_str().unwrap();
    for (name, step) in fields["properties"].as_object().unwrap() {
        assert!(rule.contains(&format!("has(self.{name})")), "{name}: {rule}");
        // The schema rejects an empty list, the rule rejects an empty map that stands alone.
        match step["type"].as_str() {
            Some("array") => assert_eq!(step["minItems"], 1, "{name}"),
            Some("object") => {
                assert!(rule.contains(&format!("size(self.{name}) > 0")), "{name}: {rule}");
            }
            other => panic!("{name} is of type {other:?}"),
        }
    }
}

#[test]
fn every_example_parses_and_has_a_unique_purpose() {
    let folder = root().join("deploy/examples");
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let groups = groups(&file);
            assert!(
                !groups.is_empty(),
                "{} contains no KafkaConsumerGroup",
                file.display()
            );
            found += groups.len();
        }
    }
    assert!(found >= 8, "only {found} examples");
}

#[test]
fn the_worker_config_survives_json_and_resolves_the_group_id() {
    let group = groups(&root().join("deploy/examples/full.yaml")).remove(0);
    let namespace = group.namespace().unwrap_or_else(|| "shop".into());
    let config = WorkerConfig::from_spec(
        &namespace,
        &group.name_any(),
        &group.spec,
        group.spec.transforms.clone(),
    );
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<WorkerConfig>(&text).unwrap(), config);

    let mut spec = group.spec;
    spec.group_id = None;
    assert_eq!(
        crds::worker_config::group_id("shop", "orders", &spec),
        "shop.orders"
    );
}

#[test]
fn defaults_are_what_the_descriptions_say() {
    let group: KafkaConsumerGroup = serde_yaml::from_str(
        "{apiVersion: kafka-consumer.dev/v1alpha1, kind: KafkaConsumerGroup, metadata: {name: a}, spec: {topics: \
         [{name: t}], kafka: {bootstrapServers: ['b:9092']}, writers: [{name: w, type: Stdout}]}}",
    )
    .unwrap();
    assert_eq!(group.spec.error_handling.policy(), OnExhausted::Stop);
    assert_eq!(group.spec.processing.batch.max_records, 1000);
    assert_eq!(group.spec.writers[0].kind, WriterType::Stdout);
    assert_eq!(group.spec.replicas, None);

    let with_topic: KafkaConsumerGroup = serde_yaml::from_str(
        "{apiVersion: kafka-consumer.dev/v1alpha1, kind: KafkaConsumerGroup, metadata: {name: a}, spec: {topics: \
         [{name: t}], kafka: {bootstrapServers: ['b:9092']}, writers: [{name: w, type: Stdout}], errorHandling: \
         {deadLetter: {topic: t.dlq}}}}",
    )
    .unwrap();
    assert_eq!(with_topic.spec.error_handling.policy(), OnExhausted::DeadLetter);
}
