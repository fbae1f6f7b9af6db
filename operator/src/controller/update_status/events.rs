//! Kubernetes Events of a group. In: the status before and after. Out: one Event per transition. Pure;
//! because it compares stored statuses, a restarted operator does not repeat Events.

use crds::KafkaConsumerGroupStatus;
use crds::status::{PausedReason, condition};
use kube::runtime::events::{Event, EventType};

use super::compute::verdicts::{CLUSTER_CHANGED, GROUP_SHARED, OFFSET_RESET};
use super::conditions::{find, reason};
use crate::digest::hash;
use crate::group::wording::count;
use crate::kafka::model::{ProvisionAction, Provisioned};

/// Names of topics in one Event.
const MAX_NAMES: usize = 8;
/// The API's limit for notes.
const MAX_NOTE: usize = 1000;

/// What happened between two statuses.
pub fn events(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let changed = |kind: &str| {
        let now = find(&new.conditions, kind)?;
        (reason(&old.conditions, kind) != Some(now.reason.as_str())).then_some(now)
    };
    let was = |kind: &str| reason(&old.conditions, kind).unwrap_or_default().to_string();
    if let Some(now) = changed(condition::ACCEPTED) {
        match (now.status.as_str(), now.reason.as_str()) {
            ("False" | "Unknown", _) | (_, "CredentialsInClear" | "ReplicasIgnored") => {
                events.push(warning(&now.reason, &now.message))
            }
            _ if find(&old.conditions, condition::ACCEPTED).is_some_and(|old| old.status != "True") => {
                events.push(normal("Accepted", &now.message));
            }
            _ => {}
        }
    }
    if let Some(now) = changed(condition::KAFKA_REACHABLE) {
        match now.status.as_str() {
            "False" => events.push(warning(&now.reason, &now.message)),
            // This has an event of its own.
            "True" if CLUSTER_CHANGED == now.reason || CLUSTER_CHANGED == was(condition::KAFKA_REACHABLE) => {
            }
            "True" if !was(condition::KAFKA_REACHABLE).is_empty() => {
                events.push(normal("KafkaReachable", &now.message));
            }
            _ => {}
        }
    }
    if let Some(now) = changed(condition::WORKERS_AVAILABLE)
        && now.status == "False"
        && !matches!(
            now.reason.as_str(),
            "Progressing" | "NotCreated" | "Stopping" | "NoWorkers" | OFFSET_RESET
        )
    {
        events.push(warning(&now.reason, &now.message));
    }
    if let Some(now) = changed(condition::CONSUMING) {
        let before = was(condition::CONSUMING);
        match (before.as_str(), now.reason.as_str()) {
            (_, "Paused" | "Stopped" | OFFSET_RESET) => events.push(normal(&now.reason, &now.message)),
            (_, reason) if is_hindered(reason) => {
                events.push(warning(&now.reason, &now.message));
            }
            _ => {}
        }
        match (before.as_str(), now.reason.as_str()) {
            ("Paused", reason) if !matches!(reason, "Paused" | "Stopped") => {
                events.push(normal("Resumed", "desiredState is no longer Paused"));
            }
            (OFFSET_RESET, reason) if !matches!(reason, "Paused" | "Stopped") => {
                events.push(normal("Started", "the offset reset has ended"));
            }
            ("Stopped", reason) if reason != "Stopped" => {
                events.push(normal("Started", "desiredState is no longer Stopped"));
            }
            (before, "Consuming") if is_hindered(before) => {
                events.push(normal("Consuming", &format!("{before} is resolved")));
            }
            _ => {}
        }
    }
    events.extend(not_readable(old, new));
    match (&old.cluster_id, &new.cluster_id) {
        (Some(before), Some(now)) if before != now => events.push(normal(
            "KafkaClusterChanged",
            &format!("the brokers of spec.kafka.bootstrapServers belong to another cluster (id {before} before, {now} now), which has its own topics and committed offsets"),
        )),
        _ => events.extend(recreated(old, new)),
    }
    if let (before, Some(after)) = (old.replicas, new.replicas)
        && before != Some(after)
        && (before.is_some() || after > 0)
    {
        let why = new
            .scaling
            .as_ref()
            .and_then(|scaling| scaling.reason.as_deref())
            .unwrap_or_default();
        let from = before.unwrap_or(0);
        events.push(normal("Scaled", &format!("workers: {from} -> {after}: {why}")));
    }
    events
}

/// An Event for each topic that was deleted and created again.
fn recreated(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus) -> Vec<Event> {
    let recreated = new.topics.iter().filter_map(|topic| {
        let before = old.topics.iter().find(|before| before.name == topic.name)?;
        let (before, now) = before.id.as_ref().zip(topic.id.as_ref())?;
        (before != now).then(|| {
            warning(
                "TopicRecreated",
                &format!(
                    "topic {} was deleted and created again (id {before} before, {now} now): offsets of the deleted topic are not used for the new one; consumer.onTopicRecreated says whether workers read it from its first record",
                    topic.name
                ),
            )
        })
    });
    recreated.collect()
}

/// An Event if workers do not answer from now on.
fn not_readable(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus) -> Option<Event> {
    let was_silent = old.worker_totals.as_ref().is_some_and(|totals| totals.silent > 0);
    let totals = new
        .worker_totals
        .as_ref()
        .filter(|totals| totals.silent > 0 && !was_silent)?;
    let workers = count(totals.silent, "ready worker");
    let first = totals.silent_reason.as_deref().unwrap_or_default();
    let note = format!(
        "the operator cannot read the reports of {workers}: {first}; let it connect to port 8080 of the pods (NetworkPolicy, service mesh), or let workers write their reports (--worker-reports Push, chart value workerReports)"
    );
    Some(warning("WorkersNotReadable", &note))
}

/// An Event about records that retention has removed unread since then. `unlisted`: further ranges that the
/// status has no place for.
pub fn skipped_by_retention(
    old: &KafkaConsumerGroupStatus,
    new: &KafkaConsumerGroupStatus,
    unlisted: usize,
) -> Option<Event> {
    let fresh = new.skipped_by_retention.iter();
    let fresh = fresh.filter(|skipped| !old.skipped_by_retention.contains(skipped));
    let ranges: Vec<String> = fresh
        .map(|skipped| {
            let last = skipped.to_offset.saturating_sub(1);
            format!(
                "{}-{} offsets {} to {last}",
                skipped.topic, skipped.partition, skipped.from_offset
            )
        })
        .collect();
    let note = format!(
        "retention has removed records before they were read: {}; keep records longer (retention.ms, retention.bytes), or add workers",
        some_of_all(&ranges, ranges.len() + unlisted)
    );
    (!ranges.is_empty()).then(|| warning("RecordsSkippedByRetention", &note))
}

/// Reasons of condition Consuming that deserve an Event at once.
fn is_hindered(reason: &str) -> bool {
    matches!(reason, "PartitionsStalled" | GROUP_SHARED)
        || PausedReason::named(reason).is_some_and(PausedReason::is_problem)
}

/// Events about changed topics.
pub fn provisioned(done: &[Provisioned]) -> Vec<Event> {
    let created = done.iter().filter(|done| done.action == ProvisionAction::Created);
    let created: Vec<String> = created
        .map(|done| match &done.note {
            Some(note) => format!("{} ({note})", done.topic),
            None => done.topic.clone(),
        })
        .collect();
    let grown = done.iter().filter_map(|done| match done.action {
        ProvisionAction::Grown { from, to } => Some(format!("{} from {from} to {to}", done.topic)),
        _ => None,
    });
    let grown: Vec<String> = grown.collect();
    let one = |reason: &str, what: &str, topics: Vec<String>| {
        (!topics.is_empty()).then(|| {
            let number = count(topics.len() as u64, "topic");
            normal(reason, &format!("{number} {what}: {}", some_of(&topics)))
        })
    };
    [
        one("TopicCreated", "created, as provision requests", created),
        one("TopicGrown", "expanded, partitions", grown),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An Event if topics start elsewhere than the spec says.
pub fn not_positioned(topics: &[String]) -> Option<Event> {
    (!topics.is_empty()).then(|| {
        let note = format!(
            "consumer.startPosition does not apply to {}: other applications are members of the consumer group, and Kafka takes offsets only of a group without members; workers start at the first record",
            some_of(topics)
        );
        warning("StartPositionNotCommitted", &note)
    })
}

/// The Event of an operator that leaves a group to another one.
pub fn served_by_another(own: &str, other: &str) -> Event {
    let note = format!(
        "operator {own} watches this resource too and leaves it to operator {other}, which has claimed it (status.operator); let only one of them watch this namespace (--namespaces, chart value watchNamespaces)"
    );
    warning("ServedByAnotherOperator", &note)
}

/// Children that others had changed, and that the operator has restored.
pub fn restored(done: &[String]) -> Vec<Event> {
    done.iter().map(|what| warning("ChildRestored", what)).collect()
}

/// The first names, and how many more there are.
fn some_of(names: &[String]) -> String {
    some_of_all(names, names.len())
}

/// The first of `names`, and how many more there are of `all`.
fn some_of_all(names: &[String], all: usize) -> String {
    let shown = names
        .iter()
        .take(MAX_NAMES)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match all.saturating_sub(MAX_NAMES.min(names.len())) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// An Event about something that went as it should.
pub fn normal(reason: &str, note: &str) -> Event {
    event(EventType::Normal, reason, note)
}

/// An Event about something that needs attention.
pub fn warning(reason: &str, note: &str) -> Event {
    event(EventType::Warning, reason, note)
}

fn event(type_: EventType, reason: &str, note: &str) -> Event {
    let note: String = note
        .chars()
        .scan(0, |bytes, it| {
            *bytes += it.len_utf8();
            (*bytes <= MAX_NOTE).then_some(it)
        })
        .collect();
    // The recorder merges Events of the same action into a series that keeps the first note, so each note
    // gets its own action.
    let action = format!("Reconcile-{}", hash(note.as_bytes()));
    Event {
        type_,
        reason: reason.into(),
        note: Some(note),
        action,
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{Truth, Verdict, merge};
    use super::*;

    fn status(verdicts: &[(&'static str, Truth, &str)], replicas: Option<i32>) -> KafkaConsumerGroupStatus {
        let verdicts = verdicts
            .iter()
            .map(|(kind, truth, reason)| (*kind, Verdict::new(*truth, reason, "message")))
            .collect();
        KafkaConsumerGroupStatus {
            conditions: merge(&[], verdicts, None, jiff::Timestamp::UNIX_EPOCH),
            replicas,
            ..Default::default()
        }
    }

    fn reasons(old: &KafkaConsumerGroupStatus, new: &KafkaConsumerGroupStatus) -> Vec<String> {
        events(old, new).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn each_transition_has_one_event() {
        let (yes, no) = (Truth::True, Truth::False);
        let healthy = status(
            &[
                ("Accepted", yes, "Accepted"),
                ("KafkaReachable", yes, "BrokersAnswer"),
            ],
            Some(6),
        );
        let failing = status(
            &[
                ("Accepted", no, "SecretMissing"),
                ("KafkaReachable", no, "KafkaUnreachable"),
            ],
            Some(6),
        );
        assert_eq!(reasons(&healthy, &failing), ["SecretMissing", "KafkaUnreachable"]);
        assert!(reasons(&failing, &failing).is_empty());
        assert_eq!(reasons(&failing, &healthy), ["Accepted", "KafkaReachable"]);
    }

    #[test]
    fn desired_states_have_events_in_both_directions() {
        let consuming = |reason| status(&[("Consuming", Truth::False, reason)], None);
        assert_eq!(reasons(&consuming("Consuming"), &consuming("Paused")), ["Paused"]);
        assert_eq!(
            reasons(&consuming("Paused"), &consuming("Consuming")),
            ["Resumed"]
        );
        assert_eq!(reasons(&consuming("Paused"), &consuming("Stopped")), ["Stopped"]);
        assert_eq!(
            reasons(&consuming("Stopped"), &consuming("PartitionsNotOwned")),
            ["Started"]
        );
        assert_eq!(
            reasons(&consuming("Consuming"), &consuming("OffsetReset")),
            ["OffsetReset"]
        );
        assert_eq!(
            reasons(&consuming("OffsetReset"), &consuming("PartitionsNotOwned")),
            ["Started"]
        );
        let available = |reason| status(&[("WorkersAvailable", Truth::False, reason)], None);
        assert!(reasons(&available("AllWorkersReady"), &available("OffsetReset")).is_empty());
    }

    #[test]
    fn a_recreated_topic_has_an_event_and_a_topic_whose_id_becomes_known_has_none() {
        let topics = |ids: &[Option<&str>]| {
            let topic = |id: &Option<&str>| crds::status::TopicStatus {
                name: "orders".into(),
                id: id.map(String::from),
                ..Default::default()
            };
            KafkaConsumerGroupStatus {
                topics: ids.iter().map(topic).collect(),
                ..Default::default()
            }
        };
        let (unknown, first, second) = (topics(&[None]), topics(&[Some("A")]), topics(&[Some("B")]));
        assert_eq!(reasons(&first, &second), ["TopicRecreated"]);
        let in_cluster = |id: &str, status: &KafkaConsumerGroupStatus| KafkaConsumerGroupStatus {
            cluster_id: Some(id.into()),
            ..status.clone()
        };
        let (here, there) = (in_cluster("C1", &first), in_cluster("C2", &second));
        assert_eq!(reasons(&here, &there), ["KafkaClusterChanged"]);
        assert_eq!(reasons(&here, &in_cluster("C1", &second)), ["TopicRecreated"]);
        assert_eq!(reasons(&first, &there), ["TopicRecreated"]);
        for (old, new) in [
            (&unknown, &first),
            (&first, &first),
            (&topics(&[]), &first),
            (&first, &unknown),
        ] {
            assert!(reasons(old, new).is_empty());
        }
    }

    #[test]
    fn a_problem_of_the_workers_has_an_event_at_its_start_and_its_end() {
        let consuming = |truth, reason| status(&[("Consuming", truth, reason)], None);
        let healthy = consuming(Truth::True, "Consuming");
        let reasons_of_workers = [
            "RecordFailed",
            "DeadLetterBreakerOpen",
            "DeadLetterUnavailable",
            "WriterUnavailable",
            "TransformSlow",
        ];
        for reason in reasons_of_workers
            .into_iter()
            .chain(["PartitionsStalled", GROUP_SHARED])
        {
            let failing = consuming(Truth::False, reason);
            assert_eq!(reasons(&healthy, &failing), [reason]);
            assert!(reasons(&failing, &failing).is_empty());
            assert_eq!(reasons(&failing, &healthy), ["Consuming"]);
        }
    }

    #[test]
    fn many_topics_of_one_resource_make_one_event() {
        let done = |number: usize, action: ProvisionAction| Provisioned {
            topic: format!("t{number}"),
            action,
            note: None,
        };
        let mut all: Vec<Provisioned> = (0..64).map(|n| done(n, ProvisionAction::Created)).collect();
        all.push(done(64, ProvisionAction::Unchanged));
        all.push(done(65, ProvisionAction::Grown { from: 1, to: 3 }));
        let notes: Vec<String> = provisioned(&all)
            .into_iter()
            .filter_map(|event| event.note)
            .collect();
        assert_eq!(
            notes,
            [
                "64 topics created, as provision requests: t0, t1, t2, t3, t4, t5, t6, t7 and 56 more",
                "1 topic expanded, partitions: t65 from 1 to 3",
            ]
        );
        assert!(provisioned(&all[64..65]).is_empty());
    }

    #[test]
    fn records_that_retention_removed_have_one_event() {
        let skipped = |partition: i32, to_offset: i64| crds::status::SkippedByRetention {
            topic: "orders".into(),
            partition,
            from_offset: 40,
            to_offset,
            ..Default::default()
        };
        let with = |skipped: &[crds::status::SkippedByRetention]| KafkaConsumerGroupStatus {
            skipped_by_retention: skipped.to_vec(),
            ..Default::default()
        };
        let old = with(&[skipped(0, 90)]);
        let new = with(&[skipped(0, 90), skipped(1, 50), skipped(2, 41)]);
        let event = skipped_by_retention(&old, &new, 0).unwrap();
        assert_eq!(event.reason, "RecordsSkippedByRetention");
        let note = event.note.as_ref().unwrap();
        assert!(
            note.contains("read: orders-1 offsets 40 to 49, orders-2 offsets 40 to 40;"),
            "{note}"
        );
        let note = skipped_by_retention(&old, &new, 36).unwrap().note.unwrap();
        assert!(note.contains("offsets 40 to 40 and 36 more;"), "{note}");
        for (old, new) in [(&new, &new), (&new, &old)] {
            assert_eq!(skipped_by_retention(old, new, 36).map(|event| event.note), None);
        }
    }

    #[test]
    fn a_scaling_event_has_the_numbers() {
        let event = &events(&status(&[], Some(6)), &status(&[], Some(9)))[0];
        assert!(
            event.note.as_ref().unwrap().starts_with("workers: 6 -> 9"),
            "{:?}",
            event.note
        );
        assert!(reasons(&status(&[], None), &status(&[], Some(0))).is_empty());
    }
}
