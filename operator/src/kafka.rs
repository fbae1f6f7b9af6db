//! What the operator knows of a Kafka cluster, and the few things it changes there. In: `spec.kafka` with resolved
//! credentials. Out: partition counts, lag and members of one group, all of it or "unknown", never a guess; created
//! and grown topics; committed start positions. It never joins a group, never deletes a topic, never reads records.

mod client;
pub mod embedded;
mod facts;
mod ffi;
pub mod model;
mod provision;
pub mod records;
mod start;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::client_config::{self, KafkaCredentials, Properties};
use crds::spec::{IsolationLevel, Kafka, StartPosition};

use crate::sync::lock;
use client::{Cluster, TIMEOUTS, Timeouts};
use facts::Members;
use model::{FactsQuery, KafkaFacts, KafkaProblem, Provisioned, WantedTopic};

/// Creating topics writes to disks of several brokers; the controller waits 20 s for it.
const PROVISION: Duration = Duration::from_secs(15);

/// Clients without use are closed after this: long against the 30 s between looks at a group, short against the life of
/// a rotated password.
const IDLE: Duration = Duration::from_secs(600);

/// A client that has reached nobody for so long is replaced.
const GIVE_UP: Duration = Duration::from_secs(120);

/// All Kafka clients of this process: one per cluster and credentials, closed after 10 minutes without use. Clones share
/// them. A corrected password is another key, so it never waits for an old client's backoff.
#[derive(Clone)]
pub struct KafkaClients {
    open: Arc<Mutex<HashMap<Properties, OpenCluster>>>,
    members: Members,
    timeouts: Timeouts,
}

struct OpenCluster {
    cluster: Arc<Cluster>,
    used: Instant,
    /// Since when no request has reached the brokers.
    unreached_since: Option<Instant>,
}

impl Default for KafkaClients {
    fn default() -> Self {
        Self {
            open: Arc::default(),
            members: Members::Ask,
            timeouts: TIMEOUTS,
        }
    }
}

impl KafkaClients {
    /// No client is made before it is needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the embedded broker, which cannot tell the members of a group: `group` is always None, without asking.
    pub fn for_embedded_broker() -> Self {
        Self {
            members: Members::Leave,
            ..Self::default()
        }
    }

    /// Clients that are open now, for metrics.
    pub fn count(&self) -> usize {
        self.close_idle(IDLE);
        lock(&self.open).len()
    }

    /// Reads partition counts, lag and members of a group. Ends within 10 s, whatever the brokers do.
    pub async fn facts(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &FactsQuery,
    ) -> Result<KafkaFacts, KafkaProblem> {
        let query = query.clone();
        let (members, timeouts) = (self.members, self.timeouts);
        self.run(kafka, credentials, query.isolation, move |cluster, _| {
            facts::read(cluster, &query, members, timeouts)
        })
        .await
    }

    /// Creates topics that are missing and adds partitions to those that have fewer than asked for.
    pub async fn provision(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        topics: &[WantedTopic],
    ) -> Result<Vec<Provisioned>, KafkaProblem> {
        let (topics, timeouts) = (topics.to_vec(), self.timeouts);
        self.run(
            kafka,
            credentials,
            IsolationLevel::default(),
            move |cluster, properties| {
                provision::provision(cluster, properties, &topics, timeouts.connect, PROVISION)
            },
        )
        .await
    }

    /// Commits the start position for partitions without a committed offset, if the group has no members; partitions
    /// added to a topic that the group already reads start at their first record. Returns how many were committed.
    pub async fn commit_start_positions(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &FactsQuery,
        start: &StartPosition,
    ) -> Result<usize, KafkaProblem> {
        let (query, start) = (query.clone(), start.clone());
        let (members, timeouts) = (self.members, self.timeouts);
        self.run(kafka, credentials, query.isolation, move |cluster, _| {
            start::commit(cluster, &query, &start, members, timeouts)
        })
        .await
    }

    /// Runs `work` with the right client on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        isolation: IsolationLevel,
        work: impl FnOnce(&Cluster, &Properties) -> Result<T, KafkaProblem> + Send + 'static,
    ) -> Result<T, KafkaProblem> {
        let mut properties = client_config::connection(kafka, credentials);
        properties.insert(
            "isolation.level".into(),
            client_config::isolation_level(isolation).into(),
        );
        let clients = self.clone();
        tokio::task::spawn_blocking(move || {
            clients.close_idle(IDLE);
            let cluster = clients.cluster(&properties)?;
            let done = work(&cluster, &properties);
            let reached = !matches!(done, Err(KafkaProblem::Unreachable(_)));
            clients.note(&properties, &cluster, reached, GIVE_UP);
            done
        })
        .await
        .unwrap_or_else(|error| {
            Err(KafkaProblem::Unreachable(format!(
                "the request was ended: {error}"
            )))
        })
    }

    fn cluster(&self, properties: &Properties) -> Result<Arc<Cluster>, KafkaProblem> {
        let mut open = lock(&self.open);
        if let Some(entry) = open.get_mut(properties) {
            entry.used = Instant::now();
            return Ok(Arc::clone(&entry.cluster));
        }
        // Under the lock: opening connects to nobody, it only parses, and two openings at once would waste one.
        let cluster = Arc::new(Cluster::open(properties)?);
        open.insert(
            properties.clone(),
            OpenCluster {
                cluster: Arc::clone(&cluster),
                used: Instant::now(),
                unreached_since: None,
            },
        );
        Ok(cluster)
    }

    /// Takes note of whether a request has reached the brokers. A client that has reached nobody for so long is replaced by the
    /// next request: after an answer that there are no brokers, librdkafka 2.12 may never connect again. Not sooner, because
    /// logging in at every broker may take longer than one request.
    fn note(&self, properties: &Properties, cluster: &Arc<Cluster>, reached: bool, patience: Duration) {
        let mut open = lock(&self.open);
        let current = |entry: &&mut OpenCluster| Arc::ptr_eq(&entry.cluster, cluster);
        let Some(entry) = open.get_mut(properties).filter(current) else {
            return;
        };
        if reached {
            entry.unreached_since = None;
            return;
        }
        let since = *entry.unreached_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= patience {
            // Closed where it is dropped last, outside of the lock: the caller still holds it.
            open.remove(properties);
        }
    }

    fn close_idle(&self, idle: Duration) {
        let mut closed: Vec<OpenCluster> = Vec::new();
        {
            let mut open = lock(&self.open);
            let old: Vec<Properties> = open
                .iter()
                .filter(|(_, entry)| entry.used.elapsed() >= idle && Arc::strong_count(&entry.cluster) == 1)
                .map(|(properties, _)| properties.clone())
                .collect();
            closed.extend(old.iter().filter_map(|properties| open.remove(properties)));
        }
        if !closed.is_empty() {
            // Closing waits for librdkafka's threads, which may sit in a connection attempt.
            std::thread::spawn(move || drop(closed));
        }
    }
}

#[cfg(test)]
mod tests;
