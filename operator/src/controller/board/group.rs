//! A group as the API shows it. In: the resource, and what was read from Kafka. Out: plain values; what is not
//! known is None, with the reason. Pure.

use crds::status::{StalledPartition, WorkerStatus, WorkerTotals, condition};
use crds::worker_config::group_id;
use crds::{KafkaConsumerGroup, KafkaConsumerGroupStatus};
use kube::ResourceExt;

use super::positions::Positions;
use super::reports;
use super::view::View;
use crate::api::catch_up::catch_up;
use crate::api::model::{Condition, Group, Oldest, Partition, Summary, Topic, Truth, Worker};
use crate::api::unknown::Unknown;
use crate::controller::names::child_name;
use crate::kafka::model::GroupKey;

const NOT_REPORTED: &str = "the operator has not reported it yet";
const NO_REPORT: &str = "no worker has reported yet";
const NEW: &str = "known for less than a minute";
const NOT_IN_STATUS: &str = "the status of the resource does not say it";
const ONE_READ: &str = "Kafka was read only once so far";
const STANDBY: &str = "this operator stands by or another one serves the group, so it does not read Kafka";
const OUTDATED: &str = "this operator has not read Kafka for more than 2 minutes and two refreshes; another operator may serve the group";

/// Partitions of a topic that are shown although only the status says how many there are: anybody who may write
/// the status could write any number.
const MOST_OF_STATUS: i32 = 10_000;

/// The group.
pub fn group(
    resource: &KafkaConsumerGroup,
    kafka: &View,
    positions: &Positions,
    dead_letters: Option<u64>,
) -> Group {
    let none = KafkaConsumerGroupStatus::default();
    let status = resource.status.as_ref().unwrap_or(&none);
    let spec = &resource.spec;
    let counts = |name: &str| match kafka {
        View::Known { topics, .. } => topics.get(name).copied().flatten(),
        _ => {
            let mut topics = status.topics.iter();
            let count = topics.find(|topic| topic.name == name)?.partitions?;
            Some(count.clamp(0, MOST_OF_STATUS))
        }
    };
    let topics: Vec<Topic> = spec
        .topics
        .iter()
        .map(|topic| Topic {
            name: topic.name.clone(),
            partitions: counts(&topic.name),
        })
        .collect();
    let why = why(status, kafka);
    let partitions = partitions(&topics, kafka, positions, &status.stalled_partitions, &why);
    let conditions: Vec<Condition> = status.conditions.iter().map(shown).collect();
    let summary = summary(resource, status, kafka, positions, &topics, &partitions);
    let mut group = Group {
        summary,
        conditions,
        topics,
        writers: spec.writers.iter().map(|writer| writer.name.clone()).collect(),
        dead_letter_topic: spec
            .error_handling
            .dead_letter
            .as_ref()
            .map(|it| it.topic.clone()),
        origin: "KafkaConsumerGroup".into(),
        deployment: Some(child_name(&resource.name_any())),
        partitions,
        workers: status.workers.iter().map(worker).collect(),
        listed: Default::default(),
    };
    group.summary.dead_letters_per_minute = dead_letters;
    if dead_letters.is_none() {
        let why = reports::missing(status).unwrap_or(NEW.into());
        group.summary.unknown.insert("deadLettersPerMinute", why);
    }
    group
}

/// A group whose stored resource does not fit its schema.
pub fn unreadable(key: &GroupKey, problem: &str) -> Group {
    let message =
        format!("the stored resource does not fit its schema: {problem}; correct it with kubectl edit");
    const WHY: &str = "the resource cannot be read";
    let fields = [
        "desiredState",
        "workers",
        "workersDesired",
        "partitions",
        "stalled",
        "lag",
        "inPerSecond",
        "donePerSecond",
        "catchUpSeconds",
        "finishedTotal",
        "deadLetteredTotal",
        "deadLettersPerMinute",
        "skippedTotal",
    ];
    Group {
        summary: Summary {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            group_id: String::new(),
            labels: Default::default(),
            desired_state: None,
            ready: Truth::False,
            reason: "InvalidSpec".into(),
            message,
            workers: None,
            workers_desired: None,
            workers_reason: String::new(),
            partitions: None,
            stalled: None,
            lag: None,
            in_per_second: None,
            done_per_second: None,
            catch_up_seconds: None,
            finished_total: None,
            dead_lettered_total: None,
            dead_letters_per_minute: None,
            skipped_total: None,
            unknown: Unknown::all(&fields, WHY),
        },
        conditions: Vec::new(),
        topics: Vec::new(),
        writers: Vec::new(),
        dead_letter_topic: None,
        origin: "KafkaConsumerGroup".into(),
        deployment: Some(child_name(&key.name)),
        partitions: Vec::new(),
        workers: Vec::new(),
        listed: Default::default(),
    }
}

/// Why offsets are not known.
fn why(status: &KafkaConsumerGroupStatus, kafka: &View) -> String {
    if let View::Failed(problem) = kafka {
        return format!("{}: {problem}", problem.reason());
    }
    let mut conditions = status.conditions.iter();
    let told = conditions.find(|it| it.type_ == condition::LAG_KNOWN && it.status != "True");
    told.map_or_else(
        || NOT_REPORTED.to_string(),
        |it| format!("{}: {}", it.reason, it.message),
    )
}

fn shown(condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> Condition {
    Condition {
        kind: condition.type_.clone().into(),
        status: truth(&condition.status),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time.0,
    }
}

fn truth(status: &str) -> Truth {
    match status {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    }
}

fn summary(
    resource: &KafkaConsumerGroup,
    status: &KafkaConsumerGroupStatus,
    kafka: &View,
    positions: &Positions,
    topics: &[Topic],
    partitions: &[Partition],
) -> Summary {
    let why = why(status, kafka);
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let mut unknown = Unknown::new();
    let lag = match kafka {
        View::Known { has_lag: true, .. } => positions.total(),
        View::Known { .. } | View::Failed(_) => None,
        View::NotRead | View::Outdated => status.lag.as_ref().map(|lag| lag.total),
    };
    let mut missing = |is_missing: bool, field: &'static str, why: &str| {
        if is_missing {
            unknown.insert(field, why.to_string());
        }
    };
    missing(lag.is_none(), "lag", &why);
    let count = topics.iter().map(|topic| topic.partitions).sum::<Option<i32>>();
    missing(count.is_none(), "partitions", &why);
    let rate = |rate: fn(&Partition) -> Option<f64>| {
        let sum = partitions.iter().map(rate).sum::<Option<f64>>();
        sum.filter(|_| count.is_some() && matches!(kafka, View::Known { .. } | View::Failed(_)))
    };
    let incoming = rate(|partition| partition.in_per_second);
    let done = rate(|partition| partition.done_per_second);
    let no_rate = match kafka {
        View::NotRead => STANDBY,
        View::Outdated => OUTDATED,
        View::Failed(_) => &why,
        View::Known { has_lag: true, .. } => ONE_READ,
        View::Known { .. } => &why,
    };
    missing(incoming.is_none(), "inPerSecond", no_rate);
    missing(done.is_none(), "donePerSecond", no_rate);
    let number = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok());
    let (workers, desired) = (number(status.ready_replicas), number(status.replicas));
    missing(workers.is_none(), "workers", NOT_REPORTED);
    missing(desired.is_none(), "workersDesired", NOT_REPORTED);
    let stalled = status.partitions.as_ref().and_then(|it| it.stalled);
    missing(
        stalled.is_none(),
        "stalled",
        reports::missing(status).as_deref().unwrap_or(NO_REPORT),
    );
    // With many workers, the totals count more than those that the status lists.
    let totals = status.worker_totals.as_ref();
    let no_report = reports::missing(status);
    let total = |of_all: fn(&WorkerTotals) -> i64, of_one: fn(&WorkerStatus) -> i64| {
        let listed = || status.workers.iter().map(of_one).sum::<i64>();
        let sum = totals.map_or_else(listed, of_all);
        u64::try_from(sum).ok().filter(|_| no_report.is_none())
    };
    if let Some(why) = &no_report {
        for field in ["finishedTotal", "deadLetteredTotal", "skippedTotal"] {
            missing(true, field, why);
        }
    }
    let ready = status.conditions.iter().find(|it| it.type_ == condition::READY);
    let catch_up_seconds = catch_up(lag, incoming, done, &mut unknown);
    Summary {
        group_id: status
            .group_id
            .clone()
            .unwrap_or_else(|| group_id(&namespace, &name, &resource.spec)),
        labels: resource.labels().clone(),
        desired_state: Some(resource.spec.desired_state),
        ready: ready.map_or(Truth::Unknown, |it| truth(&it.status)),
        reason: ready.map_or("NotReported", |it| &it.reason).to_string(),
        message: ready.map_or(NOT_REPORTED, |it| &it.message).to_string(),
        workers,
        workers_desired: desired,
        workers_reason: status
            .scaling
            .as_ref()
            .and_then(|scaling| scaling.reason.clone())
            .unwrap_or_default(),
        partitions: count,
        stalled: number(stalled),
        lag,
        in_per_second: incoming,
        done_per_second: done,
        catch_up_seconds,
        finished_total: total(|all| all.records_total, |worker| worker.records_total),
        dead_lettered_total: total(|all| all.dead_lettered_total, |worker| worker.dead_lettered_total),
        dead_letters_per_minute: None,
        skipped_total: total(|all| all.skipped_total, |worker| worker.skipped_total),
        namespace,
        name,
        unknown,
    }
}

fn partitions(
    topics: &[Topic],
    kafka: &View,
    positions: &Positions,
    stalled: &[StalledPartition],
    why: &str,
) -> Vec<Partition> {
    let numbers = topics.iter().flat_map(|topic| {
        let count = topic.partitions.unwrap_or(0);
        (0..count).map(|number| (topic.name.clone(), number))
    });
    numbers
        .map(|key| {
            let mut unknown = Unknown::all(&["worker", "inFlight"], NOT_IN_STATUS);
            let read = matches!(kafka, View::Known { has_lag: true, .. });
            let position = positions.of(&key).filter(|_| read);
            let rates = positions.rates(&key).filter(|_| read);
            if position.is_none() {
                for field in ["lag", "end", "committed"] {
                    match kafka {
                        View::NotRead => unknown.insert(field, STANDBY),
                        View::Outdated => unknown.insert(field, OUTDATED),
                        _ => unknown.insert(field, why.to_string()),
                    }
                }
            }
            if rates.is_none() {
                for field in ["inPerSecond", "donePerSecond"] {
                    match (kafka, position) {
                        (View::NotRead, _) => unknown.insert(field, STANDBY),
                        (View::Outdated, _) => unknown.insert(field, OUTDATED),
                        (_, Some(_)) => unknown.insert(field, ONE_READ),
                        (_, None) => unknown.insert(field, why.to_string()),
                    }
                }
            }
            let lag = position.map(|position| position.lag);
            let (incoming, done) = (rates.map(|it| it.incoming), rates.map(|it| it.done));
            let catch_up_seconds = catch_up(lag, incoming, done, &mut unknown);
            let mut stalled = stalled.iter();
            let stalled = stalled.find(|it| it.topic == key.0 && it.partition == key.1);
            let (topic, partition) = key;
            Partition {
                topic,
                partition,
                worker: None,
                committed: position.map(|position| position.end - position.lag),
                end: position.map(|position| position.end),
                lag,
                in_per_second: incoming,
                done_per_second: done,
                catch_up_seconds,
                in_flight: None,
                oldest: stalled.and_then(oldest),
                paused_reason: stalled
                    .map(|it| it.reason.clone())
                    .filter(|reason| reason != "NoProgress"),
                stalled_since: stalled.map(|it| it.since),
                unknown,
            }
        })
        .collect()
}

fn oldest(stalled: &StalledPartition) -> Option<Oldest> {
    Some(Oldest {
        offset: stalled.offset?,
        since: stalled.since,
        attempts: u32::try_from(stalled.attempts).unwrap_or(0),
        last_error: stalled.last_error.clone(),
        // The error itself begins with another offset.
        error_offset: None,
    })
}

fn worker(worker: &WorkerStatus) -> Worker {
    let count = |value: i64| u64::try_from(value).ok();
    Worker {
        name: worker.name.clone(),
        phase: None,
        partitions: usize::try_from(worker.assigned).ok(),
        in_flight: count(worker.in_flight),
        finished_total: count(worker.records_total),
        dead_lettered_total: count(worker.dead_lettered_total),
        skipped_total: count(worker.skipped_total),
        exits: None,
        started_at: None,
        last_error: worker.last_error.clone(),
        unknown: Unknown::all(&["phase", "exits", "startedAt"], NOT_IN_STATUS),
    }
}
