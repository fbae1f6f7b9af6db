//! Keeps the facts about all groups of one cluster fresh. In: which group wants which facts. Out: the latest
//! answer for each group, and a notice when the answer of a group has changed. Groups that ask at the same
//! time share one look; a look that hangs delays no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crds::client_config::Properties;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};

use super::cluster::Cluster;
use super::look::look;
use super::model::{FactsQuery, GroupKey, KafkaFacts, KafkaProblem};
use super::properties;
use super::settings::Settings;
use crate::sync::lock;

/// Groups that ask within this time share a look.
const GATHER: Duration = Duration::from_millis(20);
/// How often the task checks what is due.
const TICK: Duration = Duration::from_secs(1);
/// Incomplete facts are read again after this time, so that they are whole soon after the brokers are.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(10);
/// Looks at the same time. While one waits for a broker that hangs, others can read for other groups.
const LOOKS: usize = 4;
/// A look ends well before; one that panicked must not keep its groups from being read.
const LOST: Duration = Duration::from_secs(60);
/// A group that has not asked for this long is no longer read; the controller asks every 5 minutes at least.
pub(super) const IDLE: Duration = Duration::from_secs(900);

/// Where changed groups are announced.
pub(super) type Subscribers = Arc<Mutex<Vec<UnboundedSender<GroupKey>>>>;

type Outcome = Result<KafkaFacts, KafkaProblem>;

pub(super) struct Refresher {
    properties: Properties,
    /// Opened by the first request, because librdkafka needs some milliseconds to check the properties.
    cluster: OnceCell<Arc<Cluster>>,
    groups: Mutex<HashMap<GroupKey, Entry>>,
    used: Mutex<Instant>,
    wake: Notify,
    /// Counts finished looks.
    published: watch::Sender<u64>,
    looks: Arc<Semaphore>,
    subscribers: Subscribers,
    refresh: Duration,
}

struct Entry {
    query: FactsQuery,
    /// Somebody waits for an answer.
    wanted: bool,
    /// Start of a look that includes this group and is under way.
    reading: Option<Instant>,
    answer: Option<Answer>,
    /// An earlier look does not count, because something was changed since.
    not_before: Option<Instant>,
    used: Instant,
}

struct Answer {
    started: Instant,
    finished: Instant,
    outcome: Outcome,
}

impl Answer {
    /// Recent enough for a question that was asked at `asked`.
    fn serves(&self, asked: Instant, max_age: Duration) -> bool {
        self.started >= asked || self.finished + max_age >= asked
    }

    fn is_complete(&self) -> bool {
        let complete = |facts: &KafkaFacts| facts.lag.is_some() && facts.group.is_some();
        self.outcome.as_ref().is_ok_and(complete)
    }

    fn is_due(&self, refresh: Duration) -> bool {
        let after = if self.is_complete() {
            refresh
        } else {
            RETRY.min(refresh)
        };
        self.finished.elapsed() >= after
    }
}

impl Refresher {
    pub(super) fn start(properties: Properties, subscribers: Subscribers, refresh: Duration) -> Arc<Self> {
        let refresher = Arc::new(Self {
            properties,
            cluster: OnceCell::new(),
            groups: Mutex::default(),
            used: Mutex::new(Instant::now()),
            wake: Notify::new(),
            published: watch::Sender::new(0),
            looks: Arc::new(Semaphore::new(LOOKS)),
            subscribers,
            refresh,
        });
        tokio::spawn(run(Arc::downgrade(&refresher)));
        refresher
    }

    /// The client of the cluster, for changes.
    pub(super) async fn cluster(&self) -> Result<Arc<Cluster>, KafkaProblem> {
        *lock(&self.used) = Instant::now();
        self.opened().await
    }

    async fn opened(&self) -> Result<Arc<Cluster>, KafkaProblem> {
        let open = async || {
            let properties = self.properties.clone();
            let checked = tokio::task::spawn_blocking(move || {
                properties::check(&properties)?;
                Settings::of(&properties)
            });
            let settings = checked
                .await
                .unwrap_or_else(|error| Err(KafkaProblem::InvalidConfiguration(error.to_string())))?;
            Ok(Arc::new(Cluster::new(settings)))
        };
        self.cluster.get_or_try_init(open).await.cloned()
    }

    /// The facts about a group, at most `max_age` old. Waits up to 10 s for the brokers; the last answer
    /// serves if it is not much older than a refresh.
    pub(super) async fn facts(&self, key: &GroupKey, query: &FactsQuery, max_age: Duration) -> Outcome {
        let asked = Instant::now();
        let mut published = self.published.subscribe();
        *lock(&self.used) = asked;
        if let Some(outcome) = self.ask(key, query, asked, max_age) {
            return outcome;
        }
        self.wake.notify_one();
        let answered = async {
            while published.changed().await.is_ok() {
                if let Some(outcome) = self.answer(key, query, asked, max_age) {
                    return Some(outcome);
                }
            }
            None
        };
        if let Ok(Some(outcome)) = tokio::time::timeout(WAIT, answered).await {
            return outcome;
        }
        // Nobody waits any more, so a change has to be announced.
        if let Some(entry) = lock(&self.groups).get_mut(key) {
            entry.wanted = false;
        }
        // Brokers that hang must not turn what was just known into an error.
        self.answer(key, query, asked, self.refresh * 2)
            .unwrap_or_else(|| {
                let seconds = WAIT.as_secs();
                Err(KafkaProblem::Unreachable(format!("no answer within {seconds} s")))
            })
    }

    /// The answer, if there is one; otherwise asks for it.
    fn ask(&self, key: &GroupKey, query: &FactsQuery, asked: Instant, max_age: Duration) -> Option<Outcome> {
        let mut groups = lock(&self.groups);
        let entry = groups.entry(key.clone()).or_insert_with(|| Entry {
            query: query.clone(),
            wanted: false,
            reading: None,
            answer: None,
            not_before: None,
            used: asked,
        });
        entry.used = asked;
        if entry.query != *query {
            entry.query = query.clone();
            entry.answer = None;
        }
        let answer = entry
            .answer
            .as_ref()
            .filter(|answer| answer.serves(asked, max_age));
        if let Some(answer) = answer {
            return Some(answer.outcome.clone());
        }
        entry.wanted = true;
        None
    }

    fn answer(
        &self,
        key: &GroupKey,
        query: &FactsQuery,
        asked: Instant,
        max_age: Duration,
    ) -> Option<Outcome> {
        let groups = lock(&self.groups);
        let entry = groups.get(key).filter(|entry| entry.query == *query)?;
        let answer = entry
            .answer
            .as_ref()
            .filter(|answer| answer.serves(asked, max_age))?;
        Some(answer.outcome.clone())
    }

    /// The last answer about a group, unless it is the one that finished at `seen`. Asks nothing.
    pub(super) fn latest(&self, key: &GroupKey, seen: Option<Instant>) -> Option<(Instant, Outcome)> {
        let groups = lock(&self.groups);
        let answer = groups.get(key)?.answer.as_ref()?;
        (seen != Some(answer.finished)).then(|| (answer.finished, answer.outcome.clone()))
    }

    /// The next question about the group is answered by a new look.
    pub(super) fn invalidate(&self, key: &GroupKey) {
        if let Some(entry) = lock(&self.groups).get_mut(key) {
            entry.answer = None;
            entry.not_before = Some(Instant::now());
        }
    }

    pub(super) fn forget(&self, key: &GroupKey) {
        lock(&self.groups).remove(key);
    }

    /// The id of the cluster, and the groups that read this consumer group.
    pub(super) fn users(&self, group_id: &str) -> (Option<String>, Vec<GroupKey>) {
        let id = self.cluster.get().and_then(|cluster| cluster.id());
        let groups = lock(&self.groups);
        let users = groups
            .iter()
            .filter(|(_, entry)| entry.query.group_id == group_id);
        (id, users.map(|(key, _)| key.clone()).collect())
    }

    /// True if nobody has used the cluster for long.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.used).elapsed() >= IDLE
    }

    /// The groups that a look which starts now should read.
    fn due(&self, started: Instant) -> Vec<(GroupKey, FactsQuery)> {
        let mut groups = lock(&self.groups);
        groups.retain(|_, entry| entry.used.elapsed() < IDLE);
        let due = groups.iter_mut().filter(|(_, entry)| {
            let due = entry
                .answer
                .as_ref()
                .is_none_or(|answer| answer.is_due(self.refresh));
            let reading = entry.reading.is_some_and(|since| since.elapsed() < LOST);
            !reading && (entry.wanted || due)
        });
        due.map(|(key, entry)| {
            entry.reading = Some(started);
            (key.clone(), entry.query.clone())
        })
        .collect()
    }

    /// Reads the facts about these groups and publishes them.
    async fn read(&self, started: Instant, batch: Vec<(GroupKey, FactsQuery)>) {
        let queries: Vec<FactsQuery> = batch.iter().map(|(_, query)| query.clone()).collect();
        let outcomes = match self.opened().await {
            Ok(cluster) => look(&cluster, &queries).await,
            Err(problem) => queries.iter().map(|_| Err(problem.clone())).collect(),
        };
        let mut changed = Vec::new();
        {
            let mut groups = lock(&self.groups);
            for ((key, query), outcome) in batch.into_iter().zip(outcomes) {
                // Deleted meanwhile, and perhaps created again.
                let entry = groups
                    .get_mut(&key)
                    .filter(|entry| entry.reading == Some(started));
                let Some(entry) = entry else { continue };
                entry.reading = None;
                let outdated = entry.not_before.is_some_and(|changed| started < changed);
                if entry.query != query || outdated {
                    // The group wants to know something else by now.
                    continue;
                }
                let before = entry.answer.as_ref().map(|answer| &answer.outcome);
                // Whoever waits gets the answer anyway.
                if !entry.wanted && before.is_none_or(|before| differs(before, &outcome)) {
                    changed.push(key);
                }
                entry.wanted = false;
                entry.answer = Some(Answer {
                    started,
                    finished: Instant::now(),
                    outcome,
                });
            }
        }
        self.published.send_modify(|count| *count += 1);
        if !changed.is_empty() {
            let mut subscribers = lock(&self.subscribers);
            subscribers.retain(|subscriber| changed.iter().all(|key| subscriber.send(key.clone()).is_ok()));
        }
    }
}

/// Runs until the refresher is dropped.
async fn run(refresher: Weak<Refresher>) {
    while let Some(this) = refresher.upgrade() {
        let _ = tokio::time::timeout(TICK, this.wake.notified()).await;
        tokio::time::sleep(GATHER).await;
        let Ok(permit) = this.looks.clone().acquire_owned().await else {
            return;
        };
        let started = Instant::now();
        let batch = this.due(started);
        if batch.is_empty() {
            continue;
        }
        tokio::spawn(async move {
            this.read(started, batch).await;
            drop(permit);
            // Somebody may have asked for a group of this batch while it was read.
            this.wake.notify_one();
        });
    }
}

/// Whether two answers say something different; the time of the read does not count.
fn differs(before: &Outcome, after: &Outcome) -> bool {
    match (before, after) {
        (Ok(before), Ok(after)) => {
            before.topics != after.topics
                || before.cluster_id != after.cluster_id
                || before.topic_ids != after.topic_ids
                || before.missing_outputs != after.missing_outputs
                || before.lag != after.lag
                || before.group != after.group
        }
        (Err(before), Err(after)) => before != after,
        _ => true,
    }
}
