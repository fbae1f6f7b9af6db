//! Refused steps of `transforms[].fields`, and random steps that compare the rules of the resource with those
//! of the worker.

use std::sync::LazyLock;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use serde_json::json;

use super::*;

/// A resource that breaks a rule, the field, part of the message.
pub(super) fn refused() -> Vec<(Value, &'static str, &'static str)> {
    let fields = |fields: Value| {
        with(&[(
            "/transforms/2",
            json!({"name": "shape", "type": "Fields", "fields": fields}),
        )])
    };
    let fields_at = "spec.transforms[2].fields";
    vec![
        (
            with(&[(
                "/transforms",
                json!([{"name": "shape", "type": "Fields", "fields": {"drop": ["a"]}}]),
            )]),
            "spec",
            "the first transform is of type Fields, which reads JSON; set decode: {value: {type: Json}}",
        ),
        (
            with(&[("/transforms/2", json!({"name": "shape", "type": "Fields"}))]),
            "spec.transforms[2]",
            "fields must be set when type is Fields, and only then, for example {type: Fields, fields: {drop: [note]}}",
        ),
        (fields(json!({})), fields_at, "fields changes nothing"),
        (
            fields(json!({"rename": {}, "convert": {}, "set": {}, "setFromRecord": {}})),
            fields_at,
            "fields changes nothing",
        ),
        (
            fields(json!({"keep": ["a"], "drop": ["b"]})),
            fields_at,
            "at most one of keep and drop",
        ),
        (
            fields(json!({"rename": {"a": "c", "b": "c"}})),
            fields_at,
            "rename gives two fields the same name",
        ),
        (
            fields(json!({"drop": ["a"], "rename": {"a": "b"}})),
            fields_at,
            "rename names a field that drop removes",
        ),
        (
            fields(json!({"keep": ["b"], "rename": {"a": "b"}})),
            fields_at,
            "rename names a field that keep does not",
        ),
        (
            fields(json!({"rename": {"a": "b"}, "convert": {"a": "Number"}})),
            fields_at,
            "convert names a field that is not there after drop, keep and rename",
        ),
        (
            fields(json!({"set": {"a": 1}, "setFromRecord": {"a": "Topic"}})),
            fields_at,
            "in both set and setFromRecord",
        ),
        (
            fields(json!({"convert": {"a": "Number"}, "setFromRecord": {"a": "Topic"}})),
            fields_at,
            "convert names a field that set or setFromRecord replaces",
        ),
        (
            fields(json!({"rename": {"a": "b"}, "set": {"b": "x"}})),
            fields_at,
            "rename gives a field a name that set or setFromRecord replaces",
        ),
    ]
}

/// Random steps over few names, so that they often collide; some without entries, as templates render them.
fn steps() -> impl Strategy<Value = Value> {
    let name = || select(&["a", "b", "c", "d"][..]);
    let list = |chance| option::weighted(chance, vec(name(), 1..4));
    let map =
        |value: Value| option::weighted(0.4, btree_map(name(), Just(value), 0..3)).prop_map(|map| json!(map));
    let rename = option::weighted(0.5, btree_map(name(), name(), 0..3)).prop_map(|map| json!(map));
    let (convert, set, part) = (map(json!("Number")), map(json!(1)), map(json!("Topic")));
    (list(0.3), list(0.3), rename, convert, set, part).prop_map(|(keep, drop, rename, convert, set, part)| {
        let mut fields = json!({"keep": keep, "drop": drop, "rename": rename, "convert": convert, "set": set, "setFromRecord": part});
        if let Some(fields) = fields.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        fields
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The worker and the rules of the resource refuse exactly the same documents.
    #[test]
    fn the_rules_for_fields_and_the_workers_own_agree(fields in steps()) {
        static RULES: LazyLock<Rules> = LazyLock::new(Rules::new);
        let spec: crds::spec::Fields = serde_json::from_value(fields.clone()).unwrap();
        let found = messages_of(&RULES, &with(&[("/transforms/2/fields", fields)]));
        let contradictions = spec.contradictions();
        prop_assert_eq!(found.is_empty(), contradictions.is_empty(), "{:#?} {:#?}", found, contradictions);
    }
}
