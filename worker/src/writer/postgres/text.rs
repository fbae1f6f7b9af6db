//! Converts a JSON value to the text form that PostgreSQL reads for a column. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::table::Kind;

/// `None` is SQL's NULL. Numbers keep their digits. Objects stay JSON, and so do arrays for columns that are
/// not arrays.
pub(super) fn of<'a>(value: &'a RawValue, kind: Kind) -> Result<Option<Cow<'a, str>>, &'static str> {
    let raw = value.get();
    let text = match (kind, raw.as_bytes().first()) {
        (_, Some(b'n')) => return Ok(None),
        (Kind::Json, _) => Cow::Borrowed(raw),
        (_, Some(b'"')) => string(raw)?,
        (Kind::Array, Some(b'[')) => {
            let mut literal = String::with_capacity(raw.len() + 2);
            push_array(&mut literal, raw)?;
            Cow::Owned(literal)
        }
        _ => Cow::Borrowed(raw),
    };
    Ok(Some(text))
}

fn string(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    // Borrows if nothing is escaped.
    #[derive(serde::Deserialize)]
    struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);
    let JsonString(text) = serde_json::from_str(raw).map_err(|_| "is a string with an invalid escape")?;
    if text.contains('\0') {
        return Err("contains the character U+0000, which PostgreSQL cannot store: remove it in a transform");
    }
    Ok(text)
}

fn push_array(literal: &mut String, raw: &str) -> Result<(), &'static str> {
    let elements: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| "is nested too deeply for an array")?;
    literal.push('{');
    for (n, element) in elements.iter().enumerate() {
        if n > 0 {
            literal.push(',');
        }
        let raw = element.get();
        match raw.as_bytes().first() {
            Some(b'[') => push_array(literal, raw)?,
            Some(b'n') => literal.push_str("NULL"),
            Some(b'"') => push_quoted(literal, &string(raw)?),
            _ => push_quoted(literal, raw),
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

    fn text(json: &str, kind: Kind) -> Result<Option<String>, &'static str> {
        let value: Box<RawValue> = serde_json::from_str(json).unwrap();
        of(&value, kind).map(|text| text.map(Cow::into_owned))
    }

    fn some(text: &str) -> Result<Option<String>, &'static str> {
        Ok(Some(text.into()))
    }

    #[test]
    fn plain_values_keep_their_text() {
        assert_eq!(text("null", Kind::Text), Ok(None));
        assert_eq!(
            text("12345678901234567890.10", Kind::Text),
            some("12345678901234567890.10")
        );
        assert_eq!(text("true", Kind::Text), some("true"));
        assert_eq!(text(r#""a\n\"b\" \u00e4""#, Kind::Text), some("a\n\"b\" ä"));
        assert_eq!(text(r#"{"a": [1, 2]}"#, Kind::Text), some(r#"{"a": [1, 2]}"#));
    }

    #[test]
    fn json_columns_get_json_also_for_strings() {
        assert_eq!(text(r#""a\u00e4""#, Kind::Json), some(r#""a\u00e4""#));
        assert_eq!(text("[1]", Kind::Json), some("[1]"));
        assert_eq!(text("null", Kind::Json), Ok(None));
    }

    #[test]
    fn arrays_become_array_literals() {
        assert_eq!(
            text(r#"["a,b", "c\"\\", null, 1, [true]]"#, Kind::Array),
            some(r#"{"a,b","c\"\\",NULL,"1",{"true"}}"#)
        );
        assert_eq!(text("[]", Kind::Array), some("{}"));
        assert_eq!(text(r#""{1,2}""#, Kind::Array), some("{1,2}"));
    }

    #[test]
    fn a_nul_character_is_rejected() {
        assert!(text(r#""a\u0000b""#, Kind::Text).unwrap_err().contains("U+0000"));
        assert!(text(r#"["\u0000"]"#, Kind::Array).is_err());
    }
}
