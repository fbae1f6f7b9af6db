//! The text output for groups. In: views of groups. Out: a table to redraw, and one line per group for logs.
//! Pure.

use comfy_table::{CellAlignment, Table, presets};

/// One group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupView {
    pub name: String,
    pub group_id: String,
    pub state: String,
    pub workers: usize,
    pub wanted: usize,
    /// None: unknown.
    pub lag: Option<i64>,
    pub finished: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
    /// What is wrong, or why this many workers run.
    pub remark: Option<String>,
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionView {
    pub name: String,
    pub worker: Option<String>,
    pub position: Option<i64>,
    pub rate: f64,
    pub lag: Option<i64>,
    pub in_flight: u64,
    pub paused_reason: Option<String>,
}

/// Maximum number of rows per group; of more partitions, those with the largest lag are shown.
const MAX_ROWS: usize = 16;
/// Maximum width. The redraw counts lines, so no line may wrap: narrower than common terminals.
const WIDTH: usize = 79;
/// Maximum length of a name in a cell.
const CELL: usize = 24;

/// All groups as a table.
pub fn table(groups: &[GroupView]) -> String {
    let mut text = String::new();
    for group in groups {
        text.push_str(&cut(&format!("{} ({})", what(group), group.group_id), WIDTH));
        text.push('\n');
        text.push_str(&cut(&format!("  {}", counts(group)), WIDTH));
        text.push('\n');
        if let Some(remark) = &group.remark {
            for line in remark.lines().flat_map(wrap) {
                text.push_str(&format!("  {line}\n"));
            }
        }
        if !group.partitions.is_empty() {
            text.push_str(&rows(&group.partitions));
        }
        text.push('\n');
    }
    text
}

/// One group as one line.
pub fn line(group: &GroupView) -> String {
    let remark = group.remark.as_ref().and_then(|remark| remark.lines().next());
    let remark = remark.map(|remark| format!("; {remark}")).unwrap_or_default();
    format!("{}, {}{remark}", what(group), counts(group))
}

fn what(group: &GroupView) -> String {
    let GroupView {
        name,
        state,
        workers,
        wanted,
        partitions,
        ..
    } = group;
    format!(
        "{name} {state}: {workers}/{wanted} workers, {} partitions",
        partitions.len()
    )
}

fn counts(group: &GroupView) -> String {
    let rate: f64 = group.partitions.iter().map(|partition| partition.rate).sum();
    let skipped = if group.skipped > 0 {
        format!(", skipped {}", count(group.skipped))
    } else {
        String::new()
    };
    format!(
        "{}/s, lag {}, finished {}, dead letters {}{skipped}",
        count(rate.round() as u64),
        group.lag.map_or("unknown".into(), signed),
        count(group.finished),
        count(group.dead_lettered),
    )
}

fn rows(partitions: &[PartitionView]) -> String {
    let mut shown: Vec<&PartitionView> = partitions.iter().collect();
    if shown.len() > MAX_ROWS {
        shown.sort_by_key(|partition| std::cmp::Reverse(partition.lag.unwrap_or(i64::MAX)));
        shown.truncate(MAX_ROWS);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "partition",
        "worker",
        "records/s",
        "position",
        "lag",
        "in flight",
        "",
    ]);
    for partition in &shown {
        table.add_row([
            cut(&partition.name, CELL),
            partition
                .worker
                .as_deref()
                .map_or("-".into(), |worker| cut(worker, CELL)),
            count(partition.rate.round() as u64),
            partition.position.map_or("-".into(), signed),
            partition.lag.map_or("unknown".into(), signed),
            count(partition.in_flight),
            partition.paused_reason.clone().unwrap_or_default(),
        ]);
    }
    for index in 2..=5 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text: String = table
        .to_string()
        .lines()
        .map(|line| format!("  {}\n", cut(line.trim_end(), WIDTH - 2)))
        .collect();
    let more = partitions.len() - shown.len();
    if more > 0 {
        text.push_str(&format!("   and {more} more partitions with less lag\n"));
    }
    text
}

/// 1234567 as "1,234,567".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Wraps the text at spaces.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(&cut(word, WIDTH - 2));
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH - 2 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(cut(word, WIDTH - 2));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(partitions: i64) -> GroupView {
        GroupView {
            name: "orders".into(),
            group_id: "default.orders".into(),
            state: "Running".into(),
            workers: 2,
            wanted: 2,
            lag: Some(1234),
            finished: 1_234_567,
            dead_lettered: 12,
            partitions: (0..partitions)
                .map(|index| PartitionView {
                    name: format!("orders-{index}"),
                    worker: Some("orders-0".into()),
                    position: Some(1_000_000 + index),
                    rate: 999.6,
                    lag: Some(index),
                    ..PartitionView::default()
                })
                .collect(),
            ..GroupView::default()
        }
    }

    #[test]
    fn a_line_summarizes_a_group() {
        let mut view = group(2);
        view.remark = Some("Kafka does not respond\nmore".into());
        assert_eq!(
            line(&view),
            "orders Running: 2/2 workers, 2 partitions, 1,999/s, lag 1,234, finished 1,234,567, dead letters 12; Kafka does not respond"
        );
        view.lag = None;
        assert!(line(&view).contains("lag unknown"));
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_a_terminal() {
        let mut view = group(3);
        view.partitions[0].name = "a-very-long-topic-name-that-is-unusual-but-valid-nevertheless-12".into();
        view.partitions[1].paused_reason = Some("DeadLetterUnavailable".into());
        view.remark = Some("word ".repeat(60));
        for line in table(&[view]).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn the_partitions_with_the_largest_lag_are_shown() {
        let text = table(&[group(100)]);
        assert!(
            text.contains("orders-99 ") && !text.contains("orders-1 "),
            "{text}"
        );
        assert!(text.contains("and 84 more partitions"), "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [count(0), count(999), count(1000), count(100_000)],
            ["0", "999", "1,000", "100,000"]
        );
        assert_eq!(signed(-1234), "-1,234");
    }
}
