//! A whole worker against librdkafka's mock cluster: the dead letter breaker opens, pauses the partition, and
//! closes when the cause is fixed while the worker runs; dead letters that are too large are written in a form
//! that fits.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "poll_loop/worker.rs"]
mod worker;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, Payload, WriteBatch, WriteError, Writer,
    health::snapshot::{PausedReason, Snapshot},
    per_record,
    writer::Rejected,
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::json;

use self::worker::{Cluster, DEADLINE, Worker};

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

/// The values and the headers of the first `count` dead letters.
fn dead_letters(cluster: &Cluster, count: usize) -> Vec<(Vec<u8>, Vec<String>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &cluster.server)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["dlq"]).unwrap();
    let poll = |_| {
        let started = std::time::Instant::now();
        // None also means that the client has done something else.
        let record = loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(record) => break record.unwrap(),
                None => assert!(started.elapsed() < DEADLINE, "no dead letter arrives"),
            }
        };
        let headers = record.headers().unwrap().iter();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        (
            record.payload().unwrap().to_vec(),
            headers
                .map(|header| format!("{}={}", header.key, text(header.value)))
                .collect(),
        )
    };
    (0..count).map(poll).collect()
}

/// A worker whose client sends at most this many bytes, and whose transform fails for large values with an
/// error message of `message` bytes.
async fn worker_with_small_messages(
    cluster: &Cluster,
    bytes: &str,
    message: usize,
    on_refused: &str,
) -> (Worker, Arc<Recorder>) {
    let written = Arc::new(Recorder::default());
    let recorder = written.clone();
    let extensions = Extensions::new()
        .transform("broken", move |_| {
            Ok(per_record("broken", move |record, out| {
                if record.value.is_some_and(|value| value.len() > 100) {
                    return Err("x".repeat(message));
                }
                out.keep();
                Ok(())
            }))
        })
        .writer("recorder", move |_| Ok(recorder.clone()));
    let config = cluster.config(json!({
        "kafka": {"bootstrapServers": [cluster.server], "clientConfig": {"message.max.bytes": bytes}},
        "transforms": [{"name": "broken", "type": "Custom", "custom": {"name": "broken"}}],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "recorder"}}],
        "errorHandling": {
            "retry": {"maxBackoffSeconds": 1},
            "deadLetter": {"topic": "dlq", "onRefused": on_refused},
        },
        "drainSeconds": 5,
    }));
    (Worker::start(config, "worker-0", &extensions).await, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_is_cut_and_the_partition_continues() {
    let cluster = Cluster::new(&["dlq"], 1);
    let large = "v".repeat(4900);
    let records = ["a", &large, "b"].map(|value| (Some("k"), value));
    cluster.produce(0, records).await;
    let (worker, written) = worker_with_small_messages(&cluster, "5000", 10, "Stop").await;
    let snapshot = worker
        .until("everything is finished", |snapshot| snapshot.records_total == 3)
        .await;
    assert_eq!(snapshot.dead_lettered_total, 1);
    assert_eq!(*written.0.lock().unwrap(), [0, 2]);
    let (value, headers) = dead_letters(&cluster, 1).remove(0);
    assert!(value.len() > 2500 && value.len() < 4900, "{} bytes", value.len());
    assert!(large.as_bytes().starts_with(&value));
    for header in [
        "kafka-consumer.dev/offset=1".into(),
        "kafka-consumer.dev/value-size=4900".into(),
        format!("kafka-consumer.dev/value-kept={}", value.len()),
    ] {
        assert!(headers.contains(&header), "{header} is not in {headers:?}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_refused_in_every_form_is_dropped_only_if_the_spec_says_so() {
    let large = "v".repeat(900);
    for (on_refused, partition_waits) in [("Drop", false), ("Stop", true)] {
        let cluster = Cluster::new(&["dlq"], 1);
        cluster
            .produce(0, ["a", &large, "b"].map(|value| (Some("k"), value)))
            .await;
        // The headers alone are too large.
        let (worker, written) = worker_with_small_messages(&cluster, "1000", 1000, on_refused).await;
        if partition_waits {
            let snapshot = worker
                .until("the partition waits", |snapshot| {
                    let partition = snapshot.partitions.first();
                    partition
                        .is_some_and(|partition| partition.paused_reason == Some(PausedReason::RecordFailed))
                })
                .await;
            let error = snapshot.partitions[0].oldest.as_ref().unwrap().last_error.clone();
            let error = error.unwrap();
            assert!(
                error.contains("dead letter topic dlq refuses the record"),
                "{error}"
            );
            assert!(!error.contains("vvv"), "{error}");
            assert_eq!(snapshot.partitions[0].watermark, Some(1));
        } else {
            worker
                .until("everything is finished", |snapshot| snapshot.records_total == 3)
                .await;
            assert_eq!(*written.0.lock().unwrap(), [0, 2]);
            let metrics = worker
                .metrics
                .encode(&Default::default(), Duration::ZERO)
                .unwrap();
            assert!(
                metrics.contains("kcg_worker_dead_letters_dropped_total 1"),
                "{metrics}"
            );
        }
        worker.stop().await;
    }
}
