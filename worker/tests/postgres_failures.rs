//! The Postgres writer and failures whose SQLSTATE does not say whether a record or the database causes them.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "postgres")]

#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/server.rs"]
mod server;

use kafka_consumer_worker::{WriteBatch, WriteError, Writer, writer::postgres::PostgresWriter};
use serde_json::json;

use records::{batch, by_id, refusal, write};
use server::Fixture;

/// A table whose trigger raises an error with this SQLSTATE for a row with `bad`.
async fn with_trigger(code: &str, bad: &str) -> Option<Fixture> {
    let db = Fixture::new("id int primary key, a text").await?;
    db.sql(&format!(
        "CREATE FUNCTION $TABLE_check() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF {bad} THEN RAISE EXCEPTION 'row % with % is bad', NEW.id, NEW.a USING ERRCODE = '{code}';
             END IF; RETURN NEW; END $$;
         CREATE TRIGGER checks BEFORE INSERT OR UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_check()"
    ))
    .await;
    Some(db)
}

/// Writes the outputs of a batch as the engine does. Returns the positions that are refused.
async fn halve(writer: &PostgresWriter, values: &[&str]) -> Result<Vec<u32>, WriteError> {
    let batch = batch(values);
    let mut refused = Vec::new();
    let mut stack = vec![(0..values.len() as u32).collect::<Vec<u32>>()];
    while let Some(outputs) = stack.pop() {
        match writer.write(WriteBatch::new(&batch, &outputs)).await {
            Ok(rejected) => assert_eq!(rejected, []),
            Err(WriteError::Refused(message)) => {
                assert!(!message.contains("s3cret"), "{message}");
                match &outputs[..] {
                    [output] => refused.push(*output),
                    outputs => {
                        let (left, right) = outputs.split_at(outputs.len() / 2);
                        stack.extend([right.to_vec(), left.to_vec()]);
                    }
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok(refused)
}

#[tokio::test]
async fn a_record_that_fails_with_an_unknown_code_is_found_where_others_pass() {
    for code in ["OR001", "XX000", "42501", "55000", "0A000", "P0001"] {
        let Some(db) = with_trigger(code, "NEW.a LIKE 's3cret%'").await else {
            return;
        };
        let good: Vec<String> = (0..4)
            .map(|id| format!("{{\"id\": {id}, \"a\": \"x\"}}"))
            .collect();
        for position in [0, 2, 4] {
            let mut values: Vec<&str> = good.iter().map(String::as_str).collect();
            values.insert(position, r#"{"id": 77, "a": "s3cret text"}"#);
            assert_eq!(
                halve(&db.writer(by_id()), &values).await,
                Ok(vec![position as u32]),
                "{code}"
            );
            assert_eq!(db.rows().await.len(), 4);
            db.sql("TRUNCATE $TABLE").await;
        }
        // A record alone is compared with the last one that passed.
        let writer = db.writer(by_id());
        assert_eq!(write(&writer, &[&good[0]]).await, Ok(vec![]));
        let message = refusal(&writer, r#"{"id": 77, "a": "s3cret text"}"#).await;
        assert!(message.contains(code) && message.contains("is bad"), "{message}");
        assert!(
            !message.contains("s3cret") && !message.contains("77"),
            "{message}"
        );
        assert_eq!(db.rows().await.len(), 1);
    }
}

#[tokio::test]
async fn a_record_that_fails_once_with_an_unknown_code_is_written_when_it_is_tried_again() {
    // Rolling back does not rewind a sequence.
    let Some(db) = with_trigger("XX000", "NEW.a = 'once' AND nextval('$TABLE_seq') = 1").await else {
        return;
    };
    db.sql("CREATE SEQUENCE $TABLE_seq").await;
    let writer = db.writer(by_id());
    assert_eq!(write(&writer, &[r#"{"id": 1, "a": "x"}"#]).await, Ok(vec![]));
    let once = r#"{"id": 2, "a": "once"}"#;
    match write(&writer, &[once]).await {
        Err(WriteError::Transient(message)) => assert!(message.contains("XX000"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(write(&writer, &[once]).await, Ok(vec![]));
    assert_eq!(db.rows().await.len(), 2);
}

#[tokio::test]
async fn what_fails_for_every_record_is_systemic_and_a_record_alone_does_not_wait_indefinitely() {
    let Some(db) = with_trigger("OR001", "true").await else {
        return;
    };
    let values = [r#"{"id": 1, "a": "s3cret"}"#, r#"{"id": 2, "a": "s3cret"}"#];
    match halve(&db.writer(by_id()), &values).await {
        Err(WriteError::Systemic(message)) => {
            assert!(
                message.contains("OR001") && !message.contains("s3cret"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let writer = db.writer(by_id());
    let mut tries = 1;
    while let Err(WriteError::Systemic(_)) = write(&writer, &[values[0]]).await {
        tries += 1;
        assert!(tries < 10);
    }
    assert!(tries > 2);
    // A missing permission fails without any record.
    let role = format!("{}_role", db.table);
    db.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON $TABLE TO {role}"
    ))
    .await;
    std::fs::write(db.secrets.path().join("db/url"), db.url.replace("tester", &role)).unwrap();
    for _ in 0..6 {
        match write(&db.writer(by_id()), &[values[0]]).await {
            Err(WriteError::Systemic(message)) => assert!(message.contains("grant the user"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn types_that_raise_codes_of_statements_refuse_single_records_without_their_values() {
    let Some(db) = Fixture::new(
        "id int primary key, words tsvector, query tsquery, rel regclass, \
                                 proc regproc, typ regtype, nsp regnamespace, doc xml, path jsonpath",
    )
    .await
    else {
        return;
    };
    let writer = db.writer(by_id());
    for (column, good, bad) in [
        ("words", "a b", "'s3cret"),
        ("query", "a & b", "s3cret & &"),
        ("rel", "pg_class", "s3cret"),
        ("rel", "pg_class", "s3cret.s3cret"),
        ("proc", "now", "s3cret"),
        ("typ", "int4", "s3cret"),
        ("typ", "int4", "s3cret("),
        ("nsp", "pg_catalog", "s3cret"),
        ("path", "$.a", "s3cret ~"),
    ] {
        let record = |id: u32, value: &str| json!({"id": id, (column): value}).to_string();
        let values = [record(1, bad), record(2, good)];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        assert_eq!(halve(&writer, &values).await, Ok(vec![0]), "{column}");
        let message = refusal(&writer, values[0]).await;
        assert!(message.starts_with(&format!("column {column:?}")), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[tokio::test]
async fn a_missing_parent_is_retried_and_a_missing_partition_is_systemic() {
    let Some(db) = Fixture::new("id int primary key, at date, a int check (a > 0)").await else {
        return;
    };
    db.sql(
        "CREATE TABLE $TABLE_child (id int primary key, parent int REFERENCES $TABLE (id));
         CREATE TABLE $TABLE_late (id int primary key,
             parent int REFERENCES $TABLE (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE $TABLE_parts (id int primary key) PARTITION BY RANGE (id);
         CREATE TABLE $TABLE_part PARTITION OF $TABLE_parts FOR VALUES FROM (0) TO (10)",
    )
    .await;
    for name in ["child", "late"] {
        let table = format!("{}_{name}", db.table);
        let writer = db.writer(json!({"keyColumns": ["id"], "table": table}));
        let values = [r#"{"id": 1, "parent": 1}"#, r#"{"id": 2, "parent": null}"#];
        assert!(matches!(
            write(&writer, &values).await,
            Err(WriteError::Refused(_))
        ));
        let rejected = write(&writer, &values[..1]).await.unwrap();
        assert!(
            rejected[0].retryable && rejected[0].message.contains("foreign key"),
            "{rejected:?}"
        );
        db.sql("INSERT INTO $TABLE (id) VALUES (1)").await;
        assert_eq!(write(&writer, &values).await, Ok(vec![]));
        db.sql("TRUNCATE $TABLE CASCADE").await;
    }
    // Other constraints stay final.
    refusal(&db.writer(by_id()), r#"{"id": 1, "a": -1}"#).await;
    let parts = db.writer(json!({"keyColumns": ["id"], "table": format!("{}_parts", db.table)}));
    assert_eq!(write(&parts, &[r#"{"id": 1}"#]).await, Ok(vec![]));
    match write(&parts, &[r#"{"id": 2}"#, r#"{"id": 11}"#]).await {
        Err(WriteError::Systemic(message)) => {
            assert!(message.contains("create the missing partition"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    db.sql("CREATE TABLE $TABLE_part2 PARTITION OF $TABLE_parts FOR VALUES FROM (10) TO (20)")
        .await;
    assert_eq!(
        write(&parts, &[r#"{"id": 2}"#, r#"{"id": 11}"#]).await,
        Ok(vec![])
    );
}
