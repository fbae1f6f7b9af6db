//! What the workers of each group report. In: the pods of a group, at each reconcile. Out: the last report of
//! each worker, and a request to reconcile when their problems change. Reads in the background, so that no
//! reconcile waits for a worker. Nothing reads a group that is not reconciled, and nothing is read twice at
//! the same time.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::names::WORKER_HTTP_PORT;
use crds::status::{SkippedByRetention, WorkerStatus};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::pods::PodFacts;
use crate::kafka::model::GroupKey;
use crate::reports::summary::{skipped_by_retention, summarize};
use crate::reports::{self, WorkerReport};
use crate::sync::lock;

/// Time between two reconciles of a group with workers, so that their reports never get old.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// The reports of a group are read again at the first reconcile after this time.
const REREAD: Duration = Duration::from_secs(9);
/// And after this time if there is a worker that was never asked.
const NEW_WORKER: Duration = Duration::from_secs(2);
/// A round of reads that takes longer has failed: 1,000 workers that do not answer take 80 s, and 40 s once they
/// are silent.
const ROUND: Duration = Duration::from_secs(180);
/// A healthy worker answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(2);
/// Connecting to a worker that has failed before takes at most this long.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);
/// A silent worker is asked again after this time, so that the others do not wait behind it.
const ASK_SILENT: Duration = Duration::from_secs(60);
/// Workers of one group that are asked at the same time.
const CONCURRENT: usize = 25;
/// A ready worker that has not answered so often in a row is silent.
const SILENT: u32 = 2;

/// Time between two writes of the numbers of a group's workers. With many groups it is longer: all groups
/// together cause one such write per second.
pub fn numbers_interval(groups: usize) -> Duration {
    INTERVAL.max(Duration::from_secs(u64::try_from(groups).unwrap_or(u64::MAX)))
}

/// A worker to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    /// None: the pod has no address yet.
    pub address: Option<SocketAddr>,
    pub ready: bool,
}

impl Target {
    pub fn of(pod: &Pod) -> Self {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
        let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok());
        let facts = PodFacts::of(pod);
        Self {
            name: pod.name_any(),
            address: ip.map(|ip| SocketAddr::new(ip, WORKER_HTTP_PORT)),
            ready: facts.ready && !facts.terminating,
        }
    }
}

/// What the operator has read from the workers of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadReports {
    /// Every worker has answered or is silent; otherwise the entries are those of the old status.
    pub complete: bool,
    pub entries: Vec<WorkerStatus>,
    /// What retention removed unread, also what the entries have no place for.
    pub skipped: Vec<SkippedByRetention>,
    /// Ready workers that do not answer, each with the reason.
    pub silent: Vec<String>,
}

/// The reports of all groups that this operator serves.
#[derive(Debug, Default)]
pub struct WorkerReports {
    groups: Mutex<HashMap<GroupKey, GroupReports>>,
    subscribers: Mutex<Vec<UnboundedSender<GroupKey>>>,
}

/// The reports of one group.
#[derive(Debug, Default)]
struct GroupReports {
    workers: BTreeMap<String, LastReport>,
    /// Start of the last round.
    started: Option<Instant>,
    reading: bool,
    /// Since this operator serves the group, every worker has answered or has been silent.
    complete: bool,
    /// The problems at the end of the last round.
    problems: Vec<Problem>,
    /// A hash of the numbers of the workers when a reconcile was last requested, and when that was.
    numbers: Option<(u64, Instant)>,
}

/// The last report of one worker.
#[derive(Debug, Default)]
struct LastReport {
    entry: Option<WorkerStatus>,
    /// What retention removed, also what the entry has no place for.
    skipped: Vec<SkippedByRetention>,
    has_address: bool,
    ready: bool,
    /// When it was last asked. None: never since it is ready.
    asked: Option<Instant>,
    /// This operator has read its report.
    answered: bool,
    /// Failed reads in a row, and why the last one failed.
    failures: u32,
    error: String,
}

/// A worker that is asked now.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    name: String,
    address: SocketAddr,
    /// Limit for connecting.
    connect: Duration,
}

/// What makes a reconcile necessary when it changes: worker, reason, whether partitions are stalled, whether
/// it is silent.
type Problem = (String, Option<String>, bool, bool);

impl LastReport {
    fn is_silent(&self) -> bool {
        self.ready && self.failures >= SILENT
    }

    /// One failed read says nothing: the worker may be busy, or the network is not ready.
    fn is_known(&self) -> bool {
        !self.has_address || self.answered || self.failures >= SILENT
    }

    fn may_wait(&self, now: Instant) -> bool {
        let recent = |asked| now.duration_since(asked) < ASK_SILENT;
        self.is_silent() && self.asked.is_some_and(recent)
    }
}

impl WorkerReports {
    /// Groups whose problems have changed.
    pub fn changes(&self) -> UnboundedReceiver<GroupKey> {
        let (sender, receiver) = unbounded_channel();
        lock(&self.subscribers).push(sender);
        receiver
    }

    /// Groups that are served, also those without workers: their lag changes too.
    pub fn groups(&self) -> usize {
        lock(&self.groups).len()
    }

    /// Drops everything that is remembered of a group.
    pub fn forget(&self, key: &GroupKey) {
        lock(&self.groups).remove(key);
    }

    /// The last reports of the workers of a group, and starts to read them again if it is time. `old`:
    /// entries of the status, which are all that is known after a restart of the operator.
    pub fn of(self: &Arc<Self>, key: &GroupKey, targets: Vec<Target>, old: &[WorkerStatus]) -> ReadReports {
        let mut groups = lock(&self.groups);
        let group = groups.entry(key.clone()).or_default();
        group.update(&targets, old, Timestamp::now());
        if let Some(due) = group.start_round(targets, Instant::now()) {
            tokio::spawn(self.clone().round(key.clone(), due));
        }
        group.read(old, Timestamp::now())
    }

    async fn round(self: Arc<Self>, key: GroupKey, due: Vec<Due>) {
        let ask = |due: Due| async move {
            let answer = reports::ask_connecting_within(due.connect, due.address, ANSWER).await;
            (due.name, answer)
        };
        let mut answers = stream::iter(due).map(ask).buffer_unordered(CONCURRENT);
        while let Some((name, answer)) = answers.next().await {
            let answer = answer.map_err(|error| error.to_string());
            if let Some(group) = lock(&self.groups).get_mut(&key) {
                group.note(&name, answer, Timestamp::now());
            }
        }
        let interval = numbers_interval(self.groups());
        let changed = lock(&self.groups)
            .get_mut(&key)
            .is_some_and(|group| group.finish(interval, Instant::now()));
        if changed {
            lock(&self.subscribers).retain(|subscriber| subscriber.send(key.clone()).is_ok());
        }
    }
}

impl GroupReports {
    /// Takes over which workers exist. Nobody has read their reports while no operator ran, so an entry of the
    /// old status counts as read now.
    fn update(&mut self, targets: &[Target], old: &[WorkerStatus], now: Timestamp) {
        let mut before = std::mem::take(&mut self.workers);
        for target in targets {
            let mut last = before.remove(&target.name).unwrap_or_else(|| LastReport {
                entry: old
                    .iter()
                    .find(|entry| entry.name == target.name)
                    .map(|entry| read_at(entry, now)),
                ..LastReport::default()
            });
            if target.ready && !last.ready {
                // Failures of a worker that starts do not count.
                (last.failures, last.asked) = (0, None);
            }
            (last.ready, last.has_address) = (target.ready, target.address.is_some());
            self.workers.insert(target.name.clone(), last);
        }
        self.complete |= self.workers.is_empty();
    }

    /// The workers to ask now, if it is time; those that have failed before come last.
    fn start_round(&mut self, targets: Vec<Target>, now: Instant) -> Option<Vec<Due>> {
        let due = targets.into_iter().filter_map(|target| {
            let address = target.address?;
            let last = self.workers.get(&target.name)?;
            let connect = match last.failures {
                0..SILENT => ANSWER,
                _ => CONNECT_AGAIN,
            };
            (!last.may_wait(now)).then_some(Due {
                name: target.name,
                address,
                connect,
            })
        });
        let mut due: Vec<Due> = due.collect();
        due.sort_by_key(|due| due.connect < ANSWER);
        let waited = self.started.map(|started| now.duration_since(started));
        let never_asked = |due: &Due| {
            self.workers
                .get(&due.name)
                .is_none_or(|last| last.asked.is_none())
        };
        let is_due = match waited {
            None => true,
            Some(waited) if self.reading => waited >= ROUND,
            Some(waited) => waited >= REREAD || (waited >= NEW_WORKER && due.iter().any(never_asked)),
        };
        if due.is_empty() || !is_due {
            return None;
        }
        (self.started, self.reading) = (Some(now), true);
        for due in &due {
            if let Some(last) = self.workers.get_mut(&due.name) {
                last.asked = Some(now);
            }
        }
        Some(due)
    }

    fn note(&mut self, name: &str, answer: Result<WorkerReport, String>, now: Timestamp) {
        let Some(last) = self.workers.get_mut(name) else {
            return;
        };
        let answer = answer.and_then(|report| match report.worker == name {
            true => Ok(report),
            // The address of a pod that is gone belongs to another one soon.
            false => Err("another process answers at its address".into()),
        });
        match answer {
            Ok(report) => {
                last.entry = Some(summarize(name, &report, now));
                last.skipped = skipped_by_retention(&report.partitions);
                last.answered = true;
                (last.failures, last.error) = (0, String::new());
            }
            Err(error) => {
                tracing::debug!(worker = name, error, "cannot read the report of a worker");
                last.failures = last.failures.saturating_add(1);
                last.error = error;
                if !self.complete && !last.answered {
                    last.entry = last.entry.as_ref().map(|entry| read_at(entry, now));
                }
            }
        }
    }

    /// Ends a round; whether the group is to be reconciled because of it: at once if a problem has changed,
    /// and for changed numbers when it is time to write them.
    fn finish(&mut self, numbers_interval: Duration, now: Instant) -> bool {
        self.reading = false;
        let complete = self.complete || self.workers.values().all(LastReport::is_known);
        let first = complete && !std::mem::replace(&mut self.complete, complete);
        let problem = |(name, last): (&String, &LastReport)| {
            let reason = last.entry.as_ref().and_then(|entry| entry.paused_reason.clone());
            let stalled = last.entry.as_ref().is_some_and(|entry| entry.stalled > 0);
            (name.clone(), reason, stalled, last.is_silent())
        };
        let problems = self.workers.iter().map(problem);
        let problems =
            problems.filter(|(_, reason, stalled, silent)| reason.is_some() || *stalled || *silent);
        let problems: Vec<Problem> = problems.collect();
        let numbers = self.hash_of_numbers();
        let numbers_due = self
            .numbers
            .is_none_or(|(told, at)| told != numbers && now.duration_since(at) >= numbers_interval);
        let changed = first || problems != self.problems || numbers_due;
        self.problems = problems;
        if changed {
            self.numbers = Some((numbers, now));
        }
        changed
    }

    fn hash_of_numbers(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in self.workers.values().filter_map(|last| last.entry.as_ref()) {
            let totals = (
                entry.records_total,
                entry.dead_lettered_total,
                entry.skipped_total,
            );
            (&entry.name, entry.assigned, totals, entry.lag, entry.in_flight).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn read(&self, old: &[WorkerStatus], now: Timestamp) -> ReadReports {
        let silent = self.workers.iter().filter(|(_, last)| last.is_silent());
        let silent: Vec<String> = silent
            .map(|(name, last)| format!("pod {name}: {}", last.error))
            .collect();
        let skipped = self.workers.values().flat_map(|last| &last.skipped);
        let skipped: Vec<SkippedByRetention> = skipped.cloned().collect();
        if self.complete {
            let entries = self.workers.values().filter_map(|last| last.entry.clone());
            return ReadReports {
                complete: true,
                entries: entries.collect(),
                skipped,
                silent,
            };
        }
        // Nobody has read them while no operator ran, which says nothing about the workers.
        let present = old.iter().filter(|entry| self.workers.contains_key(&entry.name));
        ReadReports {
            complete: false,
            entries: present.map(|entry| read_at(entry, now)).collect(),
            skipped,
            silent,
        }
    }
}

fn read_at(entry: &WorkerStatus, now: Timestamp) -> WorkerStatus {
    WorkerStatus {
        reported_at: Some(now),
        ..entry.clone()
    }
}

#[cfg(test)]
mod tests;
