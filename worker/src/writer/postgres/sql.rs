//! SQL statements. Pure. User-defined names appear only where SQL needs a name, and always quoted; values are
//! parameters.

use super::{
    identifier::quote,
    key::Key,
    table::{Column, Table},
};

/// Upserts rows with the given columns. Parameters: one text array per column, in the same order. The
/// statement casts the rows to the column types, keeps the last row of each key, and locks rows in the order
/// of their keys, so that concurrent batches do not deadlock.
pub(super) fn upsert(table: &Table, key: &Key, columns: &[usize]) -> String {
    let column = |index: &usize| &table.columns[*index];
    let list = |items: Vec<String>| items.join(", ");
    let is_key = |index: &&usize| key.columns().contains(&column(index).name);
    let names = list(columns.iter().map(|index| quote(&column(index).name)).collect());
    let aliases = list((0..columns.len()).map(|n| format!("c{n}")).collect());
    let arrays = list((1..=columns.len()).map(|n| format!("${n}::text[]")).collect());
    let casts = list(
        columns
            .iter()
            .enumerate()
            .map(|(n, index)| format!("c{n}::{} AS c{n}", column(index).type_name))
            .collect(),
    );
    let keys = list(
        columns
            .iter()
            .enumerate()
            .filter(|(_, index)| is_key(index))
            .map(|(n, _)| format!("c{n}"))
            .collect(),
    );
    let key_names = list(key.columns().iter().map(|name| quote(name)).collect());
    let changes: Vec<String> = columns
        .iter()
        .filter(|index| !is_key(index))
        .map(|index| quote(&column(index).name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let action = if changes.is_empty() {
        "NOTHING".to_string()
    } else {
        format!("UPDATE SET {}", list(changes))
    };
    format!(
        "INSERT INTO {table} ({names}) \
         SELECT DISTINCT ON ({keys}) {aliases} \
         FROM (SELECT {casts}, n FROM unnest({arrays}) WITH ORDINALITY AS r({aliases}, n)) AS s \
         ORDER BY {keys}, n DESC \
         ON CONFLICT ({key_names}) DO {action}",
        table = table.quoted,
    )
}

/// Casts a text to the type of a column.
pub(super) fn cast(column: &Column) -> String {
    format!("SELECT $1::text::{}", column.type_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::postgres::table::tests::table;

    #[test]
    fn the_statement_names_only_columns_that_are_present() {
        let table = table(&[
            ("id", "integer"),
            ("Name \"x\"", "text"),
            ("other", "text"),
            ("n", "jsonb"),
        ]);
        let sql = upsert(&table, &Key::Columns(vec!["id".into()]), &[0, 1, 3]);
        assert_eq!(
            sql,
            "INSERT INTO \"public\".\"orders\" (\"id\", \"Name \"\"x\"\"\", \"n\") \
             SELECT DISTINCT ON (c0) c0, c1, c2 \
             FROM (SELECT c0::integer AS c0, c1::text AS c1, c2::jsonb AS c2, n \
             FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS r(c0, c1, c2, n)) AS s \
             ORDER BY c0, n DESC \
             ON CONFLICT (\"id\") DO UPDATE SET \"Name \"\"x\"\"\" = excluded.\"Name \"\"x\"\"\", \"n\" = \
             excluded.\"n\""
        );
    }

    #[test]
    fn rows_with_only_key_columns_change_nothing_in_an_existing_row() {
        let table = table(&[("a", "uuid"), ("b", "bigint")]);
        let sql = upsert(&table, &Key::Columns(vec!["b".into(), "a".into()]), &[0, 1]);
        assert!(sql.contains("DISTINCT ON (c0, c1)"), "{sql}");
        assert!(sql.ends_with("ON CONFLICT (\"b\", \"a\") DO NOTHING"), "{sql}");
    }
}
