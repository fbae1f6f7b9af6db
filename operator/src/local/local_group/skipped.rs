//! Records that retention removed before a worker read them. In: reports of the workers. Out: one message for
//! each range. Pure.

use std::collections::BTreeMap;

use crate::reports::{SkippedReport, WorkerReport};

/// The last range of each partition.
#[derive(Default)]
pub struct Skipped(BTreeMap<(String, i32), SkippedReport>);

impl Skipped {
    /// Messages about ranges that were not reported before.
    pub fn note(&mut self, report: &WorkerReport) -> Vec<String> {
        let mut messages = Vec::new();
        for partition in &report.partitions {
            let Some(range) = &partition.skipped_by_retention else {
                continue;
            };
            let key = (partition.topic.clone(), partition.partition);
            // A worker repeats its last range, an earlier owner may repeat an older one, and a worker that had
            // nothing to commit finds the same range again after a restart.
            let same = |known: &SkippedReport| {
                (known.from_offset, known.to_offset) == (range.from_offset, range.to_offset)
            };
            let known = self.0.get(&key);
            if known.is_some_and(|known| same(known) || known.time >= range.time) {
                continue;
            }
            self.0.insert(key, range.clone());
            messages.push(format!(
                "retention has removed records before they were read: {}-{} offsets {} to {}",
                partition.topic,
                partition.partition,
                range.from_offset,
                range.to_offset.saturating_sub(1)
            ));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_has_one_message() {
        let report = |to: i64, time: &str| -> WorkerReport {
            let range = format!(r#"{{"fromOffset": 3, "toOffset": {to}, "time": "{time}"}}"#);
            let partition =
                format!(r#"{{"topic": "orders", "partition": 2, "skippedByRetention": {range}}}"#);
            serde_json::from_str(&format!(
                r#"{{"partitions": [{{"topic": "orders"}}, {partition}]}}"#
            ))
            .unwrap()
        };
        let mut skipped = Skipped::default();
        let first = report(9, "2026-11-30T10:00:00Z");
        assert_eq!(
            skipped.note(&first),
            ["retention has removed records before they were read: orders-2 offsets 3 to 8"]
        );
        assert!(skipped.note(&first).is_empty());
        let again = report(9, "2026-11-30T10:01:00Z");
        assert!(skipped.note(&again).is_empty(), "after a restart of the worker");
        assert_eq!(skipped.note(&report(20, "2026-11-30T10:05:00Z")).len(), 1);
        assert!(skipped.note(&first).is_empty(), "an older range");
    }
}
