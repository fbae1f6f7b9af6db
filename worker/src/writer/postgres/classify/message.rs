//! Messages of the server without values. In: an error, and the rows that were written. Out: its text, with
//! everything left out that may be payload. Pure.
//!
//! PostgreSQL quotes values in the messages of data errors, and shows rows in the detail, which is omitted.
//! The text of an error that a trigger or a function raises may contain anything.

use std::{collections::HashSet, error::Error as _};

use tokio_postgres::{Error, error::DbError};

use super::super::groups::Group;

/// Stands for what was left out.
const OMITTED: &str = "...";
/// Quotation marks of the server's languages.
const QUOTES: [char; 7] = ['"', '«', '»', '„', '“', '”', '‟'];

/// The words of the values of one row.
pub(super) struct Values(Option<HashSet<String>>);

impl Values {
    /// Of several rows, nothing is kept: their errors are looked at one by one.
    pub fn of(groups: &[Group<'_>]) -> Self {
        let [group] = groups else { return Self(None) };
        if group.len() != 1 {
            return Self(None);
        }
        let texts = group.values.iter().flatten().flatten();
        Self(Some(
            texts
                .flat_map(|text| words(text))
                .map(str::to_lowercase)
                .collect(),
        ))
    }
}

/// An error that rows cause.
pub(super) fn of_rows(error: &Error, values: &Values) -> String {
    match error.as_db_error() {
        Some(db) => {
            let text = row_text(db.code().code(), db.routine(), db.message(), values);
            format!("PostgreSQL, writing rows: {text} (SQLSTATE {})", db.code().code())
        }
        None => of_system(error, "writing rows"),
    }
}

/// An error that is not about rows.
pub(super) fn of_system(error: &Error, doing: &str) -> String {
    let mut text = format!("PostgreSQL, {doing}: ");
    match error.as_db_error() {
        Some(db) => {
            let code = db.code().code();
            match code.get(..2) {
                _ if is_raised(db) => text.push_str(RAISED),
                Some("22") => text.push_str(&without_quoted(db.message())),
                _ => text.push_str(db.message()),
            }
            text.push_str(&format!(" (SQLSTATE {code})"));
        }
        None => {
            text.push_str(&error.to_string());
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
        }
    }
    text
}

const RAISED: &str = "an error that a trigger or a function raised";

/// A user has written the text.
fn is_raised(db: &DbError) -> bool {
    db.routine() == Some(RAISE)
}

/// The function of the server behind PL/pgSQL's RAISE.
const RAISE: &str = "exec_stmt_raise";

/// Functions of the server that raise errors of constraints, indexes and row sizes. Their messages quote names
/// of tables, columns, constraints and indexes, and no values.
const CONSTRAINT_ROUTINES: [&str; 19] = [
    "ExecConstraints",
    "ReportNotNullViolationError",
    "ExecEvalConstraintNotNull",
    "ExecEvalConstraintCheck",
    "domain_check_input",
    "ExecWithCheckOptions",
    "ExecPartitionCheckEmitError",
    "ExecFindPartition",
    "ExecOnConflictUpdate",
    "_bt_check_unique",
    "_bt_check_third_page",
    "check_exclusion_or_unique_constraint",
    "ri_ReportViolation",
    "RI_FKey_check",
    "index_form_tuple",
    "index_form_tuple_context",
    "RelationGetBufferForTuple",
    "SpGistGetBuffer",
    "GinFormTuple",
];

fn row_text(code: &str, routine: Option<&str>, message: &str, values: &Values) -> String {
    // Anything else, such as a trigger, may raise an error with these codes too, with any text.
    if matches!(code.get(..2), Some("21" | "23" | "44" | "54"))
        && routine.is_some_and(|routine| CONSTRAINT_ROUTINES.contains(&routine))
    {
        return message.to_string();
    }
    let own = routine == Some(RAISE) || !matches!(code.get(..2), Some("22" | "42" | "3F" | "0A"));
    match &values.0 {
        Some(words) => without_words(&without_quoted(message), words),
        None if own => RAISED.to_string(),
        None => without_quoted(message),
    }
}

/// Without the text between the first and the last quotation mark: a value may contain some itself.
fn without_quoted(message: &str) -> String {
    match (message.find(QUOTES), message.rfind(QUOTES)) {
        (Some(first), Some(last)) if first < last => {
            let end = message[last..]
                .chars()
                .next()
                .map_or(last, |quote| last + quote.len_utf8());
            format!("{}\"{OMITTED}\"{}", &message[..first], &message[end..])
        }
        _ => message.to_string(),
    }
}

fn without_words(message: &str, values: &HashSet<String>) -> String {
    let mut text = message.to_string();
    let found: Vec<&str> = words(message)
        .filter(|word| values.contains(&word.to_lowercase()))
        .collect();
    for word in found.into_iter().rev() {
        // The words are parts of `message`, from its end to its start.
        let start = word.as_ptr() as usize - message.as_ptr() as usize;
        text.replace_range(start..start + word.len(), OMITTED);
    }
    text
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Values {
        Values(Some(
            texts
                .iter()
                .flat_map(|text| words(text))
                .map(str::to_lowercase)
                .collect(),
        ))
    }

    #[test]
    fn quoted_text_is_removed_in_every_language() {
        for (message, expected) in [
            (
                r#"invalid input syntax for type integer: "4111 "1111""#,
                r#"invalid input syntax for type integer: "...""#,
            ),
            (
                r#"value "99999" is out of range for type smallint"#,
                r#"value "..." is out of range for type smallint"#,
            ),
            (
                "ungültige Eingabesyntax für Typ integer: »4111«",
                "ungültige Eingabesyntax für Typ integer: \"...\"",
            ),
            (
                "value too long for type character varying(3)",
                "value too long for type character varying(3)",
            ),
        ] {
            assert_eq!(without_quoted(message), expected);
        }
    }

    #[test]
    fn what_a_trigger_says_contains_no_word_of_the_row() {
        let row = values(&["4111", "Zoë Smith", "7.50"]);
        assert_eq!(
            row_text(
                "OR001",
                Some(RAISE),
                "order 4111 of ZOË smith (7.50) is not open",
                &row
            ),
            "order ... of ... ... (.......) is not open"
        );
        let several = Values(None);
        assert_eq!(
            row_text("OR001", Some(RAISE), "order 4111 is not open", &several),
            RAISED
        );
        assert_eq!(
            row_text("XX000", Some("parse"), "cannot parse 4111", &several),
            RAISED
        );
        assert_eq!(
            row_text(
                "23514",
                Some("ExecConstraints"),
                "violates check constraint \"c\"",
                &several
            ),
            "violates check constraint \"c\""
        );
        // Other languages than PL/pgSQL raise errors with the code of a constraint, too.
        for routine in [Some("PLy_elog_impl"), Some(RAISE), None] {
            for code in ["21000", "23505", "23514", "44000", "54000"] {
                assert_eq!(row_text(code, routine, "4111 is taken", &row), "... is taken");
                assert_eq!(row_text(code, routine, "4111 is taken", &several), RAISED);
            }
        }
    }
}
