//! The text of a replay: its plan, how far it is, and what is left of it. In: a plan, positions, a rate. Out: text.
//! Pure.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use crds::replay::{ReplayPartition, ReplayTotals};

use crate::group::replay::Plan;
use crate::group::wording::count;

const HEADER: [&str; 7] = [
    "topic",
    "partition",
    "from",
    "to",
    "offsets",
    "time of the first record",
    "note",
];
/// Columns with numbers.
const NUMBERS: std::ops::RangeInclusive<usize> = 1..=4;

/// One row per partition. Numbers have no separators, so that they can be copied.
pub fn table(plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADER);
    for planned in &plan.partitions {
        table.add_row([
            planned.topic.clone(),
            planned.partition.to_string(),
            planned.from.to_string(),
            planned.to.to_string(),
            planned.records().to_string(),
            planned
                .from_time
                .as_ref()
                .map_or("-".into(), |time| time.0.to_string()),
            planned.note.clone().unwrap_or_default(),
        ]);
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

/// What the plan amounts to, and its notes.
pub fn summary(plan: &Plan, writers: &[&str], group_id: &str) -> String {
    let mut text = format!(
        "{} of {} through {} into {}, with consumer group {group_id}\n",
        count(plan.totals.records.unsigned_abs(), "offset"),
        count(plan.totals.partitions.unsigned_abs(), "partition"),
        count(plan.workers.unsigned_abs(), "worker"),
        writers.join(", "),
    );
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// How far the replay is. `rate` is in offsets per second; None: not known.
pub fn progress(totals: &ReplayTotals, rate: Option<f64>) -> String {
    let ReplayTotals {
        records,
        processed,
        percent,
        partitions,
        finished,
    } = totals;
    let mut text = format!(
        "{percent} %: {processed} of {} processed, {finished} of {partitions} partitions finished",
        count(records.unsigned_abs(), "offset")
    );
    match rate {
        None => {}
        Some(rate) => {
            text.push_str(&format!(", {rate:.0} per second"));
            let left = (records - processed) as f64;
            if rate >= 0.5 && left > 0.0 {
                text.push_str(&format!(", about {} left", duration(left / rate)));
            }
        }
    }
    text
}

fn duration(seconds: f64) -> String {
    // A saturating cast; nobody needs more than years.
    let seconds = Duration::from_secs(seconds.ceil() as u64 % (1 << 40)).as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Arguments for another replay of what this one has not processed.
pub fn rest(partitions: &[ReplayPartition]) -> String {
    let left = partitions.iter().filter(|planned| !planned.is_finished());
    let arguments = left.map(|planned| {
        let ReplayPartition {
            topic, partition, to, ..
        } = planned;
        let from = planned.position.unwrap_or(planned.from).max(planned.from);
        format!("--from-offset {topic}:{partition}={from} --to-offset {topic}:{partition}={to}")
    });
    arguments.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::replay::totals;

    fn planned(partition: i32, from: i64, to: i64, position: Option<i64>) -> ReplayPartition {
        ReplayPartition {
            topic: "orders".into(),
            topic_id: None,
            partition,
            from,
            to,
            position,
            from_time: None,
            note: None,
        }
    }

    #[test]
    fn every_partition_has_a_row_and_the_summary_says_where_the_records_go() {
        let mut partitions = vec![planned(0, 5, 25, None), planned(1, 7, 7, None)];
        partitions[1].note = Some("nothing to replay".into());
        let plan = Plan {
            totals: totals(&partitions),
            partitions,
            workers: 1,
            notes: vec!["one more thing".into()],
            cluster_id: None,
        };
        let table = table(&plan);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["orders", "0", "5", "25", "20", "-"]);
        assert_eq!(
            rows[2],
            ["orders", "1", "7", "7", "0", "-", "nothing", "to", "replay"]
        );
        let summary = summary(&plan, &["clean", "audit"], "g.replay");
        assert_eq!(
            summary,
            "20 offsets of 2 partitions through 1 worker into clean, audit, with consumer group g.replay\nnote: one more thing\n"
        );
    }

    #[test]
    fn progress_shows_a_rate_and_an_end_only_if_they_are_known() {
        let totals = totals(&[planned(0, 0, 100, Some(30)), planned(1, 0, 100, Some(100))]);
        assert_eq!(
            progress(&totals, None),
            "65 %: 130 of 200 offsets processed, 1 of 2 partitions finished"
        );
        let running = progress(&totals, Some(0.7));
        assert!(
            running.ends_with("1 per second, about 1 min 40 s left"),
            "{running}"
        );
        let waiting = progress(&totals, Some(0.0));
        assert!(waiting.ends_with(", 0 per second"), "{waiting}");
        assert_eq!(
            [3.2, 60.0, 3600.0 * 30.0].map(duration),
            ["4 s", "1 min 0 s", "30 h 0 min"]
        );
    }

    #[test]
    fn the_rest_is_named_by_its_offsets() {
        let partitions = [
            planned(0, 5, 25, Some(20)),
            planned(1, 7, 9, Some(9)),
            planned(2, 3, 4, None),
        ];
        assert_eq!(
            rest(&partitions),
            "--from-offset orders:0=20 --to-offset orders:0=25 --from-offset orders:2=3 --to-offset orders:2=4"
        );
    }
}
