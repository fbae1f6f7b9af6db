//! Whole workers of one group against librdkafka's mock cluster: what happens to partitions that are
//! assigned, revoked and assigned again, and to workers that cannot continue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "poll_loop/bounded.rs"]
mod bounded;
#[path = "poll_loop/fixture.rs"]
mod fixture;
#[path = "poll_loop/worker.rs"]
mod worker;

use std::time::Duration;

use kafka_consumer_worker::{consumer::error::PollError, engine::EngineError, health::snapshot::Snapshot};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use self::{fixture::Fixture, worker::eventually};

/// librdkafka keeps a partition paused while another worker owns it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_it_left_is_read_when_it_comes_back() {
    let fixture = Fixture::new(2);
    let first = fixture.start("worker-0").await;
    first.until_owner_of(&[0, 1]).await;
    first.paused.send_replace(true);
    let paused = |snapshot: &Snapshot| {
        snapshot
            .partitions
            .iter()
            .all(|entry| entry.paused_reason.is_some())
    };
    first.until("both are paused", paused).await;

    let second = fixture.start("worker-1").await;
    second
        .until("one is assigned", |snapshot| snapshot.partitions.len() == 1)
        .await;
    first
        .until("one is revoked", |snapshot| snapshot.partitions.len() == 1)
        .await;
    first.paused.send_replace(false);
    first.until("it is resumed", |snapshot| !snapshot.paused).await;
    second.stop().await;
    first.until_owner_of(&[0, 1]).await;

    fixture.produce(0, 3).await;
    fixture.produce(1, 3).await;
    first
        .until("both are read", |snapshot| snapshot.records_total == 6)
        .await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_takes_new_partitions_and_reads_none_of_their_records() {
    let fixture = Fixture::new(2);
    // Started together, so that neither has owned the other's partition before.
    let (mut first, mut second) = tokio::join!(fixture.start("worker-0"), fixture.start("worker-1"));
    for worker in [&first, &second] {
        worker
            .until("one is assigned", |snapshot| snapshot.partitions.len() == 1)
            .await;
    }
    let (of_first, of_second) = (
        first.snapshot.read().partitions[0].partition,
        second.snapshot.read().partitions[0].partition,
    );
    // The group is stable once the commits of both succeed.
    fixture.produce(of_first, 1).await;
    fixture.produce(of_second, 1).await;
    for worker in [&first, &second] {
        worker
            .until("a commit succeeds", |snapshot| {
                snapshot.partitions[0].committed == Some(1)
            })
            .await;
    }
    let rebalances = "kcg_worker_rebalances_total{kind=\"assigned\"}";
    let before = first.metric(rebalances).unwrap();

    let closed = fixture.written.gate.lock().await;
    fixture.produce(of_first, 3).await;
    first
        .until("they are being written", |snapshot| {
            snapshot.partitions[0].in_flight == 3
        })
        .await;
    first.shutdown.send_replace(true);
    second.shutdown.send_replace(true);
    second.ended().await.unwrap();
    fixture.produce(of_second, 3).await;
    eventually(|| (first.metric(rebalances)? > before).then_some(()))
        .await
        .expect("the partition moves to the worker that drains");
    // Long enough for a fetch of the records that it must not read.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(closed);
    first.ended().await.unwrap();
    assert_eq!(fixture.written_of(of_first), [0, 1, 2, 3]);
    assert_eq!(
        fixture.written_of(of_second),
        [0],
        "another worker processes the others"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_writer_panics_ends_and_others_get_its_partitions_at_once() {
    let fixture = Fixture::new(2);
    let mut first = fixture.start("worker-0").await;
    first.until_owner_of(&[0, 1]).await;
    *fixture.written.panics.lock().unwrap() = true;
    fixture.produce(0, 1).await;
    let error = first.ended().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Poll(PollError::TaskDied(_))),
        "{error}"
    );
    *fixture.written.panics.lock().unwrap() = false;
    let second = fixture.start("worker-1").await;
    second
        .until("it is read again", |snapshot| snapshot.records_total == 1)
        .await;
    second.stop().await;
}

/// The batch call advances the position past everything that it returns, also past an error that carries the
/// offset of the next record.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_while_reading_costs_no_record_and_moves_no_commit() {
    let fixture = Fixture::new(1);
    let worker = fixture.start("worker-0").await;
    worker.until_owner_of(&[0]).await;
    fixture.produce(0, 3).await;
    let committed = |offset| move |snapshot: &Snapshot| snapshot.partitions[0].committed == Some(offset);
    worker.until("three are committed", committed(3)).await;
    fixture.cluster.mock.request_errors(
        RDKafkaApiKey::Fetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3],
    );
    let reported = |snapshot: &Snapshot| {
        let error = snapshot.last_error.as_deref();
        error.is_some_and(|error| error.contains("reading orders-0"))
    };
    worker.until("the error is reported", reported).await;
    // Long enough for a check of the position, and a commit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = worker.snapshot.read();
    assert_eq!(
        (snapshot.partitions[0].watermark, snapshot.partitions[0].committed),
        (Some(3), Some(3))
    );
    fixture.produce(0, 2).await;
    worker.until("all are committed", committed(5)).await;
    assert_eq!(fixture.written_of(0), [0, 1, 2, 3, 4]);
    worker.stop().await;
}
