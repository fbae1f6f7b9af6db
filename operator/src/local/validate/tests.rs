//! One refused example for each rule of the CRD, and for each kind of structural error.

mod fields;
mod nulls;

use std::collections::BTreeSet;

use serde_json::json;

use super::super::load;
use super::*;

/// A valid resource that sets every part that rules check.
fn valid() -> Value {
    json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "groupId": "orders-v1",
            "topics": [{"name": "orders"}, {"name": "returns", "provision": {"partitions": 3}}],
            "kafka": {
                "bootstrapServers": ["kafka:9092"],
                "tls": {"ca": {"secretName": "ca"}},
                "sasl": {"mechanism": "SCRAM-SHA-512", "credentials": {"secretName": "login"}},
                "clientConfig": {"fetch.min.bytes": "1024"},
            },
            "consumer": {"startPosition": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"}},
            "transforms": [
                {"name": "clean", "type": "Vrl", "vrl": {"source": ".seen = true"}},
                {"name": "own", "type": "Custom", "custom": {"name": "my-transform", "config": {"any": [1]}}},
                {"name": "shape", "type": "Fields", "fields": {
                    "drop": ["note"], "rename": {"status": "state"}, "convert": {"state": "String", "amount": "Number"},
                    "set": {"source": "web", "version": 2}, "setFromRecord": {"origin": "Topic"}}},
            ],
            "writers": [
                {"name": "out", "type": "Kafka", "kafka": {"topic": "clean"}},
                {"name": "disk", "type": "File", "file": {"directory": "/data/out"}},
                {"name": "api", "type": "Http", "http": {"url": "https://api.example.com/orders"}},
                {"name": "db", "type": "Postgres", "postgres": {
                    "connection": {"secretName": "db", "key": "url"}, "table": "orders", "keyColumns": ["id"]}},
                {"name": "own", "type": "Custom", "custom": {"name": "my-writer"}},
            ],
            "errorHandling": {"deadLetter": {"topic": "orders.dlq"}},
            "scaling": {"minReplicas": 1, "maxReplicas": 3},
            "worker": {
                "volumes": [{"name": "data", "emptyDir": {}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "env": [{"name": "A", "value": "b"}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                "podDisruptionBudget": {"maxUnavailable": "25%"},
            },
        },
    })
}

/// `at` is a JSON pointer below `/spec`; a null value removes.
fn with(edits: &[(&str, Value)]) -> Value {
    let mut object = valid();
    for (at, value) in edits {
        let path = format!("/spec{at}");
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no {path}"));
        match parent {
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value.clone(),
            Value::Object(fields) if value.is_null() => drop(fields.remove(name)),
            Value::Object(fields) => drop(fields.insert(name.into(), value.clone())),
            _ => panic!("{path} has no fields"),
        }
    }
    object
}

fn messages_of(rules: &Rules, object: &Value) -> Vec<String> {
    let errors = rules.check(object, None).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

fn rule_messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.insert(
                    rule["message"]
                        .as_str()
                        .unwrap_or_else(|| panic!("no message: {rule}"))
                        .to_string(),
                );
            }
            fields.values().for_each(|child| rule_messages(child, found));
        }
        Value::Array(items) => items.iter().for_each(|child| rule_messages(child, found)),
        _ => {}
    }
}

#[test]
fn the_full_example_is_valid_and_gets_its_defaults() {
    let group = Rules::new().check(&valid(), None).unwrap();
    assert_eq!(group.spec.processing.batch.max_records, 1000);
    assert_eq!(group.spec.worker.termination_grace_period_seconds, 60);
    assert_eq!(group.spec.scaling.partitions_per_worker, 1);
}

#[test]
fn every_cel_rule_refuses_its_example() {
    let vrl = |vrl: Value| json!({"name": "clean", "type": "Vrl", "vrl": vrl});
    let mut table: Vec<(Value, &str, &str)> = vec![
        (
            with(&[("/errorHandling", json!({"deadLetter": {"topic": "orders"}}))]),
            "spec",
            "would consume its own dead letters",
        ),
        (
            with(&[("/writers/0/kafka/topic", json!("orders"))]),
            "spec",
            "would loop indefinitely",
        ),
        (
            with(&[
                ("/writers/0/kafka/topic", json!("orders.dlq")),
                ("/errorHandling", json!({"deadLetter": {"topic": "orders.dlq"}})),
            ]),
            "spec",
            "is also the topic of a Kafka writer",
        ),
        (
            with(&[(
                "/writers",
                json!([
                    {"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}},
                    {"name": "b", "type": "Stdout"},
                    {"name": "c", "type": "Kafka", "kafka": {"topic": "clean"}},
                ]),
            )]),
            "spec",
            "two Kafka writers write to the same topic",
        ),
        (
            with(&[(
                "/errorHandling",
                json!({"retry": {"initialBackoffMilliseconds": 1001, "maxBackoffSeconds": 1}}),
            )]),
            "spec.errorHandling.retry",
            "maxBackoffSeconds is shorter than initialBackoffMilliseconds",
        ),
        (
            with(&[("/processing", json!({"deliveryGuarantee": "ExactlyOnce"}))]),
            "spec",
            "ExactlyOnce needs exactly one writer, of type Kafka or Postgres",
        ),
        (
            with(&[
                ("/processing", json!({"deliveryGuarantee": "ExactlyOnce"})),
                (
                    "/writers",
                    json!([{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}]),
                ),
                ("/consumer", json!({"isolationLevel": "ReadUncommitted"})),
            ]),
            "spec",
            "ExactlyOnce needs consumer.isolationLevel ReadCommitted",
        ),
        (
            with(&[
                (
                    "/processing",
                    json!({"deliveryGuarantee": "ExactlyOnce", "ordering": "Unordered"}),
                ),
                (
                    "/writers",
                    json!([{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}]),
                ),
            ]),
            "spec.processing",
            "ExactlyOnce needs an order",
        ),
        (
            with(&[("/writers/1/file/directory", json!("/other"))]),
            "spec",
            "a File writer needs a volume",
        ),
        (
            with(&[("/worker", json!({}))]),
            "spec",
            "a File writer needs a volume",
        ),
        (
            with(&[("/kafka/clientConfig", json!({"group.id": "x"}))]),
            "spec.kafka",
            "allow-list",
        ),
        (
            with(&[
                ("/consumer/groupProtocol", json!("Consumer")),
                ("/kafka/clientConfig", json!({"session.timeout.ms": "6000"})),
            ]),
            "spec",
            "the broker decides session timeout and heartbeat",
        ),
        (
            with(&[
                ("/consumer/groupProtocol", json!("Consumer")),
                ("/kafka/clientConfig", json!({"heartbeat.interval.ms": "1000"})),
            ]),
            "spec",
            "group.consumer.session.timeout.ms",
        ),
        (
            with(&[("/kafka/tls/ca", json!({"secretName": "a", "configMapName": "b"}))]),
            "spec.kafka.tls.ca",
            "exactly one of secretName and configMapName",
        ),
        (
            with(&[("/kafka/tls/ca", json!({}))]),
            "spec.kafka.tls.ca",
            "exactly one of secretName and configMapName",
        ),
        (
            with(&[("/consumer/startPosition", json!({"type": "Timestamp"}))]),
            "spec.consumer.startPosition",
            "timestamp must be set when type is Timestamp",
        ),
        (
            with(&[("/consumer/startPosition/type", json!("Latest"))]),
            "spec.consumer.startPosition",
            "timestamp must be set when type is Timestamp",
        ),
        (
            with(&[("/transforms/0", json!({"name": "clean", "type": "Vrl"}))]),
            "spec.transforms[0]",
            "vrl must be set",
        ),
        (
            with(&[("/transforms/1", json!({"name": "own", "type": "Custom"}))]),
            "spec.transforms[1]",
            "custom must be set when type is Custom, and only then, for example {type: Custom, custom: {name: my-transform}}",
        ),
        (
            with(&[("/transforms/0", vrl(json!({})))]),
            "spec.transforms[0].vrl",
            "exactly one of source and configMap",
        ),
        (
            with(&[(
                "/transforms/0",
                vrl(json!({"source": "a", "configMap": {"name": "a", "key": "b"}})),
            )]),
            "spec.transforms[0].vrl",
            "exactly one of source and configMap",
        ),
        (
            with(&[("/writers/1/file", json!(null))]),
            "spec.writers[1]",
            "file must be set when type is File",
        ),
        (
            with(&[("/writers/0/kafka", json!(null))]),
            "spec.writers[0]",
            "kafka must be set when type is Kafka",
        ),
        (
            with(&[("/writers/2/http", json!(null))]),
            "spec.writers[2]",
            "http must be set when type is Http",
        ),
        (
            with(&[("/writers/3/postgres", json!(null))]),
            "spec.writers[3]",
            "postgres must be set when type is Postgres",
        ),
        (
            with(&[("/writers/4/custom", json!(null))]),
            "spec.writers[4]",
            "custom must be set when type is Custom, and only then, for example {type: Custom, custom: {name: my-writer}}",
        ),
        (
            with(&[("/writers/2/type", json!("Stdout"))]),
            "spec.writers[2]",
            "http must be set when type is Http",
        ),
        (
            with(&[
                (
                    "/writers/2/http/bearerToken",
                    json!({"secretName": "a", "key": "b"}),
                ),
                ("/writers/2/http/basicAuth", json!({"secretName": "a"})),
            ]),
            "spec.writers[2].http",
            "at most one of bearerToken and basicAuth",
        ),
        (
            with(&[("/writers/3/postgres/keyColumns", json!(null))]),
            "spec.writers[3].postgres",
            "exactly one of recordIdColumn",
        ),
        (
            with(&[("/writers/3/postgres/recordIdColumn", json!("id"))]),
            "spec.writers[3].postgres",
            "exactly one of recordIdColumn",
        ),
        (
            with(&[
                ("/writers/3/postgres/keyColumns", json!(null)),
                ("/writers/3/postgres/recordIdColumn", json!("id")),
                ("/writers/3/postgres/onNull", json!("Delete")),
            ]),
            "spec.writers[3].postgres",
            "onNull Delete needs keyColumns",
        ),
        (
            with(&[("/errorHandling", json!({"onExhausted": "DeadLetter"}))]),
            "spec.errorHandling",
            "onExhausted DeadLetter needs deadLetter.topic",
        ),
        (
            with(&[(
                "/errorHandling",
                json!({"onExhausted": "Stop", "deadLetter": {"topic": "dlq", "breaker": {}}}),
            )]),
            "spec.errorHandling",
            "deadLetter.breaker works only with onExhausted DeadLetter",
        ),
        (
            with(&[("/scaling/minReplicas", json!(4))]),
            "spec.scaling",
            "must not be greater than maxReplicas",
        ),
        (
            with(&[(
                "/worker/volumeMounts",
                json!([{"name": "data", "mountPath": "/data"}, {"name": "other", "mountPath": "/x"}]),
            )]),
            "spec.worker",
            "names no entry of worker.volumes",
        ),
        (
            with(&[(
                "/worker/volumeMounts",
                json!([{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/etc/kafka-consumer/x"}]),
            )]),
            "spec.worker",
            "must not lie in /etc/kafka-consumer",
        ),
        (
            with(&[("/worker/volumes/0", json!({"name": "data"}))]),
            "spec.worker.volumes[0]",
            "exactly one of emptyDir",
        ),
        (
            with(&[("/worker/volumes/0", json!({"name": "kcg-data", "emptyDir": {}}))]),
            "spec.worker.volumes[0]",
            "are reserved for the operator",
        ),
        (
            with(&[("/worker/runAs", json!({"assignedBy": "Platform", "user": 1000}))]),
            "spec.worker.runAs",
            "leaves user, group and fsGroup to the platform",
        ),
    ];
    table.extend(fields::refused());
    let rules = Rules::new();
    let mut refused: Vec<String> = Vec::new();
    for (object, path, message) in table {
        let found = messages_of(&rules, &object);
        assert!(
            found.iter().any(
                |found| found.starts_with(&format!("{path}: Invalid value: ")) && found.contains(message)
            ),
            "{path}: {message}\nnot in {found:#?}"
        );
        refused.extend(found);
    }
    refused.extend(changed_group_ids(&rules));
    let mut messages = BTreeSet::new();
    rule_messages(&rules.schema, &mut messages);
    for message in messages {
        assert!(
            refused.iter().any(|found| found.contains(&message)),
            "no example for the rule: {message}"
        );
    }
}

fn changed_group_ids(rules: &Rules) -> Vec<String> {
    let changes = [
        with(&[("/groupId", json!("other"))]),
        with(&[("/groupId", json!(null))]),
    ];
    let errors = changes
        .iter()
        .flat_map(|new| rules.check(new, Some(&valid())).err().unwrap_or_default());
    let found: Vec<String> = errors.map(|error| error.to_string()).collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    found
}

#[test]
fn other_changes_of_a_running_group_are_fine() {
    let rules = Rules::new();
    for (at, value) in [
        ("/desiredState", json!("Paused")),
        ("/consumer/groupProtocol", json!("Consumer")),
        ("/kafka/clientConfig", json!({"session.timeout.ms": "6000"})),
    ] {
        let new = with(&[(at, value)]);
        assert_eq!(rules.check(&new, Some(&valid())).err(), None, "{at}");
    }
}

#[test]
fn structural_errors_are_worded_like_the_api_servers_and_say_what_to_write() {
    let table: Vec<(Value, &[&str])> = vec![
        (
            with(&[("/topics", json!(null))]),
            &["spec.topics: Required value (Topics to consume"],
        ),
        (
            with(&[("/topics", json!([]))]),
            &["spec.topics: Invalid value: 0: spec.topics in body should have at least 1 items"],
        ),
        (
            with(&[("/topics/0/name", json!("a b"))]),
            &[
                "spec.topics[0].name: Invalid value: \"a b\": spec.topics[0].name in body should match '^[a-zA-Z0-9._-]+$'",
            ],
        ),
        (
            with(&[("/topics/1/name", json!("orders"))]),
            &["spec.topics[1]: Duplicate value: {\"name\":\"orders\"}"],
        ),
        (
            with(&[("/desiredState", json!("Runing"))]),
            &[
                "spec.desiredState: Unsupported value: \"Runing\": supported values: \"Running\", \"Paused\", \"Stopped\"",
                "did you mean \"Running\"?",
            ],
        ),
        (
            with(&[("/kafka/clientConfig", json!({"fetch.min.bytes": 1024}))]),
            &[
                "spec.kafka.clientConfig.fetch.min.bytes in body must be of type string: \"integer\"; quote it: \"1024\"",
            ],
        ),
        (
            with(&[("/replicas", json!("3"))]),
            &["spec.replicas in body must be of type integer: \"string\"; write it without quotes"],
        ),
        (
            with(&[("/replicas", json!(-1))]),
            &["spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0"],
        ),
        (
            with(&[("/replicas", json!(1001))]),
            &["spec.replicas in body should be less than or equal to 1000"],
        ),
        (
            with(&[("/worker/podDisruptionBudget", json!({"maxUnavailable": "0%"}))]),
            &["spec.worker.podDisruptionBudget.maxUnavailable in body should match"],
        ),
        (
            with(&[("/worker/podDisruptionBudget", json!({"maxUnavailable": 0}))]),
            &["spec.worker.podDisruptionBudget.maxUnavailable in body should be greater than or equal to 1"],
        ),
        (
            with(&[("/worker/volumes/0/emptyDir", json!({"medium": "Tmpfs"}))]),
            &["spec.worker.volumes[0].emptyDir.medium: Unsupported value: \"Tmpfs\""],
        ),
        (
            with(&[("/replicas", json!(1.5))]),
            &["must be of type integer: \"number\""],
        ),
        (
            with(&[("/groupId", json!("g".repeat(250)))]),
            &["spec.groupId: Too long: may not be more than 249 bytes"],
        ),
        (
            with(&[("/groupId", json!(""))]),
            &["spec.groupId in body should be at least 1 chars long"],
        ),
        (
            with(&[("/kafka/bootstrapServers", json!("kafka:9092"))]),
            &[
                "spec.kafka.bootstrapServers in body must be of type array: \"string\"; start each entry with \"- \"",
            ],
        ),
        (
            with(&[("/kafka/bootstrapServers", json!(["kafka"]))]),
            &[
                "spec.kafka.bootstrapServers[0]: Invalid value: \"kafka\"",
                "should match",
            ],
        ),
        (
            with(&[("/consumer/startPosition/timestamp", json!("yesterday"))]),
            &["must be of type date-time: \"yesterday\"", "2026-01-31T00:00:00Z"],
        ),
        (
            with(&[(
                "/topics/1/provision/config",
                json!(
                    (0..65)
                        .map(|n| (n.to_string(), json!("x")))
                        .collect::<serde_json::Map<_, _>>()
                ),
            )]),
            &["spec.topics[1].provision.config: Too many: 65: must have at most 64 items"],
        ),
        (
            with(&[(
                "/transforms",
                json!(
                    (0..17)
                        .map(|n| json!({"name": format!("t{n}"), "type": "Vrl", "vrl": {"source": "."}}))
                        .collect::<Vec<_>>()
                ),
            )]),
            &["spec.transforms: Too many: 17: must have at most 16 items"],
        ),
        (
            with(&[("/transforms/2/fields/set/source", json!(true))]),
            &[
                "spec.transforms[2].fields.set.source in body must be of type integer,string: \"boolean\"; quote it: \"true\"",
            ],
        ),
        (
            with(&[("/transforms/2/fields/set/source", json!("s".repeat(4097)))]),
            &["spec.transforms[2].fields.set.source: Too long: may not be more than 4096 bytes"],
        ),
        (
            with(&[("/transforms/2/fields/convert/amount", json!("Numbr"))]),
            &[
                "spec.transforms[2].fields.convert.amount: Unsupported value: \"Numbr\"",
                "did you mean \"Number\"?",
            ],
        ),
        (
            with(&[("/transforms/2/fields/drop", json!([]))]),
            &["spec.transforms[2].fields.drop in body should have at least 1 items"],
        ),
        (
            with(&[("/topic", json!("orders"))]),
            &["unknown field \"spec.topic\"; did you mean \"spec.topics\"?"],
        ),
        (
            with(&[("/bootstrapServers", json!([]))]),
            &["unknown field \"spec.bootstrapServers\"; it belongs to \"spec.kafka.bootstrapServers\""],
        ),
        (
            with(&[("/writers/0/kafka/sink", json!("x"))]),
            &[
                "unknown field \"spec.writers[0].kafka.sink\"; spec.writers[0].kafka has the fields compression, topic",
            ],
        ),
    ];
    let rules = Rules::new();
    for (object, parts) in table {
        let found = messages_of(&rules, &object);
        for part in parts {
            assert!(
                found.iter().any(|found| found.contains(part)),
                "{part}\nnot in {found:#?}"
            );
        }
    }
}

#[test]
fn free_form_parts_take_anything() {
    let rules = Rules::new();
    let config = json!({"deep": {"er": [1, "two", null]}});
    assert_eq!(
        messages_of(&rules, &with(&[("/transforms/1/custom/config", config)])),
        Vec::<String>::new()
    );
    let resources = json!({"requests": {"cpu": "100m", "memory": 1000}});
    assert_eq!(
        messages_of(&rules, &with(&[("/worker/resources", resources)])),
        Vec::<String>::new()
    );
}

#[test]
fn a_null_means_that_the_field_is_not_set() {
    let rules = Rules::new();
    let mut object = valid();
    object["spec"]["scaling"] = Value::Null;
    object["spec"]["errorHandling"]["onExhausted"] = Value::Null;
    assert_eq!(messages_of(&rules, &object), Vec::<String>::new());
    object["spec"]["topics"] = Value::Null;
    assert!(messages_of(&rules, &object)[0].starts_with("spec.topics: Required value"));
}

#[test]
fn all_examples_of_the_repository_are_valid() {
    let rules = Rules::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let files = load::files(folder.as_ref()).unwrap();
    assert!(files.len() >= 3);
    for file in files {
        let loaded = load::load(std::slice::from_ref(&file), "default");
        assert_eq!(loaded.problems, Vec::<String>::new(), "{}", file.display());
        for document in loaded.groups {
            assert_eq!(
                messages_of(&rules, &document.object),
                Vec::<String>::new(),
                "{}",
                document.origin
            );
        }
    }
}

#[test]
fn without_containers_a_file_writer_needs_no_volume() {
    let object = with(&[("/worker/volumeMounts", Value::Null)]);
    let messages = messages_of(&Rules::new(), &object);
    assert!(
        messages[0].contains("a File writer needs a volume"),
        "{messages:?}"
    );
    assert_eq!(messages.len(), 1);
    assert_eq!(
        messages_of(&Rules::without_containers(), &object),
        Vec::<String>::new()
    );
}
