//! What the operator knows of a Kafka cluster, what it asks and what it changes there, as plain data: no
//! client. Unknown is None and never a guess.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crds::incarnation::Incarnation;
use crds::spec::{GroupProtocol, IsolationLevel};
use jiff::Timestamp;

/// A topic and the number of one of its partitions.
pub type Partition = (String, i32);

/// The first partitions as `topic-index`, and the number of others: a message has to stay readable.
pub fn partition_names<'a>(partitions: impl Iterator<Item = &'a Partition>) -> String {
    const NAMED: usize = 10;
    let all: Vec<String> = partitions
        .map(|(topic, index)| format!("{topic}-{index}"))
        .collect();
    let named = all.len().min(NAMED);
    let more = match all.len() - named {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", all[..named].join(", "))
}

/// What was read about one group at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaFacts {
    /// Partitions of each requested topic; None: the topic does not exist.
    pub topics: BTreeMap<String, Option<i32>>,
    /// Id of the cluster; None: the brokers do not report it.
    pub cluster_id: Option<String>,
    /// Id of each requested topic that has one, as Kafka's tools show it. A topic that is deleted and created
    /// again has another one.
    pub topic_ids: BTreeMap<String, String>,
    /// Topics of [`FactsQuery::outputs`] that do not exist according to the brokers.
    pub missing_outputs: Vec<String>,
    /// None: unknown, which never means 0.
    pub lag: Option<Lag>,
    /// None: unknown, for example because the broker does not report it.
    pub group: Option<GroupFacts>,
    /// Time of the read.
    pub read_at: Timestamp,
}

/// Records between max(committed offset, log start) and the end, for every partition of every requested
/// topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub per_partition: BTreeMap<Partition, i64>,
    /// End offset of each of these partitions.
    pub ends: BTreeMap<Partition, i64>,
    pub total: i64,
    pub max: i64,
    /// "topic-partition" with the largest lag; None when there is no lag.
    pub max_partition: Option<String>,
}

/// The consumer group as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// Stable, Empty or Dead; during a rebalance PreparingRebalance and CompletingRebalance, or Assigning and
    /// Reconciling if the broker computes the assignment.
    pub state: String,
    pub members: Vec<MemberFacts>,
    /// Number of assigned partitions; None: unknown, for example during a rebalance.
    pub assigned_partitions: Option<i32>,
    /// The protocol by which the broker knows the group.
    pub protocol: GroupProtocol,
    /// False: its members use the group for something else, as workers of Kafka Connect do.
    pub is_of_consumers: bool,
    /// How partitions are assigned, such as "range"; empty: not known.
    pub assignor: String,
}

/// One member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    pub client_id: String,
    pub host: String,
    /// Partitions of the requested topics that are assigned to it.
    pub assigned: i32,
    /// Partitions are assigned to it, and none of the requested topics.
    pub reads_others: bool,
}

/// A worker process that has ended, as surely as its supervisor or the kubelet can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProcess {
    pub worker: String,
    /// Starts that belong to dead processes of this worker, in Unix milliseconds.
    started: Range<i64>,
}

impl DeadProcess {
    /// Every process of this worker that started before `end`, in Unix milliseconds.
    pub fn before(worker: &str, end: i64) -> Self {
        Self {
            worker: worker.into(),
            started: i64::MIN..end,
        }
    }

    /// The process of this worker that started at `started`, in Unix milliseconds.
    pub fn exact(worker: &str, started: i64) -> Self {
        Self {
            worker: worker.into(),
            started: started..started.saturating_add(1),
        }
    }

    /// Whether this run is one of the dead processes.
    pub fn was(&self, run: &Incarnation) -> bool {
        self.worker == run.worker && self.started.contains(&run.started)
    }
}

/// A member that was taken out of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedMember {
    pub worker: String,
    /// Number of partitions that it had; None: unknown, for example during a rebalance.
    pub assigned: Option<usize>,
}

impl RemovedMember {
    /// Its partitions with their verb, for messages: "its 3 partitions are".
    pub fn partitions(&self) -> String {
        match self.assigned {
            Some(1) => "its partition is".into(),
            Some(partitions) => format!("its {partitions} partitions are"),
            None => "its partitions are".into(),
        }
    }
}

/// Namespace and name of the resource that asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    pub namespace: String,
    pub name: String,
}

impl GroupKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsQuery {
    pub group_id: String,
    pub topics: Vec<String>,
    /// Topics that are only checked for existence.
    pub outputs: Vec<String>,
    pub isolation: IsolationLevel,
    /// The protocol that its members probably use.
    pub protocol: GroupProtocol,
}

/// A topic that should exist with at least this many partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    pub name: String,
    pub partitions: i32,
    /// None: the broker's default.
    pub replication_factor: Option<i32>,
    pub config: BTreeMap<String, String>,
    /// Topics whose records the topic has to accept, with additional headers.
    pub accepts: Vec<String>,
}

/// What was done about a [`WantedTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    pub topic: String,
    pub action: ProvisionAction,
    /// What is different from the request, and why.
    pub note: Option<String>,
}

/// The action on one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionAction {
    Created,
    Grown { from: i32, to: i32 },
    Unchanged,
}

/// What became of the start positions of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// This number of partitions was committed; all others had a committed offset, or start at their first
    /// record.
    Committed(usize),
    /// These topics have no committed offset, and the group has members, so Kafka takes none.
    Occupied(Vec<String>),
}

/// Where a group and its partitions are, for a reset of its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetQuery {
    pub group_id: String,
    /// Numbers of partitions by topic; empty: all partitions.
    pub topics: BTreeMap<String, Vec<i32>>,
    pub isolation: IsolationLevel,
    /// The protocol that its members probably use.
    pub protocol: GroupProtocol,
    /// Also find the first record at or after this time, in Unix milliseconds.
    pub at: Option<i64>,
    /// Fail while a transaction with newer commits is open.
    pub stable: bool,
}

/// The answer to a [`ResetQuery`]: complete, or there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetPositions {
    /// None: the brokers do not report it.
    pub cluster_id: Option<String>,
    /// Partitions of each requested topic; None: the topic does not exist.
    pub topics: BTreeMap<String, Option<i32>>,
    /// Id of each requested topic that has one, as Kafka's tools show it.
    pub topic_ids: BTreeMap<String, String>,
    /// Requested partitions that exist.
    pub partitions: BTreeMap<Partition, ResetPosition>,
    /// Members of the group. Kafka takes offsets from others only while there are none.
    pub members: Vec<MemberFacts>,
}

/// Offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetPosition {
    /// None: the group has committed nothing.
    pub committed: Option<i64>,
    pub metadata: CommitMetadata,
    /// First offset that Kafka still has.
    pub log_start: i64,
    /// Where a consumer with the requested isolation level would wait for the next record.
    pub end: i64,
    /// First record at or after the requested time; None: there is none, or no time was requested.
    pub at: Option<i64>,
}

/// What the metadata of a commit says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitMetadata {
    /// Records above the offset are finished, too.
    pub finished_above: bool,
    /// The offset belongs to another topic with this name, for example to one that was deleted.
    pub other_topic: bool,
}

impl CommitMetadata {
    /// True if a commit of the same offset without metadata has an effect.
    pub fn matters(self) -> bool {
        self.finished_above || self.other_topic
    }
}

/// What became of a reset. It may be repeated: committing an offset again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetOutcome {
    /// Every offset is committed.
    Committed,
    /// Nothing is committed, because the group has members. Empty: they have left meanwhile.
    Members(Vec<MemberFacts>),
    /// Nothing is committed, because the addresses lead to the cluster with this id, which is not the expected
    /// one.
    OtherCluster(String),
    /// Some offsets are committed and others are not.
    Partly(PartlyCommitted),
}

/// What became of a consumer group that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It does not exist, or not any more.
    Gone,
    /// It stays, because it has members.
    HasMembers,
}

/// A reset that is done in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartlyCommitted {
    pub committed: Vec<Partition>,
    /// Why not, for each of the other partitions.
    pub failed: BTreeMap<Partition, String>,
}

impl fmt::Display for PartlyCommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, all) = (self.committed.len(), self.committed.len() + self.failed.len());
        let failed = partition_names(self.failed.keys());
        write!(
            f,
            "{done} of {all} partitions are committed, these are not: {failed}"
        )?;
        let why = self.failed.values().next();
        why.map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

/// Why a request to the cluster failed. Each carries the message of the client library or the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaProblem {
    Unreachable(String),
    AuthenticationFailed(String),
    AuthorizationFailed(String),
    InvalidConfiguration(String),
    /// The brokers respond but refuse to create the topic or to add partitions as requested.
    ProvisionRefused(String),
    /// A transaction of the group may still commit newer offsets.
    TransactionOpen(String),
}

impl KafkaProblem {
    /// The reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "KafkaUnreachable",
            Self::AuthenticationFailed(_) => "AuthenticationFailed",
            Self::AuthorizationFailed(_) => "AuthorizationFailed",
            Self::InvalidConfiguration(_) => "InvalidClientConfig",
            Self::ProvisionRefused(_) => "ProvisionRefused",
            Self::TransactionOpen(_) => "TransactionOpen",
        }
    }
}

impl fmt::Display for KafkaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) => write!(
                f,
                "Kafka does not respond ({message}); check spec.kafka.bootstrapServers, spec.kafka.tls, network policies and that the brokers run and advertise names that resolve here"
            ),
            Self::AuthenticationFailed(message) => write!(
                f,
                "the brokers refuse the login ({message}); correct the username and password in the Secret of spec.kafka.sasl.credentials, spec.kafka.sasl.mechanism, or the client certificate of spec.kafka.tls"
            ),
            Self::AuthorizationFailed(message) => write!(
                f,
                "the brokers deny access ({message}); grant the user the ACLs Describe and Read on the topics and on the group, and Create and Alter on topics with provision"
            ),
            Self::InvalidConfiguration(message) => write!(
                f,
                "the Kafka client cannot be set up ({message}); correct spec.kafka.clientConfig, or the certificates and keys in the Secrets of spec.kafka.tls"
            ),
            Self::ProvisionRefused(message) => write!(
                f,
                "the brokers refuse to provision the topic ({message}); correct provision.partitions, provision.replicationFactor (at most the number of brokers) and provision.config, or create the topic yourself and remove provision"
            ),
            Self::TransactionOpen(message) => write!(
                f,
                "{message}: a transaction of the group may still commit newer offsets; it ends with its worker, or when the brokers end it after its timeout"
            ),
        }
    }
}

impl std::error::Error for KafkaProblem {}

/// The result of a read from Kafka.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per reconcile, and it is seldom moved"
)]
pub enum KafkaView {
    /// Not queried, because the credentials are missing.
    NotAsked,
    Failed(KafkaProblem),
    Known(KafkaFacts),
}

impl KafkaView {
    /// The facts, if the read succeeded.
    pub fn known(&self) -> Option<&KafkaFacts> {
        match self {
            Self::Known(facts) => Some(facts),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }
}
