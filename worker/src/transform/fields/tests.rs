mod failures;
mod record;
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
fn a_missing_field_is_ignored() {
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
    // Enough fields that they are sorted.
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

/// The two cases of the benchmark that are compared with each other.
#[cfg(feature = "vrl")]
#[test]
fn a_program_that_says_the_same_makes_the_same_document() {
    use crate::transform::vrl::VrlChain;

    let program =
        "del(.country)\n.state = del(.status)\n.amount = to_string!(.amount)\n.handled_by = \"bench\"\n";
    let chain = VrlChain::compile(
        &[("same", program)],
        crds::spec::VrlNumbers::Exact,
        &decode("String", "Json"),
        true,
    )
    .unwrap();
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
