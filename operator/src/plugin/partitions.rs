//! `partitions`: a row per partition, as far as the status knows it. In: a group. Out: text. What the status does not
//! know is shown as unknown, with the reason, never as 0.

use jiff::Timestamp;

use super::DONE;
use super::args::GroupArgs;
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::text::{age, number, or_unknown, table};
use super::view::GroupView;

/// Rows: whoever may write the status could write any number of partitions.
const MOST: i32 = 10_000;
/// What no status has.
const NOTE: &str = "The status has the lag of the partition with the largest lag only, and neither owners nor offsets of all partitions; the operator's dashboard and REST API have them (docs/api.md).";

pub async fn run(cluster: &Cluster, args: &GroupArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    terminal.print(&partitions(&group, Timestamp::now()))?;
    Ok(DONE)
}

/// The table, and why something is unknown.
pub fn partitions(group: &GroupView, now: Timestamp) -> String {
    let status = &group.status;
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    let others = others(group);
    for topic in &status.topics {
        let Some(count) = topic.partitions else {
            rows.push(unknown_row(&topic.name));
            notes.push(format!(
                "Topic {}: the number of partitions is unknown, because it does not exist or was not read yet.",
                topic.name
            ));
            continue;
        };
        for index in 0..count.clamp(0, MOST) {
            rows.push(row(group, &topic.name, index, &others, now));
        }
        if count > MOST {
            notes.push(format!(
                "Topic {}: only {MOST} of {count} partitions are shown.",
                topic.name
            ));
        }
    }
    if status.topics.is_empty() {
        return "The partitions are unknown: the operator has not reported the topics yet.\n".into();
    }
    let header = [
        "PARTITION",
        "STATE",
        "UNFINISHED OFFSET",
        "FOR",
        "ATTEMPTS",
        "LAG",
        "SKIPPED BY RETENTION",
    ];
    let mut text = table(&header, rows, &[2, 4, 5]);
    if let Err(why) = &others {
        notes.push(format!("State: {why}."));
    }
    notes.push(NOTE.into());
    for note in notes {
        text.push_str(&format!("\n{note}\n"));
    }
    text
}

/// The state of partitions that the status does not list as stalled; or why it is not known.
fn others(group: &GroupView) -> Result<&'static str, &'static str> {
    let status = &group.status;
    let stalled = status
        .partitions
        .as_ref()
        .and_then(|partitions| partitions.stalled);
    let listed = i32::try_from(status.stalled_partitions.len()).unwrap_or(i32::MAX);
    match stalled {
        None => Err("no worker reports, so it is unknown which partitions make no progress"),
        Some(all) if all > listed => {
            Err("more partitions are stalled than the status lists, so others may be stalled, too")
        }
        Some(_) => Ok("not stalled"),
    }
}

fn row(
    group: &GroupView,
    topic: &str,
    index: i32,
    others: &Result<&'static str, &'static str>,
    now: Timestamp,
) -> Vec<String> {
    let status = &group.status;
    let name = format!("{topic}-{index}");
    let mut stalled = status.stalled_partitions.iter();
    let stalled = stalled.find(|found| found.topic == topic && found.partition == index);
    let mut skipped = status.skipped_by_retention.iter();
    let skipped = skipped.find(|found| found.topic == topic && found.partition == index);
    let lag = match &status.lag {
        // The largest lag is 0: so is every lag.
        Some(lag) if lag.max == 0 || lag.max_partition.as_ref() == Some(&name) => Some(lag.max),
        _ => None,
    };
    let dash = || "-".to_string();
    let (state, offset, since, attempts) = match stalled {
        Some(found) => (
            format!("stalled: {}", found.reason),
            or_unknown(found.offset),
            age(found.since, now),
            found.attempts.to_string(),
        ),
        None => {
            let state = others.map_or_else(|_| "unknown".to_string(), str::to_string);
            (state, "unknown".into(), dash(), dash())
        }
    };
    let skipped = skipped.map(|range| format!("{} to {}", range.from_offset, range.to_offset - 1));
    vec![
        name,
        state,
        offset,
        since,
        attempts,
        or_unknown(lag.map(number)),
        skipped.unwrap_or_else(dash),
    ]
}

fn unknown_row(topic: &str) -> Vec<String> {
    let unknown = || "unknown".to_string();
    let dash = || "-".to_string();
    vec![
        format!("{topic}-?"),
        unknown(),
        unknown(),
        dash(),
        dash(),
        unknown(),
        dash(),
    ]
}
