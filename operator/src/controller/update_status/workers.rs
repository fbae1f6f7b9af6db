//! Entries of `status.workers`. In: the entries and which pods exist. Out: what live workers report, which
//! entries are shown, and for entries that workers write, the patch that removes those of deleted pods. Pure;
//! never changes an entry.

use std::{cmp::Reverse, collections::BTreeMap};

use crds::status::{PausedReason, SkippedByRetention, StalledPartition, WorkerStatus, WorkerTotals};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::controller::worker_reports::ReadReports;

/// The operator reads reports every 15 s, and workers that push them do so at least every minute. An entry
/// this old belongs to a worker that can no longer report.
const STALE: SignedDuration = SignedDuration::from_mins(2);
/// An entry younger than this is not removed even if its pod is missing: the caches of pods and groups are
/// not synchronized.
const YOUNG: SignedDuration = SignedDuration::from_secs(30);

/// Maximum number of stalled partitions in the status.
const MAX_STALLED: usize = 16;

/// Maximum number of ranges that retention removed.
const MAX_SKIPPED: usize = 64;

/// Maximum number of entries that the operator writes.
const MAX_SHOWN: usize = 32;

/// The entries for the status: those with the most severe problem first. An entry keeps its time while
/// nothing else in it changes, so that idle workers cause no write.
pub fn shown(entries: &[WorkerStatus], old: &[WorkerStatus]) -> Vec<WorkerStatus> {
    let mut shown: Vec<&WorkerStatus> = entries.iter().collect();
    shown.sort_by_key(|entry| (Reverse((hindrance(entry), entry.stalled > 0)), &entry.name));
    let keeping_time = |entry: &WorkerStatus| {
        let before = old.iter().find(|before| before.name == entry.name);
        let mut entry = entry.clone();
        if let Some(before) = before {
            let now = std::mem::replace(&mut entry.reported_at, before.reported_at);
            if entry != *before {
                entry.reported_at = now;
            }
        }
        entry
    };
    shown.into_iter().take(MAX_SHOWN).map(keeping_time).collect()
}

/// Totals over all workers. None if there are none.
pub fn totals(reports: &ReadReports, now: Timestamp) -> Option<WorkerTotals> {
    let fresh = fresh(&reports.entries, |_| true, now);
    if fresh.is_empty() && reports.silent.is_empty() {
        return None;
    }
    let sum = |number: fn(&WorkerStatus) -> i64| {
        fresh
            .iter()
            .fold(0_i64, |sum, entry| sum.saturating_add(number(entry)))
    };
    Some(WorkerTotals {
        reporting: i32::try_from(fresh.len()).unwrap_or(i32::MAX),
        silent: i32::try_from(reports.silent.len()).unwrap_or(i32::MAX),
        silent_reason: reports.silent.first().cloned(),
        records_total: sum(|entry| entry.records_total),
        dead_lettered_total: sum(|entry| entry.dead_lettered_total),
        skipped_total: sum(|entry| entry.skipped_total),
        in_flight: sum(|entry| entry.in_flight),
    })
}

/// The most severe problem, with the worker's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerProblem {
    pub reason: &'static str,
    pub message: String,
}

/// The most severe problem of the workers, from recent entries of existing pods only.
pub fn worker_problem(
    entries: &[WorkerStatus],
    present: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Option<WorkerProblem> {
    let fresh = fresh(entries, present, now);
    let most_severe = fresh.iter().filter_map(|entry| hindrance(entry)).max()?;
    let mut held = fresh.iter().filter(|entry| hindrance(entry) == Some(most_severe));
    let first = held.next()?;
    let more = held.count();
    let others = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    let error = first.last_error.as_deref().unwrap_or("no error reported");
    Some(WorkerProblem {
        reason: most_severe.as_str(),
        message: format!("worker {}{others}: {error}", first.name),
    })
}

/// The reason why a worker is hindered, if this operator knows it.
fn hindrance(entry: &WorkerStatus) -> Option<PausedReason> {
    PausedReason::named(entry.paused_reason.as_deref()?).filter(|reason| reason.is_problem())
}

/// The number of stalled partitions that workers report, and those that have waited longest. None if no
/// worker reports.
pub fn stalled(
    entries: &[WorkerStatus],
    present: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Option<(i32, Vec<StalledPartition>)> {
    let fresh = fresh(entries, present, now);
    if fresh.is_empty() {
        return None;
    }
    let count = fresh
        .iter()
        .fold(0_i32, |sum, entry| sum.saturating_add(entry.stalled));
    let mut shown: Vec<StalledPartition> = fresh
        .iter()
        .flat_map(|entry| entry.stalled_partitions.iter().cloned())
        .collect();
    shown.sort_by(StalledPartition::oldest_first);
    shown.truncate(MAX_STALLED);
    Some((count, shown))
}

/// What retention removed unread: the last range of each partition of these topics, from the status and from
/// the workers; the latest first. Stays in the status when the worker is gone. And how many new ranges there
/// are for which the list has no place.
pub fn skipped_by_retention(
    reported: &[&SkippedByRetention],
    old: &[SkippedByRetention],
    topic: impl Fn(&str) -> bool,
) -> (Vec<SkippedByRetention>, usize) {
    let reported = reported.iter().copied();
    let mut last: BTreeMap<(&str, i32), &SkippedByRetention> = BTreeMap::new();
    for skipped in old.iter().chain(reported).filter(|skipped| topic(&skipped.topic)) {
        let shown = last.entry((&skipped.topic, skipped.partition)).or_insert(skipped);
        if is_later(skipped, shown) {
            *shown = skipped;
        }
    }
    let mut skipped: Vec<&SkippedByRetention> = last.into_values().collect();
    skipped.sort_by(|a, b| a.latest_first(b));
    let rest = skipped.split_off(MAX_SKIPPED.min(skipped.len()));
    // What is older than a full list was left out before.
    let left_out = old.get(MAX_SKIPPED - 1).map(|oldest| oldest.time);
    let is_new = |skipped: &&&SkippedByRetention| {
        left_out.is_none_or(|time| skipped.time > time) && !old.contains(skipped)
    };
    let unlisted = rest.iter().filter(is_new).count();
    (skipped.into_iter().cloned().collect(), unlisted)
}

/// Whether a range of the same partition replaces the known one. A worker that has nothing to commit finds the
/// same range again, at another time. The first offset that is left only grows, and clocks differ.
fn is_later(range: &SkippedByRetention, known: &SkippedByRetention) -> bool {
    (range.from_offset, range.to_offset) != (known.from_offset, known.to_offset)
        && (range.to_offset, range.time) > (known.to_offset, known.time)
}

/// Recent entries of existing pods.
fn fresh(entries: &[WorkerStatus], present: impl Fn(&str) -> bool, now: Timestamp) -> Vec<&WorkerStatus> {
    let young = |entry: &&WorkerStatus| {
        entry
            .reported_at
            .is_some_and(|at| now.duration_since(at) <= STALE)
    };
    entries
        .iter()
        .filter(young)
        .filter(|entry| present(&entry.name))
        .collect()
}

/// Names of entries whose pod seems to be deleted.
pub fn deleted(entries: &[WorkerStatus], present: impl Fn(&str) -> bool, now: Timestamp) -> Vec<String> {
    entries
        .iter()
        .filter(|entry| !present(&entry.name))
        .filter(|entry| entry.reported_at.is_none_or(|at| now.duration_since(at) > YOUNG))
        .map(|entry| entry.name.clone())
        .collect()
}

/// A JSON patch that removes entries, each guarded by a test of its name: the list may have changed
/// meanwhile.
pub fn removal(entries: &[WorkerStatus], deleted: &[String]) -> Value {
    let last_first = entries.iter().enumerate().rev();
    let operations = last_first
        .filter(|(_, entry)| deleted.contains(&entry.name))
        .flat_map(|(index, entry)| {
            [
                json!({"op": "test", "path": format!("/status/workers/{index}/name"), "value": entry.name}),
                json!({"op": "remove", "path": format!("/status/workers/{index}")}),
            ]
        });
    Value::Array(operations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn entry(name: &str, reason: Option<&str>, seconds_ago: i64) -> WorkerStatus {
        WorkerStatus {
            name: name.into(),
            paused_reason: reason.map(String::from),
            last_error: Some("connection refused".into()),
            reported_at: Some(now() - SignedDuration::from_secs(seconds_ago)),
            ..Default::default()
        }
    }

    #[test]
    fn the_most_severe_problem_is_reported_with_the_workers_error() {
        let entries = [
            entry("a", Some("WriterUnavailable"), 5),
            entry("b", Some("RecordFailed"), 5),
            entry("c", Some("RecordFailed"), 5),
            entry("d", None, 5),
            entry("e", Some("DeadLetterBreakerOpen"), 5),
        ];
        let worker_problem = worker_problem(&entries, |_| true, now()).unwrap();
        assert_eq!(worker_problem.reason, "RecordFailed");
        assert_eq!(worker_problem.message, "worker b and 1 more: connection refused");
    }

    #[test]
    fn a_slow_transform_or_many_unfinished_records_do_not_hide_a_reason_that_needs_action() {
        let reported = |reasons: [&str; 2]| {
            let entries = reasons.map(|reason| entry(reason, Some(reason), 5));
            worker_problem(&entries, |_| true, now()).map(|worker_problem| worker_problem.message)
        };
        for other in ["OldestUnfinished", "TransformSlow", "Unheard"] {
            let expected = Some("worker RecordFailed: connection refused".to_owned());
            assert_eq!(reported([other, "RecordFailed"]), expected);
            assert_eq!(reported(["RecordFailed", other]), expected);
        }
        assert_eq!(
            reported(["TransformSlow", "WriterUnavailable"]).as_deref(),
            Some("worker WriterUnavailable: connection refused")
        );
        assert_eq!(reported(["OldestUnfinished", "Unheard"]), None);
    }

    #[test]
    fn stale_entries_entries_without_a_pod_and_requested_pauses_are_no_problem() {
        assert_eq!(
            worker_problem(&[entry("a", Some("WriterUnavailable"), 121)], |_| true, now()),
            None
        );
        assert_eq!(
            worker_problem(&[entry("a", Some("WriterUnavailable"), 5)], |_| false, now()),
            None
        );
        assert_eq!(
            worker_problem(&[entry("a", Some("Paused"), 5)], |_| true, now()),
            None
        );
    }

    #[test]
    fn stalled_partitions_of_live_workers_are_added_up_and_the_oldest_shown() {
        let stalled_at =
            |name: &str, count: i32, seconds_ago: i64, numbers: std::ops::Range<i32>| WorkerStatus {
                stalled: count,
                stalled_partitions: numbers
                    .map(|partition| StalledPartition {
                        topic: "orders".into(),
                        partition,
                        since: now() - SignedDuration::from_secs(partition.into()),
                        last_error: Some(format!("error {partition}")),
                        ..Default::default()
                    })
                    .collect(),
                ..entry(name, None, seconds_ago)
            };
        let entries = [
            stalled_at("a", 12, 5, 0..8),
            stalled_at("b", 10, 5, 10..20),
            stalled_at("old", 5, 121, 30..35),
            stalled_at("gone", 5, 5, 40..45),
        ];
        let (count, shown) = stalled(&entries, |name| name != "gone", now()).unwrap();
        assert_eq!(count, 22);
        assert_eq!(shown[0].last_error.as_deref(), Some("error 19"));
        let shown: Vec<i32> = shown.iter().map(|shown| shown.partition).collect();
        assert_eq!(shown, [19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 7, 6, 5, 4, 3, 2]);
        assert_eq!(stalled(&entries, |_| false, now()), None);
        assert_eq!(
            stalled(&[entry("a", None, 5)], |_| true, now()),
            Some((0, Vec::new()))
        );
    }

    #[test]
    fn the_last_range_of_each_partition_that_retention_removed_stays() {
        let skipped = |topic: &str, partition: i32, to_offset: i64, seconds_ago: i64| SkippedByRetention {
            topic: topic.into(),
            partition,
            from_offset: 3,
            to_offset,
            time: now() - SignedDuration::from_secs(seconds_ago),
        };
        let old = [
            skipped("a", 0, 9, 100),
            skipped("a", 1, 9, 90),
            skipped("gone", 0, 9, 80),
        ];
        let merged = |reported: &[SkippedByRetention], old: &[SkippedByRetention]| {
            let reported: Vec<&SkippedByRetention> = reported.iter().collect();
            skipped_by_retention(&reported, old, |topic| topic != "gone")
        };
        let reported = [
            skipped("a", 0, 20, 7),
            skipped("b", 2, 5, 6),
            skipped("a", 1, 8, 3),
        ];
        let (shown, _) = merged(&reported, &old);
        assert_eq!(
            shown,
            [
                skipped("b", 2, 5, 6),
                skipped("a", 0, 20, 7),
                skipped("a", 1, 9, 90)
            ],
            "the clock of the worker that has reported a lower offset is ahead"
        );
        assert_eq!(merged(&[], &shown).0, shown, "workers are gone");
        let again = [skipped("a", 0, 20, 1), skipped("b", 2, 5, 0)];
        assert_eq!(merged(&again, &shown).0, shown, "workers have started again");
        let behind = [skipped("a", 0, 30, 50)];
        let (later, _) = merged(&behind, &shown);
        assert_eq!(
            later[1],
            skipped("a", 0, 30, 50),
            "the clock of the worker is behind"
        );
    }

    #[test]
    fn new_ranges_without_a_place_are_counted_once() {
        let skipped = |partition: i32, seconds_ago: i64| SkippedByRetention {
            topic: "a".into(),
            partition,
            from_offset: 3,
            to_offset: 9,
            time: now() - SignedDuration::from_secs(seconds_ago),
        };
        let reported: Vec<SkippedByRetention> = (0..100).map(|n| skipped(n, i64::from(n) + 10)).collect();
        let reported: Vec<&SkippedByRetention> = reported.iter().collect();
        let (shown, unlisted) = skipped_by_retention(&reported, &[], |_| true);
        assert_eq!((shown.len(), unlisted), (64, 36));
        assert_eq!(
            skipped_by_retention(&reported, &shown, |_| true),
            (shown.clone(), 0)
        );
        let one_more = skipped(200, 1);
        let more: Vec<&SkippedByRetention> = reported.iter().copied().chain([&one_more]).collect();
        let (later, unlisted) = skipped_by_retention(&more, &shown, |_| true);
        assert_eq!((&later[0], later.len(), unlisted), (&one_more, 64, 0));
    }

    #[test]
    fn a_thousand_workers_show_the_32_most_severe_and_totals_of_all() {
        let mut entries: Vec<_> = (0..1000).map(|n| entry(&format!("w-{n:04}"), None, 5)).collect();
        for one in &mut entries {
            one.records_total = 10;
        }
        entries[700].stalled = 1;
        entries[900].paused_reason = Some("RecordFailed".into());
        entries[800].paused_reason = Some("WriterUnavailable".into());
        entries[999].reported_at = Some(now() - SignedDuration::from_secs(121));
        let names: Vec<String> = shown(&entries, &[]).into_iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), 32);
        assert_eq!(names[..4], ["w-0900", "w-0800", "w-0700", "w-0000"]);
        let reports = ReadReports {
            complete: true,
            entries,
            skipped: Vec::new(),
            silent: vec!["pod w-0999: no answer".into(), "pod x: no".into()],
        };
        let totals = totals(&reports, now()).unwrap();
        assert_eq!(
            (totals.reporting, totals.silent, totals.records_total),
            (999, 2, 9990)
        );
        assert_eq!(totals.silent_reason.as_deref(), Some("pod w-0999: no answer"));
        assert_eq!(super::totals(&ReadReports::default(), now()), None);
    }

    #[test]
    fn an_entry_keeps_its_time_while_nothing_else_changes() {
        let old = [entry("a", None, 60), entry("b", None, 60)];
        let mut read = [entry("a", None, 5), entry("b", None, 5), entry("c", None, 5)];
        read[1].records_total = 1;
        let shown = shown(&read, &old);
        assert_eq!(shown[0], old[0]);
        assert_eq!(shown[1..], read[1..]);
    }

    #[test]
    fn entries_of_missing_pods_are_removed_from_the_end_with_a_test() {
        let entries = [
            entry("a", None, 60),
            entry("b", None, 60),
            entry("c", None, 5),
            entry("d", None, 60),
        ];
        let deleted = deleted(&entries, |name| name == "d", now());
        assert_eq!(deleted, ["a", "b"]);
        let patch = removal(&entries, &deleted);
        let paths: Vec<_> = patch
            .as_array()
            .unwrap()
            .iter()
            .map(|op| op["path"].as_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "/status/workers/1/name",
                "/status/workers/1",
                "/status/workers/0/name",
                "/status/workers/0"
            ]
        );
    }
}
