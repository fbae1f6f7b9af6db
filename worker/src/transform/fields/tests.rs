mod reference;

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::record::{Chunk, TopicPartition};

type Bytes<'a> = Option<&'a [u8]>;

const TIMESTAMP: i64 = 1_700_000_000_123;

fn decode(key: &str, value: &str) -> Decode {
    serde_json::from_value(json!({"key": {"type": key}, "value": {"type": value}})).unwrap()
}

fn fields(spec: serde_json::Value) -> Fields {
    let spec: crds::spec::Fields = serde_json::from_value(spec).unwrap();
    assert_eq!(spec.contradictions(), Vec::<String>::new());
    Fields::new("shape", &spec, &decode("String", "Json"), true)
}

/// The values of the outputs, and the failures as "index stage component message".
fn apply(
    transform: &Fields,
    timestamp: i64,
    records: &[(Bytes<'_>, Bytes<'_>)],
) -> (Vec<Option<Vec<u8>>>, Vec<String>) {
    let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
    for (index, (key, value)) in records.iter().enumerate() {
        chunk.push(100 + index as i64, timestamp, *key, *value, []);
    }
    let input = Batch::identity(Arc::new(chunk));
    let mut builder = input.next();
    transform.apply(&input, &mut builder);
    let (batch, filtered) = builder.finish();
    assert_eq!(filtered, 0);
    for output in batch.outputs() {
        assert_eq!(
            (output.index, output.key),
            (0, records[output.source].0),
            "the key is not touched"
        );
    }
    let failures = (batch.failures().iter())
        .map(|f| format!("{} {} {} {}", f.source, f.stage.as_str(), f.component, f.message));
    (
        batch.outputs().map(|out| out.value.map(<[u8]>::to_vec)).collect(),
        failures.collect(),
    )
}

/// What becomes of one value under the key "k".
fn one(spec: serde_json::Value, value: &str) -> Result<String, String> {
    let (mut outputs, mut failures) =
        apply(&fields(spec), TIMESTAMP, &[(Some(b"k"), Some(value.as_bytes()))]);
    match (outputs.pop(), failures.pop()) {
        (Some(Some(output)), None) => Ok(String::from_utf8(output).unwrap()),
        (None, Some(failure)) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn check(table: &[(serde_json::Value, &str, &str)]) {
    for (spec, value, expected) in table {
        assert_eq!(
            one(spec.clone(), value).as_deref(),
            Ok(*expected),
            "{spec} of {value}"
        );
    }
}

#[test]
fn fields_are_dropped_kept_renamed_converted_and_set_at_once() {
    let spec = json!({
        "drop": ["note"],
        "rename": {"status": "state"},
        "convert": {"amount": "Number"},
        "set": {"source": "web", "version": 2},
        "setFromRecord": {"origin": "Topic", "ingested": "Timestamp"},
    });
    assert_eq!(
        one(
            spec,
            r#"{"id":17,"status":"paid","amount":"12.50","note":"x","items":[{"sku":"A", "qty":1}]}"#
        )
        .unwrap(),
        concat!(
            r#"{"id":17,"state":"paid","amount":12.50,"items":[{"sku":"A", "qty":1}],"source":"web","version":2,"#,
            r#""ingested":"2023-11-14T22:13:20.123Z","origin":"orders"}"#
        )
    );
}

#[test]
fn a_field_that_is_not_there_is_not_missed() {
    let spec = json!({"drop": ["a"], "rename": {"b": "c"}, "convert": {"d": "Number"}});
    check(&[(spec.clone(), r#"{"x":1}"#, r#"{"x":1}"#), (spec, "{}", "{}")]);
    check(&[
        (json!({"keep": ["a"]}), r#"{"x":1}"#, "{}"),
        (json!({"set": {"a": 1}}), "{ }", r#"{"a":1}"#),
    ]);
}

#[test]
fn keep_removes_all_others_and_uses_the_old_names() {
    check(&[(
        json!({"keep": ["b", "a"], "rename": {"b": "z"}, "set": {"n": "1"}}),
        r#"{"a":1,"b":2,"c":3,"z":4}"#,
        r#"{"a":1,"z":2,"n":"1"}"#,
    )]);
}

#[test]
fn a_renamed_field_keeps_its_place_and_removes_the_one_whose_name_it_gets() {
    let spec = json!({"rename": {"a": "b"}});
    check(&[
        (spec.clone(), r#"{"b":1,"a":2,"c":3}"#, r#"{"b":2,"c":3}"#),
        (spec.clone(), r#"{"a":2,"b":1}"#, r#"{"b":2}"#),
        (spec.clone(), r#"{"b":1,"c":3}"#, r#"{"b":1,"c":3}"#),
        (
            json!({"drop": ["b"], "rename": {"a": "b"}}),
            r#"{"b":1,"c":3}"#,
            r#"{"c":3}"#,
        ),
        (
            json!({"rename": {"a": "b"}, "convert": {"b": "String"}}),
            r#"{"b":1,"a":2}"#,
            r#"{"b":"2"}"#,
        ),
        (
            json!({"rename": {"a": "b"}, "convert": {"b": "String"}}),
            r#"{"b":1}"#,
            r#"{"b":"1"}"#,
        ),
    ]);
}

#[test]
fn names_can_be_exchanged_and_passed_on() {
    check(&[
        (
            json!({"rename": {"a": "b", "b": "a"}}),
            r#"{"a":1,"b":2}"#,
            r#"{"b":1,"a":2}"#,
        ),
        (
            json!({"rename": {"a": "b", "b": "c"}}),
            r#"{"a":1,"b":2,"c":3}"#,
            r#"{"b":1,"c":2}"#,
        ),
        (
            json!({"rename": {"a": "b", "b": "c"}}),
            r#"{"b":2}"#,
            r#"{"c":2}"#,
        ),
        (json!({"rename": {"a": "a"}}), r#"{"a":1}"#, r#"{"a":1}"#),
    ]);
}

#[test]
fn set_replaces_a_field_where_it_stands_and_else_goes_behind_all_in_the_order_of_names() {
    check(&[
        (
            json!({"set": {"b": "x"}}),
            r#"{"a":1,"b":{"c":2},"d":4}"#,
            r#"{"a":1,"b":"x","d":4}"#,
        ),
        (
            json!({"set": {"z": 1, "y": "two"}, "setFromRecord": {"b": "Offset", "a": "Partition"}}),
            r#"{"x":0}"#,
            r#"{"x":0,"y":"two","z":1,"a":3,"b":100}"#,
        ),
        (
            json!({"setFromRecord": {"x": "Offset"}}),
            r#"{"x":0,"y":1}"#,
            r#"{"x":100,"y":1}"#,
        ),
        (
            json!({"drop": ["b"], "set": {"b": "x"}}),
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"b":"x"}"#,
        ),
        (
            json!({"rename": {"a": "b"}, "set": {"a": "x"}}),
            r#"{"a":1}"#,
            r#"{"b":1,"a":"x"}"#,
        ),
        (
            json!({"set": {"q\"\n": "a\"b\\\u{e9}\u{1}"}}),
            "{}",
            r#"{"q\"\n":"a\"b\\é\u0001"}"#,
        ),
        (
            json!({"set": {"n": i64::MIN, "t": "12"}}),
            "{}",
            r#"{"n":-9223372036854775808,"t":"12"}"#,
        ),
    ]);
}

#[test]
fn of_repeated_names_the_last_value_counts_at_the_first_place() {
    check(&[
        (
            json!({"drop": ["x"]}),
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"a":3,"b":2}"#,
        ),
        (
            json!({"drop": ["x"]}),
            r#"{"a":1,"\u0061":3,"b":2}"#,
            r#"{"a":3,"b":2}"#,
        ),
        (
            json!({"rename": {"a": "z"}}),
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"z":3,"b":2}"#,
        ),
        (
            json!({"convert": {"a": "Number"}}),
            r#"{"a":"no","b":2,"a":"3"}"#,
            r#"{"a":3,"b":2}"#,
        ),
        (json!({"drop": ["a"]}), r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2}"#),
        (
            json!({"keep": ["a"]}),
            r#"{"a":1,"b":2,"a":3,"b":4}"#,
            r#"{"a":3}"#,
        ),
        (
            json!({"set": {"a": 9}}),
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"a":9,"b":2}"#,
        ),
        (
            json!({"drop": ["x"]}),
            r#"{"\ud800":1,"\ud801":2,"\ud800":3}"#,
            r#"{"\ud800":3,"\ud801":2}"#,
        ),
    ]);
    // So many that they are sorted.
    let members = |count: usize, value: &str| {
        let list: Vec<String> = (0..count)
            .map(|n| format!("\"field-number-{n}\":{value}"))
            .collect();
        list.join(",")
    };
    let spec = json!({"rename": {"a": "b"}});
    let twice = format!("{{\"a\":0,{},{}}}", members(500, "1"), members(200, "2"));
    let (changed, untouched) = (
        members(200, "2"),
        members(500, "1").split_off(members(200, "1").len()),
    );
    assert_eq!(
        one(spec, &twice).unwrap(),
        format!("{{\"b\":0,{changed}{untouched}}}")
    );
}

#[test]
fn names_are_compared_without_their_escapes_and_untouched_ones_stay_as_they_are_written() {
    check(&[
        (
            json!({"rename": {"status": "state"}}),
            r#"{"st\u0061tus":1,"\u0061":2}"#,
            r#"{"state":1,"\u0061":2}"#,
        ),
        (json!({"drop": ["é"]}), r#"{"\u00e9":1,"e":2}"#, r#"{"e":2}"#),
        (
            json!({"drop": ["\u{1f600}"]}),
            r#"{"\uD83D\uDE00":1,"e":2}"#,
            r#"{"e":2}"#,
        ),
        (json!({"drop": [""]}), r#"{"":1,"e":2}"#, r#"{"e":2}"#),
        (
            json!({"drop": ["x".repeat(500)]}),
            &format!("{{\"{}\":1,\"e\":2}}", "x".repeat(500)),
            r#"{"e":2}"#,
        ),
    ]);
}

#[test]
fn space_between_members_goes_and_space_inside_values_stays() {
    check(&[(
        json!({"drop": ["b"]}),
        " {\n \"a\" : [ 1 ,\t{ \"x\" : 2 } ] ,\r\n\"b\":1 , \"c\":\" \" ,\"d\":1,\"e\":2 } \n",
        "{\"a\":[ 1 ,\t{ \"x\" : 2 } ],\"c\":\" \",\"d\":1,\"e\":2}",
    )]);
}

#[test]
fn digits_are_never_touched() {
    let value = r#"{"a":1.50,"b":123456789012345678901234567890,"c":-0.0e-999}"#;
    check(&[(json!({"drop": ["x"]}), value, value)]);
}

#[test]
fn a_tombstone_passes_and_the_literal_null_is_no_object() {
    let (outputs, failures) = apply(
        &fields(json!({"set": {"a": 1}})),
        0,
        &[(Some(b"k"), None), (None, Some(b"null"))],
    );
    assert_eq!(outputs, [None]);
    assert_eq!(
        failures,
        ["1 transform shape the value is null; Fields needs an object"]
    );
}

#[test]
fn what_is_no_object_is_told_by_its_kind() {
    for (value, kind) in [
        ("[{}]", "an array"),
        ("\"{}\"", "a string"),
        (" -1 ", "a number"),
        ("false", "a boolean"),
    ] {
        assert_eq!(
            one(json!({"drop": ["a"]}), value),
            Err(format!(
                "0 transform shape the value is {kind}; Fields needs an object"
            ))
        );
    }
}

#[test]
fn what_is_no_json_fails_where_it_is_decoded_with_the_decoders_words() {
    let records: &[(Bytes<'_>, Bytes<'_>)] = &[
        (None, Some(b"{\"secret\": }")),
        (None, Some(b"{\"a\":1} x")),
        (None, Some(b"{\"a\":\"\xff\"}")),
        (None, Some(b"")),
        (None, Some(b"{\"a\":[1,]}")),
        (None, Some(b"{\"dropped\":nul}")),
        (None, Some(b"{\"a\":1")),
        (None, Some(b"[1")),
        (None, Some(b"{\"a\":1}")),
    ];
    let spec: crds::spec::Fields = serde_json::from_value(json!({"drop": ["dropped"]})).unwrap();
    let first = Fields::new("shape", &spec, &decode("Bytes", "Json"), true);
    assert!(first.decodes_values());
    let (outputs, failures) = apply(&first, 0, records);
    assert_eq!(outputs, [Some(b"{\"a\":1}".to_vec())]);
    assert_eq!(
        failures[0],
        "0 decode value is not JSON: expected value at line 1 column 12"
    );
    assert_eq!(
        failures[1],
        "1 decode value is not JSON: trailing characters at line 1 column 9"
    );
    assert_eq!(
        failures[2],
        "2 decode value is not UTF-8: the byte at position 6 is invalid"
    );
    assert!(
        failures.iter().all(|failure| !failure.contains("secret")),
        "{failures:?}"
    );
    assert_eq!(failures.len(), records.len() - 1);

    for later in [
        Fields::new("shape", &spec, &decode("Bytes", "Json"), false),
        Fields::new("shape", &spec, &decode("Bytes", "Bytes"), false),
    ] {
        assert!(!later.decodes_values());
        let (_, failures) = apply(&later, 0, records);
        assert_eq!(
            failures[0],
            "0 transform shape the value from the transform before is not JSON: expected value at line 1 column 12"
        );
    }
}

#[test]
fn an_error_names_the_field_and_never_the_value() {
    let spec = json!({"rename": {"sum": "amount"}, "convert": {"amount": "Number", "paid": "Boolean"}});
    assert_eq!(
        one(spec.clone(), r#"{"sum":"secret"}"#).unwrap_err(),
        "0 transform shape field \"amount\" cannot become a Number: it is a string that is no JSON number"
    );
    assert_eq!(
        one(spec, r#"{"sum":"1","paid":{"secret":1}}"#).unwrap_err(),
        "0 transform shape field \"paid\" cannot become a Boolean: it is an object"
    );
}

#[test]
fn a_record_that_fails_leaves_the_others_alone() {
    let transform = fields(json!({"convert": {"a": "Number"}, "set": {"b": 1}}));
    let values = [r#"{"b":2,"a":"1"}"#, r#"{"b":2,"a":"x"}"#, r#"{"a":"3"}"#];
    let records = values.map(|value| (None, Some(value.as_bytes())));
    let (outputs, failures) = apply(&transform, 0, &records);
    assert_eq!(
        outputs,
        [
            Some(br#"{"b":1,"a":1}"#.to_vec()),
            Some(br#"{"a":3,"b":1}"#.to_vec())
        ]
    );
    assert_eq!(failures.len(), 1);
}

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

#[test]
fn a_million_brackets_do_not_exhaust_the_stack() {
    let deep = "[".repeat(1_000_000);
    let closed = format!("{{\"a\":{deep}{}}}", "]".repeat(1_000_000));
    assert_eq!(
        one(json!({"rename": {"a": "b"}}), &closed).unwrap().len(),
        closed.len()
    );
    assert!(
        one(json!({"rename": {"a": "b"}}), &format!("{{\"a\":{deep}"))
            .unwrap_err()
            .contains("not JSON")
    );
}

/// The two cases of the benchmark that are compared with each other.
#[cfg(feature = "vrl")]
#[test]
fn a_program_that_says_the_same_makes_the_same_document() {
    use crate::transform::vrl::VrlChain;

    let program =
        "del(.country)\n.state = del(.status)\n.amount = to_string!(.amount)\n.handled_by = \"bench\"\n";
    let chain = VrlChain::compile(&[("same", program)], &decode("String", "Json"), true).unwrap();
    let order = r#"{"id":1,"country":"DE","amount":559.64,"items":[{"sku":"A","qty":2}],"status":"paid"}"#;
    let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
    chunk.push(1, 0, None, Some(order.as_bytes()), []);
    let input = Batch::identity(Arc::new(chunk));
    let mut builder = input.next();
    chain.apply(&input, &mut builder);
    let (batch, _) = builder.finish();
    let by_program: serde_json::Value = serde_json::from_slice(batch.output(0).value.unwrap()).unwrap();
    let spec = json!({
        "drop": ["country"], "rename": {"status": "state"}, "convert": {"amount": "String"}, "set": {"handled_by": "bench"}
    });
    let by_fields: serde_json::Value = serde_json::from_str(&one(spec, order).unwrap()).unwrap();
    assert_eq!(by_fields, by_program);
}
