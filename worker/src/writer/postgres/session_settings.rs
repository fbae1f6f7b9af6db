//! The settings under which the writer's statements run. Pure.
//!
//! A role, a database, the URL or a pooler may have set a session to anything, and a pooler gives the session
//! to others afterwards. So each transaction pins what changes the meaning of a text, and leaves nothing
//! behind.

use std::time::Duration;

/// Read committed, because `ExactlyOnce` must see the row of the partition as it is once it has the lock, and
/// a statement the columns as they are once it has its lock. Not as they were at the start of the
/// transaction.
const ISOLATION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What changes the meaning of a text, with the server's own defaults, except for the zone, which is the zone
/// of the machine there. `lc_monetary` makes `1.50` 150 for money in some countries.
const MEANING: [(&str, &str); 7] = [
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("xmloption", "content"),
    ("lc_monetary", "C"),
];
/// The same for the names of zones. Only set if it differs, because the server reads a file for it.
const ABBREVIATIONS: &str = "CASE WHEN current_setting('timezone_abbreviations') <> 'Default' \
                             THEN set_config('timezone_abbreviations', 'Default', true) END";

/// Begins a transaction.
pub(super) fn begin(statement_timeout: Duration, schema: Option<&str>) -> String {
    let timeout = statement_timeout.as_millis().to_string();
    let mut settings = MEANING.to_vec();
    settings.push(("statement_timeout", &timeout));
    settings.extend(schema.map(|schema| ("search_path", schema)));
    let settings: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("set_config('{name}', {}, true)", literal(value)))
        .collect();
    format!("{ISOLATION}; SELECT {ABBREVIATIONS}, {}", settings.join(", "))
}

/// A text as SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_cannot_break_out_of_its_literal() {
        let begin = begin(Duration::from_secs(30), Some("a'b\\c"));
        assert!(
            begin.starts_with("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT "),
            "{begin}"
        );
        assert!(
            begin.contains("set_config('statement_timeout', '30000', true)"),
            "{begin}"
        );
        assert!(
            begin.ends_with("set_config('search_path', E'a''b\\\\c', true)"),
            "{begin}"
        );
    }
}
