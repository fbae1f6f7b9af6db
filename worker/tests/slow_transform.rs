//! A whole worker against librdkafka's mock cluster, with a transform that does not come back for some records: the others
//! are written and committed, and too many of them make the worker end so that it is started anew.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use crds::client_config;
use futures::future::BoxFuture;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde_json::json;
use tokio::sync::watch;
use worker::{
    Registry, WriteBatch, WriteError, Writer,
    engine::{self, EngineError, EngineHandles},
    per_record,
    producer::{ProduceRecord, Producer},
    secrets::SecretFiles,
    settings::Settings,
    snapshot::Board,
    telemetry::{Liveness, Metrics},
    writer::Rejected,
};

/// Generous: joining a group alone takes seconds, and machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps the offsets of what it takes.
#[derive(Default)]
struct Keeping(Mutex<Vec<i64>>);

impl Writer for Keeping {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        let offsets = batch.records().map(|record| record.offset());
        self.0.lock().unwrap().extend(offsets);
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

async fn send(producer: &Producer, values: &[&str]) {
    let records: Vec<ProduceRecord<'_>> = values
        .iter()
        .map(|value| ProduceRecord {
            topic: "orders",
            partition: Some(0),
            value: Some(value.as_bytes()),
            ..ProduceRecord::default()
        })
        .collect();
    assert!(producer.send(&records).await.iter().all(Result::is_ok));
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        panic!("never: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_transform_does_not_come_back_with_fail_alone_until_the_worker_has_to_restart() {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let server = servers.split(',').next().unwrap();
    let config: crds::WorkerConfig = serde_json::from_value(json!({
        "formatVersion": 1,
        "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": ["orders"],
        "kafka": {"bootstrapServers": [server]},
        "consumer": {}, "processing": {}, "decode": {},
        "transforms": [{"name": "clean", "type": "Custom", "custom": {"name": "clean"}}],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "keeping"}}],
        "errorHandling": {"onExhausted": "Skip", "transformTimeoutSeconds": 1},
        "drainSeconds": 5,
    }))
    .unwrap();
    let producer = Producer::new(&client_config::producer(
        &config.kafka,
        &client_config::KafkaCredentials::default(),
        crds::spec::Compression::None,
    ))
    .unwrap();
    send(&producer, &["a", "stuck", "b", "c"]).await;

    let gate = Gate::default();
    let written = Arc::new(Keeping::default());
    let (shut, keeping) = (gate.0.clone(), written.clone());
    let registry = Registry::new()
        .transform("clean", move |_| {
            let shut = shut.clone();
            Ok(per_record("clean", move |record, out| {
                if record.value == Some(b"stuck") {
                    let open = shut.0.lock().unwrap();
                    drop(shut.1.wait_while(open, |open| !*open).unwrap());
                }
                out.keep();
                Ok(())
            }))
        })
        .writer("keeping", move |_| Ok(keeping.clone()));
    let nowhere = SecretFiles::new("/nowhere".into(), "/nowhere".into());
    let settings = Settings::build(config, "worker-0", &nowhere, &registry)
        .await
        .unwrap();
    let board = Board::default();
    let (_resume, paused) = watch::channel(false);
    let (_stop, shutdown) = watch::channel(false);
    let handles = EngineHandles {
        board: board.clone(),
        metrics: Metrics::new(),
        liveness: Liveness::new(),
        paused,
        shutdown,
    };
    let worker = tokio::spawn(engine::run(settings, handles));

    until("four records are finished", || board.read().records_total == 4).await;
    assert_eq!(
        (board.read().skipped_total, &*written.0.lock().unwrap()),
        (1, &vec![0, 2, 3])
    );
    // Two threads are left alone already; each of these adds its own, and one that of their batch.
    send(&producer, &["stuck"; 8]).await;
    let error = match tokio::time::timeout(DEADLINE, worker).await {
        Ok(ended) => ended.unwrap().unwrap_err(),
        Err(_) => panic!("never: the worker ends; {:#?}", board.read()),
    };
    assert!(
        matches!(error, EngineError::TransformsStuck { threads, .. } if threads > 8),
        "{error}"
    );
    assert_eq!(error.exit_code(), 5);

    // What was finished is committed all the same.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("group.id", "shop.orders")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition("orders", 0);
    let committed = consumer.committed_offsets(partitions, DEADLINE).unwrap();
    let offset = committed.find_partition("orders", 0).unwrap().offset();
    assert!(
        matches!(offset, Offset::Offset(offset) if offset >= 4),
        "{offset:?}"
    );
    drop(gate);
}
