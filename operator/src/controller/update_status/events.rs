//! Kubernetes Events of a group. In: the status before and after. Out: one Event per transition. Pure;
//! because it compares stored statuses, a restarted operator does not repeat Events.

use crds::KafkaConsumerGroupStatus;
use crds::status::{PausedReason, condition};
use kube::runtime::events::{Event, EventType};

use super::conditions::{find, reason};
use crate::digest::hash;
use crate::kafka::model::{ProvisionAction, Provisioned};

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
            ("False", _) | (_, "CredentialsInClear") => events.push(warning(&now.reason, &now.message)),
            _ if find(&old.conditions, condition::ACCEPTED).is_some_and(|old| old.status == "False") => {
                events.push(normal("Accepted", &now.message));
            }
            _ => {}
        }
    }
    if let Some(now) = changed(condition::KAFKA_REACHABLE) {
        match now.status.as_str() {
            "False" => events.push(warning(&now.reason, &now.message)),
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
            "Progressing" | "NotCreated" | "Stopping" | "NoWorkers"
        )
    {
        events.push(warning(&now.reason, &now.message));
    }
    if let Some(now) = changed(condition::CONSUMING) {
        let before = was(condition::CONSUMING);
        match (before.as_str(), now.reason.as_str()) {
            (_, "Paused" | "Stopped") => events.push(normal(&now.reason, &now.message)),
            (_, reason) if is_hindered(reason) => {
                events.push(warning(&now.reason, &now.message));
            }
            _ => {}
        }
        match (before.as_str(), now.reason.as_str()) {
            ("Paused", reason) if !matches!(reason, "Paused" | "Stopped") => {
                events.push(normal("Resumed", "desiredState is no longer Paused"));
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
    events.extend(recreated(old, new));
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

/// Reasons of condition Consuming that deserve an Event at once.
fn is_hindered(reason: &str) -> bool {
    reason == "PartitionsStalled" || PausedReason::named(reason).is_some_and(PausedReason::is_problem)
}

/// Events about changed topics.
pub fn provisioned(done: &[Provisioned]) -> Vec<Event> {
    let events = done.iter().filter_map(|done| match done.action {
        ProvisionAction::Created => Some(normal(
            "TopicCreated",
            &format!("topic {} was created, as provision requests", done.topic),
        )),
        ProvisionAction::Grown { from, to } => Some(normal(
            "TopicGrown",
            &format!("topic {} was expanded from {from} to {to} partitions", done.topic),
        )),
        ProvisionAction::Unchanged => None,
    });
    events.collect()
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
        for reason in reasons_of_workers.into_iter().chain(["PartitionsStalled"]) {
            let failing = consuming(Truth::False, reason);
            assert_eq!(reasons(&healthy, &failing), [reason]);
            assert!(reasons(&failing, &failing).is_empty());
            assert_eq!(reasons(&failing, &healthy), ["Consuming"]);
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
