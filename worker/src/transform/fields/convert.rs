//! Converts a JSON value to the same value of another type, exactly or not at all. Text is copied, never
//! computed, so no digit is lost. Appends JSON, or returns a reason that does not quote the value.

use crds::spec::FieldType;

use super::{members::kind_of, scan::Scanner};

/// Appends `value`, which is valid JSON, as this type.
pub(super) fn convert(value: &[u8], to: FieldType, out: &mut Vec<u8>) -> Result<(), String> {
    let first = value.first().copied().unwrap_or_default();
    match (first, to) {
        (b'n', _) | (b'"', FieldType::String) | (b't' | b'f', FieldType::Boolean) => {
            out.extend_from_slice(value)
        }
        (b'-' | b'0'..=b'9', FieldType::Number) => out.extend_from_slice(value),
        (b't' | b'f' | b'-' | b'0'..=b'9', FieldType::String) => {
            out.push(b'"');
            out.extend_from_slice(value);
            out.push(b'"');
        }
        (b'"', FieldType::Number) => {
            text(value, is_number, out).ok_or("it is a string that is no JSON number")?
        }
        (b'"', FieldType::Boolean) => text(value, |text| matches!(text, b"true" | b"false"), out)
            .ok_or("it is a string other than \"true\" and \"false\"")?,
        (other, _) => return Err(format!("it is {}", kind_of(other))),
    }
    Ok(())
}

/// Appends the inside of a string that passes the test.
fn text(value: &[u8], test: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) -> Option<()> {
    let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inside.contains(&b'\\') {
        let unescaped: String = serde_json::from_slice(value).ok()?;
        test(unescaped.as_bytes()).then(|| out.extend_from_slice(unescaped.as_bytes()))
    } else {
        test(inside).then(|| out.extend_from_slice(inside))
    }
}

fn is_number(text: &[u8]) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.number().is_some() && scanner.at() == text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(value: &str, to: FieldType) -> Result<String, String> {
        let mut out = Vec::new();
        convert(value.as_bytes(), to, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_kind_of_value_becomes_every_type_exactly_or_not_at_all() {
        use FieldType::{Boolean, Number, String};
        for (value, to, expected) in [
            ("null", String, Ok("null")),
            ("null", Number, Ok("null")),
            ("null", Boolean, Ok("null")),
            (r#""a\u0061""#, String, Ok(r#""a\u0061""#)),
            ("1.50", String, Ok(r#""1.50""#)),
            ("-1E+400", String, Ok(r#""-1E+400""#)),
            ("true", String, Ok(r#""true""#)),
            ("false", String, Ok(r#""false""#)),
            ("{}", String, Err("it is an object")),
            ("[1]", String, Err("it is an array")),
            ("12.50", Number, Ok("12.50")),
            (r#""12.50""#, Number, Ok("12.50")),
            (r#""-0""#, Number, Ok("-0")),
            (r#""1e400""#, Number, Ok("1e400")),
            (
                r#""123456789012345678901234567890""#,
                Number,
                Ok("123456789012345678901234567890"),
            ),
            (r#""\u0031\u0032""#, Number, Ok("12")),
            (r#"" 12""#, Number, Err("it is a string that is no JSON number")),
            (r#""12 ""#, Number, Err("it is a string that is no JSON number")),
            (r#""012""#, Number, Err("it is a string that is no JSON number")),
            (r#""1,5""#, Number, Err("it is a string that is no JSON number")),
            (r#""""#, Number, Err("it is a string that is no JSON number")),
            (r#""NaN""#, Number, Err("it is a string that is no JSON number")),
            (
                r#""\ud800""#,
                Number,
                Err("it is a string that is no JSON number"),
            ),
            ("true", Number, Err("it is a boolean")),
            ("{}", Number, Err("it is an object")),
            ("[]", Number, Err("it is an array")),
            ("false", Boolean, Ok("false")),
            (r#""true""#, Boolean, Ok("true")),
            (r#""f\u0061lse""#, Boolean, Ok("false")),
            (
                r#""True""#,
                Boolean,
                Err("it is a string other than \"true\" and \"false\""),
            ),
            ("1", Boolean, Err("it is a number")),
            ("[]", Boolean, Err("it is an array")),
        ] {
            let found = converted(value, to);
            assert_eq!(
                found.as_deref().map_err(std::string::String::as_str),
                expected,
                "{value} to {to:?}"
            );
        }
    }
}
