//! A mock cluster, records in it, and workers of one group that write into one list.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use kafka_consumer_worker::{
    Extensions, WriteBatch, WriteError, Writer, health::snapshot::Snapshot, writer::Rejected,
};
use serde_json::{Value, json};

use crate::worker::{Cluster, Worker};

/// Partition and offset of each record that a worker wrote.
#[derive(Default)]
pub struct Written {
    pub records: Mutex<Vec<(i32, i64)>>,
    /// Writes wait while a test holds this lock.
    pub gate: tokio::sync::Mutex<()>,
    /// While true, each write panics.
    pub panics: Mutex<bool>,
}

impl Writer for Written {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            assert!(!*self.panics.lock().unwrap(), "the test makes this write panic");
            let _open = self.gate.lock().await;
            let records = batch
                .records()
                .map(|record| (batch.partition().partition, record.offset()));
            self.records.lock().unwrap().extend(records);
            Ok(Vec::new())
        })
    }
}

/// What all workers of the test share.
pub struct Fixture {
    pub cluster: Cluster,
    pub written: Arc<Written>,
}

impl Fixture {
    /// With a topic of this number of partitions.
    pub fn new(partitions: i32) -> Self {
        Self {
            cluster: Cluster::new(&[], partitions),
            written: Arc::default(),
        }
    }

    pub async fn produce(&self, partition: i32, records: usize) {
        let records = std::iter::repeat_n((None, "{}"), records);
        self.cluster.produce(partition, records).await;
    }

    pub async fn start(&self, name: &str) -> Worker {
        self.start_with(name, json!({})).await
    }

    /// A worker with these fields of its configuration besides, or instead.
    pub async fn start_with(&self, name: &str, fields: Value) -> Worker {
        let written = self.written.clone();
        let extensions = Extensions::new().writer("list", move |_| Ok(written.clone()));
        let mut config = json!({
            // A rebalance of the mock cluster lasts as long as the session timeout, less one second.
            "kafka": {
                "bootstrapServers": [self.cluster.server],
                "clientConfig": {"session.timeout.ms": "4000"},
            },
            "processing": {"commitIntervalMilliseconds": 100},
            "transforms": [],
            "writers": [{"name": "out", "type": "Custom", "custom": {"name": "list"}}],
            "drainSeconds": 30,
        });
        if let (Some(config), Value::Object(fields)) = (config.as_object_mut(), fields) {
            config.extend(fields);
        }
        let config = self.cluster.config(config);
        Worker::start(config, name, &extensions).await
    }

    /// The offsets written to a partition, in order.
    pub fn written_of(&self, partition: i32) -> Vec<i64> {
        let records = self.written.records.lock().unwrap();
        let of_partition = records.iter().filter(|(number, _)| *number == partition);
        of_partition.map(|(_, offset)| *offset).collect()
    }
}

impl Worker {
    /// Waits until the worker owns exactly these partitions.
    pub async fn until_owner_of(&self, partitions: &[i32]) {
        let owned = |snapshot: &Snapshot| {
            let mut owned: Vec<i32> = snapshot.partitions.iter().map(|entry| entry.partition).collect();
            owned.sort();
            owned == partitions
        };
        self.until(&format!("{partitions:?} are assigned"), owned).await;
    }

    /// The value of a metric; `line` is its name with its labels.
    pub fn metric(&self, line: &str) -> Option<u64> {
        let text = self.metrics.encode(&Snapshot::default(), Duration::ZERO).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line))?;
        value.trim().parse().ok()
    }
}
