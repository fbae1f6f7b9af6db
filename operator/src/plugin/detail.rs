//! One group on one screen: whether it is well, and if not, why and what to do. In: the group, its resets and
//! Events. Out: text. Pure. What is not known is shown as unknown, never as 0.

pub mod found;
mod lists;

use crds::status::condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::found::Beside;
use self::lists::{events, resets, skipped, stalled, workers};
use super::advice;
use super::text::{age, indented, number, or_unknown, table};
use super::view::GroupView;

/// The screen. `wide` adds every condition and every worker.
pub fn detail(group: &GroupView, beside: &Beside, wide: bool, now: Timestamp) -> String {
    let mut text = head(group, now);
    text.push_str(&problems(group, now));
    if wide {
        text.push_str(&section("Conditions", &conditions(group, now)));
    }
    text.push_str(&numbers(group, now));
    text.push_str(&section("Workers", &workers(group, wide)));
    text.push_str(&section("Stalled partitions", &stalled(group, now)));
    text.push_str(&section("Skipped by retention", &skipped(group, now)));
    text.push_str(&section("Offset resets", &resets(&beside.resets, now)));
    text.push_str(&section("Events", &events(&beside.events, now)));
    text
}

fn section(title: &str, body: &str) -> String {
    match body.is_empty() {
        true => String::new(),
        false => format!("\n{title}\n{body}"),
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<12}{value}\n")
}

/// What it is, and whether it is well.
fn head(group: &GroupView, now: Timestamp) -> String {
    let status = &group.status;
    let unknown = || "unknown".to_string();
    let mut text = line("Group", &format!("{}/{}", group.key.namespace, group.key.name));
    let id = status.group_id.clone().unwrap_or_else(unknown);
    let cluster = status.cluster_id.clone().unwrap_or_else(unknown);
    text.push_str(&line("Kafka", &format!("consumer group {id}, cluster {cluster}")));
    let state = status.group_state.clone().unwrap_or_else(unknown);
    let desired = group.desired_state();
    text.push_str(&line(
        "State",
        &format!("{desired} is requested, the brokers say {state}"),
    ));
    match group.condition(condition::READY) {
        Some(ready) => {
            let since = age(ready.last_transition_time.0, now);
            let ready_line = format!("{} for {since}, {}", ready.status, ready.reason);
            text.push_str(&line("Ready", &ready_line));
            text.push_str(&indented(&ready.message, 12));
            if let Some(what) = advice::text(&ready.reason) {
                text.push_str(&indented(&format!("what to do: {what}"), 12));
            }
        }
        None => {
            text.push_str(&line(
                "Ready",
                "Unknown, the operator has not reported anything yet",
            ));
            if let Some(what) = advice::text("NotReported") {
                text.push_str(&indented(&format!("what to do: {what}"), 12));
            }
        }
    }
    if !group.is_observed() && status.observed_generation.is_some() {
        let generation = group.resource["metadata"]["generation"].as_i64();
        let late = format!(
            "the status describes generation {} of the spec, which is at {}; the operator has not seen the last change yet",
            or_unknown(status.observed_generation),
            or_unknown(generation)
        );
        text.push_str(&indented(&late, 12));
    }
    text
}

/// Conditions that need attention, with what to do. One that repeats another is named with it.
fn problems(group: &GroupView, now: Timestamp) -> String {
    let ready = group.condition(condition::READY);
    let mut shown: Vec<(Vec<&str>, &Condition)> = Vec::new();
    for found in &group.status.conditions {
        if found.type_ == condition::READY || !needs_attention(found, group.is_well()) {
            continue;
        }
        let same = |other: &Condition| {
            (&other.status, &other.reason, &other.message) == (&found.status, &found.reason, &found.message)
        };
        match shown.iter_mut().find(|(_, other)| same(other)) {
            Some((kinds, _)) => kinds.push(&found.type_),
            None => shown.push((vec![&found.type_], found)),
        }
    }
    let mut text = String::new();
    for (kinds, found) in shown {
        let since = age(found.last_transition_time.0, now);
        let kinds = kinds.join(", ");
        text.push_str(&format!(
            "  {kinds}: {} for {since}, {}\n",
            found.status, found.reason
        ));
        // The screen begins with it.
        let is_ready = |ready: &Condition| ready.reason == found.reason && ready.message == found.message;
        if ready.is_some_and(is_ready) {
            continue;
        }
        text.push_str(&indented(&found.message, 4));
        if let Some(what) = advice::text(&found.reason) {
            text.push_str(&indented(&format!("what to do: {what}"), 4));
        }
    }
    section("Needs attention", &text)
}

fn needs_attention(found: &Condition, well: bool) -> bool {
    let fine = advice::advice(&found.reason) == advice::Advice::Fine;
    match (&*found.type_, &*found.status) {
        (condition::STALLED | condition::SCALING_LIMITED | condition::RECONCILING, status) => {
            status == "True"
        }
        // A warning.
        (condition::ACCEPTED | condition::KAFKA_REACHABLE, "True") => !fine,
        (_, "True") => false,
        // As requested: a paused group consumes nothing.
        _ => !(well && fine),
    }
}

fn conditions(group: &GroupView, now: Timestamp) -> String {
    let rows = group.status.conditions.iter().map(|found| {
        vec![
            found.type_.clone(),
            found.status.clone(),
            found.reason.clone(),
            age(found.last_transition_time.0, now),
            found.message.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&["TYPE", "STATUS", "REASON", "FOR", "MESSAGE"], rows, &[]),
    }
}

/// Topics, partitions and lag.
fn numbers(group: &GroupView, now: Timestamp) -> String {
    let status = &group.status;
    let mut text = String::from("\n");
    let topics: Vec<String> = status
        .topics
        .iter()
        .map(|topic| match topic.partitions {
            Some(1) => format!("{} (1 partition)", topic.name),
            Some(count) => format!("{} ({count} partitions)", topic.name),
            None => format!(
                "{} (partitions unknown: it does not exist, or was not read yet)",
                topic.name
            ),
        })
        .collect();
    let topics = match topics.is_empty() {
        true => "unknown".into(),
        false => topics.join(", "),
    };
    text.push_str(&line("Topics", &topics));
    let partitions = match &status.partitions {
        Some(partitions) => format!(
            "{}, assigned: {}, stalled: {}",
            partitions.total,
            or_unknown(partitions.assigned),
            or_unknown(partitions.stalled)
        ),
        None => "unknown".into(),
    };
    text.push_str(&line("Partitions", &partitions));
    let lag = match &status.lag {
        Some(lag) => {
            let most = match &lag.max_partition {
                Some(partition) => format!(", at most {} in {partition}", number(lag.max)),
                None => String::new(),
            };
            format!(
                "{}{most}, as of {} ago, written again when it changes",
                number(lag.total),
                age(lag.as_of, now)
            )
        }
        None => {
            let why = group.condition(condition::LAG_KNOWN);
            let why = why
                .map(|known| format!(": {}", known.message))
                .unwrap_or_default();
            format!("unknown{why}")
        }
    };
    text.push_str(&line("Lag", &lag));
    text
}
