//! What the API shows of a local group. In: the group, its facts, its workers' reports. Out: plain values;
//! what is not known is None, with the reason.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;

use super::LocalGroup;
use super::conditions::{Inputs, conditions};
use crate::api::catch_up::catch_up;
use crate::api::model::{Group, Oldest, Partition, Summary, Topic, Truth, Worker};
use crate::api::places::Place;
use crate::api::unknown::Unknown;
use crate::local::supervise::WorkerView;
use crate::reports::{PartitionReport, WorkerReport};

const NOT_ANSWERED: &str = "the worker does not answer";
/// What only the report of a worker says.
const OF_REPORT: [&str; 6] = [
    "phase",
    "partitions",
    "inFlight",
    "finishedTotal",
    "deadLetteredTotal",
    "skippedTotal",
];
const TOO_SHORT: &str = "measured for less than a second";

impl LocalGroup {
    /// Where its dead letters are; None: it has no dead letter topic.
    pub fn dead_letter_place(&self) -> Option<Place> {
        let valid = &self.prepared.valid;
        let letters = valid.spec.error_handling.dead_letter.as_ref()?;
        Some(Place {
            topic: letters.topic.clone(),
            kafka: valid.spec.kafka.clone(),
            credentials: valid.credentials.clone(),
        })
    }

    pub fn known(&self) -> Group {
        let valid = &self.prepared.valid;
        let workers = self.workers.workers(&self.command.name);
        let exited = self.workers.waiting(&self.command.name);
        let partitions = self.known_partitions(&workers);
        let phase = |worker: &&WorkerView| {
            let phase = worker.report.as_ref().map(|report| report.phase.as_str());
            matches!(phase, Some("Consuming"))
        };
        let conditions = conditions(&Inputs {
            state: valid.spec.desired_state,
            warning: valid.warning.as_ref(),
            problem: self.problem.as_ref(),
            known: self.known.as_ref(),
            shared: self.others.shared.as_ref(),
            wanted: self.wanted.workers,
            why: &self.wanted.reason,
            alive: workers.len(),
            consuming: workers.iter().filter(phase).count(),
            exited: &exited,
            partitions: &partitions,
        });
        let summary = self.summary(&conditions, &partitions, workers.len());
        let dead_letter = valid.spec.error_handling.dead_letter.as_ref();
        Group {
            summary,
            conditions,
            topics: match &self.known {
                Some(known) => {
                    let topics = known.topics.iter();
                    let topic = |(name, partitions): (&String, &Option<i32>)| Topic {
                        name: name.clone(),
                        partitions: *partitions,
                    };
                    topics.map(topic).collect()
                }
                None => {
                    let topics = valid.spec.topics.iter();
                    let topic = |name: &String| Topic {
                        name: name.clone(),
                        partitions: None,
                    };
                    topics.map(|it| topic(&it.name)).collect()
                }
            },
            writers: valid
                .spec
                .writers
                .iter()
                .map(|writer| writer.name.clone())
                .collect(),
            dead_letter_topic: dead_letter.map(|dead_letter| dead_letter.topic.clone()),
            origin: self.origin.clone(),
            deployment: None,
            listed: Default::default(),
            partitions,
            workers: workers
                .into_iter()
                .map(shown)
                .chain(exited.into_iter().map(gone))
                .collect(),
        }
    }

    fn summary(
        &self,
        conditions: &[crate::api::model::Condition],
        partitions: &[Partition],
        alive: usize,
    ) -> Summary {
        let valid = &self.prepared.valid;
        let mut unknown = Unknown::new();
        let lag = self
            .facts()
            .and_then(|facts| facts.lag.as_ref())
            .map(|lag| lag.total);
        if lag.is_none() {
            unknown.insert("lag", self.why_unknown());
        }
        let count = self.known.as_ref().and_then(|known| {
            let counts = known.topics.values();
            counts.copied().sum::<Option<i32>>()
        });
        if count.is_none() {
            unknown.insert("partitions", self.why_unknown());
        }
        // Why the first partition without a rate has none.
        let mut sum = |name: &'static str, rate: fn(&Partition) -> Option<f64>| {
            let rates = partitions.iter().map(rate).sum::<Option<f64>>();
            let rate = rates.filter(|_| count.is_some());
            if rate.is_none() {
                let why = partitions
                    .iter()
                    .find_map(|it| it.unknown.get(name).map(String::from));
                unknown.insert(name, why.unwrap_or_else(|| self.why_unknown()));
            }
            rate
        };
        let incoming = sum("inPerSecond", |partition| partition.in_per_second);
        let done = sum("donePerSecond", |partition| partition.done_per_second);
        let catch_up_seconds = catch_up(lag, incoming, done, &mut unknown);
        let totals = self.totals();
        let ready = conditions.first();
        let labels = self.object.pointer("/metadata/labels");
        let labels = labels.and_then(|labels| serde_json::from_value(labels.clone()).ok());
        Summary {
            namespace: valid.namespace.clone(),
            name: valid.name.clone(),
            group_id: valid.group_id.clone(),
            labels: labels.unwrap_or_default(),
            desired_state: Some(valid.spec.desired_state),
            ready: ready.map_or(Truth::Unknown, |ready| ready.status),
            reason: ready.map_or_else(String::new, |ready| ready.reason.clone()),
            message: ready.map_or_else(String::new, |ready| ready.message.clone()),
            workers: Some(alive),
            workers_desired: Some(self.wanted.workers),
            workers_reason: self.wanted.reason.clone(),
            partitions: count,
            stalled: Some(partitions.iter().filter(|it| it.stalled_since.is_some()).count()),
            lag,
            in_per_second: incoming,
            done_per_second: done,
            catch_up_seconds,
            finished_total: Some(totals.records),
            dead_lettered_total: Some(totals.dead_lettered),
            dead_letters_per_minute: Some(self.dead_letters.growth()),
            skipped_total: Some(totals.skipped),
            unknown,
        }
    }

    fn why_unknown(&self) -> String {
        match (&self.problem, &self.known) {
            (Some(problem), _) => format!("{}: {problem}", problem.reason()),
            (None, None) => "waiting for the first answer from Kafka".into(),
            (None, Some(known)) if known.topics.values().any(Option::is_none) => {
                let missing = known.topics.iter().find(|(_, count)| count.is_none());
                missing.map_or_else(String::new, |(topic, _)| format!("topic {topic} does not exist"))
            }
            (None, Some(_)) => "not all committed offsets and end offsets could be read".into(),
        }
    }

    fn known_partitions(&self, workers: &[WorkerView]) -> Vec<Partition> {
        let Some(known) = &self.known else {
            return Vec::new();
        };
        let owners = owners(workers);
        // Such a worker may own any partition.
        let is_silent = workers.iter().any(|worker| worker.report.is_none());
        let lag = self.facts().and_then(|facts| facts.lag.as_ref());
        let now = Instant::now();
        let topics = known.topics.iter();
        let keys =
            topics.flat_map(|(topic, count)| (0..count.unwrap_or(0)).map(|index| (topic.clone(), index)));
        keys.map(|key| {
            let mut unknown = Unknown::new();
            let owner = owners.get(&key).copied();
            let records = lag.and_then(|lag| lag.per_partition.get(&key).copied());
            let end = lag.and_then(|lag| lag.ends.get(&key).copied());
            if records.is_none() {
                for name in ["lag", "end", "committed"] {
                    unknown.insert(name, self.why_unknown());
                }
            }
            let incoming = end.and_then(|_| self.arrivals.of(&key, now));
            if incoming.is_none() {
                let why = match end {
                    Some(_) => TOO_SHORT.to_string(),
                    None => self.why_unknown(),
                };
                unknown.insert("inPerSecond", why);
            }
            // Without an owner, or before the first record is read, none is finished: that is known.
            let done = match owner {
                Some((_, report)) if report.watermark.is_some() => self.rates.of(&key, now),
                None if is_silent => None,
                _ => Some(0.0),
            };
            if done.is_none() {
                let why = if owner.is_some() { TOO_SHORT } else { NOT_ANSWERED };
                unknown.insert("donePerSecond", why);
            }
            let catch_up_seconds = catch_up(records, incoming, done, &mut unknown);
            let report = owner.map(|(_, report)| report);
            if report.is_none() {
                for name in ["worker", "inFlight"] {
                    unknown.insert(name, "no worker reports this partition");
                }
            }
            let (topic, partition) = key;
            Partition {
                topic,
                partition,
                worker: owner.map(|(worker, _)| worker.to_string()),
                committed: end.zip(records).map(|(end, lag)| end - lag),
                end,
                lag: records,
                in_per_second: incoming,
                done_per_second: done,
                catch_up_seconds,
                in_flight: report.map(|report| report.in_flight),
                oldest: report
                    .and_then(|report| report.oldest.as_ref())
                    .map(|oldest| Oldest {
                        offset: oldest.offset,
                        since: oldest.since,
                        attempts: oldest.attempts,
                        last_error: oldest.last_error.clone(),
                        error_offset: oldest.error_offset,
                    }),
                paused_reason: report.and_then(|report| report.paused_reason.clone()),
                stalled_since: report.and_then(|report| report.stalled_since),
                unknown,
            }
        })
        .collect()
    }
}

type Owners<'a> = BTreeMap<(String, i32), (&'a str, &'a PartitionReport)>;

fn owners(workers: &[WorkerView]) -> Owners<'_> {
    let mut owners = BTreeMap::new();
    for worker in workers {
        for partition in worker.report.iter().flat_map(|report| &report.partitions) {
            let key = (partition.topic.clone(), partition.partition);
            owners.insert(key, (worker.name.as_str(), partition));
        }
    }
    owners
}

fn shown(worker: WorkerView) -> Worker {
    let report: Option<&WorkerReport> = worker.report.as_ref();
    let unknown = match report {
        None => Unknown::all(&OF_REPORT, NOT_ANSWERED),
        Some(_) => Unknown::new(),
    };
    Worker {
        phase: report.map(|report| report.phase.clone()),
        partitions: report.map(|report| report.partitions.len()),
        in_flight: report.map(|report| report.partitions.iter().map(|it| it.in_flight).sum()),
        finished_total: report.map(|report| report.records_total),
        dead_lettered_total: report.map(|report| report.dead_lettered_total),
        skipped_total: report.map(|report| report.skipped_total),
        exits: Some(worker.exits),
        started_at: Timestamp::from_millisecond(worker.started_at).ok(),
        last_error: report.and_then(|report| report.last_error.clone()),
        name: worker.name,
        unknown,
    }
}

/// A worker that has exited and waits for its restart.
fn gone((name, exits): (String, u32)) -> Worker {
    const WHY: &str = "the worker has exited and waits for its restart";
    let mut unknown = Unknown::all(&OF_REPORT, WHY);
    unknown.insert("startedAt", WHY);
    Worker {
        name,
        exits: Some(exits),
        unknown,
        ..Worker::default()
    }
}
