//! All groups as a table. In: groups. Out: text. Pure.

use crds::status::condition::READY;
use jiff::Timestamp;

use super::text::{age, number, or_unknown, table};
use super::view::GroupView;

/// One row per group; `wide` adds columns, `namespaces` the namespace.
pub fn overview(groups: &[GroupView], namespaces: bool, wide: bool, now: Timestamp) -> String {
    let mut header = vec!["NAME", "READY", "REASON", "WORKERS", "LAG", "AGE"];
    let mut numbers = vec![3, 4];
    if wide {
        header.extend(["STATE", "PARTITIONS", "STALLED", "CONSUMER GROUP", "MESSAGE"]);
        numbers.extend([7, 8]);
    }
    if namespaces {
        header.insert(0, "NAMESPACE");
        numbers.iter_mut().for_each(|column| *column += 1);
    }
    let rows = groups.iter().map(|group| {
        let mut row = row(group, now);
        if wide {
            row.extend(more(group));
        }
        if namespaces {
            row.insert(0, group.key.namespace.clone());
        }
        row
    });
    table(&header, rows.collect(), &numbers)
}

fn row(group: &GroupView, now: Timestamp) -> Vec<String> {
    let status = &group.status;
    let ready = group.condition(READY);
    let (status_text, reason) = match ready {
        Some(ready) if group.is_observed() => (ready.status.clone(), ready.reason.clone()),
        // What the status says is about an earlier spec.
        Some(ready) => (format!("{}?", ready.status), ready.reason.clone()),
        None => ("Unknown".into(), "NotReported".into()),
    };
    vec![
        group.key.name.clone(),
        status_text,
        reason,
        format!(
            "{}/{}",
            or_unknown(status.ready_replicas),
            or_unknown(status.replicas)
        ),
        or_unknown(status.lag.as_ref().map(|lag| number(lag.total))),
        or_unknown(group.created().map(|created| age(created, now))),
    ]
}

fn more(group: &GroupView) -> Vec<String> {
    let status = &group.status;
    let partitions = status.partitions.as_ref();
    let message = group.condition(READY).map(|ready| ready.message.clone());
    vec![
        status.group_state.clone().unwrap_or_else(|| "unknown".into()),
        or_unknown(partitions.map(|partitions| partitions.total)),
        or_unknown(partitions.and_then(|partitions| partitions.stalled)),
        status.group_id.clone().unwrap_or_else(|| "unknown".into()),
        message.unwrap_or_default(),
    ]
}
