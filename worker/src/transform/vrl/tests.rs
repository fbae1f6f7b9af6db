mod numbers;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::{Chunk, TopicPartition};

type Bytes<'a> = Option<&'a [u8]>;

fn decode(key: &str, value: &str) -> Decode {
    serde_json::from_value(serde_json::json!({"key": {"type": key}, "value": {"type": value}})).unwrap()
}

fn chain(value: &str, programs: &[&str]) -> VrlChain {
    let named: Vec<(String, &str)> = programs
        .iter()
        .enumerate()
        .map(|(n, source)| (format!("p{n}"), *source))
        .collect();
    let named: Vec<(&str, &str)> = named
        .iter()
        .map(|(name, source)| (name.as_str(), *source))
        .collect();
    VrlChain::compile(&named, VrlNumbers::Exact, &decode("String", value), true).unwrap()
}

fn chunk(records: &[(Bytes<'_>, Bytes<'_>)]) -> Arc<Chunk> {
    let mut chunk = Chunk::new(TopicPartition::new("orders", 3), 1);
    for (index, (key, value)) in records.iter().enumerate() {
        let headers = [
            (b"h".as_slice(), Some(b"old".as_slice())),
            (b"h", Some(b"new")),
            (b"none", None),
        ];
        chunk.push(100 + index as i64, 1_700_000_000_000, *key, *value, headers);
    }
    Arc::new(chunk)
}

/// Outputs as "offset key value" and failures as "index stage component message", then the number filtered
/// out.
fn apply(chain: &VrlChain, records: &[(Bytes<'_>, Bytes<'_>)]) -> (Vec<String>, Vec<String>, usize) {
    let input = Batch::identity(chunk(records));
    let mut builder = input.next();
    chain.apply(&input, &mut builder);
    let (batch, filtered) = builder.finish();
    let text =
        |bytes: Bytes<'_>| bytes.map_or("null".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let outputs = batch
        .outputs()
        .map(|out| format!("{} {} {}", out.offset(), text(out.key), text(out.value)));
    let failures = batch
        .failures()
        .iter()
        .map(|f| format!("{} {} {} {}", f.source, f.stage.as_str(), f.component, f.message));
    (outputs.collect(), failures.collect(), filtered)
}

/// Runs one program over one record with key "k", which must make one output; returns its value.
fn one(decoder: &str, program: &str, value: &[u8]) -> String {
    let (outputs, failures, filtered) = apply(&chain(decoder, &[program]), &[(Some(b"k"), Some(value))]);
    assert_eq!((outputs.len(), failures, filtered), (1, vec![], 0));
    outputs[0].strip_prefix("100 k ").unwrap().to_string()
}

#[test]
fn a_program_changes_the_document() {
    assert_eq!(
        one("Json", ".b = to_int!(.a) + 1\ndel(.c)", br#"{"c": [1], "a": 41}"#),
        r#"{"a":41,"b":42}"#
    );
}

#[test]
fn a_string_stays_raw_under_string_and_bytes_and_is_quoted_under_json() {
    assert_eq!(one("String", ". = upcase(string!(.))", b"abc"), "ABC");
    assert_eq!(one("Bytes", ". = upcase(string!(.))", b"abc"), "ABC");
    assert_eq!(one("Json", ". = upcase(string!(.))", b"\"abc\""), "\"ABC\"");
    assert_eq!(one("String", ". = {\"text\": .}", b"abc"), r#"{"text":"abc"}"#);
    assert_eq!(
        one(
            "String",
            ". = parse_json!(.)
.b = .a",
            br#"{"a": 1.50}"#
        ),
        r#"{"a":1.5,"b":1.5}"#
    );
}

#[test]
fn an_array_assigned_to_the_root_makes_several_outputs_and_an_empty_one_none() {
    let chain = chain("Json", &[". = .items"]);
    let (outputs, failures, filtered) = apply(
        &chain,
        &[
            (Some(b"k"), Some(br#"{"items": [1, {"a": null}, null]}"#)),
            (None, Some(br#"{"items": []}"#)),
        ],
    );
    assert_eq!(outputs, ["100 k 1", "100 k {\"a\":null}", "100 k null"]);
    assert_eq!((failures, filtered), (vec![], 1));
}

#[test]
fn an_array_is_split_also_when_the_assignment_did_not_run() {
    let chain = chain("Json", &["if is_object(.) { . = .items }"]);
    let (outputs, failures, filtered) = apply(
        &chain,
        &[
            (None, Some(br#"{"items": [1, 2]}"#)),
            (None, Some(br#"[{"a": 1}, 12345678901234567890, null]"#)),
            (None, Some(b"[]")),
        ],
    );
    let expected = [
        "100 null 1",
        "100 null 2",
        "101 null {\"a\":1}",
        "101 null 12345678901234567890",
        "101 null null",
    ];
    assert_eq!(
        (outputs.as_slice(), failures, filtered),
        (&expected.map(String::from)[..], vec![], 1)
    );
}

#[test]
fn an_array_that_came_in_stays_one_document() {
    assert_eq!(one("Json", ".[0] = 5", b"[1, 2]"), "[5,2]");
    assert_eq!(one("Json", "true", b"[1,2]"), "[1,2]");
}

#[test]
fn abort_filters_the_record_out() {
    let chain = chain("Json", &["if .level == \"debug\" { abort }"]);
    let (outputs, failures, filtered) = apply(
        &chain,
        &[
            (None, Some(br#"{"level":"debug"}"#)),
            (None, Some(br#"{ "level":"info" }"#)),
        ],
    );
    assert_eq!(
        outputs,
        [r#"101 null { "level":"info" }"#],
        "a chain that changes nothing keeps the bytes"
    );
    assert_eq!((failures, filtered), (vec![], 1));
}

#[test]
fn a_tombstone_is_null_in_and_out() {
    let chain = chain("Json", &["if . != null { .seen = true }"]);
    assert_eq!(apply(&chain, &[(Some(b"k"), None)]).0, ["100 k null"]);
    let tombstone = VrlChain::compile(
        &[("a", ". = null")],
        VrlNumbers::Exact,
        &decode("Bytes", "Json"),
        true,
    )
    .unwrap();
    let input = Batch::identity(chunk(&[(None, Some(b"1"))]));
    let mut builder = input.next();
    tombstone.apply(&input, &mut builder);
    assert_eq!(builder.finish().0.output(0).value, None);
}

#[test]
fn the_document_null_does_not_become_a_tombstone() {
    let input = Batch::identity(chunk(&[(None, Some(b"null"))]));
    let mut builder = input.next();
    chain("Json", &["if is_object(.) { .a = 1 }"]).apply(&input, &mut builder);
    assert_eq!(builder.finish().0.output(0).value, Some(b"null".as_slice()));
}

#[test]
fn a_runtime_error_fails_the_record_and_names_the_program() {
    let (outputs, failures, _) = apply(
        &chain("Json", &[".a = 1", ".amount = to_float!(.amount)"]),
        &[
            (None, Some(br#"{"amount": "much"}"#)),
            (None, Some(br#"{"amount": "2"}"#)),
        ],
    );
    assert_eq!(outputs, [r#"101 null {"a":1,"amount":2.0}"#]);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].starts_with("0 transform p1 "), "{failures:?}");
    assert!(failures[0].contains("to_float"), "{failures:?}");
}

#[test]
fn a_value_that_does_not_parse_is_a_decode_failure_when_the_chain_is_first() {
    let broken: &[(Bytes<'_>, Bytes<'_>)] = &[(None, Some(b"{\"secret\""))];
    let chain = chain("Json", &[".a = 1"]);
    assert!(chain.decodes_values());
    assert_eq!(
        apply(&chain, broken).1,
        ["0 decode value is not JSON: EOF while parsing an object at line 1 column 9"]
    );
    let later = VrlChain::compile(
        &[("p", ".a = 1")],
        VrlNumbers::Exact,
        &decode("String", "Json"),
        false,
    )
    .unwrap();
    assert!(!later.decodes_values());
    assert!(
        apply(&later, broken).1[0]
            .starts_with("0 transform p the value from the previous transform is not JSON")
    );
}

#[test]
fn metadata_shows_where_a_record_comes_from() {
    let program = ". = [%topic, %partition, %offset, %timestamp, %key, %headers.h, %headers.none, %other]\n. = {\"all\": .}";
    assert_eq!(
        one("Json", program, b"{}"),
        r#"{"all":["orders",3,100,"2023-11-14T22:13:20Z","k","new",null,null]}"#
    );
}

#[test]
fn only_the_metadata_that_programs_mention_is_built() {
    let chain = chain("Json", &[".a = %offset", "%key = .id"]);
    assert_eq!(
        chain.parts,
        MetadataParts {
            offset: true,
            key: true,
            ..MetadataParts::default()
        }
    );
    assert!(self::chain("Json", &[". = %"]).parts.headers);
    assert!(!self::chain("Json", &[".a = 1"]).changes.key);
}

#[test]
fn assigning_the_key_changes_it_and_otherwise_its_bytes_stay() {
    let chain = chain("Json", &["if exists(.id) { %key = .id }"]);
    let records: &[(Bytes<'_>, Bytes<'_>)] = &[
        (Some(b"k"), Some(br#"{"id":"x"}"#)),
        (Some(b"k"), Some(b"{}")),
        (Some(b"k"), Some(br#"{"id":7}"#)),
        (Some(b"k"), Some(br#"{"id":null}"#)),
    ];
    assert_eq!(
        apply(&chain, records).0,
        [
            r#"100 x {"id":"x"}"#,
            "101 k {}",
            r#"102 7 {"id":7}"#,
            r#"103 null {"id":null}"#
        ]
    );
}

#[test]
fn metadata_of_one_record_is_not_seen_by_the_next() {
    let chain = chain("Json", &["if .n == 1 { %note = \"x\" }", ".note = %note"]);
    let records: &[(Bytes<'_>, Bytes<'_>)] = &[(None, Some(br#"{"n":1}"#)), (None, Some(br#"{"n":2}"#))];
    assert_eq!(
        apply(&chain, records).0,
        [
            r#"100 null {"n":1,"note":"x"}"#,
            r#"101 null {"n":2,"note":null}"#
        ]
    );
}

#[test]
fn programs_of_a_chain_pass_values_on_as_they_are() {
    // Between the programs there is a number, which is neither written as text nor taken for a string.
    let chain = chain(
        "String",
        &[
            ". = parse_json!(.)",
            ". = to_int!(.) * 2",
            ". = \"<\" + to_string!(.) + \">\"",
        ],
    );
    assert_eq!(chain.name(), "p0+p1+p2");
    assert_eq!(
        apply(&chain, &[(None, Some(b"21"))]),
        (vec!["100 null <42>".into()], vec![], 0)
    );
}

#[test]
fn later_programs_see_each_output_of_a_split_by_itself() {
    let chain = chain(
        "Json",
        &[
            ". = .items",
            ".n = to_int!(.n) + 1\n%key = to_string!(.n)",
            "if .n == 3 { abort }",
        ],
    );
    let (outputs, failures, filtered) =
        apply(&chain, &[(None, Some(br#"{"items":[{"n":1},{"n":2},{"n":3}]}"#))]);
    assert_eq!(
        (outputs, failures, filtered),
        (
            vec![r#"100 2 {"n":2}"#.into(), r#"100 4 {"n":4}"#.into()],
            vec![],
            0
        )
    );
}

#[test]
fn what_json_cannot_hold_fails_instead_of_changing() {
    let (_, failures, _) = apply(
        &chain("Json", &[".raw = decode_base64!(.raw)"]),
        &[(None, Some(br#"{"raw":"//79"}"#))],
    );
    assert!(failures[0].contains("not UTF-8; encode it"), "{failures:?}");
    let (_, failures, _) = apply(
        &chain("Json", &[".n = .n * 10.0 ?? 0"]),
        &[(None, Some(br#"{"n":1e308}"#))],
    );
    assert!(failures[0].contains("infinite"), "{failures:?}");
}

#[test]
fn a_broken_program_is_named_with_the_compilers_message() {
    let Err((name, error)) = VrlChain::compile(
        &[("ok", "true"), ("bad", ".a = nope(1)")],
        VrlNumbers::Exact,
        &Decode::default(),
        true,
    ) else {
        panic!("compiled");
    };
    assert_eq!(name, "bad");
    assert!(error.to_string().contains("undefined function"), "{error}");
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_program_that_rewrites_the_document_as_it_is_changes_nothing(document in document()) {
        // Assigning below the root makes the chain rewrite the document.
        let chain = chain("Json", &[".never = true\ndel(.never)"]);
        prop_assume!(document.is_object() && document.get("never").is_none());
        let bytes = serde_json::to_vec(&document).unwrap();
        let input = Batch::identity(chunk(&[(Some(b"k"), Some(&bytes))]));
        let mut builder = input.next();
        chain.apply(&input, &mut builder);
        let (batch, _) = builder.finish();
        prop_assert!(batch.failures().is_empty());
        let output: serde_json::Value = serde_json::from_slice(batch.output(0).value.unwrap()).unwrap();
        prop_assert_eq!(document, output);
    }

    #[test]
    fn any_bytes_pass_through_unchanged_under_bytes(bytes: Vec<u8>) {
        let chain = chain("Bytes", &[". = ."]);
        let input = Batch::identity(chunk(&[(None, Some(&bytes))]));
        let mut builder = input.next();
        chain.apply(&input, &mut builder);
        let (batch, _) = builder.finish();
        prop_assert_eq!(batch.output(0).value, Some(bytes.as_slice()));
    }
}

#[test]
fn the_message_of_a_failed_program_never_quotes_the_payload() {
    let program = chain("Json", &[".iban = to_float!(.iban)"]);
    let input = Batch::identity(chunk(&[(None, Some(br#"{"iban": "DE00 \"SECRET\" IBAN"}"#))]));
    let mut builder = input.next();
    program.apply(&input, &mut builder);
    let (batch, _) = builder.finish();
    let message = &batch.failures()[0].message;
    assert!(
        message.contains("to_float") && message.contains("Invalid floating point"),
        "{message}"
    );
    assert!(
        !message.contains("SECRET") && !message.contains("DE00") && !message.contains("IBAN"),
        "{message}"
    );
}
