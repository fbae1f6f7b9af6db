use super::*;
use crate::record::{Chunk, TopicPartition, failure::Failure};

const STYLES: [HeaderStyle; 3] = [HeaderStyle::Native, HeaderStyle::Connect, HeaderStyle::Spring];

fn headers(style: HeaderStyle) -> Headers {
    Headers {
        style,
        group: "shop.orders".into(),
        worker: "orders-0".into(),
    }
}

fn letter(stage: Stage, component: &str, message: &str) -> FailedRecord {
    FailedRecord {
        failure: Failure {
            source: 0,
            stage,
            component: component.into(),
            message: message.into(),
        },
        attempts: 5,
    }
}

type Pairs = Vec<(String, Option<Vec<u8>>)>;

/// One record of orders-3 at offset 66000, with these headers.
fn chunk(timestamp: i64, headers: &Pairs) -> Chunk {
    let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_deref()));
    chunk.push(66_000, timestamp, Some(b"k"), Some(b"v"), headers);
    chunk
}

fn added(style: HeaderStyle, timestamp: i64, letter: &FailedRecord) -> Vec<Header> {
    headers(style).of(&chunk(timestamp, &Vec::new()).record(0), letter)
}

fn value<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.as_slice())
}

#[test]
fn native_headers_are_text_with_our_prefix() {
    let rejected = letter(Stage::Write, "warehouse", "violates a constraint");
    let expected: Vec<Header> = [
        ("kafka-consumer.dev/topic", "orders"),
        ("kafka-consumer.dev/partition", "3"),
        ("kafka-consumer.dev/offset", "66000"),
        ("kafka-consumer.dev/timestamp", "1700000000000"),
        ("kafka-consumer.dev/group", "shop.orders"),
        ("kafka-consumer.dev/worker", "orders-0"),
        ("kafka-consumer.dev/stage", "write"),
        ("kafka-consumer.dev/component", "warehouse"),
        ("kafka-consumer.dev/attempts", "5"),
        ("kafka-consumer.dev/error-class", "Rejected"),
        ("kafka-consumer.dev/error-message", "violates a constraint"),
    ]
    .map(|(name, value)| (name, value.into()))
    .into();
    let added = added(HeaderStyle::Native, 1_700_000_000_000, &rejected);
    assert_eq!(added, expected);
    assert!(added.iter().all(|(name, _)| name.starts_with(HEADER_PREFIX)));
}

#[test]
fn connect_headers_have_the_names_and_the_text_of_kafka_connect() {
    let failed = letter(Stage::Transform, "clean", "expected integer");
    let expected: Vec<Header> = [
        ("__connect.errors.topic", "orders"),
        ("__connect.errors.partition", "3"),
        ("__connect.errors.offset", "66000"),
        ("__connect.errors.connector.name", "shop.orders"),
        ("__connect.errors.task.id", "orders-0"),
        ("__connect.errors.stage", "TRANSFORMATION"),
        ("__connect.errors.class.name", "clean"),
        ("__connect.errors.exception.class.name", "TransformFailed"),
        ("__connect.errors.exception.message", "expected integer"),
        (
            "__connect.errors.exception.stacktrace",
            "TransformFailed: expected integer\n\tat transform.clean (worker orders-0, attempts 5)",
        ),
    ]
    .map(|(name, value)| (name, value.into()))
    .into();
    assert_eq!(added(HeaderStyle::Connect, 0, &failed), expected);
}

#[test]
fn connect_stages_distinguish_key_value_transform_and_writer() {
    for (stage, component, expected) in [
        (Stage::Decode, "key", "KEY_CONVERTER"),
        (Stage::Decode, "value", "VALUE_CONVERTER"),
        (Stage::Transform, "key", "TRANSFORMATION"),
        (Stage::Write, "key", "TASK_PUT"),
    ] {
        let added = added(HeaderStyle::Connect, 0, &letter(stage, component, "no"));
        assert_eq!(
            value(&added, "__connect.errors.stage"),
            Some(expected.as_bytes()),
            "{stage:?} {component}"
        );
    }
}

#[test]
fn spring_headers_have_the_names_of_spring_and_big_endian_numbers() {
    let undecodable = letter(Stage::Decode, "value", "is not JSON");
    let expected: Vec<Header> = vec![
        ("kafka_dlt-original-topic", b"orders".into()),
        ("kafka_dlt-original-partition", vec![0, 0, 0, 3]),
        ("kafka_dlt-original-offset", vec![0, 0, 0, 0, 0, 1, 1, 0xd0]),
        (
            "kafka_dlt-original-timestamp",
            vec![0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00],
        ),
        ("kafka_dlt-original-timestamp-type", b"CreateTime".into()),
        ("kafka_dlt-original-consumer-group", b"shop.orders".into()),
        ("kafka_dlt-exception-fqcn", b"Undecodable".into()),
        ("kafka_dlt-exception-message", b"is not JSON".into()),
        (
            "kafka_dlt-exception-stacktrace",
            b"Undecodable: is not JSON\n\tat decode.value (worker orders-0, attempts 5)".into(),
        ),
    ];
    assert_eq!(
        added(HeaderStyle::Spring, 1_700_000_000_000, &undecodable),
        expected
    );
}

#[test]
fn spring_reports_a_key_that_does_not_decode_in_separate_headers() {
    let added = added(
        HeaderStyle::Spring,
        0,
        &letter(Stage::Decode, "key", "is not UTF-8"),
    );
    assert_eq!(
        value(&added, "kafka_dlt-key-exception-message"),
        Some(&b"is not UTF-8"[..])
    );
    assert_eq!(value(&added, "kafka_dlt-exception-message"), None);
}

#[test]
fn spring_reports_the_type_of_the_timestamp() {
    let of = |timestamp, log_append_time| {
        let mut chunk = chunk(timestamp, &Vec::new());
        chunk.log_append_time = log_append_time;
        let added =
            headers(HeaderStyle::Spring).of(&chunk.single(0).record(0), &letter(Stage::Write, "w", ""));
        String::from_utf8(
            value(&added, "kafka_dlt-original-timestamp-type")
                .unwrap()
                .to_vec(),
        )
        .unwrap()
    };
    assert_eq!(of(5, false), "CreateTime");
    assert_eq!(of(5, true), "LogAppendTime");
    assert_eq!(of(-1, false), "NoTimestampType");
}

/// The dead letter of a record with these headers.
fn written(style: HeaderStyle, before: &Pairs, letter: &FailedRecord) -> Pairs {
    let chunk = chunk(0, before);
    let headers = headers(style);
    let added = headers.of(&chunk.record(0), letter);
    let all = headers.beside(&chunk.record(0), &added);
    all.into_iter()
        .map(|(name, value)| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            (name, value.map(<[u8]>::to_vec))
        })
        .collect()
}

#[test]
fn a_record_that_is_dead_lettered_repeatedly_does_not_grow_and_keeps_its_own_headers() {
    // Repeated, null, empty and not text; and names that only start like ours.
    let own: Pairs = vec![
        ("trace".into(), Some(b"1".into())),
        ("trace".into(), None),
        ("empty".into(), Some(Vec::new())),
        ("binary".into(), Some(vec![0xff, 0])),
        ("__connect.errors.mine".into(), Some(b"x".into())),
        ("kafka_dlt-original-mine".into(), Some(b"x".into())),
    ];
    for style in STYLES {
        let first = written(style, &own, &letter(Stage::Decode, "key", "the first failure"));
        assert_eq!(&first[..own.len()], own, "{style:?}");
        let other = letter(Stage::Write, "w", "the second failure");
        let mut again = first.clone();
        for _ in 0..3 {
            again = written(style, &again, &other);
        }
        assert_eq!(again, written(style, &own, &other), "{style:?}");
        let texts: Vec<String> = again
            .iter()
            .filter_map(|(_, value)| Some(String::from_utf8_lossy(value.as_deref()?).into_owned()))
            .collect();
        assert!(
            !texts.iter().any(|text| text.contains("first failure")),
            "{texts:?}"
        );
        assert!(
            texts.iter().any(|text| text.contains("second failure")),
            "{texts:?}"
        );
    }
}

#[test]
fn a_changed_style_removes_the_native_headers_of_an_earlier_failure() {
    let native = written(
        HeaderStyle::Native,
        &Vec::new(),
        &letter(Stage::Write, "w", "earlier"),
    );
    for style in [HeaderStyle::Connect, HeaderStyle::Spring] {
        let after = written(style, &native, &letter(Stage::Write, "w", "later"));
        assert_eq!(
            after,
            written(style, &Vec::new(), &letter(Stage::Write, "w", "later"))
        );
    }
}

#[test]
fn long_messages_are_cut_in_every_style() {
    for style in STYLES {
        let added = added(style, 0, &letter(Stage::Write, "w", &"x".repeat(5000)));
        let longest = added.iter().map(|(_, value)| value.len()).max().unwrap();
        assert!((1024..1200).contains(&longest), "{style:?}: {longest}");
    }
}
