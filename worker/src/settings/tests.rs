use std::{path::Path, time::Duration};

use crds::{
    WorkerConfig,
    spec::{HeaderStyle, OnExhausted},
};
use serde_json::{Value, json};

use super::{document::parse, *};
use crate::{
    dead_letter::{BreakerLimits, DeadLetterSettings},
    exit, per_record,
    record::batch::builder::Payload,
};

fn document() -> Value {
    json!({
        "formatVersion": 1,
        "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": ["orders"],
        "kafka": {"bootstrapServers": ["b0:9092"]},
        "consumer": {}, "processing": {}, "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "out", "type": "Blackhole"}],
        "errorHandling": {}, "drainSeconds": 55
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, field) = path.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[field] = value;
    document
}

fn parsed(document: &Value) -> Result<WorkerConfig, SettingsError> {
    parse(Path::new("worker.json"), document.to_string().as_bytes())
}

async fn built(document: &Value, extensions: &Extensions) -> Result<(Settings, Parts), SettingsError> {
    let nowhere = SecretFiles::new("/nowhere".into(), "/nowhere".into());
    Settings::build(parsed(document)?, "worker-1", &nowhere, extensions).await
}

fn error(result: Result<(Settings, Parts), SettingsError>) -> SettingsError {
    result.err().unwrap()
}

#[tokio::test]
async fn a_small_container_reads_less_ahead_unless_the_user_sets_how_much() {
    let (mut settings, _) = built(&document(), &Extensions::new()).await.unwrap();
    settings.fit_into(Some(64 << 20));
    assert_eq!(settings.memory.in_flight, 12 << 20);
    assert_eq!(
        settings.consumer_properties["queued.max.messages.kbytes"],
        "12288"
    );
    let own = with(
        "/kafka/clientConfig",
        json!({"queued.max.messages.kbytes": "2048"}),
    );
    let (mut settings, _) = built(&own, &Extensions::new()).await.unwrap();
    settings.fit_into(Some(64 << 20));
    assert_eq!(settings.consumer_properties["queued.max.messages.kbytes"], "2048");
}

#[tokio::test]
async fn the_consumer_is_named_after_this_run_of_the_process_unless_the_user_names_it() {
    let (mut settings, _) = built(&document(), &Extensions::new()).await.unwrap();
    settings.identify(1_764_470_000_123);
    let client_id = &settings.consumer_properties["client.id"];
    assert_eq!(client_id, "worker-1@1764470000123");
    // Quotas and logs of producers do not change with every restart.
    assert!(!settings.producer_properties.contains_key("client.id"));
    let own = with("/kafka/clientConfig", json!({"client.id": "shop"}));
    let (mut settings, _) = built(&own, &Extensions::new()).await.unwrap();
    settings.identify(1_764_470_000_123);
    assert_eq!(settings.consumer_properties["client.id"], "shop");
}

#[tokio::test]
async fn defaults_become_durations_and_properties() {
    let (settings, parts) = built(&document(), &Extensions::new()).await.unwrap();
    assert_eq!(
        settings.batch,
        BatchLimits {
            max_records: 1000,
            max_bytes: 1 << 20,
            linger: None
        }
    );
    assert_eq!(
        (settings.commit_interval, settings.drain),
        (Duration::from_secs(1), Duration::from_secs(55))
    );
    assert_eq!(
        (settings.on_exhausted, settings.dead_letter),
        (OnExhausted::Stop, None)
    );
    assert_eq!(settings.stalled_after, Duration::from_secs(300));
    assert_eq!(settings.consumer_properties["group.id"], "shop.orders");
    assert_eq!(settings.producer_properties["acks"], "all");
    assert!(!parts.decoders.accept_anything());
}

#[tokio::test]
async fn a_dead_letter_topic_makes_dead_letter_the_policy() {
    let document = with("/errorHandling/deadLetter", json!({"topic": "orders.dlq"}));
    let (settings, _) = built(&document, &Extensions::new()).await.unwrap();
    assert_eq!(settings.on_exhausted, OnExhausted::DeadLetter);
    assert_eq!(
        settings.dead_letter,
        Some(DeadLetterSettings {
            topic: "orders.dlq".into(),
            style: HeaderStyle::Native,
            on_refused: crds::spec::OnRefused::Stop,
            breaker: None,
        })
    );
}

#[tokio::test]
async fn a_breaker_without_limits_has_the_default_ones() {
    for (breaker, consecutive, percent) in [
        (json!({}), 1000, 50),
        (json!({"maxConsecutive": 3, "maxRatioPercent": 100}), 3, 100),
    ] {
        let dead_letter = json!({"topic": "orders.dlq", "headerStyle": "Spring", "breaker": breaker});
        let document = with("/errorHandling/deadLetter", dead_letter);
        let (settings, _) = built(&document, &Extensions::new()).await.unwrap();
        assert_eq!(
            settings.dead_letter,
            Some(DeadLetterSettings {
                topic: "orders.dlq".into(),
                style: HeaderStyle::Spring,
                on_refused: crds::spec::OnRefused::Stop,
                breaker: Some(BreakerLimits { consecutive, percent }),
            })
        );
    }
}

#[test]
fn every_invalid_value_is_named_with_what_to_write() {
    for (path, value, message) in [
        ("/groupId", json!(""), "groupId: is empty; write"),
        ("/topics", json!([]), "topics: is empty; write at least one"),
        ("/topics", json!(["a", "a"]), "topics: \"a\" occurs twice"),
        ("/writers", json!([]), "writers: is empty; write at least one"),
        (
            "/drainSeconds",
            json!(0),
            "drainSeconds: 0 is out of range; write a number from 1",
        ),
        (
            "/processing/concurrency",
            json!(0),
            "processing.concurrency: 0 is out of range; write a number from 1 to 1024",
        ),
        (
            "/processing/commitIntervalMilliseconds",
            json!(1),
            "write a number from 10 to 60000",
        ),
        (
            "/processing/recordsPerSecond",
            json!(0),
            "processing.recordsPerSecond: 0 is out of range; write a number from 1 to 10000000",
        ),
        (
            "/processing/batch",
            json!({"maxRecords": -1}),
            "processing.batch.maxRecords: -1 is out of range",
        ),
        (
            "/processing/batch",
            json!({"maxBytes": 1}),
            "processing.batch.maxBytes: 1 is out of range",
        ),
        (
            "/kafka/bootstrapServers",
            json!([]),
            "kafka.bootstrapServers: is empty",
        ),
        (
            "/kafka/clientConfig",
            json!({"plugin.library.paths": "x"}),
            "kafka.clientConfig: \"plugin.library.paths\" is not allowed",
        ),
        (
            "/consumer/startPosition",
            json!({"type": "Timestamp"}),
            "consumer.startPosition: timestamp must be set",
        ),
        (
            "/errorHandling/onExhausted",
            json!("DeadLetter"),
            "errorHandling.onExhausted: DeadLetter needs deadLetter.topic",
        ),
        (
            "/errorHandling/retry",
            json!({"maxAttempts": 0}),
            "errorHandling.retry.maxAttempts: 0 is out of range",
        ),
        (
            "/errorHandling/transformTimeoutSeconds",
            json!(0),
            "errorHandling.transformTimeoutSeconds: 0 is out of range; write a number from 1 to 3600",
        ),
        (
            "/errorHandling/stalledAfterSeconds",
            json!(9),
            "errorHandling.stalledAfterSeconds: 9 is out of range; write a number from 10 to 86400",
        ),
        (
            "/errorHandling/deadLetter",
            json!({"topic": "orders"}),
            "is also an input topic",
        ),
        (
            "/errorHandling",
            json!({"onExhausted": "Skip", "deadLetter": {"topic": "dlq", "breaker": {}}}),
            "errorHandling.deadLetter.breaker: works only with onExhausted DeadLetter",
        ),
        (
            "/errorHandling/deadLetter",
            json!({"topic": "dlq", "breaker": {"maxConsecutive": 0}}),
            "errorHandling.deadLetter.breaker.maxConsecutive: 0 is out of range",
        ),
        (
            "/errorHandling/deadLetter",
            json!({"topic": "dlq", "breaker": {"maxRatioPercent": 101}}),
            "errorHandling.deadLetter.breaker.maxRatioPercent: 101 is out of range",
        ),
        (
            "/writers",
            json!([{"name": "k", "type": "Kafka", "kafka": {"topic": "orders"}}]),
            "writers[0].kafka.topic: \"orders\" is also an input topic",
        ),
        (
            "/writers",
            json!([
                {"name": "k", "type": "Kafka", "kafka": {"topic": "clean"}},
                {"name": "l", "type": "Kafka", "kafka": {"topic": "clean"}},
            ]),
            "writers[1].kafka.topic: another writer writes to \"clean\" as well",
        ),
        (
            "/writers",
            json!([{"name": "api", "type": "Http", "http": {"url": "http://localhost", "headers": [
                {"name": "X-A", "value": ""}, {"name": "x-a", "value": ""},
            ]}}]),
            "writers[0].http.headers: x-a occurs twice",
        ),
        (
            "/errorHandling/retry",
            json!({"initialBackoffMilliseconds": 1001, "maxBackoffSeconds": 1}),
            "errorHandling.retry.maxBackoffSeconds: is shorter than initialBackoffMilliseconds",
        ),
        (
            "/transforms",
            json!([{"name": "shape", "type": "Fields", "fields": {}}]),
            "transforms[0].fields: changes nothing; add at least one step",
        ),
    ] {
        let error = parsed(&with(path, value)).unwrap_err();
        assert!(error.to_string().contains(message), "{path}: {error}");
        assert_eq!(error.exit_code(), exit::CONFIG);
    }
}

#[test]
fn exactly_once_is_refused_where_it_cannot_be_guaranteed() {
    let mut document = with("/processing/deliveryGuarantee", json!("ExactlyOnce"));
    let refusal = |document: &Value| parsed(document).err().unwrap().to_string();
    let message = refusal(&document);
    assert!(
        message.contains("ExactlyOnce needs exactly one writer, of type Kafka or Postgres"),
        "{message}"
    );
    document["writers"] = json!([{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}]);
    assert!(parsed(&document).is_ok());
    document["processing"]["ordering"] = json!("Unordered");
    document["consumer"]["isolationLevel"] = json!("ReadUncommitted");
    let message = refusal(&document);
    assert!(
        message.contains("processing.ordering: Unordered") && message.contains("use ReadCommitted"),
        "{message}"
    );
}

#[test]
fn timeouts_that_the_broker_sets_are_refused_with_its_protocol() {
    let mut document = with("/consumer/groupProtocol", json!("Consumer"));
    assert!(parsed(&document).is_ok());
    for key in ["session.timeout.ms", "heartbeat.interval.ms"] {
        document["kafka"]["clientConfig"] = json!({key: "6000"});
        let error = parsed(&document).unwrap_err().to_string();
        for part in [key, "kafka.clientConfig: ", "group.consumer.session.timeout.ms"] {
            assert!(error.contains(part), "{error}");
        }
    }
    document["consumer"]["groupProtocol"] = json!("Classic");
    assert!(parsed(&document).is_ok());
}

#[tokio::test]
async fn the_group_protocol_reaches_the_consumer() {
    let document = with("/consumer/groupProtocol", json!("Consumer"));
    let (settings, _) = built(&document, &Extensions::new()).await.unwrap();
    assert_eq!(settings.consumer_properties["group.protocol"], "consumer");
}

#[test]
fn steps_of_fields_that_contradict_each_other_are_named_with_what_to_write() {
    for (fields, message) in [
        (
            json!({"keep": ["a"], "drop": ["b"]}),
            "keep and drop are both set",
        ),
        (
            json!({"rename": {"a": "c", "b": "c"}}),
            "rename gives two fields the name \"c\"",
        ),
        (
            json!({"drop": ["a"], "rename": {"a": "b"}}),
            "rename names \"a\", which drop removes or keep does not name",
        ),
        (
            json!({"keep": ["b"], "rename": {"a": "b"}}),
            "rename names \"a\", which drop removes or keep does not name",
        ),
        (
            json!({"rename": {"a": "b"}, "set": {"b": 1}}),
            "rename makes \"a\" a field \"b\", which set or setFromRecord replaces",
        ),
        (
            json!({"rename": {"a": "b"}, "setFromRecord": {"b": "Topic"}}),
            "rename makes \"a\" a field \"b\", which set or setFromRecord replaces",
        ),
        (
            json!({"drop": ["a"], "convert": {"a": "Number"}}),
            "convert names \"a\", which is not there after drop, keep and rename",
        ),
        (
            json!({"keep": ["b"], "convert": {"a": "Number"}}),
            "convert names \"a\", which is not there after drop, keep and rename",
        ),
        (
            json!({"rename": {"a": "b"}, "convert": {"a": "Number"}}),
            "convert names \"a\", which is not there after drop, keep and rename",
        ),
        (
            json!({"convert": {"a": "Number"}, "set": {"a": "1"}}),
            "convert names \"a\", which set or setFromRecord replaces",
        ),
        (
            json!({"set": {"a": "1"}, "setFromRecord": {"a": "Topic"}}),
            "\"a\" is in both set and setFromRecord",
        ),
    ] {
        let transforms = json!([
            {"name": "first", "type": "Custom", "custom": {"name": "own"}},
            {"name": "shape", "type": "Fields", "fields": fields},
        ]);
        let error = parsed(&with("/transforms", transforms)).unwrap_err().to_string();
        assert!(
            error.contains(&format!("transforms[1].fields: {message}")),
            "{error}"
        );
        assert_eq!(error.matches("transforms[1]").count(), 1, "{error}");
    }
}

#[tokio::test]
async fn the_first_transform_of_type_fields_decodes_and_needs_json() {
    let shape = |name: &str| json!({"name": name, "type": "Fields", "fields": {"drop": ["a"]}});
    let own = json!({"name": "own", "type": "Custom", "custom": {"name": "own"}});
    let extensions = Extensions::new().transform("own", |_| {
        Ok(per_record("own", |_, out| {
            out.keep();
            Ok(())
        }))
    });
    let mut document = with("/transforms", json!([shape("a"), shape("b")]));
    let (_, parts) = built(&document, &extensions).await.unwrap();
    let names: Vec<&str> = parts
        .transforms
        .iter()
        .map(|transform| &*transform.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(parts.decoders.accept_anything());

    document["decode"] = json!({"value": {"type": "String"}});
    let refused = parsed(&document).unwrap_err().to_string();
    assert!(
        refused.contains(
            "decode.value.type: the first transform is of type Fields, which reads JSON; write Json"
        ),
        "{refused}"
    );
    // The output of a custom transform may be JSON, whatever its input was.
    document["transforms"] = json!([own, shape("a")]);
    let (_, parts) = built(&document, &extensions).await.unwrap();
    assert!(!parts.decoders.accept_anything());

    document["transforms"] = json!([own, {"name": "shape", "type": "Fields"}]);
    let error = error(built(&document, &extensions).await).to_string();
    assert!(
        error.contains("type is Fields, so the member fields must be set"),
        "{error}"
    );
}

#[test]
fn all_invalid_values_are_reported_at_once() {
    let mut document = with("/processing/concurrency", json!(0));
    document["groupId"] = json!("");
    let Err(SettingsError::Invalid { errors, .. }) = parsed(&document) else {
        panic!("accepted")
    };
    assert_eq!(errors.len(), 2);
}

#[test]
fn another_format_version_is_refused_before_anything_else() {
    let error = parsed(&json!({"formatVersion": 7, "new": true}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("formatVersion 7, this worker reads 1"), "{error}");
}

#[test]
fn a_document_that_does_not_parse_is_reported_with_line_and_field() {
    let error = parse(Path::new("/etc/w.json"), b"{\n  \"formatVersion\": \"one\"\n}")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/etc/w.json is not a worker configuration") && error.contains("line 2"),
        "{error}"
    );
    let error = parsed(&with("/processing/turbo", json!(true)))
        .unwrap_err()
        .to_string();
    assert!(error.contains("unknown field `turbo`"), "{error}");
}

#[test]
fn a_missing_document_says_what_to_point_at() {
    let error = read(Path::new("/nowhere/worker.json")).unwrap_err();
    assert!(error.to_string().contains("point --config at"), "{error}");
    assert_eq!(error.exit_code(), exit::CONFIG);
}

#[tokio::test]
async fn a_missing_secret_has_its_own_exit_code() {
    let sasl = json!({"mechanism": "PLAIN", "credentials": {"secretName": "login"}});
    let error = error(built(&with("/kafka/sasl", sasl), &Extensions::new()).await);
    assert_eq!(error.exit_code(), exit::CREDENTIALS);
    assert!(error.to_string().contains("Secret \"login\""), "{error}");
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_secret_with_an_invalid_url_has_the_same_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("db")).unwrap();
    std::fs::write(
        dir.path().join("db/url"),
        "postgresql://u:s3cret@h/d?sslrootcert=/ca.pem",
    )
    .unwrap();
    let postgres = json!({
        "connection": {"secretName": "db", "key": "url"}, "table": "orders", "keyColumns": ["id"]
    });
    let writers = json!([{"name": "db", "type": "Postgres", "postgres": postgres}]);
    let secrets = SecretFiles::new(dir.path().into(), dir.path().into());
    let config = parsed(&with("/writers", writers)).unwrap();
    let error = error(Settings::build(config, "worker-1", &secrets, &Extensions::new()).await);
    assert_eq!(error.exit_code(), exit::CREDENTIALS);
    let message = error.to_string();
    assert!(
        message.contains("sslrootcert") && !message.contains("s3cret"),
        "{message}"
    );
}

#[tokio::test]
async fn an_unknown_custom_name_says_what_the_worker_has() {
    let transforms = json!([{"name": "own", "type": "Custom", "custom": {"name": "louder"}}]);
    let extensions = Extensions::new().transform("quieter", |_| {
        Ok(per_record("quieter", |_, out| {
            out.emit(Payload::Keep, Payload::Keep);
            Ok(())
        }))
    });
    let error = error(built(&with("/transforms", transforms), &extensions).await).to_string();
    assert!(
        error.contains("transform \"own\"") && error.contains("it has: quieter"),
        "{error}"
    );
}

#[cfg(feature = "vrl")]
#[tokio::test]
async fn consecutive_vrl_transforms_run_as_one_and_the_first_decodes() {
    let vrl = |name: &str| json!({"name": name, "type": "Vrl", "vrl": {"source": ".seen = true"}});
    let custom = json!({"name": "own", "type": "Custom", "custom": {"name": "own"}});
    let extensions = Extensions::new().transform("own", |_| {
        Ok(per_record("own", |_, out| {
            out.keep();
            Ok(())
        }))
    });
    let document = with("/transforms", json!([vrl("a"), vrl("b"), custom, vrl("c")]));
    let (_, parts) = built(&document, &extensions).await.unwrap();
    let names: Vec<&str> = parts
        .transforms
        .iter()
        .map(|transform| &*transform.name)
        .collect();
    assert_eq!(names, ["a+b", "own", "c"]);
    assert!(parts.decoders.accept_anything());
}

#[cfg(feature = "vrl")]
#[tokio::test]
async fn a_program_that_does_not_compile_is_named_with_the_compilers_message() {
    let transforms = json!([{"name": "clean", "type": "Vrl", "vrl": {"source": ".a = nope(1)"}}]);
    let error = error(built(&with("/transforms", transforms), &Extensions::new()).await);
    assert!(
        error.to_string().contains("transform \"clean\"") && error.to_string().contains("undefined function"),
        "{error}"
    );
    assert_eq!(error.exit_code(), exit::CONFIG);
}

fn with_until(until: Value) -> Value {
    let mut document = document();
    document["topics"] = json!(["orders", "returns"]);
    document["until"] = until;
    document
}

#[tokio::test]
async fn a_bounded_run_reads_only_its_topics_and_at_the_lower_of_two_rates() {
    let mut bounded = with_until(json!({
        "partitions": [{"topic": "returns", "partition": 1, "from": 3, "to": 9}],
        "recordsPerSecond": 20,
    }));
    let (settings, _) = built(&bounded, &Extensions::new()).await.unwrap();
    assert_eq!(settings.topics, ["returns"]);
    assert_eq!(settings.records_per_second, Some(20));
    assert_eq!(settings.consumer_properties["enable.partition.eof"], "true");
    bounded["processing"]["recordsPerSecond"] = json!(5);
    let (settings, _) = built(&bounded, &Extensions::new()).await.unwrap();
    assert_eq!(settings.records_per_second, Some(5));
    let (settings, _) = built(&document(), &Extensions::new()).await.unwrap();
    assert_eq!(settings.records_per_second, None);
    assert_eq!(settings.consumer_properties["enable.partition.eof"], "false");
}

#[test]
fn each_mistake_in_the_bounds_of_a_run_is_named_with_its_field() {
    let bounds = |from: i64, to: i64| json!({"topic": "orders", "partition": 0, "from": from, "to": to});
    let two = |first: Value, second: Value| json!({"partitions": [first, second]});
    let id = |topic_id: &str, partition: i32| json!({"topic": "orders", "topicId": topic_id, "partition": partition, "from": 0, "to": 1});
    for (until, expected) in [
        (
            json!({"partitions": []}),
            "until.partitions: is empty; write at least one",
        ),
        (
            json!({"partitions": [bounds(0, 1)], "recordsPerSecond": 0}),
            "until.recordsPerSecond: 0 is out of range; write a number from 1",
        ),
        (
            json!({"partitions": [{"topic": "payments", "partition": 0, "from": 0, "to": 1}]}),
            "until.partitions[0].topic: \"payments\" is not in topics",
        ),
        (
            json!({"partitions": [{"topic": "orders", "partition": -1, "from": 0, "to": 1}]}),
            "until.partitions[0].partition: -1 is negative",
        ),
        (
            two(bounds(0, 1), bounds(5, 6)),
            "until.partitions[1].partition: partition 0 of topic \"orders\" occurs twice",
        ),
        (
            json!({"partitions": [bounds(-2, 1)]}),
            "until.partitions[0].from: -2 is negative",
        ),
        (
            json!({"partitions": [bounds(5, 4)]}),
            "until.partitions[0].to: 4 is less than from, 5; swap them",
        ),
        (
            json!({"partitions": [id("short", 0)]}),
            "until.partitions[0].topicId: \"short\" is no topic id",
        ),
        (
            two(id("ZD6b-7i9QUO1dW_byS9QNg", 0), id("pSwp9nH_SBuNVFtWXg-ZcA", 1)),
            "until.partitions[1].topicId: topic \"orders\" has two ids",
        ),
    ] {
        let error = parsed(&with_until(until)).unwrap_err();
        assert_eq!(error.exit_code(), exit::CONFIG);
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(parsed(&with_until(two(bounds(7, 7), id("ZD6b-7i9QUO1dW_byS9QNg", 1)))).is_ok());
}
