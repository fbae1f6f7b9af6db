//! librdkafka's mock cluster, records in it, and workers of a group that write into a list.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::client_config;
use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, WriteBatch, WriteError, Writer,
    consumer::handles::Handles,
    engine::{self, EngineError},
    health::snapshot::{SharedSnapshot, Snapshot},
    kafka::producer::{ProduceRecord, Producer},
    secrets::SecretFiles,
    settings::Settings,
    telemetry::{Liveness, Metrics},
    writer::Rejected,
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

/// Generous: joining a group alone takes seconds, and machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Partition and offset of what was written, by whoever.
#[derive(Default)]
pub struct Written {
    pub records: Mutex<Vec<(i32, i64)>>,
    /// While there is nobody who holds it, writes go through.
    pub gate: tokio::sync::Mutex<()>,
    /// The next write panics.
    pub panics: Mutex<bool>,
}

impl Writer for Written {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            assert!(!*self.panics.lock().unwrap(), "told to panic");
            let _open = self.gate.lock().await;
            let records = batch
                .records()
                .map(|record| (batch.partition().partition, record.offset()));
            self.records.lock().unwrap().extend(records);
            Ok(Vec::new())
        })
    }
}

pub struct World {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub written: Arc<Written>,
    servers: String,
    producer: Producer,
}

/// A worker on threads of this process.
pub struct Running {
    pub snapshot: SharedSnapshot,
    pub metrics: Metrics,
    pub pause: watch::Sender<bool>,
    pub stop: watch::Sender<bool>,
    pub outcome: JoinHandle<Result<(), EngineError>>,
}

impl World {
    /// With a topic `orders` of so many partitions.
    pub fn new(partitions: i32) -> Self {
        let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", partitions, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let servers = servers.split(',').next().unwrap().to_owned();
        let config = config(&servers);
        let producer = Producer::new(&client_config::producer(
            &config.kafka,
            &client_config::KafkaCredentials::default(),
            crds::spec::Compression::None,
        ))
        .unwrap();
        Self {
            cluster,
            written: Arc::default(),
            servers,
            producer,
        }
    }

    pub async fn produce(&self, partition: i32, records: usize) {
        let record = ProduceRecord {
            topic: "orders",
            partition: Some(partition),
            value: Some(b"{}"),
            ..ProduceRecord::default()
        };
        let records = vec![record; records];
        assert!(self.producer.send(&records).await.iter().all(Result::is_ok));
    }

    pub async fn start(&self, name: &str) -> Running {
        let written = self.written.clone();
        let extensions = Extensions::new().writer("list", move |_| Ok(written.clone()));
        let nowhere = SecretFiles::new("/nowhere".into(), "/nowhere".into());
        let settings = Settings::build(config(&self.servers), name, &nowhere, &extensions)
            .await
            .unwrap();
        let (pause, paused) = watch::channel(false);
        let (stop, shutdown) = watch::channel(false);
        let (snapshot, metrics) = (SharedSnapshot::default(), Metrics::new());
        let handles = Handles {
            snapshot: snapshot.clone(),
            metrics: metrics.clone(),
            liveness: Liveness::new(),
            paused,
            shutdown,
        };
        Running {
            snapshot,
            metrics,
            pause,
            stop,
            outcome: tokio::spawn(engine::run(settings, handles)),
        }
    }

    /// What was written of a partition, in order.
    pub fn written_of(&self, partition: i32) -> Vec<i64> {
        let records = self.written.records.lock().unwrap();
        let of_partition = records.iter().filter(|(number, _)| *number == partition);
        of_partition.map(|(_, offset)| *offset).collect()
    }
}

impl Running {
    pub async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let snapshot = self.snapshot.clone();
        until(what, || {
            let snapshot = snapshot.read();
            holds(&snapshot).then_some(snapshot)
        })
        .await
    }

    /// Has these partitions and no others.
    pub async fn until_owner_of(&self, partitions: &[i32]) {
        let owned = |snapshot: &Snapshot| {
            let mut owned: Vec<i32> = snapshot.partitions.iter().map(|entry| entry.partition).collect();
            owned.sort();
            owned == partitions
        };
        self.until(&format!("{partitions:?} are assigned"), owned).await;
    }

    pub fn metric(&self, line: &str) -> Option<u64> {
        let text = self.metrics.encode(&Snapshot::default(), Duration::ZERO).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line))?;
        value.trim().parse().ok()
    }

    pub async fn ended(self) -> Result<(), EngineError> {
        tokio::time::timeout(DEADLINE, self.outcome)
            .await
            .expect("the worker ends")
            .unwrap()
    }
}

pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(found) => found,
        Err(_) => panic!("never: {what}"),
    }
}

fn config(servers: &str) -> crds::WorkerConfig {
    serde_json::from_value(json!({
        "formatVersion": 1,
        "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": ["orders"],
        // The mock cluster lets a rebalance last as long as a session, but for a second.
        "kafka": {"bootstrapServers": [servers], "clientConfig": {"session.timeout.ms": "4000"}},
        "consumer": {}, "processing": {"commitIntervalMilliseconds": 100}, "decode": {}, "transforms": [],
        "writers": [{"name": "out", "type": "Custom", "custom": {"name": "list"}}],
        "errorHandling": {},
        "drainSeconds": 30,
    }))
    .unwrap()
}
