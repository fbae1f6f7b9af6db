//! Whole workers against librdkafka's mock cluster, with a transform that does not come back for some records: the others
//! are written and committed. Too many of them make the worker end, so that it is started anew; each of its lives finishes
//! some of them, so that there is a last one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crds::client_config;
use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, WriteBatch, WriteError, Writer,
    consumer::{error::PollError, handles::Handles},
    engine::{self, EngineError},
    health::snapshot::{OldestRecord, PausedReason, SharedSnapshot, Snapshot},
    kafka::producer::{ProduceRecord, Producer},
    per_record,
    secrets::SecretFiles,
    settings::Settings,
    telemetry::{Liveness, Metrics},
    writer::Rejected,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Generous: joining a group alone takes seconds, and machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps partition and offset of what it takes.
#[derive(Default)]
struct Keeping(Mutex<Vec<(i32, i64)>>);

impl Writer for Keeping {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let partition = batch.partition().partition;
        let records = batch.records().map(|record| (partition, record.offset()));
        self.0.lock().unwrap().extend(records);
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Shut until it is dropped: the runtime of a test waits for its threads.
#[derive(Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Gate {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// What outlives a worker.
struct World {
    partitions: i32,
    server: String,
    producer: Producer,
    gate: Gate,
    /// How often the transform was called with a record that it does not come back with.
    calls: Arc<AtomicU32>,
    written: Arc<Keeping>,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

/// A worker on threads of this process.
struct Life {
    snapshot: SharedSnapshot,
    stop: watch::Sender<bool>,
    _resume: watch::Sender<bool>,
    ended: JoinHandle<Result<(), EngineError>>,
}

/// What the lives of a worker have done together.
#[derive(Default)]
struct Lives {
    restarts: u64,
    finished: u64,
    skipped: u64,
    dead_lettered: u64,
}

impl World {
    /// With topics of so many partitions.
    fn new(partitions: i32) -> Self {
        let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
        for topic in ["orders", "dlq"] {
            cluster.create_topic(topic, partitions, 1).unwrap();
        }
        let servers = cluster.bootstrap_servers();
        let server = servers.split(',').next().unwrap().to_owned();
        let producer = Producer::new(&client_config::producer(
            &config(&server, "PerPartition", &json!({})).kafka,
            &client_config::KafkaCredentials::default(),
            crds::spec::Compression::None,
        ))
        .unwrap();
        Self {
            partitions,
            server,
            producer,
            gate: Gate::default(),
            calls: Arc::default(),
            written: Arc::default(),
            _cluster: cluster,
        }
    }

    /// Produces records with these values, each with a key of its own.
    async fn send(&self, partition: i32, values: &[&str]) {
        let keys: Vec<String> = (0..values.len()).map(|key| key.to_string()).collect();
        let records: Vec<ProduceRecord<'_>> = values
            .iter()
            .zip(&keys)
            .map(|(value, key)| ProduceRecord {
                topic: "orders",
                partition: Some(partition),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..ProduceRecord::default()
            })
            .collect();
        assert!(self.producer.send(&records).await.iter().all(Result::is_ok));
    }

    /// Starts a worker whose transform does not come back with the value "stuck".
    async fn start(&self, ordering: &str, errors: &Value) -> Life {
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
            .writer("keeping", move |_| Ok(written.clone()));
        let nowhere = SecretFiles::new("/nowhere".into(), "/nowhere".into());
        let config = config(&self.server, ordering, errors);
        let settings = Settings::build(config, "worker-0", &nowhere, &extensions)
            .await
            .unwrap();
        let snapshot = SharedSnapshot::default();
        let (resume, paused) = watch::channel(false);
        let (stop, shutdown) = watch::channel(false);
        let handles = Handles {
            snapshot: snapshot.clone(),
            metrics: Metrics::new(),
            liveness: Liveness::new(),
            paused,
            shutdown,
        };
        Life {
            snapshot,
            stop,
            _resume: resume,
            ended: tokio::spawn(engine::run(settings, handles)),
        }
    }

    /// Starts the worker anew, after `life`, until so many records are finished, and then stops it.
    async fn until_finished(&self, ordering: &str, errors: &Value, mut life: Life, records: u64) -> Lives {
        let mut lives = Lives::default();
        loop {
            let committed = self.committed();
            let before = lives.finished;
            let all = until(&life.snapshot, "everything is finished", |told| {
                before + told.records_total >= records
            });
            let ended = tokio::select! {
                ended = &mut life.ended => ended.unwrap(),
                _ = all => {
                    life.stop.send_replace(true);
                    timeout(DEADLINE, &mut life.ended).await.unwrap().unwrap()
                }
            };
            let told = life.snapshot.read();
            lives.finished += told.records_total;
            lives.skipped += told.skipped_total;
            lives.dead_lettered += told.dead_lettered_total;
            let Err(error) = ended else { return lives };
            assert!(
                matches!(error, EngineError::Poll(PollError::TransformsStuck { threads, .. }) if threads > 8),
                "{error}"
            );
            assert_eq!(error.exit_code(), 5);
            lives.restarts += 1;
            // Else it would go on like this for ever.
            let sum = |committed: &[i64]| committed.iter().sum::<i64>();
            assert!(sum(&self.committed()) > sum(&committed));
            if lives.finished >= records {
                return lives;
            }
            life = self.start(ordering, errors).await;
        }
    }

    fn consumer(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.server)
            .set("group.id", "shop.orders")
            .create()
            .unwrap()
    }

    /// What is committed, by partition.
    fn committed(&self) -> Vec<i64> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range("orders", 0, self.partitions - 1);
        let committed = self.consumer().committed_offsets(partitions, DEADLINE).unwrap();
        let offset = |partition| match committed.find_partition("orders", partition).unwrap().offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        (0..self.partitions).map(offset).collect()
    }

    /// Dead letters of all partitions.
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

fn config(server: &str, ordering: &str, errors: &Value) -> crds::WorkerConfig {
    serde_json::from_value(json!({
        "formatVersion": 1,
        "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": ["orders"],
        "kafka": {"bootstrapServers": [server]},
        "consumer": {}, "processing": {"ordering": ordering}, "decode": {},
        "transforms": [{"name": "clean", "type": "Custom", "custom": {"name": "clean"}}],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "keeping"}}],
        "errorHandling": errors,
        "drainSeconds": 5,
    }))
    .unwrap()
}

async fn until(snapshot: &SharedSnapshot, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let wait = async {
        loop {
            let snapshot = snapshot.read();
            if holds(&snapshot) {
                return snapshot;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(DEADLINE, wait).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("never: {what}; {:#?}", snapshot.read()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_transform_does_not_come_back_with_fail_alone_however_many_are_in_a_batch() {
    let world = World::new(1);
    let errors = json!({"onExhausted": "Skip", "transformTimeoutSeconds": 1});
    world.send(0, &["a", "stuck", "b", "c"]).await;
    let life = world.start("PerPartition", &errors).await;
    let told = until(&life.snapshot, "four records are finished", |told| {
        told.records_total == 4
    })
    .await;
    assert_eq!(told.skipped_total, 1);
    assert_eq!(world.written(), [(0, 0), (0, 2), (0, 3)]);

    // Two threads are left alone already; each of these adds its own, and one that of their batch.
    world.send(0, &["stuck", "d"].repeat(10)).await;
    let lives = world.until_finished("PerPartition", &errors, life, 24).await;
    // It takes five records at least to end a life.
    assert!((1..=2).contains(&lives.restarts), "{}", lives.restarts);
    assert_eq!((lives.finished, lives.skipped), (24, 11));
    let good = [0, 2, 3].into_iter().chain((5..24).step_by(2));
    assert_eq!(
        world.written(),
        good.map(|offset| (0, offset)).collect::<Vec<_>>()
    );
    assert_eq!(world.committed(), [24]);
}

#[tokio::test(flavor = "multi_thread")]
async fn such_records_fail_alone_in_however_many_partitions_they_are_at_the_same_time() {
    let world = World::new(10);
    let errors = json!({"deadLetter": {"topic": "dlq"}, "transformTimeoutSeconds": 1});
    for partition in 0..10 {
        world.send(partition, &["a", "stuck", "b"]).await;
    }
    let life = world.start("PerKey", &errors).await;
    let lives = world.until_finished("PerKey", &errors, life, 30).await;
    assert!((1..=2).contains(&lives.restarts), "{}", lives.restarts);
    assert_eq!((lives.finished, lives.dead_lettered), (30, 10));
    assert_eq!(world.dead_letters(), 10);
    let good = (0..10).flat_map(|partition| [(partition, 0), (partition, 2)]);
    assert_eq!(world.written(), good.collect::<Vec<_>>());
    assert_eq!(world.committed(), [3; 10]);
}

/// A restart would only meet the same records again.
#[tokio::test(flavor = "multi_thread")]
async fn with_stop_nothing_behind_such_a_record_is_run_and_the_worker_stays() {
    let world = World::new(6);
    let errors = json!({
        "onExhausted": "Stop", "retry": {"maxBackoffSeconds": 1}, "transformTimeoutSeconds": 1,
    });
    for partition in 0..6 {
        world.send(partition, &["a", "stuck", "stuck", "b"]).await;
    }
    let mut life = world.start("PerKey", &errors).await;
    until(&life.snapshot, "all partitions wait", |told| {
        let waits = |oldest: &OldestRecord| oldest.offset == 1 && oldest.attempts > 2;
        let mut partitions = told.partitions.iter();
        told.partitions.len() == 6
            && partitions.all(|partition| {
                partition.paused_reason == Some(PausedReason::RecordFailed)
                    && partition.oldest.as_ref().is_some_and(waits)
            })
    })
    .await;
    assert!(!life.ended.is_finished());
    // In its batch and by itself.
    let calls = world.calls.load(Ordering::SeqCst);
    assert!(calls <= 12, "{calls}");
    life.stop.send_replace(true);
    timeout(DEADLINE, &mut life.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let first = (0..6).map(|partition| (partition, 0));
    assert_eq!(world.written(), first.collect::<Vec<_>>());
    assert_eq!(world.committed(), [1; 6]);
}
