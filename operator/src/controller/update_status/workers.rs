//! The workers' own entries in `status.workers`. In: the entries and which pods exist. Out: what living workers complain
//! of, and the patch that removes entries of the dead. Pure; never changes an entry.

use crds::status::{PausedReason, StalledPartition, WorkerStatus};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Workers report at least every minute while something changes and keep quiet otherwise; an entry that tells of a
/// problem is repeated, so one this old is of a worker that cannot report any more.
const STALE: SignedDuration = SignedDuration::from_mins(2);
/// An entry younger than this is not removed even if its pod is not seen: caches of pods and groups are not in step.
const YOUNG: SignedDuration = SignedDuration::from_secs(30);

/// Most stalled partitions that are shown.
const MAX_STALLED: usize = 16;

/// The gravest complaint, with the words of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub reason: &'static str,
    pub message: String,
}

/// What workers complain of, from fresh entries of existing pods only.
pub fn complaint(
    entries: &[WorkerStatus],
    present: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Option<Complaint> {
    let fresh = fresh(entries, present, now);
    let gravest = fresh.iter().filter_map(|entry| hindrance(entry)).max()?;
    let mut held = fresh.iter().filter(|entry| hindrance(entry) == Some(gravest));
    let first = held.next()?;
    let more = held.count();
    let others = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    let words = first.last_error.as_deref().unwrap_or("no error told");
    Some(Complaint {
        reason: gravest.as_str(),
        message: format!("worker {}{others}: {words}", first.name),
    })
}

/// What is wrong with a worker, if it is a reason that this operator knows.
fn hindrance(entry: &WorkerStatus) -> Option<PausedReason> {
    PausedReason::named(entry.paused_reason.as_deref()?).filter(|reason| reason.hinders())
}

/// How many partitions are stalled, as workers tell, and those that have waited longest. None when no worker tells anything.
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
    shown.sort_by(|a, b| (a.since, &a.topic, a.partition).cmp(&(b.since, &b.topic, b.partition)));
    shown.truncate(MAX_STALLED);
    Some((count, shown))
}

/// Entries of existing pods that are not too old to be true.
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

/// Names of entries whose pod seems to be gone.
pub fn gone(entries: &[WorkerStatus], present: impl Fn(&str) -> bool, now: Timestamp) -> Vec<String> {
    entries
        .iter()
        .filter(|entry| !present(&entry.name))
        .filter(|entry| entry.reported_at.is_none_or(|at| now.duration_since(at) > YOUNG))
        .map(|entry| entry.name.clone())
        .collect()
}

/// A JSON patch that removes entries, each guarded by a test of its name: the list may have moved meanwhile.
pub fn removal(entries: &[WorkerStatus], gone: &[String]) -> Value {
    let last_first = entries.iter().enumerate().rev();
    let operations = last_first
        .filter(|(_, entry)| gone.contains(&entry.name))
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
    fn the_gravest_complaint_is_told_with_the_workers_words() {
        let entries = [
            entry("a", Some("WriterUnavailable"), 5),
            entry("b", Some("RecordFailed"), 5),
            entry("c", Some("RecordFailed"), 5),
            entry("d", None, 5),
            entry("e", Some("DeadLetterBreakerOpen"), 5),
        ];
        let complaint = complaint(&entries, |_| true, now()).unwrap();
        assert_eq!(complaint.reason, "RecordFailed");
        assert_eq!(complaint.message, "worker b and 1 more: connection refused");
    }

    #[test]
    fn a_slow_transform_or_records_far_ahead_do_not_hide_what_needs_a_human() {
        let told = |reasons: [&str; 2]| {
            let entries = reasons.map(|reason| entry(reason, Some(reason), 5));
            complaint(&entries, |_| true, now()).map(|complaint| complaint.message)
        };
        for other in ["OldestUnfinished", "TransformSlow", "Unheard"] {
            let expected = Some("worker RecordFailed: connection refused".to_owned());
            assert_eq!(told([other, "RecordFailed"]), expected);
            assert_eq!(told(["RecordFailed", other]), expected);
        }
        assert_eq!(
            told(["TransformSlow", "WriterUnavailable"]).as_deref(),
            Some("worker WriterUnavailable: connection refused")
        );
        assert_eq!(told(["OldestUnfinished", "Unheard"]), None);
    }

    #[test]
    fn stale_entries_entries_without_pod_and_pauses_on_request_do_not_complain() {
        assert_eq!(
            complaint(&[entry("a", Some("WriterUnavailable"), 121)], |_| true, now()),
            None
        );
        assert_eq!(
            complaint(&[entry("a", Some("WriterUnavailable"), 5)], |_| false, now()),
            None
        );
        assert_eq!(complaint(&[entry("a", Some("Paused"), 5)], |_| true, now()), None);
    }

    #[test]
    fn stalled_partitions_of_living_workers_are_added_up_and_the_oldest_shown() {
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
    fn entries_of_missing_pods_are_removed_from_the_end_with_a_test() {
        let entries = [
            entry("a", None, 60),
            entry("b", None, 60),
            entry("c", None, 5),
            entry("d", None, 60),
        ];
        let gone = gone(&entries, |name| name == "d", now());
        assert_eq!(gone, ["a", "b"]);
        let patch = removal(&entries, &gone);
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
