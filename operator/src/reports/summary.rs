//! The entry of a worker in `status.workers`, from its report. In: a report and when it was read. Out: the
//! same entry that a worker writes when it reports itself, with limits on every part, because another program
//! may have answered. Pure.

use crds::status::{PausedReason, SkippedByRetention, StalledPartition, WorkerStatus};
use jiff::Timestamp;

use super::{OldestReport, PartitionReport, WorkerReport};

const MAX_ERROR_CHARS: usize = 1024;
/// Stalled partitions of one worker, as the schema of `status.workers` allows.
const MAX_STALLED: usize = 8;
/// Ranges in the entry of one worker that retention removed, as the schema allows.
const MAX_SKIPPED: usize = 8;
/// Ranges of one worker that are remembered for the list of the group.
const MAX_REMEMBERED: usize = 1000;
/// Bytes of the error of a stalled partition.
const MAX_STALLED_ERROR: usize = 200;
/// Bytes of a topic, as Kafka allows, and of other names.
const MAX_NAME: usize = 249;

/// The entry of the worker `name`, whose report was read at `read_at`.
pub fn summarize(name: &str, report: &WorkerReport, read_at: Timestamp) -> WorkerStatus {
    let partitions = &report.partitions;
    let oldest = partitions
        .iter()
        .filter_map(|partition| partition.oldest.as_ref().map(|oldest| (partition, oldest)))
        .min_by_key(|(_, oldest)| oldest.since);
    let stalled = stalled(partitions);
    let requested_pause = report.paused.then_some(PausedReason::Paused.as_str());
    WorkerStatus {
        name: name.into(),
        assigned: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
        records_total: clamp(report.records_total),
        dead_lettered_total: clamp(report.dead_lettered_total),
        skipped_total: clamp(report.skipped_total),
        // One unknown lag makes the sum unknown.
        lag: partitions
            .iter()
            .try_fold(0_i64, |sum, partition| sum.checked_add(partition.lag?)),
        in_flight: clamp(
            partitions
                .iter()
                .fold(0, |sum: u64, partition| sum.saturating_add(partition.in_flight)),
        ),
        stalled: i32::try_from(stalled.len()).unwrap_or(i32::MAX),
        stalled_partitions: stalled.into_iter().take(MAX_STALLED).collect(),
        skipped_by_retention: skipped_by_retention(partitions)
            .into_iter()
            .take(MAX_SKIPPED)
            .collect(),
        oldest_in_flight: oldest.map(|(partition, oldest)| {
            let since = whole_seconds(oldest.since);
            let topic = cut(&partition.topic, MAX_NAME);
            format!("{topic}-{}@{} since {since}", partition.partition, oldest.offset)
        }),
        // Reasons that this operator does not know are less severe than all others.
        paused_reason: partitions
            .iter()
            .filter_map(|partition| partition.paused_reason.as_deref())
            .chain(requested_pause)
            .max_by_key(|reason| PausedReason::named(reason))
            .map(|reason| cut(reason, MAX_NAME).into()),
        last_error: report
            .last_error
            .as_ref()
            .map(|error| error.chars().take(MAX_ERROR_CHARS).collect()),
        reported_at: Some(whole_seconds(read_at)),
    }
}

/// What retention removed unread; the latest first. More than the entry of a worker has.
pub fn skipped_by_retention(partitions: &[PartitionReport]) -> Vec<SkippedByRetention> {
    let skipped = partitions.iter().filter_map(|partition| {
        let range = partition.skipped_by_retention.as_ref()?;
        Some(SkippedByRetention {
            topic: cut(&partition.topic, MAX_NAME).into(),
            partition: partition.partition,
            from_offset: range.from_offset,
            to_offset: range.to_offset,
            time: whole_seconds(range.time),
        })
    });
    let mut skipped: Vec<SkippedByRetention> = skipped.collect();
    skipped.sort_by(SkippedByRetention::latest_first);
    skipped.truncate(MAX_REMEMBERED);
    skipped
}

/// The stalled partitions; those that stalled first come first.
fn stalled(partitions: &[PartitionReport]) -> Vec<StalledPartition> {
    let stalled = partitions.iter().filter_map(|partition| {
        let oldest = partition.oldest.as_ref();
        let reason = partition.paused_reason.as_deref().unwrap_or("NoProgress");
        Some(StalledPartition {
            topic: cut(&partition.topic, MAX_NAME).into(),
            partition: partition.partition,
            offset: oldest.map(|oldest| oldest.offset).or(partition.watermark),
            since: whole_seconds(partition.stalled_since?),
            attempts: oldest.map_or(0, |oldest| i32::try_from(oldest.attempts).unwrap_or(i32::MAX)),
            reason: cut(reason, MAX_NAME).into(),
            last_error: oldest.and_then(error),
        })
    });
    let mut stalled: Vec<StalledPartition> = stalled.collect();
    stalled.sort_by(StalledPartition::oldest_first);
    stalled
}

/// The error of a stalled partition, with its offset if that differs from the offset shown.
fn error(oldest: &OldestReport) -> Option<String> {
    let error = oldest.last_error.as_deref()?;
    let place = oldest
        .error_offset
        .map_or(String::new(), |offset| format!("offset {offset}: "));
    Some(cut(&format!("{place}{error}"), MAX_STALLED_ERROR).to_owned())
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
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
    use serde_json::json;

    fn summary(report: serde_json::Value) -> WorkerStatus {
        let report = serde_json::from_value(report).unwrap();
        summarize("w-1", &report, "2026-01-31T10:00:00.7Z".parse().unwrap())
    }

    /// Tests of the worker compare what it serves and writes with the same two files.
    #[test]
    fn a_report_becomes_the_entry_that_the_worker_would_write() {
        let report = include_str!("../../../crds/examples/worker-status.json");
        let report = serde_json::from_str(report).unwrap();
        let entry = include_str!("../../../crds/examples/worker-entry.json");
        let mut entry: WorkerStatus = serde_json::from_str(entry).unwrap();
        entry.reported_at = "2026-01-31T10:00:00Z".parse().ok();
        let read_at = "2026-01-31T10:00:00.7Z".parse().unwrap();
        assert_eq!(summarize("orders-worker-1", &report, read_at), entry);
    }

    #[test]
    fn the_most_severe_reason_is_shown_and_unknown_ones_are_the_least_severe() {
        let reason = |paused: bool, reasons: &[&str]| {
            let partitions: Vec<_> = reasons.iter().map(|it| json!({"pausedReason": it})).collect();
            summary(json!({"paused": paused, "partitions": partitions})).paused_reason
        };
        assert_eq!(
            reason(false, &["RecordFailed", "New", "WriterUnavailable"]).as_deref(),
            Some("RecordFailed")
        );
        assert_eq!(reason(false, &["New"]).as_deref(), Some("New"));
        assert_eq!(
            reason(true, &["New", "OldestUnfinished"]).as_deref(),
            Some("Paused")
        );
        assert_eq!(reason(false, &[]), None);
    }

    #[test]
    fn one_unknown_lag_makes_the_sum_unknown_and_numbers_do_not_overflow() {
        let of = |lags: &[Option<i64>]| {
            let partitions: Vec<_> = lags
                .iter()
                .map(|lag| json!({"lag": lag, "inFlight": u64::MAX}))
                .collect();
            summary(json!({"recordsTotal": u64::MAX, "partitions": partitions}))
        };
        assert_eq!(of(&[Some(1), None]).lag, None);
        assert_eq!(of(&[Some(i64::MAX), Some(1)]).lag, None);
        let entry = of(&[Some(1), Some(2)]);
        assert_eq!(
            (entry.lag, entry.in_flight, entry.records_total),
            (Some(3), i64::MAX, i64::MAX)
        );
    }

    #[test]
    fn every_part_is_limited() {
        let long = "ä".repeat(10_000);
        let partition = json!({
            "topic": long, "pausedReason": long, "stalledSince": "2026-01-31T09:00:00Z",
            "oldest": {"offset": 1, "since": "2026-01-31T09:00:00Z", "lastError": long},
        });
        let entry = summary(json!({"lastError": long, "partitions": vec![partition; 100]}));
        assert_eq!(
            (entry.stalled, entry.stalled_partitions.len()),
            (100, MAX_STALLED)
        );
        let size = serde_json::to_string(&entry).unwrap().len();
        assert!(size < 12_000, "{size}");
    }

    #[test]
    fn an_entry_has_8_ranges_that_retention_removed_and_more_are_remembered() {
        let skipped = json!({"fromOffset": 3, "toOffset": 9, "time": "2026-01-31T09:00:00Z"});
        let partitions =
            (0..2000).map(|n| json!({"topic": "orders", "partition": n, "skippedByRetention": skipped}));
        let report = json!({"partitions": partitions.collect::<Vec<_>>()});
        let report: WorkerReport = serde_json::from_value(report).unwrap();
        assert_eq!(skipped_by_retention(&report.partitions).len(), 1000);
        let entry = summarize("w-1", &report, Timestamp::UNIX_EPOCH);
        assert_eq!(entry.skipped_by_retention.len(), MAX_SKIPPED);
    }
}
