//! SQL statements. Pure. User-defined names appear only where SQL needs a name, and always quoted; values are
//! parameters.
//!
//! Parameters of a statement that writes: one text array per column, then the name of the table, then the
//! fingerprint of the columns for which the values were encoded. If the columns have changed since, the
//! statement fails with [`COLUMNS_CHANGED`]. It holds its lock on the table since it was parsed, and
//! ALTER TABLE needs a stronger one, so what it compares is what it writes to.

use super::{
    identifier::quote,
    key::Key,
    table::{Column, Table, fingerprint},
};

/// The SQLSTATE of `LIMIT -1`.
pub(super) const COLUMNS_CHANGED: &str = "2201W";

/// Upserts rows with the given columns. The statement casts the texts to the types of the columns, keeps the
/// last row of each key if it may `merge`, and locks rows in the order of their keys, so that concurrent
/// batches do not deadlock.
///
/// PostgreSQL checks NOT NULL and CHECK of a new row before it looks for an existing one. If such a
/// constraint needs a column that is not given, the statement updates the rows that exist, and inserts only
/// the others.
pub(super) fn upsert(table: &Table, key: &Key, columns: &[usize], merge: bool) -> String {
    let names = list(columns.iter().map(|index| quote(&table.columns[*index].name)));
    let aliases = aliases(columns.len());
    let key_names = list(key.columns().iter().map(|name| quote(name)));
    let changes = changes(table, key, columns);
    let action = if changes.is_empty() {
        "NOTHING".to_string()
    } else {
        let excluded = |(_, name): &(usize, String)| format!("{name} = excluded.{name}");
        format!("UPDATE SET {}", list(changes.iter().map(excluded)))
    };
    let (existing, source) = if updates_first(table, columns) {
        let rows = rows(table, key, columns, merge, ", n");
        (
            format!(
                "WITH r AS MATERIALIZED ({rows}), e AS ({}) ",
                existing(table, key, columns)
            ),
            format!("SELECT {aliases} FROM r WHERE n NOT IN (SELECT n FROM e)"),
        )
    } else {
        (String::new(), rows(table, key, columns, merge, ""))
    };
    format!(
        "{existing}INSERT INTO {table} ({names}) {source} ON CONFLICT ({key_names}) DO {action}",
        table = table.quoted,
    )
}

/// Deletes the rows with these keys. The columns are those of the key.
pub(super) fn delete(table: &Table, key: &Key, columns: &[usize], merge: bool) -> String {
    format!(
        "DELETE FROM {} AS t USING ({}) AS r WHERE {}",
        table.quoted,
        rows(table, key, columns, merge, ""),
        same_key(table, key, columns)
    )
}

/// The texts as values, sorted by key, with the order number `n` if it is selected too.
fn rows(table: &Table, key: &Key, columns: &[usize], merge: bool, n: &str) -> String {
    let count = columns.len();
    let keys: Vec<String> = columns
        .iter()
        .enumerate()
        .filter(|(_, index)| is_key(table, key, **index))
        .map(|(n, index)| match &table.columns[*index].collation {
            Some(collation) => format!("c{n} COLLATE {collation}"),
            None => format!("c{n}"),
        })
        .collect();
    let keys = keys.join(", ");
    let casts = columns.iter().enumerate();
    let casts = list(casts.map(|(n, index)| format!("c{n}{} AS c{n}", table.columns[*index].cast)));
    let arrays = list((1..=count).map(|n| format!("${n}::text[]")));
    let aliases = aliases(count);
    let (distinct, order) = if merge {
        (format!("DISTINCT ON ({keys}) "), "n DESC")
    } else {
        (String::new(), "n")
    };
    format!(
        "SELECT {distinct}{aliases}{n} \
         FROM (SELECT {casts}, n FROM unnest({arrays}) WITH ORDINALITY AS r({aliases}, n)) AS s \
         ORDER BY {keys}, {order} \
         LIMIT (SELECT CASE WHEN {print} = ${expected}::text THEN NULL ELSE -1 END)",
        print = fingerprint(count + 1),
        expected = count + 2,
    )
}

/// Finds the rows of `r` that exist, and changes them.
fn existing(table: &Table, key: &Key, columns: &[usize]) -> String {
    let same_key = same_key(table, key, columns);
    let changes = changes(table, key, columns);
    if changes.is_empty() {
        return format!("SELECT r.n FROM r JOIN {} AS t ON {same_key}", table.quoted);
    }
    format!(
        "UPDATE {} AS t SET {} FROM r WHERE {same_key} RETURNING r.n",
        table.quoted,
        list(changes.iter().map(|(n, name)| format!("{name} = r.c{n}")))
    )
}

fn same_key(table: &Table, key: &Key, columns: &[usize]) -> String {
    let keys = columns.iter().enumerate();
    let keys: Vec<String> = keys
        .filter(|(_, index)| is_key(table, key, **index))
        .map(|(n, index)| format!("t.{} = r.c{n}", quote(&table.columns[*index].name)))
        .collect();
    keys.join(" AND ")
}

/// True if a new row with only these columns may violate a constraint of another column.
fn updates_first(table: &Table, columns: &[usize]) -> bool {
    let missing = || (0..table.columns.len()).filter(|index| !columns.contains(index));
    let column = |index: usize| &table.columns[index];
    missing().any(|index| !column(index).generated) && missing().any(|index| column(index).guarded)
}

/// Position and quoted name of the columns that are not in the key.
fn changes(table: &Table, key: &Key, columns: &[usize]) -> Vec<(usize, String)> {
    let changes = columns.iter().enumerate();
    changes
        .filter(|(_, index)| !is_key(table, key, **index))
        .map(|(n, index)| (n, quote(&table.columns[*index].name)))
        .collect()
}

fn is_key(table: &Table, key: &Key, index: usize) -> bool {
    key.columns().contains(&table.columns[index].name)
}

fn aliases(count: usize) -> String {
    list((0..count).map(|n| format!("c{n}")))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Makes a value of a text, as [`upsert`] does.
pub(super) fn cast(column: &Column) -> String {
    format!("SELECT $1::text{}", column.cast)
}

/// Reads a text as a value of the column `$2` of the table, with its length and the rules of its domain.
pub(super) fn assign(table: &Table) -> String {
    format!(
        "SELECT jsonb_populate_record(NULL::{}, jsonb_build_object($2::text, $1::text))",
        table.quoted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::postgres::table::tests::table;

    fn key(names: &[&str]) -> Key {
        Key::Columns(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn the_statement_names_only_columns_that_are_present() {
        let table = table(&[
            ("id", "integer"),
            ("Name \"x\"", "text"),
            ("other", "text"),
            ("n", "jsonb"),
        ]);
        let sql = upsert(&table, &key(&["id"]), &[0, 1, 3], true);
        let (rows, rest) = sql.split_once(" LIMIT (").unwrap();
        assert_eq!(
            rows,
            "INSERT INTO \"public\".\"orders\" (\"id\", \"Name \"\"x\"\"\", \"n\") \
             SELECT DISTINCT ON (c0) c0, c1, c2 \
             FROM (SELECT c0::integer AS c0, c1::text AS c1, c2::jsonb AS c2, n \
             FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS r(c0, c1, c2, n)) AS s \
             ORDER BY c0, n DESC"
        );
        assert!(
            rest.contains("to_regclass($4::text)")
                && rest.ends_with(
                    " = $5::text THEN NULL ELSE -1 END) ON CONFLICT (\"id\") DO UPDATE SET \"Name \"\"x\"\"\" \
                     = excluded.\"Name \"\"x\"\"\", \"n\" = excluded.\"n\""
                ),
            "{rest}"
        );
    }

    #[test]
    fn rows_with_only_key_columns_change_nothing_in_an_existing_row() {
        let table = table(&[("a", "text"), ("b", "bigint")]);
        let sql = upsert(&table, &key(&["b", "a"]), &[0, 1], true);
        assert!(sql.contains("DISTINCT ON (c0 COLLATE \"C\", c1)"), "{sql}");
        assert!(sql.ends_with("ON CONFLICT (\"b\", \"a\") DO NOTHING"), "{sql}");
    }

    #[test]
    fn existing_rows_are_updated_first_if_a_missing_column_has_constraints() {
        let table = table(&[
            ("id", "integer"),
            ("a", "text"),
            ("must", "text"),
            ("generated_c", "text"),
        ]);
        let sql = upsert(&table, &key(&["id"]), &[0, 1], true);
        assert!(
            sql.contains("UPDATE \"public\".\"orders\" AS t SET \"a\" = r.c1 FROM r WHERE t.\"id\" = r.c0"),
            "{sql}"
        );
        let complete = upsert(&table, &key(&["id"]), &[0, 1, 2], true);
        assert!(complete.starts_with("INSERT INTO"), "{complete}");
        let only_the_key = upsert(&table, &key(&["id"]), &[0], true);
        assert!(only_the_key.contains("SELECT r.n FROM r JOIN"), "{only_the_key}");
    }

    #[test]
    fn records_that_must_not_be_merged_stay_apart() {
        let table = table(&[("id", "integer"), ("a", "text")]);
        let sql = upsert(&table, &key(&["id"]), &[0, 1], false);
        assert!(
            !sql.contains("DISTINCT") && sql.contains("ORDER BY c0, n LIMIT"),
            "{sql}"
        );
    }
}
