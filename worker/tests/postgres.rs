//! The Postgres writer against a real server (`postgres/server.rs`).
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "postgres")]

#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/server.rs"]
mod server;

use std::{fs, sync::Arc};

use kafka_consumer_worker::{WriteError, writer::postgres::PostgresWriter};
use serde_json::json;

use records::{by_id, write};
use server::Fixture;

#[tokio::test]
async fn every_type_of_value_reaches_its_column() {
    let columns = "id bigint primary key, amount numeric(20,2), name text, code varchar(5), ok boolean, \
                   at timestamptz, day date, uid uuid, tags text[], grid int[][], doc jsonb, raw json, \
                   note text, bin bytea, ip inet";
    let Some(db) = Fixture::new(columns).await else {
        return;
    };
    let value = r#"{"id": 9007199254740993, "amount": 123456789012345678.91, "name": "Zoë \"x\"\n\\N",
        "code": "abc", "ok": true, "at": "2026-01-31T10:00:00Z", "day": "2026-01-31",
        "uid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "tags": ["a,b", "c\"d", null], "grid": [[1, 2], [3, 4]], "doc": {"a": [1, null]}, "raw": "text",
        "note": {"as": "json text"}, "bin": "\\x00ff", "ip": "10.0.0.1"}"#;
    assert_eq!(write(&db.writer(by_id()), &[value]).await, Ok(vec![]));
    let row = &db.rows().await[0];
    assert_eq!(row["id"], json!(9007199254740993_i64));
    assert_eq!(row["name"], json!("Zoë \"x\"\n\\N"));
    assert_eq!(
        (&row["code"], &row["ok"], &row["day"]),
        (&json!("abc"), &json!(true), &json!("2026-01-31"))
    );
    assert_eq!(row["tags"], json!(["a,b", "c\"d", null]));
    assert_eq!(row["grid"], json!([[1, 2], [3, 4]]));
    assert_eq!(
        (&row["doc"], &row["raw"]),
        (&json!({"a": [1, null]}), &json!("text"))
    );
    assert_eq!(row["note"], json!(r#"{"as": "json text"}"#));
    assert_eq!((&row["bin"], &row["ip"]), (&json!("\\x00ff"), &json!("10.0.0.1")));
    let sql = format!("SELECT amount::text FROM {}", db.table);
    assert_eq!(
        db.client.query_one(&sql, &[]).await.unwrap().get::<_, &str>(0),
        "123456789012345678.91"
    );
}

#[tokio::test]
async fn the_last_record_of_a_key_wins_and_writing_twice_changes_nothing() {
    let Some(db) = Fixture::new("id int primary key, a text, b text, made timestamptz default now()").await
    else {
        return;
    };
    let writer = db.writer(by_id());
    let values = [
        r#"{"id": 1, "a": "first", "b": "first"}"#,
        r#"{"id": 2, "a": "x"}"#,
        r#"{"id": 1, "a": "second"}"#,
        r#"{"id": 1, "a": "third", "b": null}"#,
        r#"{"id": 3}"#,
        r#"{"id": 1, "a": "fourth"}"#,
    ];
    for _ in 0..2 {
        assert_eq!(write(&writer, &values).await, Ok(vec![]));
        let rows = db.rows().await;
        assert_eq!(rows.len(), 3);
        assert_eq!((&rows[0]["a"], &rows[0]["b"]), (&json!("fourth"), &json!(null)));
        assert_eq!((&rows[1]["a"], &rows[1]["b"]), (&json!("x"), &json!(null)));
        assert!(rows.iter().all(|row| !row["made"].is_null()));
    }
}

#[tokio::test]
async fn with_a_record_id_column_each_record_is_one_row() {
    let Some(db) = Fixture::new("rid text primary key, n int").await else {
        return;
    };
    let writer = db.writer(json!({"recordIdColumn": "rid"}));
    for _ in 0..2 {
        write(&writer, &[r#"{"n": 1}"#, r#"{"n": 1}"#, "{}"])
            .await
            .unwrap();
    }
    let expected = [
        json!({"rid": "orders-1-0", "n": 1}),
        json!({"rid": "orders-1-1", "n": 1}),
        json!({"rid": "orders-1-2", "n": null}),
    ];
    assert_eq!(db.rows().await, expected);
}

#[tokio::test]
async fn a_batch_with_a_record_that_the_table_refuses_writes_nothing_and_the_error_hides_the_value() {
    let columns = "id int primary key, n smallint, code varchar(3), positive int check (positive > 0), \
                   must text not null default 'x'";
    let Some(db) = Fixture::new(columns).await else {
        return;
    };
    let writer = db.writer(by_id());
    for (bad, expected) in [
        (r#"{"id": 2, "n": "4111s3cret"}"#, "column \"n\""),
        (r#"{"id": 2, "n": 411100}"#, "column \"n\""),
        (r#"{"id": 2, "code": "s3cret"}"#, "too long"),
        (r#"{"id": 2, "positive": -4111}"#, "check constraint"),
        (r#"{"id": 2, "must": null}"#, "\"must\""),
    ] {
        let result = write(&writer, &[r#"{"id": 1}"#, bad, r#"{"id": 3}"#]).await;
        assert!(matches!(result, Err(WriteError::Refused(_))), "{result:?}");
        match write(&writer, &[bad]).await {
            Err(WriteError::Refused(message)) => {
                assert!(message.contains(expected), "{message}");
                assert!(
                    !message.contains("s3cret") && !message.contains("4111"),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(db.rows().await.len(), 0);
    assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_refused_record_also_rolls_back_the_other_statements_of_its_batch() {
    let Some(db) = Fixture::new("id int primary key, a text, n smallint").await else {
        return;
    };
    let values = [
        r#"{"id": 1, "a": "x"}"#,
        r#"{"id": 2, "n": 99999}"#,
        r#"{"id": 3}"#,
    ];
    assert!(matches!(
        write(&db.writer(by_id()), &values).await,
        Err(WriteError::Refused(_))
    ));
    assert_eq!(db.rows().await.len(), 0);
}

#[tokio::test]
async fn a_missing_table_column_or_index_is_systemic_until_created_and_the_error_says_how() {
    let Some(db) = Fixture::new("id int, a text").await else {
        return;
    };
    let writer = db.writer(by_id());
    let systemic =
        async |writer: &PostgresWriter, expected: &str| match write(writer, &[r#"{"id": 1}"#]).await {
            Err(WriteError::Systemic(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("{other:?}"),
        };
    systemic(
        &writer,
        &format!("create unique index on \"{}\" (\"id\")", db.table),
    )
    .await;
    db.sql("CREATE UNIQUE INDEX ON $TABLE (id)").await;
    assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]));
    systemic(&db.writer(json!({"keyColumns": ["nr"]})), "no column \"nr\"").await;
    let other = db.writer(json!({"keyColumns": ["id"], "table": "no_such_table"}));
    systemic(&other, "does not exist").await;
    db.sql("CREATE TABLE no_such_table (id int primary key)").await;
    assert_eq!(write(&other, &[r#"{"id": 1}"#]).await, Ok(vec![]));
    db.sql("DROP TABLE no_such_table").await;
}

#[tokio::test]
async fn the_writer_notices_columns_that_are_added_or_dropped_later() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    let writer = db.writer(by_id());
    let value = r#"{"id": 1, "a": "x"}"#;
    let rejected = write(&writer, &[value]).await.unwrap();
    assert!(
        rejected[0].message.contains("field \"a\""),
        "{}",
        rejected[0].message
    );
    db.sql("ALTER TABLE $TABLE ADD COLUMN a text").await;
    assert_eq!(write(&writer, &[value]).await, Ok(vec![]));
    assert_eq!(db.rows().await, [json!({"id": 1, "a": "x"})]);
    db.sql("ALTER TABLE $TABLE DROP COLUMN a").await;
    assert_eq!(write(&writer, &[value]).await.unwrap().len(), 1);
    // A table that is created again is another one, with the same columns or not.
    db.sql("DROP TABLE $TABLE; CREATE TABLE $TABLE (a text, id text primary key)")
        .await;
    assert_eq!(write(&writer, &[value]).await, Ok(vec![]));
    assert_eq!(db.rows().await, [json!({"a": "x", "id": "1"})]);
    db.sql("ALTER TABLE $TABLE RENAME COLUMN a TO b").await;
    assert_eq!(write(&writer, &[value]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_connection_and_a_locked_table_are_transient() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    let mut config = by_id();
    config["timeoutSeconds"] = json!(1);
    let writer = db.writer(config);
    write(&writer, &[r#"{"id": 1}"#]).await.unwrap();
    // The server ends the connection between two batches, or during one.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'kafka-consumer-worker' AND query LIKE '%' || $1 || '%'";
    db.client.query(sql, &[&db.table]).await.unwrap();
    while let Err(error) = write(&writer, &[r#"{"id": 2}"#]).await {
        assert!(matches!(error, WriteError::Transient(_)), "{error:?}");
    }
    db.sql("BEGIN; LOCK TABLE $TABLE IN ACCESS EXCLUSIVE MODE").await;
    match write(&writer, &[r#"{"id": 3}"#]).await {
        Err(WriteError::Transient(message)) => assert!(message.contains("timeoutSeconds"), "{message}"),
        other => panic!("{other:?}"),
    }
    db.sql("COMMIT").await;
    assert_eq!(write(&writer, &[r#"{"id": 3}"#]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_refused_login_is_systemic_until_the_secret_is_corrected() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    let wrong = db.url.replace("/postgres", "/no_such_database");
    fs::write(db.secrets.path().join("db/url"), wrong).unwrap();
    let writer = db.writer(by_id());
    match write(&writer, &[r#"{"id": 1}"#]).await {
        Err(WriteError::Systemic(message)) => {
            assert!(message.contains("correct the database name"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    fs::write(db.secrets.path().join("db/url"), &db.url).unwrap();
    assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]));
}

#[tokio::test]
async fn concurrent_batches_on_the_same_keys_do_not_deadlock() {
    let Some(db) = Fixture::new("id int primary key, n int").await else {
        return;
    };
    let writer = Arc::new(db.writer(by_id()));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let writer = writer.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let mut values: Vec<String> = (0..200)
                        .map(|id| format!("{{\"id\": {id}, \"n\": {round}}}"))
                        .collect();
                    if task % 2 == 0 {
                        values.reverse();
                    }
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    assert_eq!(write(&writer, &values).await, Ok(vec![]));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(db.rows().await.len(), 200);
}
