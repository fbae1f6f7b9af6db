//! What an error of PostgreSQL means. Pure. Messages never contain values: PostgreSQL quotes values in the
//! message of data errors, where they are removed, and in the detail, which is omitted.

use std::error::Error as _;

use tokio_postgres::Error;

use super::{identifier::quote, key::Key};
use crate::{record::failure::FailureClass, writer::WriteError};

/// Classifies a SQLSTATE; `None` if the error is not from the server.
fn class(code: Option<&str>) -> FailureClass {
    let Some(code) = code else {
        return FailureClass::Transient;
    };
    match code {
        // A full disk stays full until a user frees space.
        "53100" => FailureClass::Systemic,
        _ => match &code[..code.len().min(2)] {
            // Data, constraints, a row twice in one statement, limits such as the index row size, errors
            // raised by triggers.
            "21" | "22" | "23" | "38" | "39" | "44" | "54" | "P0" => FailureClass::Record,
            // Login, database, schema, names and permissions, features.
            "28" | "3D" | "3F" | "42" | "0A" | "0P" | "F0" => FailureClass::Systemic,
            _ => FailureClass::Transient,
        },
    }
}

/// An error while writing rows.
pub(super) fn write(error: &Error, table: &str, key: &Key) -> WriteError {
    let advice = error.code().and_then(|code| match code.code() {
        "42P10" => {
            let columns: Vec<String> = key.columns().iter().map(|name| quote(name)).collect();
            Some(format!(
                "the key needs a unique index: create unique index on {} ({})",
                table,
                columns.join(", ")
            ))
        }
        "42501" => Some(format!(
            "grant the user of the connection URL SELECT, INSERT and UPDATE on {} and USAGE on its schema",
            table
        )),
        other => general_advice(other).map(str::to_string),
    });
    to_write_error(error, "writing rows", advice)
}

/// Any other error.
pub(super) fn other(error: &Error, doing: &str) -> WriteError {
    let advice = error
        .code()
        .and_then(|code| general_advice(code.code()))
        .map(str::to_string);
    to_write_error(error, doing, advice)
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

fn to_write_error(error: &Error, doing: &str, advice: Option<String>) -> WriteError {
    let code = error.code().map(|code| code.code());
    let mut message = format!("PostgreSQL, {doing}: ");
    match error.as_db_error() {
        Some(db) => {
            let code = db.code().code();
            if code.starts_with("22") {
                message.push_str(&without_values(db.message()));
            } else {
                message.push_str(db.message());
            }
            message.push_str(&format!(" (SQLSTATE {code})"));
        }
        None => {
            message.push_str(&error.to_string());
            let mut source = error.source();
            while let Some(cause) = source {
                message.push_str(&format!(": {cause}"));
                source = cause.source();
            }
        }
    }
    if let Some(advice) = advice {
        message.push_str("; ");
        message.push_str(&advice);
    }
    match class(code) {
        FailureClass::Transient if message.contains("certificate verify failed") => {
            WriteError::Systemic(format!(
                "{message}; put the authority that signed the server's certificate as ca.crt into the Secret \
                 of postgres.connection, or correct the host name in its URL"
            ))
        }
        class => WriteError::new(class, message),
    }
}

/// Data errors quote the value: `value "99999" is out of range for type smallint`.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"...\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_determines_the_class() {
        for code in [
            "22P02", "22001", "22003", "23502", "23503", "23505", "23514", "21000", "54000", "P0001",
        ] {
            assert_eq!(class(Some(code)), FailureClass::Record, "{code}");
        }
        for code in [
            "40001", "40P01", "53300", "57014", "57P01", "57P03", "08006", "25006", "55P03", "XX000", "58030",
        ] {
            assert_eq!(class(Some(code)), FailureClass::Transient, "{code}");
        }
        for code in [
            "28P01", "28000", "3D000", "3F000", "42P01", "42703", "42501", "42P10", "0A000", "53100",
        ] {
            assert_eq!(class(Some(code)), FailureClass::Systemic, "{code}");
        }
        assert_eq!(class(None), FailureClass::Transient);
    }

    #[test]
    fn values_are_removed_from_data_errors() {
        assert_eq!(
            without_values(r#"invalid input syntax for type integer: "4111 "1111""#),
            r#"invalid input syntax for type integer: "...""#
        );
        assert_eq!(
            without_values(r#"value "99999" is out of range for type smallint"#),
            r#"value "..." is out of range for type smallint"#
        );
        assert_eq!(
            without_values("value too long for type character varying(3)"),
            "value too long for type character varying(3)"
        );
    }
}
