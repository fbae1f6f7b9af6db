//! What the operator knows of a Kafka cluster, and the few things it changes there. In: `spec.kafka` with resolved
//! credentials. Out: partition counts, lag and members of one group, all of it or "unknown", never a guess; created
//! and grown topics; committed start positions. It never joins a group, never deletes a topic, never reads records.

mod client;
pub mod embedded;
mod facts;
mod ffi;
mod provision;
pub mod records;
mod start;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::client_config::{self, KafkaCredentials, Properties};
use crds::spec::{IsolationLevel, Kafka, StartPosition};
use jiff::Timestamp;

use client::Cluster;
use facts::Members;

/// Longest waits for the brokers. A new TLS and SASL connection, a coordinator look-up and a request take well under a
/// second on a healthy cluster; both together stay below the 10 s that one reconcile may spend on Kafka.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(4),
};

/// Creating topics writes to disks of several brokers; the controller waits 20 s for it.
const PROVISION: Duration = Duration::from_secs(15);

/// How long to wait for a first answer, connection included, and for every other.
#[derive(Clone, Copy)]
struct Patience {
    connect: Duration,
    answer: Duration,
}

/// Clients without use are closed after this: long against the 30 s between looks at a group, short against the life of
/// a rotated password.
const IDLE: Duration = Duration::from_secs(600);

/// A client that has reached nobody for so long is replaced.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What was read about one group at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaFacts {
    /// Partitions of each topic asked for; None: the topic does not exist.
    pub topics: BTreeMap<String, Option<i32>>,
    /// Those of [`FactsQuery::outputs`] that brokers are sure do not exist.
    pub missing_outputs: Vec<String>,
    /// None: not known, which never means 0.
    pub lag: Option<Lag>,
    /// None: not known, for example because the broker does not tell.
    pub group: Option<GroupFacts>,
    /// When it was read.
    pub read_at: Timestamp,
}

/// Records between max(committed offset, log start) and the end, for every partition of every topic asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub per_partition: BTreeMap<(String, i32), i64>,
    pub total: i64,
    pub max: i64,
    /// "topic-partition" with the largest lag; None when there is no lag.
    pub max_partition: Option<String>,
}

/// The consumer group as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// Stable, Empty or Dead; in between PreparingRebalance and CompletingRebalance, or Reconciling when the broker
    /// assigns.
    pub state: String,
    pub members: Vec<MemberFacts>,
    /// Partitions that have an owner; None: not known, for example in the middle of a rebalance.
    pub assigned_partitions: Option<i32>,
}

/// One member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    pub client_id: String,
    pub host: String,
    /// Partitions assigned to it.
    pub assigned: i32,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsQuery {
    pub group_id: String,
    pub topics: Vec<String>,
    /// Topics of which only is asked whether they exist.
    pub outputs: Vec<String>,
    pub isolation: IsolationLevel,
}

/// A topic that should exist with at least so many partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    pub name: String,
    pub partitions: i32,
    /// None: the broker's default.
    pub replication_factor: Option<i32>,
    pub config: BTreeMap<String, String>,
}

/// What was done about a [`WantedTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    pub topic: String,
    pub action: ProvisionAction,
}

/// See [`Provisioned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionAction {
    Created,
    Grown { from: i32, to: i32 },
    Unchanged,
}

/// Why the cluster could not be asked. Each carries what the client library or the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaProblem {
    Unreachable(String),
    AuthenticationFailed(String),
    AuthorizationFailed(String),
    InvalidConfiguration(String),
    /// The brokers answer but refuse to create or grow a topic as asked.
    ProvisionRefused(String),
}

impl KafkaProblem {
    /// The reason as it stands in a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "KafkaUnreachable",
            Self::AuthenticationFailed(_) => "AuthenticationFailed",
            Self::AuthorizationFailed(_) => "AuthorizationFailed",
            Self::InvalidConfiguration(_) => "InvalidClientConfig",
            Self::ProvisionRefused(_) => "ProvisionRefused",
        }
    }
}

impl fmt::Display for KafkaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(said) => write!(
                f,
                "Kafka does not answer ({said}); check spec.kafka.bootstrapServers, spec.kafka.tls, network policies and that the brokers run and advertise names that resolve here"
            ),
            Self::AuthenticationFailed(said) => write!(
                f,
                "the brokers refuse the login ({said}); correct user name and password in the Secret of spec.kafka.sasl.credentials, spec.kafka.sasl.mechanism, or the client certificate of spec.kafka.tls"
            ),
            Self::AuthorizationFailed(said) => write!(
                f,
                "the brokers do not allow it ({said}); give the user the ACLs Describe and Read on the topics and on the group, and Create and Alter on topics with provision"
            ),
            Self::InvalidConfiguration(said) => write!(
                f,
                "the Kafka client cannot be set up ({said}); correct spec.kafka.clientConfig, or the certificates and keys in the Secrets of spec.kafka.tls"
            ),
            Self::ProvisionRefused(said) => write!(
                f,
                "the brokers refuse to provision the topic ({said}); correct provision.partitions, provision.replicationFactor (at most the number of brokers) and provision.config, or create the topic yourself and remove provision"
            ),
        }
    }
}

impl std::error::Error for KafkaProblem {}

/// All Kafka clients of this process: one per cluster and credentials, closed after 10 minutes without use. Clones share
/// them. A corrected password is another key, so it never waits for an old client's backoff.
#[derive(Clone)]
pub struct KafkaClients {
    open: Arc<Mutex<HashMap<Properties, Entry>>>,
    members: Members,
    patience: Patience,
}

struct Entry {
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
            patience: PATIENCE,
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Reads partition counts, lag and members of a group. Ends within 10 s, whatever the brokers do.
    pub async fn facts(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &FactsQuery,
    ) -> Result<KafkaFacts, KafkaProblem> {
        let query = query.clone();
        let (members, patience) = (self.members, self.patience);
        self.run(kafka, credentials, query.isolation, move |cluster, _| {
            facts::read(cluster, &query, members, patience)
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
        let (topics, patience) = (topics.to_vec(), self.patience);
        self.run(
            kafka,
            credentials,
            IsolationLevel::default(),
            move |cluster, properties| {
                provision::provision(cluster, properties, &topics, patience.connect, PROVISION)
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
        let (members, patience) = (self.members, self.patience);
        self.run(kafka, credentials, query.isolation, move |cluster, _| {
            start::commit(cluster, &query, &start, members, patience)
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(properties) {
            entry.used = Instant::now();
            return Ok(Arc::clone(&entry.cluster));
        }
        // Under the lock: opening connects to nobody, it only parses, and two openings at once would waste one.
        let cluster = Arc::new(Cluster::open(properties)?);
        open.insert(
            properties.clone(),
            Entry {
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let current = |entry: &&mut Entry| Arc::ptr_eq(&entry.cluster, cluster);
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
        let mut closed: Vec<Entry> = Vec::new();
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
