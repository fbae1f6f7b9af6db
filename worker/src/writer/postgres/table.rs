//! The columns of the target table, from PostgreSQL's catalog.

use std::collections::HashMap;

use tokio_postgres::{Client, types::Type};

use super::{classify, identifier::quote_table};
use crate::writer::WriteError;

/// The form of text that a column accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON, unchanged.
    Json,
    /// An array literal.
    Array,
    /// Anything else.
    Text,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The type as SQL, without length: a cast to varchar(3) silently truncates, while the assignment fails.
    pub type_name: String,
    pub kind: Kind,
    /// The database computes the value, so it cannot be written.
    pub generated: bool,
}

/// The target table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The name as configured.
    pub name: String,
    /// The name as SQL.
    pub quoted: String,
    pub columns: Vec<Column>,
    by_name: HashMap<String, usize>,
}

impl Table {
    pub fn new(name: &str, columns: Vec<Column>) -> Self {
        let by_name = columns
            .iter()
            .enumerate()
            .map(|(index, column)| (column.name.clone(), index))
            .collect();
        Self {
            name: name.into(),
            quoted: quote_table(name),
            columns,
            by_name,
        }
    }

    /// Index of the column with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

// For a domain, the type below it counts.
const QUERY: &str = "\
    SELECT a.attname::text, format_type(a.atttypid, -1), \
           a.attgenerated <> '' OR a.attidentity = 'a', \
           CASE WHEN b.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json' \
                WHEN b.typcategory = 'A' THEN 'array' ELSE 'text' END \
    FROM pg_attribute a \
    JOIN pg_type t ON t.oid = a.atttypid \
    JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
    WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attnum";

/// Reads the columns of `name`.
pub(super) async fn read(client: &Client, name: &str) -> Result<Table, WriteError> {
    let quoted = quote_table(name);
    let rows = (client.query_typed(QUERY, &[(&quoted, Type::TEXT)]).await)
        .map_err(|error| classify::other(&error, "reading the columns of the table"))?;
    let columns: Vec<Column> = rows
        .iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                type_name: row.try_get(1)?,
                generated: row.try_get(2)?,
                kind: match row.try_get(3)? {
                    "json" => Kind::Json,
                    "array" => Kind::Array,
                    _ => Kind::Text,
                },
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| classify::other(&error, "reading the columns of the table"))?;
    if columns.is_empty() {
        return Err(WriteError::Systemic(format!(
            "table {name:?} does not exist for this user (names are case-sensitive here): create it, or \
             correct postgres.table, the database in the URL, or the user's rights"
        )));
    }
    Ok(Table::new(name, columns))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table public.orders with columns of these names and types; the type determines the kind.
    pub fn table(columns: &[(&str, &str)]) -> Table {
        let columns = columns.iter().map(|(name, type_name)| Column {
            name: name.to_string(),
            type_name: type_name.to_string(),
            kind: match *type_name {
                "json" | "jsonb" => Kind::Json,
                array if array.ends_with("[]") => Kind::Array,
                _ => Kind::Text,
            },
            generated: name.starts_with("generated"),
        });
        Table::new("public.orders", columns.collect())
    }

    #[test]
    fn columns_are_found_by_their_exact_name() {
        let table = table(&[("id", "integer"), ("Name", "text")]);
        assert_eq!((table.find("Name"), table.find("name")), (Some(1), None));
    }
}
