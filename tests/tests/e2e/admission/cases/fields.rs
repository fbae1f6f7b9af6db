//! Transforms of type Fields with contradictions, or for values that are not decoded.

use serde_json::{Value, json};

use super::Case;

pub fn cases() -> Vec<Case> {
    let json_values = json!({"value": {"type": "Json"}});
    let only = |transform: Value| json!({"decode": json_values, "transforms": [transform]});
    let with = |fields: Value| only(json!({"name": "t", "type": "Fields", "fields": fields}));
    let member = "fields must be set when type is Fields, and only then";
    let mut all = vec![
        Case(
            "fields of values that are not decoded",
            json!({"transforms": [{"name": "t", "type": "Fields", "fields": {"drop": ["a"]}}]}),
            "spec",
            "the first transform is of type Fields, which reads JSON",
        ),
        Case(
            "fields of values that are decoded as text",
            json!({
                "decode": {"value": {"type": "String"}},
                "transforms": [{"name": "t", "type": "Fields", "fields": {"drop": ["a"]}}],
            }),
            "spec",
            "the first transform is of type Fields, which reads JSON",
        ),
        Case(
            "no fields",
            only(json!({"name": "t", "type": "Fields"})),
            "spec.transforms[]",
            member,
        ),
        Case(
            "fields of a program",
            only(json!({"name": "t", "type": "Vrl", "vrl": {"source": "."}, "fields": {"drop": ["a"]}})),
            "spec.transforms[]",
            member,
        ),
    ];
    let gone = "convert names a field that is not there after drop, keep and rename";
    for (name, fields, says) in [
        ("nothing to do", json!({}), "fields changes nothing"),
        (
            "a step without an entry",
            json!({"rename": {}}),
            "fields changes nothing",
        ),
        (
            "no step with an entry",
            json!({"rename": {}, "convert": {}, "set": {}, "setFromRecord": {}}),
            "fields changes nothing",
        ),
        (
            "keep and drop",
            json!({"keep": ["a"], "drop": ["b"]}),
            "at most one of keep and drop may be set",
        ),
        (
            "two fields of one name",
            json!({"rename": {"a": "c", "b": "c"}}),
            "rename gives two fields the same name",
        ),
        (
            "a dropped field renamed",
            json!({"drop": ["a"], "rename": {"a": "b"}}),
            "rename names a field that drop removes",
        ),
        (
            "a field kept under its new name",
            json!({"keep": ["b"], "rename": {"a": "b"}}),
            "rename names a field that keep does not",
        ),
        (
            "a dropped field converted",
            json!({"drop": ["a"], "convert": {"a": "Number"}}),
            gone,
        ),
        (
            "a field converted that is not kept",
            json!({"keep": ["b"], "convert": {"a": "Number"}}),
            gone,
        ),
        (
            "a renamed field converted under its old name",
            json!({"rename": {"a": "b"}, "convert": {"a": "Number"}}),
            gone,
        ),
        (
            "a field set twice",
            json!({"set": {"a": 1}, "setFromRecord": {"a": "Topic"}}),
            "a field is in both set and setFromRecord",
        ),
        (
            "a converted field set",
            json!({"convert": {"a": "Number"}, "set": {"a": "x"}}),
            "convert names a field that set or setFromRecord replaces",
        ),
        (
            "a converted field set from the record",
            json!({"convert": {"a": "Number"}, "setFromRecord": {"a": "Topic"}}),
            "convert names a field that set or setFromRecord replaces",
        ),
        (
            "a renamed field set",
            json!({"rename": {"a": "b"}, "set": {"b": "x"}}),
            "rename gives a field a name that set or setFromRecord replaces",
        ),
        (
            "a renamed field set from the record",
            json!({"rename": {"a": "b"}, "setFromRecord": {"b": "Offset"}}),
            "rename gives a field a name that set or setFromRecord replaces",
        ),
        (
            "one of many steps against another",
            json!({
                "drop": ["a"], "rename": {"b": "c", "d": "e"}, "convert": {"c": "String", "f": "Boolean"},
                "set": {"g": "x"}, "setFromRecord": {"f": "Topic"},
            }),
            "convert names a field that set or setFromRecord replaces",
        ),
    ] {
        all.push(Case(name, with(fields), "spec.transforms[].fields", says));
    }
    all
}
