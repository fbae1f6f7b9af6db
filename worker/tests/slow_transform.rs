//! Whole workers against librdkafka's mock cluster, with a transform that never returns for some records: the
//! worker writes and commits the others. Too many of these records end the worker, so that it restarts. Each
//! run finishes some of them, so the number of restarts is limited.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "poll_loop/worker.rs"]
mod worker;

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicU32, Ordering},
};

use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, WriteBatch, WriteError, Writer,
    consumer::error::PollError,
    engine::EngineError,
    health::snapshot::{OldestRecord, PausedReason},
    per_record,
    writer::Rejected,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde_json::{Value, json};

use self::worker::{Cluster, DEADLINE, TOPIC, Worker, until};

/// Records partition and offset of all records that it gets.
#[derive(Default)]
struct Recorder(Mutex<Vec<(i32, i64)>>);

impl Writer for Recorder {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let partition = batch.partition().partition;
        let records = batch.records().map(|record| (partition, record.offset()));
        self.0.lock().unwrap().extend(records);
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Closed until it is dropped. It must open then, because the runtime of a test waits for its threads.
#[derive(Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Gate {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// What outlives a worker.
struct Fixture {
    partitions: i32,
    gate: Gate,
    /// How often the transform was called with a record for which it never returns.
    calls: Arc<AtomicU32>,
    written: Arc<Recorder>,
    cluster: Cluster,
}

/// What all runs of a worker did together.
#[derive(Default)]
struct Totals {
    restarts: u64,
    finished: u64,
    skipped: u64,
    dead_lettered: u64,
}

impl Fixture {
    /// With topics of this number of partitions.
    fn new(partitions: i32) -> Self {
        Self {
            partitions,
            gate: Gate::default(),
            calls: Arc::default(),
            written: Arc::default(),
            cluster: Cluster::new(&["dlq"], partitions),
        }
    }

    /// Produces records with these values, each with its own key.
    async fn send(&self, partition: i32, values: &[&str]) {
        let keys: Vec<String> = (0..values.len()).map(|key| key.to_string()).collect();
        let keys = keys.iter().map(|key| Some(key.as_str()));
        self.cluster
            .produce(partition, keys.zip(values.iter().copied()))
            .await;
    }

    /// Starts a worker whose transform never returns for the value "stuck".
    async fn start(&self, ordering: &str, errors: &Value) -> Worker {
        let (gate, calls, written) = (self.gate.0.clone(), self.calls.clone(), self.written.clone());
        let extensions = Extensions::new()
            .transform("clean", move |_| {
                let (gate, calls) = (gate.clone(), calls.clone());
                Ok(per_record("clean", move |record, out| {
                    if record.value == Some(b"stuck") {
                        calls.fetch_add(1, Ordering::SeqCst);
                        let open = gate.0.lock().unwrap();
                        drop(gate.1.wait_while(open, |open| !*open).unwrap());
                    }
                    out.keep();
                    Ok(())
                }))
            })
            .writer("recorder", move |_| Ok(written.clone()));
        let config = self.cluster.config(json!({
            "processing": {"ordering": ordering},
            "transforms": [{"name": "clean", "type": "Custom", "custom": {"name": "clean"}}],
            "writers": [{"name": "out", "type": "Custom", "custom": {"name": "recorder"}}],
            "errorHandling": errors,
            "drainSeconds": 5,
        }));
        Worker::start(config, "worker-0", &extensions).await
    }

    /// Restarts `worker` whenever it ends, until this number of records is finished, and then stops it.
    async fn until_finished(
        &self,
        ordering: &str,
        errors: &Value,
        mut worker: Worker,
        records: u64,
    ) -> Totals {
        let mut totals = Totals::default();
        loop {
            let committed = self.committed();
            let before = totals.finished;
            let all = until(&worker.snapshot, "everything is finished", |snapshot| {
                before + snapshot.records_total >= records
            });
            let ended = tokio::select! {
                ended = &mut worker.outcome => ended.unwrap(),
                _ = all => {
                    worker.shutdown.send_replace(true);
                    worker.ended().await
                }
            };
            let last = worker.snapshot.read();
            totals.finished += last.records_total;
            totals.skipped += last.skipped_total;
            totals.dead_lettered += last.dead_lettered_total;
            let Err(error) = ended else { return totals };
            assert!(
                matches!(error, EngineError::Poll(PollError::TransformsStuck { threads, .. }) if threads > 8),
                "{error}"
            );
            assert_eq!(error.exit_code(), 5);
            totals.restarts += 1;
            // Without progress in each run, the worker would restart indefinitely.
            let sum = |committed: &[i64]| committed.iter().sum::<i64>();
            assert!(sum(&self.committed()) > sum(&committed));
            if totals.finished >= records {
                return totals;
            }
            worker = self.start(ordering, errors).await;
        }
    }

    fn consumer(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.cluster.server)
            .set("group.id", "shop.orders")
            .create()
            .unwrap()
    }

    /// The committed offsets, by partition.
    fn committed(&self) -> Vec<i64> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(TOPIC, 0, self.partitions - 1);
        let committed = self.consumer().committed_offsets(partitions, DEADLINE).unwrap();
        let offset = |partition| match committed.find_partition(TOPIC, partition).unwrap().offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        (0..self.partitions).map(offset).collect()
    }

    /// The number of dead letters in all partitions.
    fn dead_letters(&self) -> i64 {
        let consumer = self.consumer();
        let end = |partition| consumer.fetch_watermarks("dlq", partition, DEADLINE).unwrap().1;
        (0..self.partitions).map(end).sum()
    }

    fn written(&self) -> Vec<(i32, i64)> {
        let mut written = self.written.0.lock().unwrap().clone();
        written.sort_unstable();
        written
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_records_for_which_a_transform_never_returns_fail_however_many_are_in_a_batch() {
    let fixture = Fixture::new(1);
    let errors = json!({"onExhausted": "Skip", "transformTimeoutSeconds": 1});
    fixture.send(0, &["a", "stuck", "b", "c"]).await;
    let worker = fixture.start("PerPartition", &errors).await;
    let four = worker
        .until("four records are finished", |snapshot| {
            snapshot.records_total == 4
        })
        .await;
    assert_eq!(four.skipped_total, 1);
    assert_eq!(fixture.written(), [(0, 0), (0, 2), (0, 3)]);

    // Two threads are abandoned already. Each of these records adds its own thread, and their batch adds one.
    fixture.send(0, &["stuck", "d"].repeat(10)).await;
    let totals = fixture.until_finished("PerPartition", &errors, worker, 24).await;
    // It takes at least five records to end a run of the worker.
    assert!((1..=2).contains(&totals.restarts), "{}", totals.restarts);
    assert_eq!((totals.finished, totals.skipped), (24, 11));
    let good = [0, 2, 3].into_iter().chain((5..24).step_by(2));
    assert_eq!(
        fixture.written(),
        good.map(|offset| (0, offset)).collect::<Vec<_>>()
    );
    assert_eq!(fixture.committed(), [24]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_such_records_fail_when_many_partitions_have_them_at_the_same_time() {
    let fixture = Fixture::new(10);
    let errors = json!({"deadLetter": {"topic": "dlq"}, "transformTimeoutSeconds": 1});
    for partition in 0..10 {
        fixture.send(partition, &["a", "stuck", "b"]).await;
    }
    let worker = fixture.start("PerKey", &errors).await;
    let totals = fixture.until_finished("PerKey", &errors, worker, 30).await;
    assert!((1..=2).contains(&totals.restarts), "{}", totals.restarts);
    assert_eq!((totals.finished, totals.dead_lettered), (30, 10));
    assert_eq!(fixture.dead_letters(), 10);
    let good = (0..10).flat_map(|partition| [(partition, 0), (partition, 2)]);
    assert_eq!(fixture.written(), good.collect::<Vec<_>>());
    assert_eq!(fixture.committed(), [3; 10]);
}

/// After a restart the worker would only read the same records again.
#[tokio::test(flavor = "multi_thread")]
async fn with_stop_no_record_after_such_a_record_is_transformed_and_the_worker_keeps_running() {
    let fixture = Fixture::new(6);
    let errors = json!({
        "onExhausted": "Stop", "retry": {"maxBackoffSeconds": 1}, "transformTimeoutSeconds": 1,
    });
    for partition in 0..6 {
        fixture.send(partition, &["a", "stuck", "stuck", "b"]).await;
    }
    let worker = fixture.start("PerKey", &errors).await;
    worker
        .until("all partitions wait", |snapshot| {
            let waits = |oldest: &OldestRecord| oldest.offset == 1 && oldest.attempts > 2;
            let mut partitions = snapshot.partitions.iter();
            snapshot.partitions.len() == 6
                && partitions.all(|partition| {
                    partition.paused_reason == Some(PausedReason::RecordFailed)
                        && partition.oldest.as_ref().is_some_and(waits)
                })
        })
        .await;
    assert!(!worker.outcome.is_finished());
    // Once in its batch and once by itself, in each partition.
    let calls = fixture.calls.load(Ordering::SeqCst);
    assert!(calls <= 12, "{calls}");
    worker.stop().await;
    let first = (0..6).map(|partition| (partition, 0));
    assert_eq!(fixture.written(), first.collect::<Vec<_>>());
    assert_eq!(fixture.committed(), [1; 6]);
}
