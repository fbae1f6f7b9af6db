//! Pieces of text. In: values. Out: tables, ages, numbers, wrapped lines. Pure.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

/// Where long messages are wrapped.
const WIDTH: usize = 100;

/// Columns as kubectl prints them: header in capitals, no lines. Columns of `numbers` are aligned to the right.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        // A line break would break the table.
        table.add_row(row.into_iter().map(|cell| one_line(&cell)));
    }
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let table = table.to_string();
    let lines = table.lines().map(|line| {
        let line = line.strip_prefix(' ').unwrap_or(line);
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn one_line(text: &str) -> String {
    text.split('\n').collect::<Vec<_>>().join(" ")
}

/// Age as kubectl prints it: 45s, 12m, 5h, 3d.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// 1234567 as "1,234,567".
pub fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value, or what stands for one that is not known.
pub fn or_unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".into(), |value| value.to_string())
}

/// Lines of at most 100 characters, each indented. Words are not divided.
pub fn indented(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let full = line.chars().count() + 1 + word.chars().count() + indent > WIDTH;
            if full && !line.is_empty() {
                lines.push_str(&format!("{:indent$}{line}\n", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            lines.push_str(&format!("{:indent$}{line}\n", ""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_numbers_are_short() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| age(start, start + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_800].map(after),
            ["0s", "119s", "2m", "119m", "2h", "2d"]
        );
        assert_eq!(after(-5), "0s", "clocks differ");
        assert_eq!(
            [0, 999, -1_000, 1_234_567].map(number),
            ["0", "999", "-1,000", "1,234,567"]
        );
        assert_eq!(or_unknown(None::<i64>), "unknown");
    }

    #[test]
    fn a_table_has_no_lines_and_a_cell_no_line_break() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["b\nc".into(), "100".into()]];
        assert_eq!(
            table(&["NAME", "N"], rows, &[1]),
            "NAME    N\na       1\nb c   100\n"
        );
    }

    #[test]
    fn long_text_is_wrapped_and_indented() {
        let text = indented(&"word ".repeat(40), 4);
        assert!(
            text.lines()
                .all(|line| line.starts_with("    word") && line.len() <= WIDTH)
        );
        assert_eq!(text.split_whitespace().count(), 40);
    }
}
