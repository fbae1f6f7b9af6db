//! The same transform written the slow way, step by step on a list of names and values that serde_json has
//! read, and properties that hold both against each other.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::*;

type Bag = Vec<(String, String)>;

/// All members in their order, repeated ones too.
struct Members(Bag);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut bag = Bag::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    bag.push((name, value.get().to_string()));
                }
                Ok(Members(bag))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

fn read(document: &str) -> Bag {
    serde_json::from_str::<Members>(document)
        .unwrap_or_else(|error| panic!("{error}: {document}"))
        .0
}

fn put(bag: &mut Bag, name: &str, value: String) {
    match bag.iter_mut().find(|(other, _)| other == name) {
        Some((_, slot)) => *slot = value,
        None => bag.push((name.into(), value)),
    }
}

fn expected(document: &str, spec: &crds::spec::Fields) -> Option<Bag> {
    let mut input = Bag::new();
    for (name, value) in read(document) {
        put(&mut input, &name, value);
    }
    input.retain(|(name, _)| !spec.drop.contains(name));
    input.retain(|(name, _)| spec.keep.is_empty() || spec.keep.contains(name));
    let given: Vec<String> = input
        .iter()
        .filter_map(|(name, _)| spec.rename.get(name).cloned())
        .collect();
    let mut output = Bag::new();
    for (name, value) in input {
        match spec.rename.get(&name) {
            Some(new) => output.push((new.clone(), value)),
            None if given.contains(&name) => {}
            None => output.push((name, value)),
        }
    }
    for (name, value) in &mut output {
        if let Some(to) = spec.convert.get(name) {
            *value = converted(value, *to)?;
        }
    }
    for (name, value) in &spec.set {
        put(&mut output, name, serde_json::to_string(value).unwrap());
    }
    for (name, part) in &spec.set_from_record {
        let value = match part {
            crds::spec::RecordPart::Topic => "\"orders\"",
            crds::spec::RecordPart::Partition => "3",
            crds::spec::RecordPart::Offset => "100",
            crds::spec::RecordPart::Timestamp => "\"2023-11-14T22:13:20.123Z\"",
            crds::spec::RecordPart::TimestampMilliseconds => "1700000000123",
            crds::spec::RecordPart::Key => "\"k\"",
        };
        put(&mut output, name, value.into());
    }
    Some(output)
}

fn converted(raw: &str, to: crds::spec::FieldType) -> Option<String> {
    use crds::spec::FieldType;
    // Only its kind counts; what is beyond the range of a float would not parse.
    let value = serde_json::from_str(&raw.replace("1E+400", "1")).unwrap();
    let is_number = |text: &str| {
        text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && text == text.trim()
            && serde_json::from_str::<IgnoredAny>(text).is_ok()
    };
    match (value, to) {
        (serde_json::Value::Null, _) => Some("null".into()),
        (serde_json::Value::String(_), FieldType::String) => Some(raw.into()),
        (serde_json::Value::Bool(_) | serde_json::Value::Number(_), FieldType::String) => {
            Some(format!("\"{raw}\""))
        }
        (serde_json::Value::Number(_), FieldType::Number) => Some(raw.into()),
        (serde_json::Value::String(text), FieldType::Number) => is_number(&text).then_some(text),
        (serde_json::Value::Bool(_), FieldType::Boolean) => Some(raw.into()),
        (serde_json::Value::String(text), FieldType::Boolean) => {
            text.parse::<bool>().ok().map(|value| value.to_string())
        }
        _ => None,
    }
}

/// The same names are likely, in different spellings.
fn name() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "a",
            "b",
            "c",
            "d",
            "e",
            r#"\u0061"#,
            r#"\u0062"#,
            "é",
            r#"\u00E9"#,
            r#"x\"y"#,
            r#"\ud83d\ude00"#,
            "😀",
            "",
            "a-longer-name",
        ][..],
    )
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(
            &[
                "null",
                "true",
                "false",
                "0",
                "-0.50",
                "1E+400",
                "123456789012345678901234567890",
                "12"
            ][..]
        )
        .prop_map(String::from),
        select(
            &[
                r#""""#,
                r#""12.5""#,
                r#"" 1""#,
                r#""1e9""#,
                r#""true""#,
                r#""fals\u0065""#,
                r#""01""#,
                r#""\u0031""#,
                r#""é\n\"]}""#,
                r#""\\""#
            ][..]
        )
        .prop_map(String::from),
        "[a-z ,:{}\u{e9}]{0,20}".prop_map(|text| format!("\"{text}\"")),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec((inner.clone(), space()), 0..4).prop_map(|list| {
                let list: Vec<String> = list
                    .into_iter()
                    .map(|(value, space)| format!("{space}{value}{space}"))
                    .collect();
                format!("[{}]", list.join(","))
            }),
            object(inner, 0..4),
        ]
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    select(&["", "", "", " ", "\n\t", " \r"][..])
}

fn object(
    value: impl Strategy<Value = String>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    vec((name(), value, space(), space()), count).prop_map(|members| {
        let list: Vec<String> = (members.into_iter())
            .map(|(name, value, before, between)| {
                format!("{before}\"{name}\"{between}:{between}{value}{before}")
            })
            .collect();
        format!("{{{}}}", list.join(","))
    })
}

/// With many members that no plan names, twice each.
fn document() -> impl Strategy<Value = String> {
    (object(value(), 0..12), option::weighted(0.2, 1..60_usize)).prop_map(|(object, many)| {
        let Some(many) = many else { return object };
        let more: Vec<String> = (0..2 * many).map(|n| format!("\"n{}\":{n}", n % many)).collect();
        let comma = if object == "{}" { "" } else { "," };
        format!("{}{comma}{}}}", &object[..object.len() - 1], more.join(","))
    })
}

fn spec() -> impl Strategy<Value = crds::spec::Fields> {
    use crds::spec::{FieldType, FieldValue, RecordPart};
    let name = || {
        select(
            &[
                "a",
                "b",
                "c",
                "d",
                "e",
                "é",
                "x\"y",
                "😀",
                "",
                "new",
                "a-longer-name",
            ][..],
        )
        .prop_map(String::from)
    };
    let types = select(&[FieldType::String, FieldType::Number, FieldType::Boolean][..]);
    let parts = select(
        &[
            RecordPart::Topic,
            RecordPart::Partition,
            RecordPart::Offset,
            RecordPart::Timestamp,
            RecordPart::TimestampMilliseconds,
            RecordPart::Key,
        ][..],
    );
    let constant = prop_oneof![
        any::<i64>().prop_map(FieldValue::Integer),
        "[a\"\\\\é]{0,3}".prop_map(FieldValue::String)
    ];
    let map = |most| 0..=most;
    (
        option::weighted(0.3, vec(name(), 1..7)),
        vec(name(), 0..3),
        proptest::collection::btree_map(name(), name(), map(3)),
        proptest::collection::btree_map(name(), types, map(1)),
        proptest::collection::btree_map(name(), constant, map(2)),
        proptest::collection::btree_map(name(), parts, map(2)),
    )
        .prop_map(
            |(keep, drop, rename, convert, set, set_from_record)| crds::spec::Fields {
                drop: if keep.is_some() { Vec::new() } else { drop },
                keep: keep.unwrap_or_default(),
                rename,
                convert,
                set,
                set_from_record,
            },
        )
        .prop_filter("contradictory", |spec| spec.contradictions().is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_global_rejects: 1_000_000, max_local_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_way_does_what_the_slow_way_does(document in document(), spec in spec()) {
        let transform = Fields::new("shape", &spec, &decode("String", "Json"), true);
        let (outputs, failures) = apply(&transform, TIMESTAMP, &[(Some(b"k"), Some(document.as_bytes()))]);
        match expected(&document, &spec) {
            Some(bag) => {
                prop_assert_eq!(&failures, &Vec::<String>::new());
                let output = String::from_utf8(outputs[0].clone().unwrap()).unwrap();
                prop_assert_eq!(read(&output), bag);
            }
            None => prop_assert!(outputs.is_empty() && failures.len() == 1),
        }
    }

    #[test]
    fn a_document_with_bytes_changed_passes_exactly_when_the_decoder_takes_it(
        document in document(), edits in vec((any::<usize>(), select(b"\"\\{}[]:,01e. nt\xc3\x1f".to_vec()), any::<bool>()), 0..3)
    ) {
        let mut bytes = document.into_bytes();
        for (at, byte, replace) in edits {
            let at = at % bytes.len();
            if replace { bytes[at] = byte } else { bytes.insert(at, byte) }
        }
        let transform = fields(json!({"set": {"a": 1}, "drop": ["b"]}));
        let (outputs, failures) = apply(&transform, 0, &[(None, Some(&bytes))]);
        let decoded = decode::check(DecoderType::Json, Some(&bytes)).is_ok();
        let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
        prop_assert_eq!(outputs.len() == 1, decoded && is_object, "{:?}", failures);
        if let Some(Some(output)) = outputs.first() {
            prop_assert!(decode::check(DecoderType::Json, Some(output)).is_ok());
        }
    }
}
