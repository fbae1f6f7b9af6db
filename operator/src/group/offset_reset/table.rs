//! The text of a plan. In: a plan, or the status of a reset. Out: a table with one row per partition, and a summary. Pure.

use comfy_table::{CellAlignment, Table, presets};
use crds::offset_reset::{PlannedPartition, ResetTotals};

use crate::group::wording::count;

const HEADER: [&str; 9] = [
    "topic",
    "partition",
    "committed",
    "new",
    "difference",
    "log start",
    "end",
    "time of the record",
    "note",
];
/// Columns with numbers.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=6;

/// One row per partition. Numbers have no separators, so that they can be copied.
pub fn table(partitions: &[PlannedPartition]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADER);
    for planned in partitions {
        table.add_row(row(planned));
    }
    for index in NUMBERS {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let table = table.to_string();
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

fn row(planned: &PlannedPartition) -> [String; HEADER.len()] {
    let or_dash = |number: Option<i64>| number.map_or("-".into(), |number| number.to_string());
    [
        planned.topic.clone(),
        planned.partition.to_string(),
        or_dash(planned.committed),
        planned.new.to_string(),
        planned.difference.map_or("-".into(), |by| format!("{by:+}")),
        planned.log_start.to_string(),
        planned.end.to_string(),
        planned
            .record_time
            .as_ref()
            .map_or("-".into(), |time| time.0.to_string()),
        planned.note.clone().unwrap_or_default(),
    ]
}

/// The effect of the plan, and its notes.
pub fn summary(totals: &ResetTotals, notes: &[String], group_id: &str) -> String {
    let mut text = format!(
        "consumer group {group_id}: {} of {} partitions change, {} will be read again, {} will not be read\n",
        totals.changed,
        totals.partitions,
        count(totals.again, "offset"),
        count(totals.skipped, "offset"),
    );
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_row_and_the_summary_says_what_it_means() {
        let plan = crate::group::offset_reset::Plan {
            partitions: vec![
                PlannedPartition {
                    topic: "orders".into(),
                    partition: 0,
                    committed: Some(1500),
                    new: 1000,
                    difference: Some(-500),
                    clears_metadata: false,
                    log_start: 1000,
                    end: 1_500_000,
                    record_time: None,
                    note: Some("900 is below the first offset".into()),
                },
                PlannedPartition {
                    topic: "orders".into(),
                    partition: 1,
                    committed: None,
                    new: 0,
                    difference: None,
                    clears_metadata: false,
                    log_start: 0,
                    end: 0,
                    record_time: None,
                    note: None,
                },
            ],
            totals: ResetTotals {
                partitions: 2,
                changed: 2,
                again: 500,
                skipped: 0,
            },
            notes: vec!["1 partition is left out".into()],
            cluster_id: None,
        };
        let table = table(&plan.partitions);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[1][..7],
            ["orders", "0", "1500", "1000", "-500", "1000", "1500000"]
        );
        assert_eq!(rows[2][..7], ["orders", "1", "-", "0", "-", "0", "0"]);
        assert!(table.contains("900 is below"), "{table}");
        let summary = summary(&plan.totals, &plan.notes, "shop.orders");
        for part in [
            "shop.orders: 2 of 2 partitions",
            "500 offsets will be read again",
            "note: 1 partition",
        ] {
            assert!(summary.contains(part), "{summary}");
        }
    }
}
