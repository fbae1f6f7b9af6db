//! The lists of the screen of a group: workers, partitions, resets, Events. In: the group, and what was found beside
//! it. Out: text; empty if there is nothing to list. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::found::Found;
use crate::plugin::advice;
use crate::plugin::text::{age, indented, number, or_unknown, table};
use crate::plugin::view::GroupView;

/// Events that are shown, the latest.
const EVENTS: usize = 8;

/// How many there are, and those with problems; `wide`: all that the status lists.
pub fn workers(group: &GroupView, wide: bool) -> String {
    let status = &group.status;
    let mut text = format!(
        "  {} ready and {} up to date, of {}\n",
        or_unknown(status.ready_replicas),
        or_unknown(status.updated_replicas),
        or_unknown(status.replicas)
    );
    if let Some(totals) = &status.worker_totals {
        text.push_str(&format!(
            "  finished {}, dead-lettered {}, skipped {}, in flight {}\n",
            number(totals.records_total),
            number(totals.dead_lettered_total),
            number(totals.skipped_total),
            number(totals.in_flight)
        ));
        if totals.silent > 0 {
            let why = totals
                .silent_reason
                .clone()
                .unwrap_or_else(|| "reason unknown".into());
            text.push_str(&indented(
                &format!("{} do not answer the operator: {why}", totals.silent),
                2,
            ));
        }
    }
    let scaling = status.scaling.as_ref().and_then(|scaling| scaling.reason.clone());
    if let Some(reason) = scaling {
        text.push_str(&indented(&reason, 2));
    }
    let has_problem = |reason: &Option<String>| {
        let reason = reason.as_deref();
        reason.is_some_and(|reason| advice::advice(reason) != advice::Advice::Fine)
    };
    let listed = status.workers.iter();
    let listed = listed.filter(|worker| wide || has_problem(&worker.paused_reason) || worker.stalled > 0);
    let rows = listed.map(|worker| {
        vec![
            worker.name.clone(),
            worker.assigned.to_string(),
            or_unknown(worker.lag.map(number)),
            number(worker.in_flight),
            worker.stalled.to_string(),
            worker.paused_reason.clone().unwrap_or_else(|| "-".into()),
            worker.last_error.clone().unwrap_or_default(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        let header = [
            "NAME",
            "ASSIGNED",
            "LAG",
            "IN FLIGHT",
            "STALLED",
            "PAUSED BY",
            "LAST ERROR",
        ];
        text.push_str(&table(&header, rows, &[1, 2, 3, 4]));
    }
    text
}

pub fn stalled(group: &GroupView, now: Timestamp) -> String {
    let mut text = String::new();
    for partition in &group.status.stalled_partitions {
        text.push_str(&format!(
            "  {}-{} at offset {}: {}, {}, {} attempts\n",
            partition.topic,
            partition.partition,
            or_unknown(partition.offset),
            partition.reason,
            age(partition.since, now),
            partition.attempts
        ));
        if let Some(error) = &partition.last_error {
            text.push_str(&indented(error, 4));
        }
    }
    let all = group
        .status
        .partitions
        .as_ref()
        .and_then(|partitions| partitions.stalled);
    let listed = group.status.stalled_partitions.len();
    let more = all
        .and_then(|all| usize::try_from(all).ok())
        .map_or(0, |all| all.saturating_sub(listed));
    if more > 0 {
        text.push_str(&format!("  and {more} more, which the status does not list\n"));
    }
    text
}

pub fn skipped(group: &GroupView, now: Timestamp) -> String {
    let ranges = group.status.skipped_by_retention.iter().map(|range| {
        format!(
            "  {}-{}: offsets {} to {} were removed before they were read, {} ago\n",
            range.topic,
            range.partition,
            range.from_offset,
            range.to_offset - 1,
            age(range.time, now)
        )
    });
    ranges.collect()
}

/// Resets that have not ended.
pub fn resets(found: &Found, now: Timestamp) -> String {
    let items = match found {
        Found::Items(items) => items,
        Found::Unreadable(why) => return indented(&format!("unknown: {why}"), 2),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let running = items.iter().filter(|reset| {
        let phase = reset["status"]["phase"].as_str();
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let rows = running.map(|reset| {
        let created = reset["metadata"]["creationTimestamp"].as_str();
        let created: Option<Timestamp> = created.and_then(|time| time.parse().ok());
        vec![
            text(&reset["metadata"]["name"]),
            text(&reset["spec"]["to"]["type"]),
            (reset["spec"]["dryRun"] == true).to_string(),
            reset["status"]["phase"].as_str().unwrap_or("unknown").into(),
            or_unknown(created.map(|created| age(created, now))),
            text(&reset["status"]["message"]),
        ]
    });
    let rows: Vec<_> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&["NAME", "TO", "DRY RUN", "PHASE", "AGE", "MESSAGE"], rows, &[]),
    }
}

/// The latest Events, the latest last.
pub fn events(found: &Found, now: Timestamp) -> String {
    let items = match found {
        Found::Items(items) => items,
        Found::Unreadable(why) => return indented(&format!("unknown: {why}"), 2),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut events: Vec<(Option<Timestamp>, &Value)> =
        items.iter().map(|event| (time_of(event), event)).collect();
    events.sort_by_key(|(time, _)| *time);
    let first = events.len().saturating_sub(EVENTS);
    let rows = events[first..].iter().map(|(time, event)| {
        vec![
            or_unknown(time.map(|time| age(time, now))),
            text(&event["type"]),
            text(&event["reason"]),
            text(&event["message"]),
        ]
    });
    let rows: Vec<_> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&["AGE", "TYPE", "REASON", "MESSAGE"], rows, &[]),
    }
}

/// The last time of an Event, whatever client wrote it.
fn time_of(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let mut times = times.into_iter().filter_map(|time| time.as_str()?.parse().ok());
    times.next()
}
