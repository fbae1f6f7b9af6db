//! The input topics of a measurement: empty, and all created at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::{
    admin::{NewPartitions, NewTopic, TopicReplication},
    consumer::Consumer as _,
};

use crate::systems::{
    kafka::{Kafka, REQUEST, each_ok, options},
    wait::until_within,
};

/// Number of topics; group n reads topic n modulo this.
pub(super) const COUNT: u32 = 50;
/// Partitions of each topic.
pub(super) const PARTITIONS: u32 = 12;
/// The broker answers before every client can see a topic; it creates 600 partitions on a busy disk.
const VISIBLE: Duration = Duration::from_secs(120);

/// The topics of the measurement with this number of groups.
pub(super) struct Topics<'a> {
    kafka: &'a Kafka,
    names: Vec<String>,
}

impl<'a> Topics<'a> {
    /// Deletes what an interrupted run left, and creates the topics.
    pub async fn create(kafka: &'a Kafka, size: u32) -> Result<Self> {
        let names = names(size);
        kafka.delete_topics(&names).await?;
        until_within(VISIBLE, "no topic of an earlier run exists", async || {
            let found = visible(kafka, &names).await?;
            ensure!(found.is_empty(), "{} still exist", found.len());
            Ok(())
        })
        .await?;
        let new: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| NewTopic::new(name, PARTITIONS as i32, TopicReplication::Fixed(1)))
            .collect();
        each_ok(kafka.admin()?.create_topics(&new, &options()).await?)?;
        until_within(VISIBLE, "all topics exist", async || {
            let found = visible(kafka, &names).await?;
            let complete = found
                .iter()
                .filter(|partitions| **partitions == PARTITIONS as usize);
            let complete = complete.count();
            ensure!(complete == names.len(), "{complete} of {}", names.len());
            Ok(())
        })
        .await?;
        Ok(Self { kafka, names })
    }

    /// The topic that group `number` reads.
    pub fn of(&self, number: u32) -> &str {
        &self.names[(number % COUNT) as usize]
    }

    /// Sets the number of partitions of a topic; returns when the broker has accepted it.
    pub async fn grow(&self, name: &str, partitions: u32) -> Result<()> {
        let new = NewPartitions::new(name, partitions as usize);
        each_ok(self.kafka.admin()?.create_partitions([&new], &options()).await?)
    }

    pub async fn delete(self) -> Result<()> {
        self.kafka.delete_topics(&self.names).await
    }
}

/// Names of the topics of a size.
pub(super) fn names(size: u32) -> Vec<String> {
    (0..COUNT)
        .map(|number| format!("bench-operator-{size}-{number:02}"))
        .collect()
}

/// The partition counts of those topics that exist.
async fn visible(kafka: &Kafka, names: &[String]) -> Result<Vec<usize>> {
    let names = names.to_vec();
    kafka
        .blocking(move |consumer| {
            let metadata = consumer.fetch_metadata(None, REQUEST)?;
            Ok(metadata
                .topics()
                .iter()
                .filter(|topic| names.iter().any(|name| name == topic.name()))
                .map(|topic| topic.partitions().len())
                .collect())
        })
        .await
}
