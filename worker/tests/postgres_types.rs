//! The Postgres writer and types: what is stored is what an assignment to the column would store, under the
//! types that the table has at that moment.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(feature = "postgres")]

#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/server.rs"]
mod server;

use kafka_consumer_worker::WriteError;
use serde_json::json;

use records::{by_id, refusal, write};
use server::Fixture;

#[tokio::test]
async fn what_does_not_fit_is_refused_as_by_an_assignment() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    db.sql(
        "CREATE DOMAIN $TABLE_short AS varchar(2);
         CREATE DOMAIN $TABLE_nested AS $TABLE_short CHECK (VALUE <> 'xx');
         CREATE DOMAIN $TABLE_bits AS bit(3);
         CREATE DOMAIN $TABLE_padded AS char(2);
         CREATE DOMAIN $TABLE_small AS numeric(4,1);
         CREATE DOMAIN $TABLE_many AS varchar(2)[];
         CREATE TYPE $TABLE_pair AS (a varchar(2), b int);
         ALTER TABLE $TABLE ADD short $TABLE_short, ADD nested $TABLE_nested, ADD bits $TABLE_bits,
             ADD padded $TABLE_padded, ADD small $TABLE_small, ADD many $TABLE_many, ADD pair $TABLE_pair,
             ADD shorts varchar(2)[], ADD nesteds $TABLE_nested[], ADD plain varchar(2),
             ADD plain_bits bit(3), ADD varying bit varying(3), ADD pairs $TABLE_pair[]",
    )
    .await;
    let writer = db.writer(by_id());
    for (column, good, stored, bad) in [
        ("short", json!("Ge"), json!("Ge"), json!("Germany")),
        ("nested", json!("Ge"), json!("Ge"), json!("Germany")),
        ("nested", json!("Ge"), json!("Ge"), json!("xx")),
        ("bits", json!("101"), json!("101"), json!("1011")),
        ("bits", json!("101"), json!("101"), json!("10")),
        ("padded", json!("G"), json!("G "), json!("Ger")),
        ("small", json!(123.5), json!(123.5), json!(12345)),
        ("many", json!(["Ge"]), json!(["Ge"]), json!(["Ge", "Germany"])),
        (
            "pair",
            json!("(Ge,1)"),
            json!({"a": "Ge", "b": 1}),
            json!("(Germany,1)"),
        ),
        ("shorts", json!(["Ge"]), json!(["Ge"]), json!(["Germany"])),
        ("nesteds", json!(["Ge"]), json!(["Ge"]), json!(["Germany"])),
        ("plain", json!("Ge"), json!("Ge"), json!("Germany")),
        ("plain_bits", json!("101"), json!("101"), json!("1011")),
        ("varying", json!("10"), json!("10"), json!("1011")),
        (
            "pairs",
            json!(["(Ge,1)"]),
            json!([{"a": "Ge", "b": 1}]),
            json!(["(Germany,1)"]),
        ),
    ] {
        let record = |value: &serde_json::Value| json!({"id": 1, (column): value}).to_string();
        assert_eq!(write(&writer, &[&record(&good)]).await, Ok(vec![]), "{column}");
        assert_eq!(db.rows().await[0][column], stored, "{column}");
        let message = refusal(&writer, &record(&bad)).await;
        assert!(!message.contains("Germany"), "{message}");
        assert_eq!(db.rows().await[0][column], stored, "{column}");
    }
    let message = refusal(&writer, r#"{"id": 1, "plain": "Germany"}"#).await;
    assert!(
        message.starts_with("column \"plain\": ") && message.contains("too long"),
        "{message}"
    );
}

#[tokio::test]
async fn a_type_that_changes_counts_from_the_next_batch_on() {
    for (before, after, value, stored) in [
        (
            "real",
            "double precision",
            json!(0.12345678912345678),
            json!(0.12345678912345678),
        ),
        (
            "int",
            "bigint",
            json!(5_000_000_000_i64),
            json!(5_000_000_000_i64),
        ),
        (
            "timestamp",
            "timestamptz",
            json!("2026-01-31T10:00:00+05:00"),
            json!("2026-01-31T05:00:00+00:00"),
        ),
        (
            "timestamptz",
            "timestamp",
            json!("2026-01-31T10:00:00+05:00"),
            json!("2026-01-31T05:00:00"),
        ),
        ("numeric(10,1)", "numeric(10,4)", json!(1.2345), json!(1.2345)),
        ("varchar(2)", "text", json!("Germany"), json!("Germany")),
        ("jsonb", "text", json!("Germany"), json!("Germany")),
        ("text", "jsonb", json!("Germany"), json!("Germany")),
        ("int", "int[]", json!([1, 2]), json!([1, 2])),
        ("int[]", "int", json!(1), json!(1)),
        ("timestamp", "bigint", json!(1712340115), json!(1712340115)),
        ("text", "bytea", json!("\\x00ff"), json!("\\x00ff")),
    ] {
        let Some(db) = Fixture::new(&format!("id int primary key, v {before}")).await else {
            return;
        };
        let writer = db.writer(by_id());
        assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]));
        db.sql(&format!(
            "ALTER TABLE $TABLE ALTER v TYPE {after} USING NULL; SET TimeZone = 'UTC'"
        ))
        .await;
        let record = json!({"id": 2, "v": value}).to_string();
        assert_eq!(write(&writer, &[&record]).await, Ok(vec![]), "{before} {after}");
        assert_eq!(db.rows().await[1]["v"], stored, "{before} {after}");
    }
    // A number that no longer has a meaning is refused, although the old type took it.
    let Some(db) = Fixture::new("id int primary key, v bigint").await else {
        return;
    };
    let writer = db.writer(by_id());
    let record = r#"{"id": 1, "v": 1712340115}"#;
    assert_eq!(write(&writer, &[record]).await, Ok(vec![]));
    db.sql("ALTER TABLE $TABLE ALTER v TYPE timestamptz USING NULL")
        .await;
    let rejected = write(&writer, &[record]).await.unwrap();
    assert!(
        rejected[0].message.contains("postgres.epoch"),
        "{}",
        rejected[0].message
    );
}

/// The type changes while the statement waits for its lock.
#[tokio::test]
async fn a_type_that_changes_while_a_batch_waits_for_the_table_counts_for_it() {
    let Some(db) = Fixture::new("id int primary key, v real").await else {
        return;
    };
    let writer = db.writer(by_id());
    assert_eq!(write(&writer, &[r#"{"id": 1, "v": 1}"#]).await, Ok(vec![]));
    db.sql("BEGIN; ALTER TABLE $TABLE ALTER v TYPE double precision")
        .await;
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = $1::text::regclass AND NOT granted";
    let written = write(&writer, &[r#"{"id": 2, "v": 0.12345678912345678}"#]);
    let commit = async {
        while db
            .client
            .query_one(waits, &[&db.table])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        db.sql("COMMIT").await;
    };
    let (written, ()) = tokio::join!(written, commit);
    assert_eq!(written, Ok(vec![]));
    assert_eq!(db.rows().await[1]["v"], json!(0.12345678912345678));
}

#[tokio::test]
async fn a_number_for_a_date_or_time_needs_a_unit() {
    let columns = "id int primary key, day date, at timestamp, tz timestamptz, clock time, clock_tz timetz, \
                   span interval, days date[], ats timestamp[]";
    let Some(db) = Fixture::new(columns).await else {
        return;
    };
    db.sql(
        "CREATE DOMAIN $TABLE_moment AS timestamptz;
         ALTER TABLE $TABLE ADD domain $TABLE_moment, ADD domains $TABLE_moment[]; SET TimeZone = 'UTC'",
    )
    .await;
    let plain = db.writer(by_id());
    for (column, value) in [
        ("day", json!(1712340115)),
        ("at", json!(1712340115)),
        ("tz", json!(1712340115.5)),
        ("clock", json!(36000)),
        ("clock_tz", json!(36000)),
        ("span", json!(5)),
        ("days", json!([1712340115])),
        ("ats", json!([["2026-01-31", 1712340115]])),
        ("domain", json!(1712340115)),
        ("domains", json!([1712340115])),
        ("at", json!("1712340115")),
        ("ats", json!("{1712340115}")),
    ] {
        let record = json!({"id": 1, (column): value}).to_string();
        let rejected = write(&plain, &[&record]).await.unwrap();
        assert!(
            rejected[0].message.contains("postgres.epoch"),
            "{column}: {rejected:?}"
        );
        assert!(
            !rejected[0].message.contains("1712340115"),
            "{column}: {rejected:?}"
        );
    }
    let seconds = db.writer(json!({"keyColumns": ["id"], "epoch": "Seconds"}));
    let record = r#"{"id": 1, "day": 1712340115, "at": 1712340115, "tz": 1712340115.5, "clock": 36000,
        "clock_tz": 36000, "span": 90, "days": [1712340115, null], "ats": [1712340115],
        "domain": 1712340115, "domains": [1712340115, "2026-01-31"]}"#;
    assert_eq!(write(&seconds, &[record]).await, Ok(vec![]));
    let expected = json!({"id": 1, "day": "2024-04-05", "at": "2024-04-05T18:01:55",
        "tz": "2024-04-05T18:01:55.5+00:00", "clock": "10:00:00", "clock_tz": "10:00:00+00",
        "span": "00:01:30", "days": ["2024-04-05", null], "ats": ["2024-04-05T18:01:55"],
        "domain": "2024-04-05T18:01:55+00:00",
        "domains": ["2024-04-05T18:01:55+00:00", "2026-01-31T00:00:00+00:00"]});
    assert_eq!(db.rows().await[0], expected);
    let milliseconds = db.writer(json!({"keyColumns": ["id"], "epoch": "Milliseconds"}));
    assert_eq!(
        write(&milliseconds, &[r#"{"id": 1, "tz": 1712340115123}"#]).await,
        Ok(vec![])
    );
    assert_eq!(db.rows().await[0]["tz"], json!("2024-04-05T18:01:55.123+00:00"));
    // The unit is wrong: the year 56230.
    let rejected = write(&seconds, &[r#"{"id": 1, "tz": 1712340115123}"#])
        .await
        .unwrap();
    assert!(
        rejected[0].message.contains("check that postgres.epoch"),
        "{rejected:?}"
    );
}

#[tokio::test]
async fn a_text_means_the_same_whatever_the_session_is_set_to() {
    let columns = "id int primary key, day date, at timestamp, tz timestamptz, clock time, clock_tz timetz, \
                   span interval, ats timestamp[], days date[], tags text[], price money, range tsrange";
    let Some(db) = Fixture::new(columns).await else {
        return;
    };
    let role = format!("{}_role", db.table);
    db.sql(&format!(
        "CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET TimeZone = 'America/New_York';
         ALTER ROLE {role} SET DateStyle = 'German, DMY'; ALTER ROLE {role} SET IntervalStyle = sql_standard;
         ALTER ROLE {role} SET array_nulls = off; ALTER ROLE {role} SET statement_timeout = '1h';
         SET TimeZone = 'UTC'; SET lc_monetary = 'C'"
    ))
    .await;
    let url = db.url.replace("tester", &role);
    assert_ne!(url, db.url);
    std::fs::write(
        db.secrets.path().join("db/url"),
        format!("{url}?options=-c%20TimeZone%3DAsia%2FTokyo"),
    )
    .unwrap();
    let writer = db.writer(by_id());
    let record = r#"{"id": 1, "day": "01/02/2026", "at": "2026-01-31T12:00:00", "tz": "2026-01-31T12:00:00",
        "clock": "12:00", "clock_tz": "12:00", "span": "-1 2:03:04", "tags": ["a", null], "price": 1.50,
        "ats": ["2026-01-31T12:00:00+05:00", null], "days": ["2026-01-31"],
        "range": "[2026-01-31 12:00,)"}"#;
    assert_eq!(write(&writer, &[record]).await, Ok(vec![]));
    let expected = json!({"id": 1, "day": "2026-01-02", "at": "2026-01-31T12:00:00",
        "tz": "2026-01-31T12:00:00+00:00", "clock": "12:00:00", "clock_tz": "12:00:00+00",
        "span": "-1 days +02:03:04", "ats": ["2026-01-31T07:00:00", null], "days": ["2026-01-31"],
        "tags": ["a", null], "price": "$1.50", "range": "[\"2026-01-31 12:00:00\",)"});
    assert_eq!(db.rows().await[0], expected);
    let zoned = r#"{"id": 1, "day": "2026-01-31T23:00:00-05:00", "at": "2026-01-31T12:00:00+05:00",
        "tz": "2026-01-31T12:00:00+05:00", "clock_tz": "12:00+05:00"}"#;
    assert_eq!(write(&writer, &[zoned]).await, Ok(vec![]));
    let row = &db.rows().await[0];
    assert_eq!(row["day"], json!("2026-02-01"));
    assert_eq!(row["at"], json!("2026-01-31T07:00:00"));
    assert_eq!(row["tz"], json!("2026-01-31T07:00:00+00:00"));
    assert_eq!(row["clock_tz"], json!("12:00:00+05"));
    for bad in [
        r#"{"id": 1, "clock": "12:00+05:00"}"#,
        r#"{"id": 1, "range": "[2026-01-31 12:00+05,)"}"#,
    ] {
        let rejected = write(&writer, &[bad]).await.unwrap();
        assert!(rejected[0].message.contains("time zone"), "{rejected:?}");
    }
    // Nothing is left behind for others who get the session from a pooler.
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE usename = '{role}' AND state = 'idle' AND query = 'COMMIT'"
    );
    assert_eq!(db.client.query(&sql, &[]).await.unwrap().len(), 1);
    drop(writer);
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn arrays_of_json_keep_their_elements() {
    let Some(db) = Fixture::new("id int primary key, docs jsonb[], raws json[]").await else {
        return;
    };
    let record = r#"{"id": 1, "docs": [{"a": "x\"y"}, "text", [1, 2], null, 1.50, true], "raws": ["a"]}"#;
    assert_eq!(write(&db.writer(by_id()), &[record]).await, Ok(vec![]));
    let row = &db.rows().await[0];
    assert_eq!(
        row["docs"],
        json!([{"a": "x\"y"}, "text", [1, 2], null, 1.50, true])
    );
    assert_eq!(row["raws"], json!(["a"]));
}

#[tokio::test]
async fn tables_may_have_any_name() {
    let Some(db) = Fixture::new("id int primary key").await else {
        return;
    };
    for name in [
        "order-items",
        "2026_orders",
        "Bestellungen für Österreich",
        "\"dotted.name\"",
        "it's",
    ] {
        let quoted = format!("\"{}\"", name.trim_matches('"'));
        db.sql(&format!("CREATE TABLE {quoted} (id int primary key)"))
            .await;
        let writer = db.writer(json!({"keyColumns": ["id"], "table": name}));
        assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]), "{name}");
        assert!(matches!(
            write(&writer, &[r#"{"id": "s3cret"}"#]).await,
            Err(WriteError::Refused(message)) if message.starts_with("column \"id\"")
        ));
        db.sql(&format!("DROP TABLE {quoted}")).await;
    }
    let schema = format!("{}_schema", db.table);
    db.sql(&format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.here (id int primary key)"
    ))
    .await;
    std::fs::write(
        db.secrets.path().join("db/url"),
        format!("{}?currentSchema={schema}", db.url),
    )
    .unwrap();
    let writer = db.writer(json!({"keyColumns": ["id"], "table": "here"}));
    assert_eq!(write(&writer, &[r#"{"id": 1}"#]).await, Ok(vec![]));
    db.sql(&format!("DROP SCHEMA {schema} CASCADE")).await;
}
