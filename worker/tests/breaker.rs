//! A whole worker against librdkafka's mock cluster: the breaker of the dead letter topic opens, holds the partition, and
//! closes when the cause is mended while the worker runs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crds::client_config;
use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, Payload, WriteBatch, WriteError, Writer,
    consumer::handles::Handles,
    engine,
    health::snapshot::{PausedReason, SharedSnapshot, Snapshot},
    kafka::producer::{ProduceRecord, Producer},
    per_record,
    secrets::SecretFiles,
    settings::Settings,
    telemetry::{Liveness, Metrics},
    writer::Rejected,
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use serde_json::json;
use tokio::sync::watch;

/// Generous: joining a group alone takes seconds, and machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps the offsets of what it takes, in order.
#[derive(Default)]
struct Keeping(Mutex<Vec<i64>>);

impl Writer for Keeping {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let offsets = batch.records().map(|record| record.offset());
        self.0.lock().unwrap().extend(offsets);
        Box::pin(async { Ok(Vec::new()) })
    }
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
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("never: {what}; {:#?}", snapshot.read()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_holds_the_partition_at_the_next_failing_record_until_that_passes() {
    it_opens_and_closes("PerPartition").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_holds_the_key_at_its_next_failing_record_until_that_passes() {
    it_opens_and_closes("PerKey").await;
}

/// All records have the same key.
async fn it_opens_and_closes(ordering: &str) {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    cluster.create_topic("dlq", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let config: crds::WorkerConfig = serde_json::from_value(json!({
        "formatVersion": 1,
        "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": ["orders"],
        "kafka": {"bootstrapServers": [servers.split(',').next()]},
        "consumer": {}, "processing": {"ordering": ordering, "batch": {"maxRecords": 4}, "recordsPerSecond": 1000},
        "decode": {},
        "transforms": [{"name": "broken", "type": "Custom", "custom": {"name": "broken"}}],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "keeping"}}],
        "errorHandling": {
            "retry": {"maxBackoffSeconds": 1},
            "deadLetter": {"topic": "dlq", "breaker": {"maxConsecutive": 5}},
        },
        "drainSeconds": 5,
    }))
    .unwrap();
    let producer = Producer::new(&client_config::producer(
        &config.kafka,
        &client_config::KafkaCredentials::default(),
        crds::spec::Compression::None,
    ))
    .unwrap();
    let values: Vec<String> = (0..20).map(|number| format!("record {number}")).collect();
    let records: Vec<ProduceRecord<'_>> = values
        .iter()
        .map(|value| ProduceRecord {
            topic: "orders",
            partition: Some(0),
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            ..ProduceRecord::default()
        })
        .collect();
    assert!(producer.send(&records).await.iter().all(Result::is_ok));

    // The first two records are good, then all fail until it is mended.
    let mended = Arc::new(AtomicBool::new(false));
    let written = Arc::new(Keeping::default());
    let (flag, keeping) = (mended.clone(), written.clone());
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
        .writer("keeping", move |_| Ok(keeping.clone()));
    let nowhere = SecretFiles::new("/nowhere".into(), "/nowhere".into());
    let settings = Settings::build(config, "worker-0", &nowhere, &extensions)
        .await
        .unwrap();
    let snapshot = SharedSnapshot::default();
    let (_resume, paused) = watch::channel(false);
    let (stop, shutdown) = watch::channel(false);
    let handles = Handles {
        snapshot: snapshot.clone(),
        metrics: Metrics::new(),
        liveness: Liveness::new(),
        paused,
        shutdown,
    };
    let worker = tokio::spawn(engine::run(settings, handles));

    let open = |snapshot: &Snapshot| {
        let partition = snapshot.partitions.first();
        partition
            .is_some_and(|partition| partition.paused_reason == Some(PausedReason::DeadLetterBreakerOpen))
    };
    let held = until(&snapshot, "the breaker opens", open).await;
    // Five in a row are written, the sixth is not: everything before it is finished, nothing behind it.
    let partition = &held.partitions[0];
    assert_eq!(partition.watermark, Some(7));
    assert_eq!(held.dead_lettered_total, 5);
    let error = partition.oldest.as_ref().unwrap().last_error.clone().unwrap();
    for part in [
        "more than 5 records in a row failed",
        "orders-0@7",
        "broken",
        "it is broken",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    // It stays so through at least one more attempt.
    let again = until(&snapshot, "the record is tried again", |snapshot| {
        let oldest = snapshot.partitions[0].oldest.as_ref();
        oldest.is_some_and(|oldest| oldest.attempts > 1)
    })
    .await;
    assert!(open(&again), "{again:#?}");
    assert_eq!(again.dead_lettered_total, 5);
    assert_eq!(*written.0.lock().unwrap(), [0, 1]);

    mended.store(true, Ordering::SeqCst);
    let after = until(&snapshot, "everything is finished", |snapshot| {
        snapshot.records_total == 20
    })
    .await;
    assert_eq!(after.dead_lettered_total, 5, "nothing followed the five");
    let in_order: Vec<i64> = (0..2).chain(7..20).collect();
    assert_eq!(*written.0.lock().unwrap(), in_order);
    assert_eq!(after.partitions[0].paused_reason, None);
    stop.send_replace(true);
    worker.await.unwrap().unwrap();
}
