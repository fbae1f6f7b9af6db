//! At least one resource for each CEL rule that breaks it: the change, the field that the API server reports,
//! and the message. The good resource has the topic `orders` and a Blackhole writer.

mod fields;

use serde_json::{Value, json};

/// Name, changes of a valid `spec` (objects are merged, lists replaced), field, part of the message.
pub struct Case(pub &'static str, pub Value, pub &'static str, pub &'static str);

pub fn cases() -> Vec<Case> {
    let mut all = whole_spec();
    all.extend(connection());
    all.extend(transforms());
    all.extend(fields::cases());
    all.extend(writers());
    all.extend(policies());
    all.extend(worker());
    all
}

fn whole_spec() -> Vec<Case> {
    let file = |directory: &str| json!([{"name": "f", "type": "File", "file": {"directory": directory}}]);
    let mounted = json!({"volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
    vec![
        Case(
            "dead letters into an input topic",
            json!({"errorHandling": {"deadLetter": {"topic": "orders"}}}),
            "spec",
            "consume its own dead letters",
        ),
        Case(
            "a writer into an input topic",
            json!({"writers": [{"name": "a", "type": "Kafka", "kafka": {"topic": "orders"}}]}),
            "spec",
            "would loop indefinitely",
        ),
        Case(
            "one of several writers into one of several input topics",
            json!({
                "topics": [{"name": "orders"}, {"name": "returns"}],
                "writers": [{"name": "a", "type": "Blackhole"}, {"name": "b", "type": "Kafka", "kafka": {"topic": "returns"}}],
            }),
            "spec",
            "would loop indefinitely",
        ),
        Case(
            "dead letters into the topic of a writer",
            json!({
                "writers": [{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}],
                "errorHandling": {"deadLetter": {"topic": "clean"}},
            }),
            "spec",
            "is also the topic of a Kafka writer",
        ),
        Case(
            "two writers into one topic",
            json!({"writers": [
                {"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}},
                {"name": "b", "type": "Kafka", "kafka": {"topic": "clean"}},
            ]}),
            "spec",
            "two Kafka writers write to the same topic",
        ),
        Case(
            "a maximum wait below the first wait",
            json!({"errorHandling": {"retry": {"initialBackoffMilliseconds": 1001, "maxBackoffSeconds": 1}}}),
            "spec.errorHandling.retry",
            "maxBackoffSeconds is shorter than initialBackoffMilliseconds",
        ),
        Case(
            "exactly once with two writers",
            json!({
                "processing": {"deliveryGuarantee": "ExactlyOnce"},
                "writers": [{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}, {"name": "b", "type": "Stdout"}],
            }),
            "spec",
            "ExactlyOnce needs exactly one writer, of type Kafka or Postgres",
        ),
        Case(
            "exactly once with a writer that has no transactions",
            json!({"processing": {"deliveryGuarantee": "ExactlyOnce"}, "writers": [{"name": "a", "type": "Stdout"}]}),
            "spec",
            "ExactlyOnce needs exactly one writer, of type Kafka or Postgres",
        ),
        Case(
            "exactly once of records that were aborted",
            json!({
                "processing": {"deliveryGuarantee": "ExactlyOnce"},
                "consumer": {"isolationLevel": "ReadUncommitted"},
                "writers": [{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}],
            }),
            "spec",
            "ExactlyOnce needs consumer.isolationLevel ReadCommitted",
        ),
        Case(
            "exactly once without any order",
            json!({
                "processing": {"deliveryGuarantee": "ExactlyOnce", "ordering": "Unordered"},
                "writers": [{"name": "a", "type": "Kafka", "kafka": {"topic": "clean"}}],
            }),
            "spec.processing",
            "ExactlyOnce needs an order",
        ),
        Case(
            "files without a volume",
            json!({"writers": file("/data")}),
            "spec",
            "needs a volume",
        ),
        Case(
            "files beside the volume",
            json!({"writers": file("/other"), "worker": mounted}),
            "spec",
            "needs a volume",
        ),
        Case(
            "files in a folder that only starts like the volume",
            json!({"writers": file("/database"), "worker": mounted}),
            "spec",
            "needs a volume",
        ),
    ]
}

fn connection() -> Vec<Case> {
    let mut all = vec![
        Case(
            "a session timeout that the broker decides",
            json!({"consumer": {"groupProtocol": "Consumer"}, "kafka": {"clientConfig": {"session.timeout.ms": "6000"}}}),
            "spec",
            "the broker decides session timeout and heartbeat",
        ),
        Case(
            "a heartbeat that the broker decides",
            json!({"consumer": {"groupProtocol": "Consumer"}, "kafka": {"clientConfig": {"heartbeat.interval.ms": "1000"}}}),
            "spec",
            "group.consumer.heartbeat.interval.ms",
        ),
        Case(
            "an authority from nowhere",
            json!({"kafka": {"tls": {"ca": {"key": "ca.crt"}}}}),
            "spec.kafka.tls.ca",
            "exactly one of secretName and configMapName",
        ),
        Case(
            "an authority from two places",
            json!({"kafka": {"tls": {"ca": {"secretName": "a", "configMapName": "b"}}}}),
            "spec.kafka.tls.ca",
            "exactly one of secretName and configMapName",
        ),
        Case(
            "a time that is not used",
            json!({"consumer": {"startPosition": {"type": "Latest", "timestamp": "2026-01-31T00:00:00Z"}}}),
            "spec.consumer.startPosition",
            "timestamp must be set when type is Timestamp, and only then",
        ),
        Case(
            "a time that is missing",
            json!({"consumer": {"startPosition": {"type": "Timestamp"}}}),
            "spec.consumer.startPosition",
            "timestamp must be set when type is Timestamp, and only then",
        ),
    ];
    // One of each kind: runs a program, loads a library, reads a file, connects to a URL, moves offsets,
    // changes the membership, turns off a check, has its own field in the resource.
    for key in [
        "sasl.kerberos.kinit.cmd",
        "plugin.library.paths",
        "ssl.key.location",
        "sasl.oauthbearer.token.endpoint.url",
        "enable.auto.commit",
        "partition.assignment.strategy",
        "enable.ssl.certificate.verification",
        "group.id",
    ] {
        all.push(Case(
            key,
            json!({"kafka": {"clientConfig": {key: "x"}}}),
            "spec.kafka",
            "not on the allow-list",
        ));
    }
    all
}

fn transforms() -> Vec<Case> {
    let transform = |transform: Value| json!({"transforms": [transform]});
    let vrl = "vrl must be set when type is Vrl, and only then";
    let custom = "custom must be set when type is Custom, and only then";
    let source = "exactly one of source and configMap";
    vec![
        Case(
            "no program",
            transform(json!({"name": "t", "type": "Vrl"})),
            "spec.transforms[]",
            vrl,
        ),
        Case(
            "a program of a custom transform",
            transform(
                json!({"name": "t", "type": "Custom", "custom": {"name": "x"}, "vrl": {"source": "."}}),
            ),
            "spec.transforms[]",
            vrl,
        ),
        Case(
            "no custom name",
            transform(json!({"name": "t", "type": "Custom"})),
            "spec.transforms[]",
            custom,
        ),
        Case(
            "a custom name of a program",
            transform(json!({"name": "t", "type": "Vrl", "vrl": {"source": "."}, "custom": {"name": "x"}})),
            "spec.transforms[]",
            custom,
        ),
        Case(
            "a program from nowhere",
            transform(json!({"name": "t", "type": "Vrl", "vrl": {}})),
            "spec.transforms[].vrl",
            source,
        ),
        Case(
            "a program from two places",
            transform(json!({"name": "t", "type": "Vrl",
                "vrl": {"source": ".", "configMap": {"name": "a", "key": "b"}}})),
            "spec.transforms[].vrl",
            source,
        ),
    ]
}

fn writers() -> Vec<Case> {
    let members = [
        ("File", "file", json!({"directory": "/data"})),
        ("Kafka", "kafka", json!({"topic": "copy"})),
        ("Http", "http", json!({"url": "http://localhost/"})),
        (
            "Postgres",
            "postgres",
            json!({"connection": {"secretName": "a", "key": "b"}, "table": "t", "keyColumns": ["id"]}),
        ),
        ("Custom", "custom", json!({"name": "mine"})),
    ];
    let mut all = Vec::new();
    for (kind, member, value) in members {
        let says: &'static str = match kind {
            "File" => "file must be set when type is File, and only then",
            "Kafka" => "kafka must be set when type is Kafka, and only then",
            "Http" => "http must be set when type is Http, and only then",
            "Postgres" => "postgres must be set when type is Postgres, and only then",
            _ => "custom must be set when type is Custom, and only then",
        };
        all.push(Case(
            "a writer without its settings",
            json!({"writers": [{"name": "w", "type": kind}]}),
            "spec.writers[]",
            says,
        ));
        all.push(Case(
            "a writer with the settings of another",
            json!({"writers": [{"name": "w", "type": "Blackhole", member: value}]}),
            "spec.writers[]",
            says,
        ));
    }
    let http = |more: Value| {
        let mut http = json!({"url": "http://localhost/"});
        harness::systems::kubernetes::merge(&mut http, more);
        json!({"writers": [{"name": "w", "type": "Http", "http": http}]})
    };
    let postgres = |more: Value| {
        let mut postgres = json!({"connection": {"secretName": "a", "key": "b"}, "table": "t"});
        harness::systems::kubernetes::merge(&mut postgres, more);
        json!({"writers": [{"name": "w", "type": "Postgres", "postgres": postgres}]})
    };
    let authority = "exactly one of secretName and configMapName";
    let identity = "exactly one of recordIdColumn (one row per record) and keyColumns (one row per key)";
    all.extend([
        Case(
            "two logins",
            http(json!({"bearerToken": {"secretName": "a", "key": "b"}, "basicAuth": {"secretName": "a"}})),
            "spec.writers[].http",
            "at most one of bearerToken and basicAuth",
        ),
        Case(
            "an authority from nowhere",
            http(json!({"ca": {}})),
            "spec.writers[].http.ca",
            authority,
        ),
        Case(
            "an authority from two places",
            http(json!({"ca": {"secretName": "a", "configMapName": "b"}})),
            "spec.writers[].http.ca",
            authority,
        ),
        Case(
            "rows without identity",
            postgres(json!({})),
            "spec.writers[].postgres",
            identity,
        ),
        Case(
            "rows with an empty key",
            postgres(json!({"keyColumns": []})),
            "spec.writers[].postgres",
            identity,
        ),
        Case(
            "rows with two identities",
            postgres(json!({"keyColumns": ["id"], "recordIdColumn": "record"})),
            "spec.writers[].postgres",
            identity,
        ),
        Case(
            "tombstones that delete rows without a key",
            postgres(json!({"recordIdColumn": "record", "onNull": "Delete"})),
            "spec.writers[].postgres",
            "onNull Delete needs keyColumns: with recordIdColumn, a tombstone has no row to delete",
        ),
    ]);
    all
}

fn policies() -> Vec<Case> {
    vec![
        Case(
            "dead letters to nowhere",
            json!({"errorHandling": {"onExhausted": "DeadLetter"}}),
            "spec.errorHandling",
            "onExhausted DeadLetter needs deadLetter.topic",
        ),
        Case(
            "a breaker of dead letters that are not written",
            json!({"errorHandling": {"onExhausted": "Skip", "deadLetter": {"topic": "dlq", "breaker": {}}}}),
            "spec.errorHandling",
            "deadLetter.breaker works only with onExhausted DeadLetter",
        ),
        Case(
            "more workers at least than at most",
            json!({"scaling": {"minReplicas": 3, "maxReplicas": 2}}),
            "spec.scaling",
            "minReplicas must not be greater than maxReplicas",
        ),
    ]
}

fn worker() -> Vec<Case> {
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let sources = "exactly one of emptyDir, persistentVolumeClaim, secret and configMap";
    vec![
        Case(
            "a mount of no volume",
            json!({"worker": {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}}),
            "spec.worker",
            "names no entry of worker.volumes",
        ),
        Case(
            "a mount of another volume",
            json!({"worker": {"volumes": volume, "volumeMounts": [{"name": "w", "mountPath": "/data"}]}}),
            "spec.worker",
            "names no entry of worker.volumes",
        ),
        Case(
            "a mount over the configuration",
            json!({"worker": {"volumes": volume, "volumeMounts": [{"name": "v", "mountPath": "/etc/kafka-consumer/config"}]}}),
            "spec.worker",
            "where the operator mounts configuration",
        ),
        Case(
            "a volume of no kind",
            json!({"worker": {"volumes": [{"name": "v"}]}}),
            "spec.worker.volumes[]",
            sources,
        ),
        Case(
            "a volume of two kinds",
            json!({"worker": {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}}),
            "spec.worker.volumes[]",
            sources,
        ),
        Case(
            "a volume with a reserved name",
            json!({"worker": {"volumes": [{"name": "kcg-v", "emptyDir": {}}]}}),
            "spec.worker.volumes[]",
            "are reserved for the operator",
        ),
        Case(
            "ids that the platform is to assign",
            json!({"worker": {"runAs": {"assignedBy": "Platform", "user": 1000}}}),
            "spec.worker.runAs",
            "leaves user, group and fsGroup to the platform",
        ),
    ]
}
