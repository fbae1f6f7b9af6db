//! A whole worker against librdkafka's mock cluster: the dead letter breaker opens, pauses the partition, and
//! closes when the cause is fixed while the worker runs.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "poll_loop/worker.rs"]
mod worker;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, Payload, WriteBatch, WriteError, Writer,
    health::snapshot::{PausedReason, Snapshot},
    per_record,
    writer::Rejected,
};
use serde_json::json;

use self::worker::{Cluster, Worker};

/// Records the offsets of all records that it gets, in order.
#[derive(Default)]
struct Recorder(Mutex<Vec<i64>>);

impl Writer for Recorder {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let offsets = batch.records().map(|record| record.offset());
        self.0.lock().unwrap().extend(offsets);
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_pauses_the_partition_at_the_next_failing_record_until_it_succeeds() {
    it_opens_and_closes("PerPartition").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_pauses_the_key_at_its_next_failing_record_until_it_succeeds() {
    it_opens_and_closes("PerKey").await;
}

/// All records have the same key.
async fn it_opens_and_closes(ordering: &str) {
    let cluster = Cluster::new(&["dlq"], 1);
    let values: Vec<String> = (0..20).map(|number| format!("record {number}")).collect();
    let records = values.iter().map(|value| (Some("k"), value.as_str()));
    cluster.produce(0, records).await;

    // The first two records succeed, then all fail until the transform is fixed.
    let fixed = Arc::new(AtomicBool::new(false));
    let written = Arc::new(Recorder::default());
    let (flag, recorder) = (fixed.clone(), written.clone());
    let extensions = Extensions::new()
        .transform("broken", move |_| {
            let flag = flag.clone();
            Ok(per_record("broken", move |record, out| {
                if record.offset() < 2 || flag.load(Ordering::SeqCst) {
                    out.emit(Payload::Keep, Payload::Keep);
                    Ok(())
                } else {
                    Err("it is broken".into())
                }
            }))
        })
        .writer("recorder", move |_| Ok(recorder.clone()));
    let config = cluster.config(json!({
        "processing": {"ordering": ordering, "batch": {"maxRecords": 4}, "recordsPerSecond": 1000},
        "transforms": [{"name": "broken", "type": "Custom", "custom": {"name": "broken"}}],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "recorder"}}],
        "errorHandling": {
            "retry": {"maxBackoffSeconds": 1},
            "deadLetter": {"topic": "dlq", "breaker": {"maxConsecutive": 5}},
        },
        "drainSeconds": 5,
    }));
    let worker = Worker::start(config, "worker-0", &extensions).await;

    let open = |snapshot: &Snapshot| {
        let partition = snapshot.partitions.first();
        partition
            .is_some_and(|partition| partition.paused_reason == Some(PausedReason::DeadLetterBreakerOpen))
    };
    let paused = worker.until("the breaker opens", open).await;
    // Five failures in a row go to the dead letter topic, the sixth does not: everything before it is
    // finished, nothing after it.
    let partition = &paused.partitions[0];
    assert_eq!(partition.watermark, Some(7));
    assert_eq!(paused.dead_lettered_total, 5);
    let error = partition.oldest.as_ref().unwrap().last_error.clone().unwrap();
    for part in [
        "more than 5 records in a row failed",
        "orders-0@7",
        "broken",
        "it is broken",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    // The breaker stays open through at least one more attempt.
    let again = worker
        .until("the worker retries the record", |snapshot| {
            let oldest = snapshot.partitions[0].oldest.as_ref();
            oldest.is_some_and(|oldest| oldest.attempts > 1)
        })
        .await;
    assert!(open(&again), "{again:#?}");
    assert_eq!(again.dead_lettered_total, 5);
    assert_eq!(*written.0.lock().unwrap(), [0, 1]);

    fixed.store(true, Ordering::SeqCst);
    let after = worker
        .until("everything is finished", |snapshot| snapshot.records_total == 20)
        .await;
    assert_eq!(after.dead_lettered_total, 5, "no dead letter followed the five");
    let in_order: Vec<i64> = (0..2).chain(7..20).collect();
    assert_eq!(*written.0.lock().unwrap(), in_order);
    assert_eq!(after.partitions[0].paused_reason, None);
    worker.stop().await;
}
