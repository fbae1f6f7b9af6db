//! JSON for people. In: bytes. Out: the same JSON with line breaks and indentation, or None: it is no JSON. Numbers,
//! texts and repeated keys stay exactly as they are, because nothing is parsed into values. Pure.

use serde::de::IgnoredAny;

/// Longest result: deep nesting makes a document longer.
const LONGEST: usize = 256 * 1024;

/// The document with one member or element per line; None: it is no JSON, or becomes too long.
pub fn pretty(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    // Checks the whole document, and needs no stack for what is nested.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut out = String::with_capacity(text.len().saturating_mul(2).min(LONGEST));
    let mut depth = 0_usize;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                out.push('"');
                while let Some(inner) = characters.next() {
                    out.push(inner);
                    match inner {
                        '\\' => out.extend(characters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match characters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other if other.is_ascii_whitespace() => {}
            other => out.push(other),
        }
        if out.len() > LONGEST {
            return None;
        }
    }
    Some(out)
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn numbers_texts_and_repeated_keys_stay_as_they_are() {
        let text = r#"{"a":12345678901234567890.1234567890123456789,"a":-0.0e+5, "b":[ ],"c":{ },"d":[1,"x,\"{ :\\"],"e":null}"#;
        let expected = r#"{
  "a": 12345678901234567890.1234567890123456789,
  "a": -0.0e+5,
  "b": [],
  "c": {},
  "d": [
    1,
    "x,\"{ :\\"
  ],
  "e": null
}"#;
        assert_eq!(pretty(text.as_bytes()).as_deref(), Some(expected));
        assert_eq!(pretty(b" 1e999 ").as_deref(), Some("1e999"));
    }

    #[test]
    fn what_is_no_json_or_becomes_too_long_is_not_shown_as_json() {
        for text in ["", "{", "{}{}", "nothing", "[1,]", "\u{feff}{}"] {
            assert_eq!(pretty(text.as_bytes()), None, "{text}");
        }
        assert_eq!(pretty(b"\"\xff\""), None);
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(pretty(deep(300).as_bytes()).is_some());
        assert_eq!(pretty(deep(1000).as_bytes()), None, "1 MB of spaces");
        assert_eq!(pretty("[".repeat(1_000_000).as_bytes()), None, "no end");
        let nested = format!(
            "{}{}{}",
            "[".repeat(120),
            vec!["1"; 30_000].join(","),
            "]".repeat(120)
        );
        assert_eq!(pretty(nested.as_bytes()), None, "3 MB of spaces");
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            Just(Value::from("\"\\\n{[,:]}")),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,5}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_document_is_the_same(document in documents(), spaces in any::<bool>()) {
            let text = if spaces { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let shown = pretty(text.unwrap().as_bytes()).unwrap();
            prop_assert_eq!(&shown, &serde_json::to_string_pretty(&document).unwrap());
        }

        #[test]
        fn any_bytes_are_shown_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = pretty(&bytes);
        }
    }
}
