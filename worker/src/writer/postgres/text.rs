//! Converts a JSON value to the text form that PostgreSQL reads for a column. Pure.

use std::borrow::Cow;

use crds::spec::EpochUnit;
use serde_json::value::RawValue;

use super::{
    table::{Element, Kind},
    temporal,
};

/// `None` is SQL's NULL. Numbers keep their digits. Objects stay JSON, and so do arrays for columns that are
/// not arrays. Numbers for dates and times have this unit.
pub(super) fn of<'a>(
    value: &'a RawValue,
    kind: Kind,
    unit: Option<EpochUnit>,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    let raw = value.get();
    match (kind.array, raw.as_bytes().first()) {
        (_, Some(b'n')) => Ok(None),
        (true, Some(b'[')) => {
            let mut literal = String::with_capacity(raw.len() + 2);
            push_array(&mut literal, raw, kind.element, unit)?;
            Ok(Some(Cow::Owned(literal)))
        }
        // An array literal.
        (true, Some(b'"')) => {
            let text = string(raw)?;
            match kind.element {
                Element::Temporal(kind) => temporal::literal(&text, Some(kind))?,
                Element::ZonelessRange => temporal::literal(&text, None)?,
                Element::Json | Element::Text => {}
            }
            Ok(Some(text))
        }
        (true, _) => Ok(Some(Cow::Borrowed(raw))),
        (false, _) => element(raw, kind.element, unit).map(Some),
    }
}

/// The text of a value that is not null.
fn element(raw: &str, element: Element, unit: Option<EpochUnit>) -> Result<Cow<'_, str>, &'static str> {
    match (element, raw.as_bytes().first()) {
        (Element::Json, _) => Ok(Cow::Borrowed(raw)),
        (Element::Text, Some(b'"')) => string(raw),
        (Element::Temporal(kind), Some(b'"')) => temporal::text(string(raw)?, kind),
        (Element::Temporal(kind), Some(b'-' | b'0'..=b'9')) => {
            temporal::number(raw, kind, unit).map(Cow::Owned)
        }
        (Element::Temporal(_), _) => Err(NO_TEXT),
        (Element::ZonelessRange, first) => {
            let text = match first {
                Some(b'"') => string(raw)?,
                // A JSON array may look like a range.
                _ => Cow::Borrowed(raw),
            };
            temporal::literal(&text, None)?;
            Ok(text)
        }
        _ => Ok(Cow::Borrowed(raw)),
    }
}

/// The text for a column of a text that is not JSON.
pub(super) fn plain(text: &str, kind: Kind) -> Result<Cow<'_, str>, &'static str> {
    if text.contains('\0') {
        return Err(NUL);
    }
    match (kind.array, kind.element) {
        (false, Element::Temporal(kind)) => return temporal::text(text.into(), kind),
        (true, Element::Temporal(kind)) => temporal::literal(text, Some(kind))?,
        (_, Element::ZonelessRange) => temporal::literal(text, None)?,
        _ => {}
    }
    Ok(text.into())
}

const NO_TEXT: &str = "is an array, an object, true or false, but its column has a date or time type: make it a \
                       text in ISO 8601 in a transform";
const NUL: &str = "contains the character U+0000, which PostgreSQL cannot store: remove it in a transform";

/// The text of a JSON string.
fn string(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    // Borrows if nothing is escaped.
    #[derive(serde::Deserialize)]
    struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);
    let JsonString(text) = serde_json::from_str(raw).map_err(|_| "is a string with an invalid escape")?;
    if text.contains('\0') {
        return Err(NUL);
    }
    Ok(text)
}

fn push_array(
    literal: &mut String,
    raw: &str,
    kind: Element,
    unit: Option<EpochUnit>,
) -> Result<(), &'static str> {
    let elements: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| "is nested too deeply for an array")?;
    literal.push('{');
    for (n, value) in elements.iter().enumerate() {
        if n > 0 {
            literal.push(',');
        }
        let raw = value.get();
        match raw.as_bytes().first() {
            Some(b'n') => literal.push_str("NULL"),
            // An array of JSON has one dimension: what is inside of it is JSON.
            Some(b'[') if kind != Element::Json => push_array(literal, raw, kind, unit)?,
            _ => push_quoted(literal, &element(raw, kind, unit)?),
        }
    }
    literal.push('}');
    Ok(())
}

fn push_quoted(literal: &mut String, text: &str) {
    literal.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Kind = Kind {
        array: false,
        element: Element::Text,
    };
    const JSON: Kind = Kind {
        array: false,
        element: Element::Json,
    };
    const ARRAY: Kind = Kind {
        array: true,
        element: Element::Text,
    };

    fn text(json: &str, kind: Kind) -> Result<Option<String>, &'static str> {
        let value: Box<RawValue> = serde_json::from_str(json).unwrap();
        of(&value, kind, None).map(|text| text.map(Cow::into_owned))
    }

    fn some(text: &str) -> Result<Option<String>, &'static str> {
        Ok(Some(text.into()))
    }

    #[test]
    fn plain_values_keep_their_text() {
        assert_eq!(text("null", TEXT), Ok(None));
        assert_eq!(
            text("12345678901234567890.10", TEXT),
            some("12345678901234567890.10")
        );
        assert_eq!(text("true", TEXT), some("true"));
        assert_eq!(text(r#""a\n\"b\" \u00e4""#, TEXT), some("a\n\"b\" ä"));
        assert_eq!(text(r#"{"a": [1, 2]}"#, TEXT), some(r#"{"a": [1, 2]}"#));
    }

    #[test]
    fn json_columns_get_json_also_for_strings() {
        assert_eq!(text(r#""a\u00e4""#, JSON), some(r#""a\u00e4""#));
        assert_eq!(text("[1]", JSON), some("[1]"));
        assert_eq!(text("null", JSON), Ok(None));
    }

    #[test]
    fn arrays_become_array_literals() {
        assert_eq!(
            text(r#"["a,b", "c\"\\", null, 1, [true]]"#, ARRAY),
            some(r#"{"a,b","c\"\\",NULL,"1",{"true"}}"#)
        );
        assert_eq!(text("[]", ARRAY), some("{}"));
        assert_eq!(text(r#""{1,2}""#, ARRAY), some("{1,2}"));
    }

    #[test]
    fn a_nul_character_is_rejected() {
        assert!(text(r#""a\u0000b""#, TEXT).unwrap_err().contains("U+0000"));
        assert!(text(r#"["\u0000"]"#, ARRAY).is_err());
    }

    #[test]
    fn arrays_of_json_and_of_times_are_read_element_by_element() {
        let json = Kind { array: true, ..JSON };
        assert_eq!(
            text(r#"[{"a": "x"}, "y", [1, 2], null]"#, json),
            some(r#"{"{\"a\": \"x\"}","\"y\"","[1, 2]",NULL}"#)
        );
        let times = Kind {
            array: true,
            element: Element::Temporal(crate::writer::postgres::table::Temporal::Timestamp),
        };
        assert_eq!(text(r#"["2026-01-31"]"#, times), some(r#"{"2026-01-31"}"#));
        assert!(
            text("[[1712340115]]", times)
                .unwrap_err()
                .contains("postgres.epoch")
        );
        assert!(text(r#"["1712340115"]"#, times).is_err());
        assert!(text(r#""{1712340115}""#, times).is_err());
        assert!(text(r#"[{"a": 1}]"#, times).is_err());
    }

    #[test]
    fn json_that_is_no_text_and_no_number_is_no_time() {
        use crate::writer::postgres::table::Temporal;
        for kind in [
            Temporal::Date,
            Temporal::Time,
            Temporal::TimestampTz,
            Temporal::Interval,
        ] {
            let kind = Kind {
                array: false,
                element: Element::Temporal(kind),
            };
            for json in [
                "[1712340115]",
                "[2026, 1, 31]",
                r#"{"a": 1712340115}"#,
                "true",
                "false",
            ] {
                assert!(text(json, kind).unwrap_err().contains("ISO 8601"), "{json}");
            }
            assert_eq!(text("null", kind), Ok(None));
        }
        let range = Kind {
            array: false,
            element: Element::ZonelessRange,
        };
        for json in [
            "[1712340115, 1712340116]",
            r#"["2026-01-31 10:00+05", ""]"#,
            r#""[1712340115,)""#,
        ] {
            assert!(text(json, range).is_err(), "{json}");
        }
    }
}
