//! Reads the columns of a table from PostgreSQL's catalog.

use tokio_postgres::{Client, Error, Row, types::Type};

use super::{
    classify,
    identifier::quote_table,
    table::{Column, Element, KeyText, Kind, Table, Temporal, cast, fingerprint},
};
use crate::writer::WriteError;

/// One row per column: what [`Column`] needs. For a domain, the type at its bottom counts, because a cast to
/// a domain or to a type with a length would cut what does not fit, while an assignment refuses it.
const COLUMNS: &str = "\
    WITH RECURSIVE types(oid, below) AS (\
        SELECT t.oid, t.oid FROM pg_catalog.pg_type t WHERE t.typtype <> 'd' \
        UNION ALL \
        SELECT t.oid, types.below FROM types JOIN pg_catalog.pg_type t \
            ON t.typtype = 'd' AND t.typbasetype = types.oid) \
    SELECT a.attname::text, format('%I.%I', bn.nspname, b.typname), \
           a.attgenerated <> '' OR a.attidentity = 'a', \
           b.typcategory = 'A', \
           CASE WHEN en.nspname = 'pg_catalog' THEN e.typname::text ELSE '' END, \
           e.typtype = 'e', \
           CASE WHEN b.typcollation <> 0 AND b.typcategory <> 'A' THEN coalesce(u.coll, \
                '\"pg_catalog\".\"C\"') END, \
           coalesce(u.deterministic, true) AND coalesce(c.collisdeterministic, true), \
           (a.attnotnull OR d.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' \
               AND d.typdefault IS NULL OR a.attnotnull AND a.attgenerated <> '', \
           ARRAY(SELECT k.conname::text FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid \
               AND k.contype = 'c' AND (k.conkey IS NULL OR a.attnum = ANY (k.conkey))) <> '{}' \
    FROM pg_catalog.pg_attribute a \
    JOIN pg_catalog.pg_type d ON d.oid = a.atttypid \
    JOIN types ON types.oid = a.atttypid \
    JOIN pg_catalog.pg_type b ON b.oid = types.below \
    JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace \
    LEFT JOIN types et ON b.typcategory = 'A' AND et.oid = b.typelem \
    JOIN pg_catalog.pg_type e ON e.oid = coalesce(et.below, b.oid) \
    JOIN pg_catalog.pg_namespace en ON en.oid = e.typnamespace \
    LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
    LEFT JOIN LATERAL (\
        SELECT CASE WHEN min(l.oid) = max(l.oid) THEN min(format('%I.%I', n.nspname, l.collname)) END \
                   AS coll, \
               bool_and(l.collisdeterministic) AS deterministic \
        FROM pg_catalog.pg_index i \
        CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indcollation::oid[]) AS k(attnum, coll) \
        JOIN pg_catalog.pg_collation l ON l.oid = k.coll \
        JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace \
        WHERE i.indrelid = a.attrelid AND i.indisunique AND k.attnum = a.attnum) AS u ON true \
    WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attnum";

/// Reads the columns of the table with this name.
pub(super) async fn read(client: &Client, name: &str) -> Result<Table, WriteError> {
    let quoted = quote_table(name);
    // In this order: columns that change in between are noticed by the statement that writes.
    let print = read_fingerprint(client, name).await?;
    let rows = client
        .query_typed(COLUMNS, &[(&quoted, Type::TEXT)])
        .await
        .map_err(failed)?;
    let columns = rows.iter().map(column).collect::<Result<Vec<Column>, Error>>();
    match (print, columns.map_err(failed)?) {
        (Some(print), columns) if !columns.is_empty() => Ok(Table::new(name, print, columns)),
        _ => Err(WriteError::Systemic(format!(
            "table {name:?} does not exist for this user (names are case-sensitive here): create it, or \
             correct postgres.table, the database in the URL, or the user's rights"
        ))),
    }
}

/// The fingerprint of the columns now; `None` without a table.
pub(super) async fn read_fingerprint(client: &Client, name: &str) -> Result<Option<String>, WriteError> {
    let sql = format!("SELECT {}", fingerprint(1));
    let rows = client
        .query_typed(&sql, &[(&quote_table(name), Type::TEXT)])
        .await
        .map_err(failed)?;
    match rows.first() {
        Some(row) => row.try_get(0).map_err(failed),
        None => Ok(None),
    }
}

fn failed(error: Error) -> WriteError {
    classify::other(&error, "reading the columns of the table")
}

fn column(row: &Row) -> Result<Column, Error> {
    let (array, element): (bool, String) = (row.try_get(3)?, row.try_get(4)?);
    let type_name: String = row.try_get(1)?;
    let element_kind = element_of(&element);
    let deterministic: bool = row.try_get(7)?;
    let key = match element.as_str() {
        _ if array => KeyText::Unknown,
        "int2" | "int4" | "int8" => KeyText::Integer,
        "uuid" => KeyText::Uuid,
        "text" | "varchar" | "bpchar" if deterministic => KeyText::Text,
        _ if row.try_get(5)? => KeyText::Text,
        _ => KeyText::Unknown,
    };
    Ok(Column {
        name: row.try_get(0)?,
        cast: cast(&type_name, array, element_kind),
        kind: Kind {
            array,
            element: element_kind,
        },
        generated: row.try_get(2)?,
        collation: row.try_get(6)?,
        key,
        guarded: row.try_get::<_, bool>(8)? || row.try_get::<_, bool>(9)?,
    })
}

fn element_of(name: &str) -> Element {
    match name {
        "json" | "jsonb" => Element::Json,
        "date" => Element::Temporal(Temporal::Date),
        "time" => Element::Temporal(Temporal::Time),
        "timetz" => Element::Temporal(Temporal::TimeTz),
        "timestamp" => Element::Temporal(Temporal::Timestamp),
        "timestamptz" => Element::Temporal(Temporal::TimestampTz),
        "interval" => Element::Temporal(Temporal::Interval),
        "tsrange" | "tsmultirange" | "daterange" | "datemultirange" => Element::ZonelessRange,
        _ => Element::Text,
    }
}
