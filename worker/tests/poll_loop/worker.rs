//! Boots whole workers for tests: librdkafka's mock cluster, a configuration for it, and a worker on threads
//! of this process. All test crates that run a whole worker share this file.
#![allow(dead_code)] // No test crate uses all of it.

use std::{sync::Arc, time::Duration};

use crds::{WorkerConfig, client_config, spec::Compression};
use kafka_consumer_worker::{
    Extensions,
    consumer::handles::Handles,
    engine::{self, EngineError},
    health::snapshot::{SharedSnapshot, Snapshot},
    kafka::producer::{ProduceRecord, Producer},
    secrets::SecretFiles,
    settings::Settings,
    telemetry::{Liveness, Metrics},
};
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Generous: joining a group alone takes seconds, and machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The topic that the workers consume.
pub const TOPIC: &str = "orders";

/// A mock cluster of one broker, and a producer for it.
pub struct Cluster {
    /// Address of the broker.
    pub server: String,
    pub mock: MockCluster<'static, DefaultProducerContext>,
    producer: Producer,
}

impl Cluster {
    /// A cluster with [`TOPIC`] and these other topics, each with this number of partitions.
    pub fn new(other_topics: &[&str], partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for topic in [&[TOPIC], other_topics].concat() {
            mock.create_topic(topic, partitions, 1).unwrap();
        }
        let servers = mock.bootstrap_servers();
        let server = servers.split(',').next().unwrap().to_owned();
        let kafka = serde_json::from_value(json!({"bootstrapServers": [server]})).unwrap();
        let producer = Producer::new(&client_config::producer(
            &kafka,
            &client_config::KafkaCredentials::default(),
            Compression::None,
        ))
        .unwrap();
        Self {
            server,
            mock,
            producer,
        }
    }

    /// Produces records with these keys and values to a partition of [`TOPIC`].
    pub async fn produce<'a>(
        &self,
        partition: i32,
        records: impl IntoIterator<Item = (Option<&'a str>, &'a str)>,
    ) {
        let records: Vec<ProduceRecord<'_>> = records
            .into_iter()
            .map(|(key, value)| ProduceRecord {
                topic: TOPIC,
                partition: Some(partition),
                key: key.map(str::as_bytes),
                value: Some(value.as_bytes()),
                ..ProduceRecord::default()
            })
            .collect();
        assert!(self.producer.send(&records).await.iter().all(Result::is_ok));
    }

    /// The configuration of a worker of group `shop.orders` that consumes [`TOPIC`] from this cluster.
    /// `fields` adds or replaces top-level fields; it contains at least `writers` and `drainSeconds`.
    pub fn config(&self, fields: Value) -> WorkerConfig {
        let mut config = json!({
            "formatVersion": 1,
            "namespace": "shop", "name": "orders", "groupId": "shop.orders", "topics": [TOPIC],
            "kafka": {"bootstrapServers": [self.server]},
            "consumer": {}, "processing": {}, "decode": {}, "errorHandling": {},
        });
        let Value::Object(fields) = fields else {
            panic!("fields of a WorkerConfig are an object, not {fields}");
        };
        config.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(config).unwrap()
    }
}

/// A worker on threads of this process.
pub struct Worker {
    pub snapshot: SharedSnapshot,
    pub metrics: Metrics,
    /// True: the worker keeps its partitions and reads nothing.
    pub paused: watch::Sender<bool>,
    /// True: the worker drains, commits and leaves the group.
    pub shutdown: watch::Sender<bool>,
    /// What the engine returns.
    pub outcome: JoinHandle<Result<(), EngineError>>,
}

impl Worker {
    /// Starts a worker with this name. It has no Secrets.
    pub async fn start(config: WorkerConfig, name: &str, extensions: &Extensions) -> Self {
        let secrets = SecretFiles::new("/nowhere".into(), "/nowhere".into());
        let (settings, parts) = Settings::build(config, name, &secrets, extensions).await.unwrap();
        let (snapshot, metrics) = (SharedSnapshot::default(), Metrics::new());
        let (paused, follow_paused) = watch::channel(false);
        let (shutdown, follow_shutdown) = watch::channel(false);
        let handles = Handles {
            snapshot: snapshot.clone(),
            metrics: metrics.clone(),
            liveness: Liveness::new(),
            paused: follow_paused,
            shutdown: follow_shutdown,
        };
        Self {
            snapshot,
            metrics,
            paused,
            shutdown,
            outcome: tokio::spawn(engine::run(settings, parts, handles)),
        }
    }

    /// Waits for a snapshot with `condition`; panics after [`DEADLINE`] with the text `what`.
    pub async fn until(&self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        until(&self.snapshot, what, condition).await
    }

    /// Waits for the end of the worker; panics after [`DEADLINE`].
    pub async fn ended(&mut self) -> Result<(), EngineError> {
        match timeout(DEADLINE, &mut self.outcome).await {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => panic!("the worker never ended; {:#?}", self.snapshot.read()),
        }
    }

    /// Stops the worker, which must end without an error.
    pub async fn stop(mut self) {
        self.shutdown.send_replace(true);
        self.ended().await.unwrap();
    }
}

/// [`Worker::until`] without a borrow of the worker.
pub async fn until(
    snapshot: &SharedSnapshot,
    what: &str,
    condition: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = eventually(|| Some(snapshot.read()).filter(|snapshot| condition(snapshot))).await;
    found.unwrap_or_else(|| panic!("never: {what}; {:#?}", snapshot.read()))
}

/// Calls `find` until it returns a value; None after [`DEADLINE`].
pub async fn eventually<T>(mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let search = async {
        loop {
            if let Some(found) = find() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, search).await.ok()
}
