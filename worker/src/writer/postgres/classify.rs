//! What an error of PostgreSQL means. Pure. Messages never contain values ([`message`]).

mod message;

use tokio_postgres::{Error, error::DbError};

use self::message::Values;
use super::{groups::Group, identifier::quote, key::Key};
use crate::{record::failure::FailureClass, writer::WriteError};

/// What a SQLSTATE says about the failure of a statement that writes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Known(FailureClass),
    /// A foreign key without its row, which may come soon.
    ParentMissing,
    /// The statement, a type that reads a value, a trigger or an extension may have raised it: only trying
    /// shows whether it is about single records.
    Doubtful,
}

/// The verdict about an error.
pub(super) fn verdict(error: &Error) -> Verdict {
    match error.as_db_error() {
        Some(db) if is_missing_partition(db) => Verdict::Known(FailureClass::Systemic),
        Some(db) => of_code(db.code().code()),
        None => Verdict::Known(FailureClass::Transient),
    }
}

fn of_code(code: &str) -> Verdict {
    match code {
        "23503" => Verdict::ParentMissing,
        // A full disk stays full until a user frees space.
        "53100" => Verdict::Known(FailureClass::Systemic),
        "55006" | "55P03" | "58030" | "72000" => Verdict::Known(FailureClass::Transient),
        _ => match &code[..code.len().min(2)] {
            // Data, constraints, a row twice in one statement, limits such as the index row size, errors
            // raised by triggers.
            "21" | "22" | "23" | "38" | "39" | "44" | "54" | "P0" => Verdict::Known(FailureClass::Record),
            // Login and database.
            "28" | "3D" => Verdict::Known(FailureClass::Systemic),
            // Connection, transaction, resources, intervention of an operator.
            "08" | "25" | "40" | "53" | "57" => Verdict::Known(FailureClass::Transient),
            _ => Verdict::Doubtful,
        },
    }
}

/// The class of an error that no record causes.
fn class(error: &Error) -> FailureClass {
    let doubtful = || match error.code().map(|code| &code.code()[..2]) {
        // Schema, names and permissions, features, configuration.
        Some("3F" | "42" | "0A" | "0P" | "F0") => FailureClass::Systemic,
        _ => FailureClass::Transient,
    };
    match verdict(error) {
        Verdict::Known(class) => class,
        Verdict::ParentMissing => FailureClass::Record,
        Verdict::Doubtful => doubtful(),
    }
}

/// The server reports a missing partition with the code of a CHECK, and may translate the message.
fn is_missing_partition(db: &DbError) -> bool {
    db.code().code() == "23514"
        && db.constraint().is_none()
        && (db.routine() == Some("ExecFindPartition") || db.message().starts_with("no partition of relation"))
}

/// The SQLSTATE, if the server sent one.
pub(super) fn code(error: &Error) -> Option<&str> {
    error.code().map(|code| code.code())
}

/// True if the message of the error names the column or the constraint.
pub(super) fn names_its_cause(error: &Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|db| db.column().is_some() || db.constraint().is_some())
}

/// An error while writing rows that no single record causes.
pub(super) fn of_statement(error: &Error, table: &str, key: &Key) -> WriteError {
    let advice = match error.as_db_error() {
        Some(db) if is_missing_partition(db) => {
            Some("create the missing partition, or a default partition".to_string())
        }
        Some(db) => statement_advice(db.code().code(), table, key),
        None => None,
    };
    let text = message::of_system(error, "writing rows");
    with_certificate_advice(class(error), with_advice(text, advice))
}

fn statement_advice(code: &str, table: &str, key: &Key) -> Option<String> {
    Some(match code {
        "42P10" => {
            let columns: Vec<String> = key.columns().iter().map(|name| quote(name)).collect();
            format!(
                "the key needs a unique index: create unique index on {table} ({})",
                columns.join(", ")
            )
        }
        "42501" => format!(
            "grant the user of the connection URL SELECT, INSERT and UPDATE (and DELETE, with onNull: Delete) \
             on {table} and USAGE on its schema"
        ),
        other => general_advice(other)?.to_string(),
    })
}

/// The message of an error that these rows cause. They belong to one record if there is one row.
pub(super) fn of_rows(error: &Error, groups: &[Group<'_>]) -> String {
    let text = message::of_rows(error, &Values::of(groups));
    let advice = match code(error) {
        Some("23503") => {
            Some("the row that the foreign key refers to does not exist, or not yet".to_string())
        }
        _ => None,
    };
    with_advice(text, advice)
}

/// Any other error.
pub(super) fn other(error: &Error, doing: &str) -> WriteError {
    let advice = code(error).and_then(general_advice).map(str::to_string);
    let text = message::of_system(error, doing);
    with_certificate_advice(class(error), with_advice(text, advice))
}

fn general_advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "57014" => "the statement took longer than postgres.timeoutSeconds; raise it, or look for locks",
        "53100" => "the database server's disk is full; make room",
        "53300" => "the server has no free connection; raise its max_connections or use fewer workers",
        "25006" => "the server is read-only, perhaps a standby; the URL must point to the primary",
        "3D000" => "correct the database name in the connection URL",
        _ if code.starts_with("28") => "correct user and password in the Secret of postgres.connection",
        _ => return None,
    })
}

fn with_advice(mut text: String, advice: Option<String>) -> String {
    if let Some(advice) = advice {
        text.push_str("; ");
        text.push_str(&advice);
    }
    text
}

fn with_certificate_advice(class: FailureClass, text: String) -> WriteError {
    if class == FailureClass::Transient && text.contains("certificate verify failed") {
        return WriteError::Systemic(format!(
            "{text}; put the authority that signed the server's certificate as ca.crt into the Secret of \
             postgres.connection, or correct the host name in its URL"
        ));
    }
    WriteError::new(class, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_determines_the_verdict() {
        let known = |class| Verdict::Known(class);
        for code in [
            "22P02", "22001", "22003", "23502", "23505", "23514", "21000", "54000", "P0001",
        ] {
            assert_eq!(of_code(code), known(FailureClass::Record), "{code}");
        }
        for code in [
            "40001", "40P01", "53300", "57014", "57P01", "57P03", "08006", "25006", "55P03", "58030",
        ] {
            assert_eq!(of_code(code), known(FailureClass::Transient), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "53100"] {
            assert_eq!(of_code(code), known(FailureClass::Systemic), "{code}");
        }
        assert_eq!(of_code("23503"), Verdict::ParentMissing);
        for code in [
            "OR001", "XX000", "42601", "42P01", "42501", "3F000", "0A000", "55000", "HV000", "58P01",
        ] {
            assert_eq!(of_code(code), Verdict::Doubtful, "{code}");
        }
    }
}
