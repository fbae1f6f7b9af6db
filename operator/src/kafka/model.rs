//! What the operator knows of a Kafka cluster, what it asks and what it changes there, as plain data: no client, no rdkafka.
//! Unknown is None and never a guess.

use std::collections::BTreeMap;
use std::fmt;

use crds::spec::IsolationLevel;
use jiff::Timestamp;

/// A topic and the number of one of its partitions.
pub type Partition = (String, i32);

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
    pub per_partition: BTreeMap<Partition, i64>,
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

/// What Kafka said.
#[derive(Clone, Debug, PartialEq)]
pub enum KafkaView {
    /// It was not asked, because the credentials are not there.
    NotAsked,
    Failed(KafkaProblem),
    Known(KafkaFacts),
}

impl KafkaView {
    /// The facts, if there are any.
    pub fn known(&self) -> Option<&KafkaFacts> {
        match self {
            Self::Known(facts) => Some(facts),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }
}
