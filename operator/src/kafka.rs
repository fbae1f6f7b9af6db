//! What the operator reads from Kafka, and the few changes that it makes there. In: `spec.kafka` with
//! resolved credentials. Out: partition counts, lag and members of groups, each complete or unknown, never
//! a guess; created topics and added partitions; committed start positions and resets; members of dead
//! processes taken out of their group; groups of its replays deleted; records of a topic for people who may see
//! them. The operator never joins a group and never deletes a topic.
//!
//! The operator has its own small client: librdkafka's admin calls end the process when coordinators move,
//! and block a thread per question.
//!
//! ```text
//!   KafkaClients                          one refresher per cluster and credentials
//!     refresher ── look ── facts          one look serves all groups of the cluster that are due
//!     start, reset,      │                changes; start and reset commit by commit
//!     provision,         │
//!     dead_members,      │
//!     delete_group       │
//!                  topics, groups,        questions, each asked once per leader or coordinator
//!                    committed
//!                        │
//!                     cluster             brokers, one connection to each
//!                        │
//!                   connection            TCP, TLS, login; requests and answers
//!                        │
//!                    protocol             messages as bytes
//! ```

pub mod backwards;
mod cluster;
mod commit;
mod committed;
mod connection;
mod dead_members;
mod delete_group;
pub mod embedded;
mod facts;
mod frames;
mod groups;
mod handshake;
mod limits;
mod look;
mod missing;
pub mod model;
mod properties;
mod protocol;
mod provision;
mod record_times;
pub mod records;
mod refresher;
mod reset;
mod scram;
mod settings;
mod start;
mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crds::client_config::{self, KafkaCredentials, Properties};
use crds::spec::{GroupProtocol, Kafka, StartPosition};
use jiff::Timestamp;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::sync::lock;
use backwards::{NewestFirst, One, Page, ReadProblem, Take};
use model::{
    DeadProcess, Deleted, FactsQuery, GroupKey, KafkaFacts, KafkaProblem, Partition, Provisioned,
    RemovedMember, ResetOutcome, ResetPositions, ResetQuery, StartOutcome, WantedTopic,
};
use refresher::{Refresher, Subscribers};

/// All Kafka clients of this process: one per cluster and credentials, closed after 15 minutes without use.
/// Clones share them. A corrected password is a new key, so its client never waits for the backoff of the old
/// client.
#[derive(Clone)]
pub struct KafkaClients {
    open: Arc<Mutex<Open>>,
    subscribers: Subscribers,
    refresh: Duration,
}

#[derive(Default)]
struct Open {
    clusters: HashMap<Properties, Arc<Refresher>>,
    /// The client that reads a group.
    groups: HashMap<GroupKey, Weak<Refresher>>,
}

impl Open {
    fn close_idle(&mut self) {
        self.clusters.retain(|_, refresher| !refresher.is_idle());
        self.groups.retain(|_, refresher| refresher.strong_count() > 0);
    }
}

impl KafkaClients {
    /// Reads the facts of each group every `refresh`. Connects only when a group asks.
    pub fn new(refresh: Duration) -> Self {
        Self {
            open: Arc::default(),
            subscribers: Arc::default(),
            refresh,
        }
    }

    /// Time between two reads of a group.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    /// Number of open clients, for metrics.
    pub fn count(&self) -> usize {
        let mut open = lock(&self.open);
        open.close_idle();
        open.clusters.len()
    }

    /// Groups whose facts have changed, from now on.
    pub fn changes(&self) -> UnboundedReceiver<GroupKey> {
        let (sender, receiver) = unbounded_channel();
        lock(&self.subscribers).push(sender);
        receiver
    }

    /// Partition counts, lag and members of a group, at most `max_age` old. Returns within 10 s, whatever the
    /// brokers do. From now on the group is read every refresh.
    pub async fn facts(
        &self,
        key: &GroupKey,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &FactsQuery,
        max_age: Duration,
    ) -> Result<KafkaFacts, KafkaProblem> {
        let refresher = self.refresher(kafka, credentials, Some(key));
        refresher.facts(key, query, max_age).await
    }

    /// What was read last about a group, and when, unless that was at `seen`. Asks nothing.
    pub fn latest(
        &self,
        key: &GroupKey,
        seen: Option<Instant>,
    ) -> Option<(Instant, Result<KafkaFacts, KafkaProblem>)> {
        let refresher = lock(&self.open).groups.get(key).and_then(Weak::upgrade);
        refresher?.latest(key, seen)
    }

    /// Other resources that use the same consumer group of the same cluster, sorted.
    pub fn users(&self, key: &GroupKey, group_id: &str) -> Vec<GroupKey> {
        let open = lock(&self.open);
        let Some(own) = open.groups.get(key).and_then(Weak::upgrade) else {
            return Vec::new();
        };
        let (cluster, _) = own.users(group_id);
        // Resources with other credentials have another client.
        let same = |other: &&Arc<Refresher>| {
            Arc::ptr_eq(other, &own) || (cluster.is_some() && other.users(group_id).0 == cluster)
        };
        let users = open.clusters.values().filter(same);
        let users = users.flat_map(|refresher| refresher.users(group_id).1);
        let users: BTreeSet<GroupKey> = users.filter(|user| user != key).collect();
        users.into_iter().collect()
    }

    /// The next question about the group is answered by a new look, because something was changed.
    pub fn invalidate(&self, key: &GroupKey) {
        if let Some(refresher) = lock(&self.open).groups.get(key).and_then(Weak::upgrade) {
            refresher.invalidate(key);
        }
    }

    /// The group was deleted.
    pub fn forget(&self, key: &GroupKey) {
        let refresher = lock(&self.open).groups.remove(key);
        if let Some(refresher) = refresher.and_then(|refresher| refresher.upgrade()) {
            refresher.forget(key);
        }
    }

    /// Creates missing topics and adds partitions to topics that have fewer than requested.
    pub async fn provision(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        topics: &[WantedTopic],
    ) -> Result<Vec<Provisioned>, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        provision::provision(&cluster, topics).await
    }

    /// Commits the start position for partitions without a committed offset, if the group has no members;
    /// partitions added to a topic that the group already reads start at their first record.
    pub async fn commit_start_positions(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &FactsQuery,
        start: &StartPosition,
    ) -> Result<StartOutcome, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        start::commit(&cluster, query, start).await
    }

    /// Committed offsets, log start, end and members of a group, all read now. Returns within 10 s.
    pub async fn reset_positions(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &ResetQuery,
    ) -> Result<ResetPositions, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        reset::positions(&cluster, query).await
    }

    /// Times of the records at these offsets. Those that are not found within seconds are left out.
    pub async fn record_times(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        offsets: &BTreeMap<Partition, i64>,
    ) -> Result<BTreeMap<Partition, Timestamp>, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        record_times::record_times(&cluster, offsets).await
    }

    /// A page of a topic, the newest record first. Returns within some seconds, whatever the brokers do.
    pub async fn newest_first<T: Send + 'static>(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        query: &NewestFirst,
        take: Take<T>,
    ) -> Result<Page<T>, ReadProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        backwards::newest_first(&cluster, query, take).await
    }

    /// The record of a topic at this partition and offset.
    pub async fn record_at<T: Send + 'static>(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        topic: &str,
        (partition, offset): (i32, i64),
        take: Take<T>,
    ) -> Result<One<T>, ReadProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        backwards::one(&cluster, topic, partition, offset, take).await
    }

    /// Commits these offsets, if the group has no members. May be repeated after any outcome.
    pub async fn commit_reset(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        group_id: &str,
        offsets: &BTreeMap<Partition, i64>,
        cluster_id: Option<&str>,
    ) -> Result<ResetOutcome, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        reset::commit(&cluster, group_id, offsets, cluster_id).await
    }

    /// Deletes a consumer group with its committed offsets, unless it has members. May be repeated.
    pub async fn delete_group(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        group_id: &str,
    ) -> Result<Deleted, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        delete_group::delete(&cluster, group_id).await
    }

    /// Takes the members of dead processes out of a group, which probably uses `protocol`, so that their
    /// partitions are assigned to others now. Returns those that were there. Returns within 10 s.
    pub async fn remove_members(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        group_id: &str,
        protocol: GroupProtocol,
        dead: &[DeadProcess],
    ) -> Result<Vec<RemovedMember>, KafkaProblem> {
        let cluster = self.refresher(kafka, credentials, None).cluster().await?;
        dead_members::remove(&cluster, group_id, protocol, dead).await
    }

    fn refresher(
        &self,
        kafka: &Kafka,
        credentials: &KafkaCredentials,
        group: Option<&GroupKey>,
    ) -> Arc<Refresher> {
        let properties = client_config::connection(kafka, credentials);
        let mut open = lock(&self.open);
        if !open.clusters.contains_key(&properties) {
            open.close_idle();
        }
        let Open { clusters, groups } = &mut *open;
        let start = |properties: &Properties| {
            Refresher::start(properties.clone(), self.subscribers.clone(), self.refresh)
        };
        let refresher = clusters.entry(properties).or_insert_with_key(start).clone();
        if let Some(group) = group {
            let before = groups.insert(group.clone(), Arc::downgrade(&refresher));
            let before = before.and_then(|before| before.upgrade());
            if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &refresher)) {
                before.forget(group);
            }
        }
        refresher
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
