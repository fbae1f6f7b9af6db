//! Bounded runs: a part of the log is processed, exactly it, and the workers end by themselves.

use std::time::Duration;

use kafka_consumer_worker::{consumer::error::PollError, engine::EngineError, health::snapshot::Snapshot};
use serde_json::{Value, json};

use crate::fixture::Fixture;

fn planned(partition: i32, from: i64, to: i64) -> Value {
    json!({"topic": "orders", "partition": partition, "from": from, "to": to})
}

fn until(partitions: &[Value]) -> Value {
    json!({"partitions": partitions})
}

/// What the configuration of the workers has beside that of an ordinary group.
fn bounded(partitions: &[Value]) -> Value {
    json!({"until": until(partitions)})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_run_processes_exactly_its_part_and_ends() {
    let fixture = Fixture::new(4);
    for partition in 0..4 {
        fixture.produce(partition, 10).await;
    }
    // The end of partition 1 is the end of its log; partition 3 does not belong to the run.
    let plan = [planned(0, 3, 7), planned(1, 0, 10), planned(2, 4, 4)];
    let mut worker = fixture.start_with("worker-0", bounded(&plan)).await;
    worker.ended().await.unwrap();
    assert_eq!(fixture.written_of(0), [3, 4, 5, 6]);
    assert_eq!(fixture.written_of(1), Vec::from_iter(0..10));
    assert!(fixture.written_of(2).is_empty() && fixture.written_of(3).is_empty());
    let snapshot = worker.snapshot.read();
    let lags: Vec<_> = snapshot
        .partitions
        .iter()
        .map(|entry| (entry.partition, entry.lag))
        .collect();
    assert_eq!(lags, [(0, Some(0)), (1, Some(0)), (2, Some(0))]);
    // A worker that starts again finds that nothing is left.
    let mut again = fixture.start_with("worker-1", bounded(&plan)).await;
    again.ended().await.unwrap();
    assert_eq!(fixture.written.records.lock().unwrap().len(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_bounded_run_is_unfinished_and_continues_where_it_was() {
    let fixture = Fixture::new(1);
    fixture.produce(0, 10).await;
    // Two offsets of the plan have no record yet. The client comes to the end of the log several times.
    let plan = bounded(&[planned(0, 2, 12)]);
    let mut first = fixture.start_with("worker-0", plan.clone()).await;
    let committed = |snapshot: &Snapshot| {
        let entry = snapshot.partitions.first();
        entry.is_some_and(|entry| entry.committed == Some(10) && entry.lag == Some(2))
    };
    first.until("all records so far are committed", committed).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!first.outcome.is_finished(), "the end of the run is not reached");
    assert!(
        committed(&first.snapshot.read()),
        "no offset is passed without its record"
    );
    first.shutdown.send_replace(true);
    let error = first.ended().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Poll(PollError::Unfinished)),
        "{error}"
    );
    assert_eq!(error.exit_code(), 6);

    let mut second = fixture.start_with("worker-1", plan).await;
    second.until_owner_of(&[0]).await;
    fixture.produce(0, 5).await;
    second.ended().await.unwrap();
    assert_eq!(fixture.written_of(0), Vec::from_iter(2..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_work_waits_for_the_others_and_takes_over_what_they_leave() {
    let fixture = Fixture::new(2);
    fixture.produce(0, 5).await;
    let plan = bounded(&[planned(0, 0, 5), planned(1, 0, 5)]);
    let (mut first, mut second) = tokio::join!(
        fixture.start_with("worker-0", plan.clone()),
        fixture.start_with("worker-1", plan)
    );
    for worker in [&first, &second] {
        worker
            .until("one is assigned", |snapshot| snapshot.partitions.len() == 1)
            .await;
    }
    let (idle, busy) = match first.snapshot.read().partitions[0].partition {
        0 => (&mut first, &mut second),
        _ => (&mut second, &mut first),
    };
    idle.until("its partition is finished", |snapshot| {
        let entry = snapshot.partitions.first();
        entry.is_some_and(|entry| entry.committed == Some(5))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!idle.outcome.is_finished(), "the plan is not finished");
    busy.shutdown.send_replace(true);
    assert_eq!(busy.ended().await.unwrap_err().exit_code(), 6);
    fixture.produce(1, 5).await;
    idle.ended().await.unwrap();
    assert_eq!(fixture.written_of(0), Vec::from_iter(0..5));
    assert_eq!(fixture.written_of(1), Vec::from_iter(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_also_ends_where_the_last_offsets_have_no_record() {
    let fixture = Fixture::new(1);
    fixture.produce(0, 6).await;
    let config = json!({
        "until": until(&[planned(0, 1, 6)]),
        "processing": {"deliveryGuarantee": "AtMostOnce", "commitIntervalMilliseconds": 100},
    });
    let mut worker = fixture.start_with("worker-0", config).await;
    worker.ended().await.unwrap();
    assert_eq!(fixture.written_of(0), Vec::from_iter(1..6));
}
