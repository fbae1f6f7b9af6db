//! What fails a record, with which message, and what does not.

use super::*;

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
fn a_value_that_is_no_object_fails_with_its_kind() {
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
            "0 transform shape the value from the previous transform is not JSON: expected value at line 1 column 12"
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
fn a_failed_record_does_not_affect_the_others() {
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
