use proptest::prelude::*;

use super::*;

const STYLES: [HeaderStyle; 3] = [HeaderStyle::Native, HeaderStyle::Connect, HeaderStyle::Spring];

fn styles() -> impl Strategy<Value = HeaderStyle> {
    prop_oneof![
        Just(HeaderStyle::Native),
        Just(HeaderStyle::Connect),
        Just(HeaderStyle::Spring)
    ]
}

prop_compose! {
    /// As a worker writes it: every field is known.
    fn origins()(
        style in styles(),
        topic in "[a-zA-Z0-9._-]{1,20}",
        partition in 0..i32::MAX,
        offset in 0..i64::MAX,
        timestamp in -1..i64::MAX,
        append in any::<bool>(),
        group in "\\PC{0,20}",
        worker in "[a-z0-9.-]{1,20}",
        stage in 0..3_usize,
        component in prop_oneof![Just("key".to_string()), Just("value".to_string()), "\\PC{0,20}"],
        attempts in any::<u32>(),
        // Also what looks like the end of a trace.
        message in prop_oneof!["(?s).{0,60}", Just("x\n\tat decode.key (worker w, attempts 1)".to_string())],
    ) -> DeadLetterOrigin {
        let stage = Stage::ALL[stage];
        DeadLetterOrigin {
            style, topic, partition, offset,
            timestamp: Some(timestamp),
            timestamp_type: Some(if append { TimestampType::LogAppendTime } else { TimestampType::CreateTime }),
            group: Some(group),
            worker: Some(worker),
            stage: Some(stage),
            component: Some(component),
            attempts: Some(attempts),
            error_class: Some(stage.error_class().into()),
            error_message: Some(message),
        }
    }
}

fn raw(headers: &[Header]) -> Vec<RawHeader<'_>> {
    let raw = headers.iter();
    raw.map(|(name, value)| (name.as_bytes(), Some(value.as_slice())))
        .collect()
}

/// What the style of the origin can carry.
fn carried(origin: &DeadLetterOrigin) -> DeadLetterOrigin {
    let mut origin = origin.clone();
    match origin.style {
        HeaderStyle::Native => origin.timestamp_type = None,
        HeaderStyle::Connect => (origin.timestamp, origin.timestamp_type) = (None, None),
        HeaderStyle::Spring if origin.timestamp < Some(0) => origin.timestamp_type = None,
        HeaderStyle::Spring => {}
    }
    origin
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_in_every_style(origin in origins()) {
        let headers = write(&origin);
        prop_assert_eq!(read(&raw(&headers)), Ok(carried(&origin)));
        prop_assert!(headers.iter().all(|(name, _)| names(origin.style).contains(name)));
    }

    #[test]
    fn the_headers_that_were_added_last_count(one in origins(), other in origins()) {
        let (first, second) = (write(&one), write(&other));
        let mut all = raw(&first);
        all.extend(raw(&second));
        let found = read(&all).unwrap();
        // Spring names the headers of a key differently, and workers remove what they replace.
        prop_assume!(one.style != other.style);
        prop_assert_eq!(found, carried(&other));
    }

    #[test]
    fn any_headers_are_read_without_a_panic(
        mut headers in proptest::collection::vec((0..40_usize, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12))), 0..20),
    ) {
        let known: Vec<&str> = STYLES.iter().flat_map(|style| names(*style)).chain(&part::ALL).copied().collect();
        headers.retain(|(name, _)| *name < known.len());
        let raw: Vec<RawHeader<'_>> =
            headers.iter().map(|(name, value)| (known[*name].as_bytes(), value.as_deref())).collect();
        let _ = (read(&raw), MissingParts::read(&raw));
    }
}

#[test]
fn a_record_without_our_headers_is_foreign_and_a_damaged_one_names_the_header() {
    assert_eq!(read(&[]), Err(NotADeadLetter::Foreign));
    let trace: RawHeader<'_> = (b"trace", Some(b"1"));
    assert_eq!(read(&[trace]), Err(NotADeadLetter::Foreign));
    let topic: RawHeader<'_> = (b"kafka-consumer.dev/topic", Some(b"orders"));
    let partition: RawHeader<'_> = (b"kafka-consumer.dev/partition", Some(b"three"));
    assert_eq!(
        read(&[topic, partition]),
        Err(NotADeadLetter::Invalid("kafka-consumer.dev/partition"))
    );
    let topic: RawHeader<'_> = (b"kafka_dlt-original-topic", Some(b"orders"));
    let partition: RawHeader<'_> = (b"kafka_dlt-original-partition", Some(&[0, 0, 3]));
    assert_eq!(
        read(&[topic, partition]),
        Err(NotADeadLetter::Invalid("kafka_dlt-original-partition"))
    );
}

#[test]
fn the_dead_letter_of_a_connector_is_read_as_far_as_it_goes() {
    let headers: [RawHeader<'_>; 5] = [
        (b"__connect.errors.topic", Some(b"orders")),
        (b"__connect.errors.partition", Some(b"3")),
        (b"__connect.errors.offset", Some(b"7")),
        (b"__connect.errors.stage", Some(b"HEADER_CONVERTER")),
        (b"__connect.errors.exception.message", None),
    ];
    let origin = read(&headers).unwrap();
    assert_eq!((origin.partition, origin.offset), (3, 7));
    assert_eq!(
        (origin.stage, origin.attempts, origin.error_message),
        (None, None, None)
    );
}

#[test]
fn missing_parts_are_read_and_damaged_ones_left_out() {
    assert!(MissingParts::read(&[]).is_empty());
    let headers: [RawHeader<'_>; 5] = [
        (part::VALUE_SIZE.as_bytes(), Some(b"5000")),
        (part::VALUE_KEPT.as_bytes(), Some(b"0")),
        (part::KEY_SIZE.as_bytes(), Some(b"null")),
        (part::TIMESTAMP_REFUSED.as_bytes(), Some(b"-1")),
        (part::HEADERS_DROPPED.as_bytes(), Some(b"many")),
    ];
    let expected = MissingParts {
        value: Some((5000, 0)),
        key: Some(KeySize::Null),
        timestamp: Some(-1),
        headers: None,
    };
    assert_eq!(MissingParts::read(&headers), expected);
}
