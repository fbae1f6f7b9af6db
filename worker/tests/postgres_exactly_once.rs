//! The Postgres writer with ExactlyOnce against a real server: whatever fails, each record is written once,
//! and the stored offsets agree.
#![allow(clippy::unwrap_used, clippy::panic, clippy::single_range_in_vec_init)]
#![cfg(feature = "postgres")]

#[path = "postgres_exactly_once/once.rs"]
mod once;
#[path = "postgres/server.rs"]
mod server;

use std::{sync::Arc, time::Duration};

use kafka_consumer_worker::{
    Batch, Payload, WriteBatch, WriteError, Writer, offsets::FinishedSet, writer::postgres::PostgresWriter,
};
use once::{AtCommit, GROUP, Once, batch, partition, run, write};

fn finished(ranges: &[std::ops::Range<i64>]) -> FinishedSet {
    let mut finished = FinishedSet::default();
    ranges.iter().cloned().for_each(|range| finished.insert(range));
    finished
}

/// Writes until a write succeeds, as the engine does. Returns how often the writer was fenced before.
async fn insist(writer: &PostgresWriter, batch: &Batch) -> usize {
    let mut fenced = 0;
    loop {
        match write(writer, batch).await {
            Ok(rejected) => {
                assert_eq!(rejected, []);
                return fenced;
            }
            Err(WriteError::Fenced(_)) => fenced += 1,
            Err(WriteError::Transient(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The message of the error with which the writer refuses to write into a database that has gone back.
fn gone_back<T: std::fmt::Debug>(result: Result<T, WriteError>) -> String {
    match result {
        Err(WriteError::Systemic(message)) if message.starts_with("the database has gone back") => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_and_offsets_are_stored_together_and_committed_offsets_close_the_gaps() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    assert_eq!(
        writer.claim(&partition(), 1, None).await,
        Ok(FinishedSet::default())
    );
    assert_eq!(insist(&writer, &run(1, 100..103)).await, 0);
    assert_eq!(once.finished().await, finished(&[100..103]));
    // Record 103 went to the dead letter topic, and Kafka confirmed the commit of the offset after it.
    assert_eq!(insist(&writer, &run(1, 104..106)).await, 0);
    assert_eq!(once.finished().await, finished(&[100..103, 104..106]));
    writer.committed(&partition(), 1, 104);
    writer.committed(&partition(), 7, 1000);
    assert_eq!(insist(&writer, &run(1, 108..109)).await, 0);
    assert_eq!(once.finished().await, finished(&[0..106, 108..109]));
    assert_eq!(once.writes().await, [100, 101, 102, 104, 105, 108]);
    let next = once.writer("b").claim(&partition(), 1, None).await;
    assert_eq!(next, Ok(finished(&[0..106, 108..109])));
}

#[tokio::test]
async fn a_repeated_batch_is_not_written_again_even_if_its_boundaries_differ() {
    let Some(once) = Once::new().await else { return };
    let (first, second) = (once.writer("a"), once.writer("b"));
    insist(&first, &run(1, 0..4)).await;
    insist(&first, &run(1, 0..4)).await;
    insist(&first, &run(1, 2..6)).await;
    second.claim(&partition(), 1, None).await.unwrap();
    insist(&second, &run(1, 3..8)).await;
    assert_eq!(once.writes().await, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(once.finished().await, finished(&[0..8]));
    // For another group, the same records are new.
    let other = once.db.writer(serde_json::json!({"keyColumns": ["id"]}));
    let other = other.exactly_once(&once.offsets, "another", "c");
    insist(&other, &run(1, 0..1)).await;
    assert_eq!(once.writes().await.len(), 9);
}

#[tokio::test]
async fn a_worker_whose_partition_was_claimed_writes_nothing_then_claims_it_back_and_continues() {
    let Some(once) = Once::new().await else { return };
    let (first, second) = (once.writer("first"), once.writer("second"));
    first.claim(&partition(), 1, None).await.unwrap();
    insist(&first, &run(1, 0..2)).await;
    second.claim(&partition(), 1, None).await.unwrap();
    match write(&first, &run(1, 2..4)).await {
        Err(WriteError::Fenced(message)) => assert!(message.contains("worker \"second\""), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(once.writes().await, [0, 1]);
    insist(&second, &run(1, 2..3)).await;
    assert_eq!(insist(&first, &run(1, 2..4)).await, 0, "it has claimed it back");
    assert_eq!(insist(&second, &run(1, 3..5)).await, 1);
    assert_eq!(once.writes().await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn nothing_is_written_to_a_database_that_has_gone_back_until_it_is_corrected() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    writer.claim(&partition(), 1, None).await.unwrap();
    insist(&writer, &run(1, 0..6)).await;
    // If the writer did not remember what it stored, this would close the gap.
    writer.committed(&partition(), 1, 6);
    once.go_back(&finished(&[0..4])).await;
    for _ in 0..2 {
        let message = gone_back(write(&writer, &run(1, 6..8)).await);
        assert!(
            message.contains("offsets of orders-1 up to 6,") && message.contains("from 4 on"),
            "{message}"
        );
        assert!(!message.contains('\n') && !message.contains("  "), "{message}");
    }
    // The same worker is refused under another assignment, too.
    gone_back(writer.claim(&partition(), 2, None).await);
    gone_back(write(&writer, &run(2, 6..8)).await);
    assert_eq!(once.finished().await, finished(&[0..4]));
    assert_eq!(once.rows().await, [0, 1, 2, 3]);
    assert_eq!(once.writes().await, [0, 1, 2, 3, 4, 5]);
    // As if the worker had been connected to the wrong server and now reaches the right one.
    once.say_finished(&finished(&[0..6])).await;
    assert_eq!(writer.claim(&partition(), 2, None).await, Ok(finished(&[0..6])));
    assert_eq!(insist(&writer, &run(2, 6..8)).await, 0);
    assert_eq!(once.finished().await, finished(&[0..8]));
    assert_eq!(once.writes().await, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_group_that_is_reset_to_the_offsets_of_the_database_writes_the_lost_records() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    writer.claim(&partition(), 1, None).await.unwrap();
    insist(&writer, &run(1, 0..6)).await;
    writer.committed(&partition(), 1, 6);
    insist(&writer, &run(1, 6..10)).await;
    // 2 was finished later than 3.
    once.go_back(&finished(&[0..2, 3..5])).await;
    gone_back(write(&writer, &run(1, 10..12)).await);
    drop(writer);
    let restarted = once.writer("a");
    let known = restarted.claim(&partition(), 1, None).await;
    assert_eq!(known, Ok(finished(&[0..2, 3..5])));
    insist(&restarted, &run(1, 2..12)).await;
    assert_eq!(once.finished().await, finished(&[0..12]));
    assert_eq!(once.rows().await, (0..12).collect::<Vec<_>>());
    assert_eq!(once.writes().await[10..], [2, 5, 6, 7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn lost_records_above_an_unfinished_record_are_noticed_too() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    insist(&writer, &run(1, 0..2)).await;
    insist(&writer, &run(1, 5..8)).await;
    once.go_back(&finished(&[0..2, 5..6])).await;
    let message = gone_back(write(&writer, &run(1, 8..9)).await);
    assert!(
        message.contains("up to 8,") && message.contains("from 6 on"),
        "{message}"
    );
    assert_eq!(once.finished().await, finished(&[0..2, 5..6]));
}

#[tokio::test]
async fn a_deleted_row_of_offsets_is_created_again_only_if_nothing_was_stored_in_it() {
    let Some(once) = Once::new().await else { return };
    let delete = format!("DELETE FROM {}", once.offsets);
    let writer = once.writer("a");
    writer.claim(&partition(), 1, None).await.unwrap();
    once.db.sql(&delete).await;
    assert_eq!(insist(&writer, &run(1, 0..2)).await, 1);
    once.db.sql(&delete).await;
    let message = gone_back(write(&writer, &run(1, 2..4)).await);
    assert!(message.contains("from 0 on"), "{message}");
    gone_back(writer.claim(&partition(), 2, None).await);
    gone_back(write(&writer, &run(2, 2..4)).await);
    assert_eq!(once.rows_of_offsets().await, 0);
    assert_eq!(once.writes().await, [0, 1]);
    // Whoever deletes the row on purpose stops the group first.
    insist(&once.writer("a"), &run(1, 2..4)).await;
    assert_eq!(once.finished().await, finished(&[2..4]));
}

#[tokio::test]
async fn records_without_a_row_and_other_workers_do_not_look_like_a_database_that_has_gone_back() {
    let Some(once) = Once::new().await else { return };
    let (first, second) = (once.writer("first"), once.writer("second"));
    first.claim(&partition(), 1, None).await.unwrap();
    insist(&first, &run(1, 20..22)).await;
    // Everything up to 100 is filtered out.
    first.committed(&partition(), 1, 100);
    insist(&first, &run(1, 110..112)).await;
    assert_eq!(once.finished().await, finished(&[0..100, 110..112]));
    // Kafka's committed offset advances, the row stays. Then the partition moves to another worker, which
    // starts far above the row.
    first.committed(&partition(), 1, 5000);
    let known = second.claim(&partition(), 1, None).await;
    assert_eq!(known, Ok(finished(&[0..100, 110..112])));
    insist(&second, &run(1, 5000..5002)).await;
    second.committed(&partition(), 1, 5002);
    // The first worker writes again: it remembers less than the database contains.
    assert_eq!(insist(&first, &run(1, 5002..5004)).await, 1);
    first.claim(&partition(), 2, None).await.unwrap();
    insist(&first, &run(2, 5004..5006)).await;
    assert_eq!(insist(&second, &run(1, 5006..5008)).await, 1);
    // A batch that fails is not stored, so the writer does not miss it later.
    let refused = write(&second, &batch(1, [(5008, r#"{"id": 13, "n": 1}"#)])).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    insist(&second, &run(1, 5010..5011)).await;
    assert_eq!(
        once.writes().await,
        [
            20, 21, 110, 111, 5000, 5001, 5002, 5003, 5004, 5005, 5006, 5007, 5010
        ]
    );
}

#[tokio::test]
async fn an_earlier_assignment_of_the_same_worker_can_no_longer_write() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    writer.claim(&partition(), 1, None).await.unwrap();
    writer.claim(&partition(), 2, None).await.unwrap();
    for _ in 0..2 {
        let result = write(&writer, &run(1, 0..1)).await;
        assert!(matches!(result, Err(WriteError::Fenced(_))), "{result:?}");
        assert_eq!(insist(&writer, &run(2, 0..1)).await, 0);
    }
    assert_eq!(once.writes().await, [0]);
}

#[tokio::test]
async fn a_refused_record_leaves_a_gap_and_the_others_are_written_once() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    writer.claim(&partition(), 1, None).await.unwrap();
    // Record 13 violates a constraint: the table refuses the batch, and the engine halves it.
    let three = run(1, 12..15);
    let refused = write(&writer, &three).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    assert_eq!(once.finished().await, FinishedSet::default());
    for (output, expected) in [([0], true), ([1], false), ([2], true)] {
        let result = writer.write(WriteBatch::new(&three, &output)).await;
        assert_eq!(result.is_ok(), expected, "{result:?}");
    }
    assert_eq!(once.finished().await, finished(&[12..13, 14..15]));
    // A record that cannot be a row is refused by itself, each time the batch is written.
    let mixed = batch(
        1,
        [
            (14, r#"{"id": 14, "n": 1}"#),
            (15, "[]"),
            (16, r#"{"id": 16, "n": 1}"#),
        ],
    );
    for _ in 0..2 {
        let rejected = write(&writer, &mixed).await.unwrap();
        assert_eq!(rejected.iter().map(|r| r.position).collect::<Vec<_>>(), [1]);
    }
    assert_eq!(once.finished().await, finished(&[12..13, 14..15, 16..17]));
    assert_eq!(once.writes().await, [12, 14, 16]);
}

#[tokio::test]
async fn the_error_for_a_value_that_does_not_fit_names_the_column() {
    let Some(once) = Once::new().await else { return };
    let result = write(&once.writer("a"), &batch(1, [(0, r#"{"id": 1, "n": 99999}"#)])).await;
    match result {
        Err(WriteError::Refused(message)) => assert!(message.starts_with("column \"n\""), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_outputs_of_a_record_are_written_all_or_none() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    let input = run(1, 0..3);
    let mut builder = input.next();
    for (from, value) in [
        (0, r#"{"id": 20}"#),
        (0, r#"{"id": 21}"#),
        (1, r#"{"id": 22}"#),
        (1, r#"{"id": 23, "nowhere": 1}"#),
        (1, r#"{"id": 24}"#),
        (2, r#"{"id": 25}"#),
    ] {
        builder.emit(from, Payload::Keep, Payload::New(value.as_bytes()));
    }
    let (batch, _) = builder.finish();
    let rejected = write(&writer, &batch).await.unwrap();
    assert_eq!(rejected.iter().map(|r| r.position).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(rejected.iter().all(|r| r.message.contains("\"nowhere\"")));
    assert_eq!(once.writes().await, [20, 21, 25]);
    assert_eq!(once.finished().await, finished(&[0..1, 2..3]));
}

#[tokio::test]
async fn a_missing_table_of_offsets_is_systemic_until_created_with_the_statement_in_the_error() {
    let Some(once) = Once::without_offsets().await else {
        return;
    };
    let writer = once.writer("a");
    let systemic = |result: WriteError| match result {
        WriteError::Systemic(message) => message,
        other => panic!("{other:?}"),
    };
    let claimed = systemic(writer.claim(&partition(), 1, None).await.unwrap_err());
    let written = systemic(write(&writer, &run(1, 0..1)).await.unwrap_err());
    assert!(
        !claimed.contains('\n') && claimed.ends_with("PRIMARY KEY (group_id, topic, partition));"),
        "{claimed}"
    );
    assert_eq!(once.writes().await.len(), 0);
    let (_, create) = written.split_once("create the table: ").unwrap();
    once.db.sql(create).await;
    insist(&writer, &run(1, 0..1)).await;
    // A table without one of the columns is not accepted either.
    once.db
        .sql(&format!("ALTER TABLE {} DROP COLUMN ahead", once.offsets))
        .await;
    let message = systemic(write(&writer, &run(1, 1..2)).await.unwrap_err());
    assert!(message.contains("CREATE TABLE"), "{message}");
    assert_eq!(once.writes().await, [0]);
}

#[tokio::test]
async fn offsets_that_cannot_be_decoded_stop_the_partition_instead_of_writing_twice() {
    let Some(once) = Once::new().await else { return };
    let writer = once.writer("a");
    insist(&writer, &run(1, 0..1)).await;
    once.db
        .sql(&format!("UPDATE {} SET ahead = 'x'", once.offsets))
        .await;
    for result in [
        writer.claim(&partition(), 1, None).await.map(drop),
        write(&writer, &run(1, 1..2)).await.map(drop),
    ] {
        match result {
            Err(WriteError::Systemic(message)) => assert!(message.contains("column ahead"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(once.writes().await, [0]);
}

#[tokio::test]
async fn a_connection_that_breaks_at_the_commit_neither_loses_nor_repeats_records() {
    for at_commit in [AtCommit::CutBefore, AtCommit::CutAfter] {
        let Some(once) = Once::new().await else { return };
        let proxy = once.through_proxy().await;
        let writer = once.writer("a");
        insist(&writer, &run(1, 0..3)).await;
        proxy.at_commit(at_commit);
        let lost = write(&writer, &run(1, 3..6)).await;
        assert!(matches!(lost, Err(WriteError::Transient(_))), "{lost:?}");
        let written: &[i64] = match at_commit {
            AtCommit::CutAfter => &[0, 1, 2, 3, 4, 5],
            _ => &[0, 1, 2],
        };
        assert_eq!(once.writes().await, written, "{at_commit:?}");
        proxy.at_commit(AtCommit::Pass);
        insist(&writer, &run(1, 3..6)).await;
        assert_eq!(once.writes().await, [0, 1, 2, 3, 4, 5], "{at_commit:?}");
        // The same while another worker claims the partition with its batch.
        proxy.at_commit(at_commit);
        let other = once.writer("b");
        let lost = write(&other, &run(1, 6..8)).await;
        assert!(matches!(lost, Err(WriteError::Transient(_))), "{lost:?}");
        proxy.at_commit(AtCommit::Pass);
        insist(&other, &run(1, 6..8)).await;
        assert_eq!(once.writes().await, [0, 1, 2, 3, 4, 5, 6, 7], "{at_commit:?}");
    }
}

#[tokio::test]
async fn a_transaction_whose_session_the_server_ends_within_the_commit_is_repeated() {
    let Some(once) = Once::new().await else { return };
    once.db
        .sql(
            "CREATE SEQUENCE $TABLE_commits;
             CREATE FUNCTION $TABLE_die() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF nextval(''$TABLE_commits'') = 2
                  THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
                  RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER die AFTER INSERT ON $TABLE DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION $TABLE_die();",
        )
        .await;
    let writer = once.writer("a");
    insist(&writer, &run(1, 0..1)).await;
    let lost = write(&writer, &run(1, 1..3)).await;
    assert!(matches!(lost, Err(WriteError::Transient(_))), "{lost:?}");
    assert_eq!(once.writes().await, [0]);
    insist(&writer, &run(1, 1..3)).await;
    assert_eq!(once.writes().await, [0, 1, 2]);
}

#[tokio::test]
async fn a_worker_frozen_within_a_transaction_does_not_block_the_partition() {
    let Some(once) = Once::new().await else { return };
    let proxy = once.through_proxy().await;
    let frozen = once.writer("frozen");
    insist(&frozen, &run(1, 0..1)).await;
    proxy.at_commit(AtCommit::Freeze);
    let late = tokio::spawn(async move { (write(&frozen, &run(1, 1..3)).await, frozen) });
    // Wait until the frozen worker holds the lock.
    let locked = format!("SELECT 1 FROM {} FOR UPDATE SKIP LOCKED", once.offsets);
    while !once.db.client.query(&locked, &[]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::write(once.db.secrets.path().join("db/url"), &once.db.url).unwrap();
    let next = once.writer("next");
    let known = next.claim(&partition(), 1, None).await;
    assert_eq!(known, Ok(finished(&[0..1])));
    insist(&next, &run(1, 1..3)).await;
    let (result, frozen) = late.await.unwrap();
    assert!(matches!(result, Err(WriteError::Transient(_))), "{result:?}");
    assert_eq!(insist(&frozen, &run(1, 1..4)).await, 1);
    assert_eq!(once.writes().await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn lanes_of_a_partition_write_at_the_same_time() {
    let Some(once) = Once::new().await else { return };
    let writer = Arc::new(once.writer("a"));
    let batches = Arc::new([run(1, 20..120), run(1, 120..220)]);
    let lanes: Vec<_> = (0..8_u32)
        .map(|lane| {
            let (writer, batches) = (writer.clone(), batches.clone());
            tokio::spawn(async move {
                for batch in batches.iter() {
                    let mine: Vec<u32> = (0..100).filter(|output| output % 8 == lane).collect();
                    let written = writer.write(WriteBatch::new(batch, &mine)).await;
                    assert_eq!(written, Ok(vec![]));
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let mut writes = once.writes().await;
    writes.sort();
    assert_eq!(writes, (20..220).collect::<Vec<_>>());
    assert_eq!(once.finished().await, finished(&[20..220]));
}

#[tokio::test]
async fn workers_that_all_believe_they_own_the_partition_write_each_record_once_and_in_order() {
    let Some(once) = Once::new().await else { return };
    let work = async |name: &str| {
        let writer = once.writer(name);
        writer.claim(&partition(), 1, None).await.unwrap();
        for start in (20..420).step_by(10) {
            insist(&writer, &run(1, start..start + 10)).await;
        }
    };
    tokio::join!(work("a"), work("b"), work("c"));
    assert_eq!(once.writes().await, (20..420).collect::<Vec<_>>());
    assert_eq!(once.finished().await, finished(&[20..420]));
    let sql = format!("SELECT group_id FROM {}", once.offsets);
    let row = once.db.client.query_one(&sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), GROUP);
}
