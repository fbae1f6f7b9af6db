//! The Postgres writer and the order of records: as the database compares keys, with records of several
//! columns, merged or not, and with deletes.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "postgres")]

#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/server.rs"]
mod server;

use std::sync::Arc;

use kafka_consumer_worker::{
    Batch, Chunk, WriteBatch, WriteError, Writer, record::TopicPartition, writer::postgres::PostgresWriter,
};
use serde_json::{Value, json};

use records::{by_id, write};
use server::Fixture;

/// Writes as the engine does: halves a refused batch.
async fn insist(writer: &PostgresWriter, values: &[&str]) {
    let mut stack = vec![values.to_vec()];
    while let Some(values) = stack.pop() {
        match write(writer, &values).await {
            Ok(rejected) => assert_eq!(rejected, []),
            Err(WriteError::Refused(_)) if values.len() > 1 => {
                let (left, right) = values.split_at(values.len() / 2);
                stack.extend([right.to_vec(), left.to_vec()]);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_order_of_a_key_holds_as_the_database_compares_keys() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    let collation = format!("{}_nocase", db.table);
    db.sql(&format!(
        "CREATE COLLATION {collation} (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    ))
    .await;
    let nocase = format!("text COLLATE {collation}");
    for (key_type, first, second) in [
        (
            "uuid",
            json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
            json!("a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ),
        ("int", json!(7), json!("007")),
        ("bigint", json!("+7"), json!(" 7 ")),
        ("numeric", json!(7), json!("7.0")),
        ("numeric(10,1)", json!(1.04), json!(1.0)),
        (
            "timestamptz",
            json!("2026-01-31T12:00:00+05:00"),
            json!("2026-01-31T07:00:00Z"),
        ),
        (
            "timestamp(0)",
            json!("2026-01-31T12:00:00.1"),
            json!("2026-01-31 12:00:00"),
        ),
        ("date", json!("2026-01-31T12:00:00"), json!("2026-01-31")),
        ("char(5)", json!("a"), json!("a  ")),
        ("varchar(2)", json!("ab "), json!("ab")),
        ("float8", json!(-0.0), json!("0")),
        ("jsonb", json!({"a": 1, "b": 2}), json!({"b": 2.0, "a": 1.0})),
        ("inet", json!("10.0.0.1"), json!("10.0.0.1/32")),
        (&nocase, json!("a"), json!("A")),
        ("bytea", json!("\\x61"), json!("a")),
        ("bool", json!(true), json!("t")),
    ] {
        db.sql(&format!(
            "DROP TABLE $TABLE; CREATE TABLE $TABLE (id {key_type} primary key, a int, b int)"
        ))
        .await;
        let row = |key: &Value, fields: Value| {
            let mut row = json!({"id": key});
            row.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            row.to_string()
        };
        let values = [
            row(&first, json!({"a": 1})),
            row(&second, json!({"a": 2, "b": 5})),
            row(&first, json!({"a": 3})),
            row(&second, json!({"b": 6})),
            row(&second, json!({"a": 4})),
            row(&first, json!({"a": 5})),
        ];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        insist(&db.writer(by_id()), &values).await;
        let rows = db.rows().await;
        assert_eq!(rows.len(), 1, "{key_type}");
        assert_eq!(
            (&rows[0]["a"], &rows[0]["b"]),
            (&json!(5), &json!(6)),
            "{key_type}"
        );
    }
    db.sql(&format!(
        "DROP TABLE $TABLE; DROP COLLATION {collation}; CREATE TABLE $TABLE (id int)"
    ))
    .await;
}

#[tokio::test]
async fn an_update_of_some_columns_does_not_need_the_others() {
    let columns = "id int primary key, must text not null, a int, b int, low int, high int, \
                   total int generated always as (a + b) stored not null, \
                   check (low is not null and low < high)";
    let Some(db) = Fixture::new(columns).await else {
        return;
    };
    let writer = db.writer(by_id());
    let complete = r#"{"id": 1, "must": "x", "a": 1, "b": 1, "low": 1, "high": 9}"#;
    assert_eq!(write(&writer, &[complete]).await, Ok(vec![]));
    // The last two are for a row that the same batch adds.
    let new = r#"{"id": 2, "must": "y", "a": 1, "b": 1, "low": 1, "high": 2}"#;
    let values = [
        r#"{"id": 1, "a": 2}"#,
        r#"{"id": 1, "a": 3}"#,
        r#"{"id": 1}"#,
        new,
        r#"{"id": 2, "b": 7}"#,
    ];
    assert_eq!(write(&writer, &values).await, Ok(vec![]));
    let rows = db.rows().await;
    assert_eq!(
        (&rows[0]["a"], &rows[0]["must"], &rows[0]["total"]),
        (&json!(3), &json!("x"), &json!(4))
    );
    assert_eq!((&rows[1]["b"], &rows[1]["total"]), (&json!(7), &json!(8)));
    for bad in [
        r#"{"id": 3, "a": 2}"#,
        r#"{"id": 3}"#,
        r#"{"id": 1, "low": 10}"#,
        r#"{"id": 1, "must": null}"#,
    ] {
        assert!(
            matches!(write(&writer, &[bad]).await, Err(WriteError::Refused(_))),
            "{bad}"
        );
    }
    // A constraint that is added later counts, too.
    db.sql("ALTER TABLE $TABLE ADD c int, ADD CHECK (c IS NOT NULL OR id > 100) NOT VALID")
        .await;
    db.sql("UPDATE $TABLE SET c = 1").await;
    assert_eq!(write(&writer, &[r#"{"id": 1, "a": 5}"#]).await, Ok(vec![]));
    assert_eq!(db.rows().await[0]["a"], json!(5));
}

/// A log of the rows that reach the table.
async fn with_log(columns: &str) -> Option<Fixture> {
    let db = Fixture::new(columns).await?;
    db.log_writes("a").await;
    Some(db)
}

#[tokio::test]
async fn records_of_a_key_are_merged_and_counted_or_all_reach_the_database() {
    let Some(db) = with_log("id int primary key, a int check (a <> 13)").await else {
        return;
    };
    let values = [
        r#"{"id": 1, "a": 1}"#,
        r#"{"id": "01", "a": 13}"#,
        r#"{"id": 2, "a": 2}"#,
        r#"{"id": 1, "a": 3}"#,
    ];
    let merging = db.writer(by_id());
    assert_eq!(write(&merging, &values).await, Ok(vec![]));
    assert_eq!((merging.take_merged(), merging.take_merged()), (2, 0));
    assert_eq!(db.written("a").await, [3, 2]);
    db.sql("TRUNCATE $TABLE, $TABLE_log").await;
    let all = db.writer(json!({"keyColumns": ["id"], "merge": "None"}));
    assert!(matches!(write(&all, &values).await, Err(WriteError::Refused(_))));
    let good = [values[0], values[2], values[3], r#"{"id": 1, "a": 4}"#];
    assert_eq!(write(&all, &good).await, Ok(vec![]));
    assert_eq!(all.take_merged(), 0);
    let mut reached = db.written("a").await;
    assert_eq!(
        reached.iter().filter(|a| **a != 2).copied().collect::<Vec<_>>(),
        [1, 3, 4]
    );
    reached.sort_unstable();
    assert_eq!(reached, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_tombstone_deletes_the_row_of_its_key_in_order() {
    for merge in ["LastPerKey", "None"] {
        let Some(db) = Fixture::new("id int primary key, must int not null, a int").await else {
            return;
        };
        let writer = db.writer(json!({"keyColumns": ["id"], "onNull": "Delete", "merge": merge}));
        let record = |key: &'static str, value: Option<&'static str>| (key, value);
        let records = [
            record("1", Some(r#"{"id": 1, "must": 1, "a": 1}"#)),
            record("2", Some(r#"{"id": 2, "must": 2, "a": 2}"#)),
            record("001", None),
            record("1", Some(r#"{"id": 1, "must": 3}"#)),
            record(r#"{"id": 2}"#, None),
            record("3", None),
        ];
        let mut chunk = Chunk::new(TopicPartition::new("orders", 1), 1);
        for (offset, (key, value)) in records.iter().enumerate() {
            chunk.push(
                offset as i64,
                0,
                Some(key.as_bytes()),
                value.map(str::as_bytes),
                [],
            );
        }
        let batch = Batch::identity(Arc::new(chunk));
        for _ in 0..2 {
            assert_eq!(
                writer.write(WriteBatch::new(&batch, &[0, 1, 2, 3, 4, 5])).await,
                Ok(vec![])
            );
            assert_eq!(
                db.rows().await,
                [json!({"id": 1, "must": 3, "a": null})],
                "{merge}"
            );
        }
    }
}
