//! Parts of the record as fields.

use super::*;

#[test]
fn a_key_is_set_as_its_decoder_says() {
    let spec: crds::spec::Fields = serde_json::from_value(json!({"setFromRecord": {"key": "Key"}})).unwrap();
    let with = |decoder: &str, key: Bytes<'_>| {
        let transform = Fields::new("shape", &spec, &decode(decoder, "Json"), true);
        let (outputs, failures) = apply(&transform, 0, &[(key, Some(b"{}"))]);
        outputs
            .into_iter()
            .flatten()
            .next()
            .map(|out| String::from_utf8(out).unwrap())
            .ok_or(failures)
    };
    let ok = |value: &str| Ok(format!("{{\"key\":{value}}}"));
    for decoder in ["Bytes", "String"] {
        assert_eq!(with(decoder, Some(b"a\"b")), ok(r#""a\"b""#));
        assert_eq!(with(decoder, Some(b"17")), ok(r#""17""#));
        assert_eq!(with(decoder, None), ok("null"));
        assert_eq!(
            with(decoder, Some(b"ab\xff")).unwrap_err(),
            [
                "0 transform shape field \"key\" cannot be set: the key is not UTF-8: the byte at position 2 is invalid"
            ]
        );
    }
    assert_eq!(with("Json", Some(b" {\"a\": 1}\n")), ok(r#"{"a": 1}"#));
    assert_eq!(with("Json", Some(b"17")), ok("17"));
    assert_eq!(with("Json", None), ok("null"));
    assert_eq!(
        with("Json", Some(b"a")).unwrap_err(),
        [
            "0 transform shape field \"key\" cannot be set: the key is not JSON: expected value at line 1 column 1"
        ]
    );
}

#[test]
fn a_timestamp_is_text_or_a_number_and_null_when_there_is_none() {
    let transform = fields(json!({"setFromRecord": {"a": "Timestamp", "b": "TimestampMilliseconds"}}));
    let with = |timestamp: i64| {
        let (outputs, failures) = apply(&transform, timestamp, &[(None, Some(b"{}"))]);
        outputs
            .into_iter()
            .flatten()
            .next()
            .map(|out| String::from_utf8(out).unwrap())
            .ok_or(failures)
    };
    assert_eq!(with(0).unwrap(), r#"{"a":"1970-01-01T00:00:00.000Z","b":0}"#);
    assert_eq!(
        with(TIMESTAMP).unwrap(),
        r#"{"a":"2023-11-14T22:13:20.123Z","b":1700000000123}"#
    );
    assert_eq!(with(-1).unwrap(), r#"{"a":null,"b":null}"#);
    assert_eq!(
        with(i64::MAX).unwrap_err(),
        [
            "0 transform shape field \"a\" cannot be set: the record's timestamp is later than the year 9999; use TimestampMilliseconds"
        ]
    );
}
