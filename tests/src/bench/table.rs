//! Numbers and tables as text. Pure.

use std::fmt::Write as _;

pub(super) fn hundredths(value: f64) -> String {
    format!("{value:.2}")
}

pub(super) fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

/// 1234567 as 1,234,567.
pub(super) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table with aligned columns, readable as plain text too; the first row is its head.
pub(super) fn markdown<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to memory does not fail.
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_tables_aligned() {
        assert_eq!([thousands(12.0), thousands(1_234_567.4)], ["12", "1,234,567"]);
        let table = markdown(&[["a", "bb"].map(String::from), ["ccc", "d"].map(String::from)]);
        assert_eq!(table, "| a   | bb |\n|-----|----|\n| ccc | d  |\n");
    }
}
