//! Whole workers of one group against librdkafka's mock cluster: what happens to partitions that come, go and come back, and
//! to workers that cannot go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "poll_loop/world.rs"]
mod world;

use std::time::Duration;

use kafka_consumer_worker::{consumer::error::PollError, engine::EngineError};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use self::world::{World, until};

/// librdkafka keeps a partition paused while somebody else has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_held_when_it_left_is_read_when_it_comes_back() {
    let world = World::new(2);
    let first = world.start("worker-0").await;
    first.until_owner_of(&[0, 1]).await;
    first.pause.send_replace(true);
    let held = |snapshot: &kafka_consumer_worker::health::snapshot::Snapshot| {
        snapshot
            .partitions
            .iter()
            .all(|entry| entry.paused_reason.is_some())
    };
    first.until("both are held", held).await;

    let second = world.start("worker-1").await;
    second
        .until("one is assigned", |snapshot| snapshot.partitions.len() == 1)
        .await;
    first
        .until("one has left", |snapshot| snapshot.partitions.len() == 1)
        .await;
    first.pause.send_replace(false);
    first.until("it goes on", |snapshot| !snapshot.paused).await;
    second.stop.send_replace(true);
    second.ended().await.unwrap();
    first.until_owner_of(&[0, 1]).await;

    world.produce(0, 3).await;
    world.produce(1, 3).await;
    first
        .until("both are read", |snapshot| snapshot.records_total == 6)
        .await;
    first.stop.send_replace(true);
    first.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_takes_the_partitions_of_others_and_leaves_their_records_alone() {
    let world = World::new(2);
    // Together, so that neither has had the other's partition before.
    let (first, second) = tokio::join!(world.start("worker-0"), world.start("worker-1"));
    for worker in [&first, &second] {
        worker
            .until("one is assigned", |snapshot| snapshot.partitions.len() == 1)
            .await;
    }
    let (of_first, of_second) = (
        first.snapshot.read().partitions[0].partition,
        second.snapshot.read().partitions[0].partition,
    );
    // The group is at rest when it takes commits of both.
    world.produce(of_first, 1).await;
    world.produce(of_second, 1).await;
    for worker in [&first, &second] {
        worker
            .until("a commit is taken", |snapshot| {
                snapshot.partitions[0].committed == Some(1)
            })
            .await;
    }
    let rebalances = "kcg_worker_rebalances_total{kind=\"assigned\"}";
    let before = first.metric(rebalances).unwrap();

    let closed = world.written.gate.lock().await;
    world.produce(of_first, 3).await;
    first
        .until("they are being written", |snapshot| {
            snapshot.partitions[0].in_flight == 3
        })
        .await;
    first.stop.send_replace(true);
    second.stop.send_replace(true);
    second.ended().await.unwrap();
    world.produce(of_second, 3).await;
    until("the partition moves to the one that drains", || {
        (first.metric(rebalances)? > before).then_some(())
    })
    .await;
    // Long enough for a fetch of what must not be taken.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(closed);
    first.ended().await.unwrap();
    assert_eq!(world.written_of(of_first), [0, 1, 2, 3]);
    assert_eq!(world.written_of(of_second), [0], "the others are somebody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_writer_panics_ends_and_its_partitions_go_to_others_at_once() {
    let world = World::new(2);
    let first = world.start("worker-0").await;
    first.until_owner_of(&[0, 1]).await;
    *world.written.panics.lock().unwrap() = true;
    world.produce(0, 1).await;
    let error = first.ended().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Poll(PollError::TaskDied(_))),
        "{error}"
    );
    *world.written.panics.lock().unwrap() = false;
    let second = world.start("worker-1").await;
    second
        .until("it is read again", |snapshot| snapshot.records_total == 1)
        .await;
    second.stop.send_replace(true);
    second.ended().await.unwrap();
}

/// The batch call moves the position behind everything that it gives out, also behind an error that carries the offset of the
/// next record.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_while_reading_costs_no_record_and_moves_no_commit() {
    let world = World::new(1);
    let worker = world.start("worker-0").await;
    worker.until_owner_of(&[0]).await;
    world.produce(0, 3).await;
    let committed = |offset| {
        move |snapshot: &kafka_consumer_worker::health::snapshot::Snapshot| {
            snapshot.partitions[0].committed == Some(offset)
        }
    };
    worker.until("three are committed", committed(3)).await;
    world.cluster.request_errors(
        RDKafkaApiKey::Fetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3],
    );
    let told = |snapshot: &kafka_consumer_worker::health::snapshot::Snapshot| {
        let error = snapshot.last_error.as_deref();
        error.is_some_and(|error| error.contains("reading orders-0"))
    };
    worker.until("the error is told", told).await;
    // Long enough for a look at the position, and a commit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = worker.snapshot.read();
    assert_eq!(
        (snapshot.partitions[0].watermark, snapshot.partitions[0].committed),
        (Some(3), Some(3))
    );
    world.produce(0, 2).await;
    worker.until("all are committed", committed(5)).await;
    assert_eq!(world.written_of(0), [0, 1, 2, 3, 4]);
    worker.stop.send_replace(true);
    worker.ended().await.unwrap();
}
