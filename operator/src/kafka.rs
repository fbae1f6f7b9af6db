//! Reads from a Kafka cluster, and the few changes that the operator makes there. In: `spec.kafka` with
//! resolved credentials. Out: partition counts, lag and members of one group, each complete or unknown, never
//! a guess; created topics and added partitions; committed start positions. The operator never joins a group,
//! never deletes a topic and never reads records.

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

/// Timeout of a topic creation, which writes to the disks of several brokers; the controller waits 20 s for
/// it.
const PROVISION: Duration = Duration::from_secs(15);

/// An unused client is closed after this time: long compared with the 30 s between two reads of a group,
/// short compared with the lifetime of a rotated password.
const IDLE: Duration = Duration::from_secs(600);

/// A client that has reached no broker for this long is replaced.
const GIVE_UP: Duration = Duration::from_secs(120);

/// All Kafka clients of this process: one per cluster and credentials, closed after 10 minutes without use.
/// Clones share them. A corrected password is a new key, so its client never waits for the backoff of the old
/// client.
#[derive(Clone)]
pub struct KafkaClients {
    open: Arc<Mutex<HashMap<Properties, OpenCluster>>>,
    members: Members,
    timeouts: Timeouts,
}

struct OpenCluster {
    cluster: Arc<Cluster>,
    used: Instant,
    /// Time of the first of the latest requests in a row that did not reach the brokers.
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
    /// Creates a client only when it is needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the embedded broker, which cannot describe a group: `group` is always None, without a request.
    pub fn for_embedded_broker() -> Self {
        Self {
            members: Members::Skip,
            ..Self::default()
        }
    }

    /// Number of open clients, for metrics.
    pub fn count(&self) -> usize {
        self.close_idle(IDLE);
        lock(&self.open).len()
    }

    /// Reads partition counts, lag and members of a group. Returns within 10 s, whatever the brokers do.
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

    /// Creates missing topics and adds partitions to topics that have fewer than requested.
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

    /// Commits the start position for partitions without a committed offset, if the group has no members;
    /// partitions added to a topic that the group already reads start at their first record. Returns the
    /// number of committed partitions.
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

    /// Runs `work` with the client of this cluster and these credentials on a blocking thread.
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
            clients.record_reach(&properties, &cluster, reached, GIVE_UP);
            done
        })
        .await
        .unwrap_or_else(|error| {
            Err(KafkaProblem::Unreachable(format!(
                "the request was aborted: {error}"
            )))
        })
    }

    fn cluster(&self, properties: &Properties) -> Result<Arc<Cluster>, KafkaProblem> {
        let mut open = lock(&self.open);
        if let Some(entry) = open.get_mut(properties) {
            entry.used = Instant::now();
            return Ok(Arc::clone(&entry.cluster));
        }
        // Under the lock: opening only parses and does not connect, and two concurrent openings would waste
        // one client.
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

    /// Records whether a request has reached the brokers. The next request replaces a client that has reached
    /// no broker for `give_up`: after an answer that there are no brokers, librdkafka 2.12 may never connect
    /// again. Not sooner, because the login at every broker may take longer than one request.
    fn record_reach(
        &self,
        properties: &Properties,
        cluster: &Arc<Cluster>,
        reached: bool,
        give_up: Duration,
    ) {
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
        if since.elapsed() >= give_up {
            // The caller still holds the client, so it is closed later, outside of the lock.
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
            // Closing waits for librdkafka's threads, which may be in a connection attempt.
            std::thread::spawn(move || drop(closed));
        }
    }
}

#[cfg(test)]
mod tests;
