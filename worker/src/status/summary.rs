//! Makes the entry in `status.workers` from a [`Snapshot`]. Pure.

use crds::status::{SkippedByRetention, StalledPartition, WorkerStatus};
use jiff::Timestamp;

use crate::health::{
    problems::cut,
    snapshot::{OldestRecord, PartitionSnapshot, PausedReason, Snapshot},
};

const MAX_ERROR_CHARS: usize = 1024;
/// Maximum number of stalled partitions in the entry. With 256 workers that all have this many, and errors of
/// full length, status is about 1 MB: below the 1.5 MB that the API server stores in one object.
const MAX_STALLED: usize = 8;
/// Maximum number of ranges that retention removed.
const MAX_SKIPPED: usize = 8;
/// Maximum length of the error of a stalled partition in bytes, for the same reason. The worker shows the
/// full error at `/status`.
const MAX_STALLED_ERROR: usize = 200;

/// The entry of this worker in the resource's status. Sending it sets the time of the report.
pub fn summarize(snapshot: &Snapshot) -> WorkerStatus {
    let partitions = &snapshot.partitions;
    let oldest = partitions
        .iter()
        .filter_map(|partition| partition.oldest.as_ref().map(|oldest| (partition, oldest)))
        .min_by_key(|(_, oldest)| oldest.since);
    let stalled = stalled(partitions);
    let requested_pause = snapshot.paused.then_some(PausedReason::Paused);
    WorkerStatus {
        name: snapshot.worker.clone(),
        assigned: clamp(partitions.len() as u64) as i32,
        records_total: clamp(snapshot.records_total),
        dead_lettered_total: clamp(snapshot.dead_lettered_total),
        skipped_total: clamp(snapshot.skipped_total),
        // One unknown lag makes the sum unknown.
        lag: partitions.iter().map(|partition| partition.lag).sum(),
        in_flight: clamp(partitions.iter().map(|partition| partition.in_flight).sum()),
        stalled: clamp(stalled.len() as u64) as i32,
        stalled_partitions: stalled.into_iter().take(MAX_STALLED).collect(),
        skipped_by_retention: skipped_by_retention(partitions),
        oldest_in_flight: oldest.map(|(partition, oldest)| {
            let since = whole_seconds(oldest.since);
            format!(
                "{}-{}@{} since {since}",
                partition.topic, partition.partition, oldest.offset
            )
        }),
        paused_reason: partitions
            .iter()
            .filter_map(|partition| partition.paused_reason)
            .max()
            .max(requested_pause)
            .map(|reason| reason.as_str().into()),
        last_error: snapshot
            .last_error
            .as_ref()
            .map(|error| error.chars().take(MAX_ERROR_CHARS).collect()),
        reported_at: None,
    }
}

/// What retention removed unread; the latest first.
fn skipped_by_retention(partitions: &[PartitionSnapshot]) -> Vec<SkippedByRetention> {
    let skipped = partitions.iter().filter_map(|partition| {
        let range = partition.skipped_by_retention.as_ref()?;
        Some(SkippedByRetention {
            topic: partition.topic.clone(),
            partition: partition.partition,
            from_offset: range.from_offset,
            to_offset: range.to_offset,
            time: whole_seconds(range.time),
        })
    });
    let mut skipped: Vec<SkippedByRetention> = skipped.collect();
    skipped.sort_by(SkippedByRetention::latest_first);
    skipped.truncate(MAX_SKIPPED);
    skipped
}

/// The stalled partitions; those that stalled first come first.
fn stalled(partitions: &[PartitionSnapshot]) -> Vec<StalledPartition> {
    let stalled = partitions.iter().filter_map(|partition| {
        let oldest = partition.oldest.as_ref();
        let reason = partition.paused_reason.map(PausedReason::as_str);
        Some(StalledPartition {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: oldest.map(|oldest| oldest.offset).or(partition.watermark),
            since: whole_seconds(partition.stalled_since?),
            attempts: oldest.map_or(0, |oldest| clamp(oldest.attempts.into()) as i32),
            reason: reason.unwrap_or("NoProgress").into(),
            last_error: oldest.and_then(error),
        })
    });
    let mut stalled: Vec<StalledPartition> = stalled.collect();
    stalled.sort_by(StalledPartition::oldest_first);
    stalled
}

/// The error of a stalled partition, with its offset if that differs from the offset shown.
fn error(oldest: &OldestRecord) -> Option<String> {
    let error = oldest.last_error.as_deref()?;
    let place = oldest
        .error_offset
        .map_or(String::new(), |offset| format!("offset {offset}: "));
    Some(cut(&format!("{place}{error}"), MAX_STALLED_ERROR).to_owned())
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::snapshot::SkippedRange;

    fn partition(
        number: i32,
        lag: Option<i64>,
        oldest: Option<&str>,
        paused: Option<PausedReason>,
    ) -> PartitionSnapshot {
        PartitionSnapshot {
            topic: "orders".into(),
            partition: number,
            assignment_epoch: 1,
            committed: None,
            watermark: None,
            lag,
            in_flight: 10,
            oldest: oldest.map(|since| OldestRecord {
                offset: 42,
                since: since.parse().unwrap(),
                attempts: 3,
                last_error: None,
                error_offset: None,
            }),
            paused_reason: paused,
            stalled_since: None,
            skipped_by_retention: None,
        }
    }

    /// The operator's tests read the same two files: it makes the same entry from `/status`.
    #[test]
    fn the_status_page_and_the_entry_have_the_form_that_the_operator_reads() {
        let since: Timestamp = "2026-01-31T09:00:00.5Z".parse().unwrap();
        let first = PartitionSnapshot {
            committed: Some(4),
            watermark: Some(5),
            in_flight: 2,
            oldest: Some(OldestRecord {
                offset: 5,
                since,
                attempts: 4,
                last_error: Some("connection refused".into()),
                error_offset: Some(6),
            }),
            stalled_since: Some(since),
            ..partition(0, Some(3), None, Some(PausedReason::WriterUnavailable))
        };
        let second = PartitionSnapshot {
            assignment_epoch: 2,
            watermark: Some(9),
            in_flight: 1,
            skipped_by_retention: Some(SkippedRange {
                from_offset: 2,
                to_offset: 7,
                time: since,
            }),
            ..partition(1, Some(4), None, None)
        };
        let snapshot = Snapshot {
            worker: "orders-worker-1".into(),
            group_id: "shop.orders".into(),
            phase: crate::health::snapshot::Phase::Consuming,
            records_total: 7,
            dead_lettered_total: 2,
            skipped_total: 1,
            last_error: Some("refused".into()),
            partitions: vec![first, second],
            ..Snapshot::default()
        };
        let file = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            serde_json::to_value(&snapshot).unwrap(),
            file(include_str!("../../../crds/examples/worker-status.json"))
        );
        assert_eq!(
            serde_json::to_value(summarize(&snapshot)).unwrap(),
            file(include_str!("../../../crds/examples/worker-entry.json"))
        );
    }

    #[test]
    fn stalled_partitions_are_counted_and_the_oldest_are_shown() {
        let stalled = |number: i32, second: i64| PartitionSnapshot {
            stalled_since: Some(Timestamp::from_millisecond(second * 1000 + 5).unwrap()),
            ..partition(number, Some(5), Some("2026-01-31T10:00:00Z"), None)
        };
        let mut partitions: Vec<_> = (0..12)
            .map(|number| stalled(number, i64::from(100 - number)))
            .collect();
        partitions[11].paused_reason = Some(PausedReason::RecordFailed);
        partitions[10].oldest = None;
        partitions[10].watermark = Some(7);
        partitions.push(partition(12, Some(5), None, None));
        let entry = summarize(&Snapshot {
            partitions,
            ..Snapshot::default()
        });
        assert_eq!(entry.stalled, 12);
        let shown: Vec<i32> = entry
            .stalled_partitions
            .iter()
            .map(|shown| shown.partition)
            .collect();
        assert_eq!(shown, [11, 10, 9, 8, 7, 6, 5, 4]);
        let expected = |number, offset, attempts, second, reason: &str| StalledPartition {
            topic: "orders".into(),
            partition: number,
            offset: Some(offset),
            since: Timestamp::from_second(second).unwrap(),
            attempts,
            reason: reason.into(),
            last_error: None,
        };
        assert_eq!(
            entry.stalled_partitions[0],
            expected(11, 42, 3, 89, "RecordFailed")
        );
        assert_eq!(entry.stalled_partitions[1], expected(10, 7, 0, 90, "NoProgress"));
    }

    #[test]
    fn the_latest_ranges_that_retention_removed_are_shown() {
        let partitions = (0..12).map(|number| PartitionSnapshot {
            skipped_by_retention: (number != 5).then(|| SkippedRange {
                from_offset: 3,
                to_offset: 9,
                time: Timestamp::from_millisecond(i64::from(number) * 1000 + 5).unwrap(),
            }),
            ..partition(number, None, None, None)
        });
        let entry = summarize(&Snapshot {
            partitions: partitions.collect(),
            ..Snapshot::default()
        });
        let shown: Vec<i32> = entry.skipped_by_retention.iter().map(|it| it.partition).collect();
        assert_eq!(shown, [11, 10, 9, 8, 7, 6, 4, 3]);
        let expected = SkippedByRetention {
            topic: "orders".into(),
            partition: 11,
            from_offset: 3,
            to_offset: 9,
            time: Timestamp::from_second(11).unwrap(),
        };
        assert_eq!(entry.skipped_by_retention[0], expected);
    }

    #[test]
    fn the_error_of_a_stalled_partition_is_short_and_has_its_offset() {
        let shown = |error: &str, at: Option<i64>| {
            let mut stalled = partition(0, Some(5), Some("2026-01-31T10:00:00Z"), None);
            stalled.stalled_since = Some(Timestamp::UNIX_EPOCH);
            if let Some(oldest) = &mut stalled.oldest {
                oldest.last_error = Some(error.into());
                oldest.error_offset = at;
            }
            let entry = summarize(&Snapshot {
                partitions: vec![stalled],
                ..Snapshot::default()
            });
            entry.stalled_partitions[0].last_error.clone().unwrap()
        };
        assert_eq!(shown("timed out", None), "timed out");
        assert_eq!(shown("429", Some(5000)), "offset 5000: 429");
        assert_eq!(shown(&"é".repeat(101), None), "é".repeat(100));
        let long = shown(&"é".repeat(101), Some(1));
        assert!(long.starts_with("offset 1: é") && long.len() <= 200, "{long}");
        assert_eq!(shown(&format!("x{}", "é".repeat(100)), None).len(), 199);
    }

    #[test]
    fn a_reason_that_needs_action_wins_over_one_that_does_not() {
        let shown = |reasons: [PausedReason; 2]| {
            let partitions = reasons.map(|reason| partition(0, None, None, Some(reason)));
            let entry = summarize(&Snapshot {
                partitions: partitions.into(),
                ..Snapshot::default()
            });
            entry.paused_reason.unwrap()
        };
        for severe in [PausedReason::RecordFailed, PausedReason::DeadLetterBreakerOpen] {
            for other in [
                PausedReason::OldestUnfinished,
                PausedReason::TransformSlow,
                PausedReason::WriterUnavailable,
                PausedReason::DeadLetterUnavailable,
            ] {
                assert_eq!(shown([severe, other]), severe.as_str());
                assert_eq!(shown([other, severe]), severe.as_str());
            }
        }
    }

    #[test]
    fn the_entry_shows_sums_the_oldest_record_and_the_most_severe_reason() {
        let snapshot = Snapshot {
            worker: "w".into(),
            records_total: 1000,
            dead_lettered_total: 3,
            partitions: vec![
                partition(
                    0,
                    Some(5),
                    Some("2026-01-31T10:00:02Z"),
                    Some(PausedReason::WriterUnavailable),
                ),
                partition(
                    7,
                    Some(6),
                    Some("2026-01-31T10:00:01.25Z"),
                    Some(PausedReason::RecordFailed),
                ),
                partition(8, Some(0), None, None),
            ],
            ..Snapshot::default()
        };
        let entry = summarize(&snapshot);
        assert_eq!(
            (entry.assigned, entry.records_total, entry.dead_lettered_total),
            (3, 1000, 3)
        );
        assert_eq!((entry.lag, entry.in_flight), (Some(11), 30));
        assert_eq!(
            entry.oldest_in_flight.as_deref(),
            Some("orders-7@42 since 2026-01-31T10:00:01Z")
        );
        assert_eq!(entry.paused_reason.as_deref(), Some("RecordFailed"));
    }

    #[test]
    fn one_unknown_lag_makes_the_sum_unknown() {
        let partitions = vec![partition(0, Some(5), None, None), partition(1, None, None, None)];
        assert_eq!(
            summarize(&Snapshot {
                partitions,
                ..Snapshot::default()
            })
            .lag,
            None
        );
    }

    #[test]
    fn a_paused_worker_without_partitions_is_paused() {
        let snapshot = Snapshot {
            paused: true,
            ..Snapshot::default()
        };
        assert_eq!(summarize(&snapshot).paused_reason.as_deref(), Some("Paused"));
    }

    #[test]
    fn a_long_error_is_cut_after_a_whole_character() {
        let snapshot = Snapshot {
            last_error: Some("é".repeat(2000)),
            ..Snapshot::default()
        };
        assert_eq!(summarize(&snapshot).last_error.unwrap().chars().count(), 1024);
    }
}
