//! Names in SQL text: always in quotes, so that they cannot break out. Pure.

/// An identifier in quotes.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table name, with or without schema, in quotes. Names are taken as they are; one that is in double quotes
/// already may contain dots.
pub(super) fn quote_table(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 6);
    let mut rest = name;
    while !rest.is_empty() {
        let (part, length) = match rest.strip_prefix('"').and_then(quoted_part) {
            Some((part, length)) => (part, length + 1),
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_string(), end)
            }
        };
        quoted.push_str(&quote(&part));
        rest = &rest[length..];
        if let Some(after) = rest.strip_prefix('.') {
            quoted.push('.');
            rest = after;
        }
    }
    quoted
}

/// The name up to its closing quote, and how much of the text it takes. `None` if nothing closes it.
fn quoted_part(text: &str) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if c == '"' && characters.next_if(|(_, next)| *next == '"').is_none() {
            return Some((name, at + 1));
        }
        name.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        for (name, quoted) in [
            ("t", "\"t\""),
            ("s.t", "\"s\".\"t\""),
            ("2026_orders", "\"2026_orders\""),
            ("Schäfer.order-items x", "\"Schäfer\".\"order-items x\""),
            ("\"a.b\".\"c\"\"d\"", "\"a.b\".\"c\"\"d\""),
            ("\"a", "\"\"\"a\""),
        ] {
            assert_eq!(quote_table(name), quoted);
        }
        assert_eq!(quote("a\"; drop table x --"), "\"a\"\"; drop table x --\"");
    }
}
