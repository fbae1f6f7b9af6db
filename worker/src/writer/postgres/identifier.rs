//! Names in SQL text: always in quotes, so that they cannot break out. Pure.

/// An identifier in quotes.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table name, with or without schema, in quotes.
pub(super) fn quote_table(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_table("s.t"), "\"s\".\"t\"");
        assert_eq!(quote("a\"; drop table x --"), "\"a\"\"; drop table x --\"");
    }
}
