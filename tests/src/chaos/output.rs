//! Where the workers of a run write: a topic or a table. Everything that differs between the two is here; the
//! rest of the code does not distinguish them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use crds::client_config::transactional_ids;
use serde_json::{Value, json};

use super::{scenario::Scenario, site::Site, table::Table};
use crate::{
    systems::kafka::Kafka,
    verify::{
        checker::{Arrival, Sink},
        ledger::Shape,
    },
};

/// Source and targets of the records of a run.
#[derive(Clone)]
pub(super) struct Route {
    pub input: String,
    /// Partitions of the input. The other topics never get more: the records of a key must stay in the
    /// partition of their predecessors.
    partitions: Arc<AtomicI32>,
    pub output: Output,
    pub letters: String,
    pub group: String,
}

/// A topic or a table.
#[derive(Clone)]
pub(super) enum Output {
    Topic(String),
    Table(Arc<Table>),
}

impl Route {
    /// Creates everything that a run needs; `run` is unique.
    pub async fn create(site: &Site, scenario: &Scenario, kafka: &Kafka, run: &str) -> Result<Self> {
        let partitions = scenario.partitions;
        let name = |suffix: &str| format!("chaos-{run}.{suffix}");
        let route = Self {
            input: name("in"),
            partitions: Arc::new(AtomicI32::new(partitions)),
            output: match scenario.sink {
                Sink::Kafka => Output::Topic(name("out")),
                Sink::Postgres => {
                    let url = site.postgres.as_deref();
                    let url = url.context("this scenario needs PostgreSQL, and the site has none")?;
                    let proxied = scenario.faults.outage_seconds > 0;
                    Output::Table(Arc::new(
                        Table::create(url, &format!("chaos-{run}"), proxied).await?,
                    ))
                }
            },
            letters: name("dlq"),
            group: name("group"),
        };
        for topic in route.topics() {
            kafka.create_topic(&topic, partitions).await?;
        }
        Ok(route)
    }

    /// Removes the topics, and the table with everything that was observed in it.
    pub async fn remove(&self, kafka: &Kafka) -> Result<()> {
        kafka.delete_topics(&self.topics()).await?;
        match &self.output {
            Output::Topic(_) => Ok(()),
            Output::Table(table) => table.remove().await,
        }
    }

    /// The current number of partitions of the input.
    pub fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// Adds partitions to the input; returns the new number.
    pub async fn grow(&self, kafka: &Kafka, more: i32) -> Result<i32> {
        let partitions = self.partitions() + more;
        kafka.grow_topic(&self.input, partitions).await?;
        self.partitions.store(partitions, Ordering::Relaxed);
        Ok(partitions)
    }

    fn topics(&self) -> Vec<String> {
        let mut topics = vec![self.input.clone(), self.letters.clone()];
        if let Output::Topic(topic) = &self.output {
            topics.push(topic.clone());
        }
        topics
    }

    /// `spec.writers[0]`.
    pub fn writer(&self) -> Value {
        match &self.output {
            Output::Topic(topic) => json!({"name": "copy", "type": "Kafka", "kafka": {"topic": topic}}),
            Output::Table(table) => json!({"name": "copy", "type": "Postgres", "postgres": table.writer()}),
        }
    }

    /// Puts a worker's credentials into its folder.
    pub fn give_secrets(&self, folder: &Path, worker: &str) -> Result<()> {
        match &self.output {
            Output::Topic(_) => Ok(()),
            Output::Table(table) => table.give_secret(folder, worker),
        }
    }

    /// Aborts the open transaction of a worker from outside.
    pub async fn abort(&self, kafka: &Kafka, worker: &str) -> Result<()> {
        match &self.output {
            // Both ids of the worker, because one of its transactions is empty. Which one is fenced first is
            // chance.
            Output::Topic(_) => {
                for id in transactional_ids(&self.group, worker) {
                    kafka.fence(&id).await?;
                }
                Ok(())
            }
            Output::Table(table) => table.abort(worker).await,
        }
    }

    /// Disconnects the workers from the system that they write to for this time.
    pub fn interrupt(&self, time: Duration) -> Result<()> {
        match &self.output {
            Output::Topic(_) => bail!("a topic cannot be unavailable without its broker"),
            Output::Table(table) => table.interrupt(time),
        }
    }

    /// The output as consumers see it at the end, and the number of all written records, aborted ones
    /// included.
    pub async fn read(&self, kafka: &Kafka, shape: &Shape) -> Result<(Vec<Arrival>, u64)> {
        let topic = match &self.output {
            Output::Table(table) => return table.read(shape).await,
            Output::Topic(topic) => topic,
        };
        let shape = shape.clone();
        let output = kafka
            .fold(topic, Vec::new(), move |log, record| {
                log.push(shape.identify(&record, false));
            })
            .await?;
        let written = kafka
            .clone()
            .with("isolation.level", "read_uncommitted")
            .fold(topic, 0, |count, _| *count += 1)
            .await?;
        Ok((output, written))
    }
}
