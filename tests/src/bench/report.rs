//! What the runs say together: medians with their range, and each subject's share of the raw loop's speed in the same
//! round, as tables, as `results.json`, and as the generated part of docs/benchmarks.md. Pure but for that file.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{idle::Idle, subjects::Run};

/// The generated part of the document lies between these lines.
const BEGIN: &str = "<!-- begin: written by scripts/bench.sh --update-docs -->";
const END: &str = "<!-- end -->";

/// A run in which others had more of the machine than this is not clean.
const CLEAN: f64 = 0.05;

/// Everything measured.
pub(super) struct Report {
    lines: Vec<Line>,
    idle: Vec<Idle>,
    runs: usize,
    disturbed: usize,
}

/// One subject in one case.
struct Line {
    case: &'static str,
    subject: &'static str,
    rate: Range,
    cpu: Range,
    peak_rss_mib: f64,
    of_raw: Option<Range>,
}

/// A row of `results.json`.
#[derive(Serialize)]
struct Row {
    case: &'static str,
    subject: &'static str,
    records_per_second: Option<f64>,
    cpu_seconds_per_million: Option<f64>,
    peak_rss_mib: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    median: f64,
    min: f64,
    max: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }
}

impl Report {
    pub fn new(runs: Vec<Run>, idle: Vec<Idle>) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        for run in &runs {
            if lines
                .iter()
                .any(|line| (line.case, line.subject) == (run.case, run.subject))
            {
                continue;
            }
            let same: Vec<&Run> = runs
                .iter()
                .filter(|other| (other.case, other.subject) == (run.case, run.subject))
                .collect();
            let of_raw = same.iter().filter_map(|run| {
                let raw = runs
                    .iter()
                    .find(|raw| (raw.case, raw.round, raw.subject) == (run.case, run.round, "raw"))?;
                Some(run.records_per_second / raw.records_per_second)
            });
            let (Some(rate), Some(cpu)) = (
                Range::of(same.iter().map(|run| run.records_per_second)),
                Range::of(same.iter().map(|run| run.cpu_seconds_per_million)),
            ) else {
                continue;
            };
            lines.push(Line {
                case: run.case,
                subject: run.subject,
                rate,
                cpu,
                peak_rss_mib: same.iter().map(|run| run.peak_rss_mib).fold(0.0, f64::max),
                of_raw: Range::of(of_raw),
            });
        }
        Self {
            lines,
            idle,
            disturbed: runs
                .iter()
                .filter(|run| run.others.is_some_and(|others| others > CLEAN))
                .count(),
            runs: runs.len(),
        }
    }

    /// The tables, in Markdown.
    pub fn tables(&self) -> String {
        let mut rows = vec![
            [
                "case",
                "subject",
                "records/s",
                "CPU-s per million",
                "peak RSS, MiB",
                "speed of raw",
            ]
            .map(String::from),
        ];
        for line in &self.lines {
            rows.push([
                line.case.into(),
                line.subject.into(),
                format!(
                    "{} ({}-{})",
                    thousands(line.rate.median),
                    thousands(line.rate.min),
                    thousands(line.rate.max)
                ),
                format!("{:.2} ({:.2}-{:.2})", line.cpu.median, line.cpu.min, line.cpu.max),
                format!("{:.0}", line.peak_rss_mib),
                line.of_raw.map_or_else(String::new, |of_raw| {
                    format!("{:.2} ({:.2}-{:.2})", of_raw.median, of_raw.min, of_raw.max)
                }),
            ]);
        }
        let mut idle = vec![["idle process", "peak RSS, MiB"].map(String::from)];
        for entry in &self.idle {
            let peak = match &entry.peak_rss_mib {
                Ok(peak) => format!("{peak:.1}"),
                Err(reason) => format!("not measured: {reason}"),
            };
            idle.push([entry.subject.into(), peak]);
        }
        format!(
            "{}\n{}\nMedian (lowest-highest) of the rounds; memory is the highest. In {} of {} runs other processes used \
             more than {:.0} % of the machine.\n",
            markdown(&rows),
            markdown(&idle),
            self.disturbed,
            self.runs,
            CLEAN * 100.0
        )
    }

    /// The content of `results.json`.
    pub fn json(&self) -> Result<String> {
        let busy = self.lines.iter().map(|line| Row {
            case: line.case,
            subject: line.subject,
            records_per_second: Some(line.rate.median.round()),
            cpu_seconds_per_million: Some(rounded(line.cpu.median)),
            peak_rss_mib: rounded(line.peak_rss_mib),
        });
        let idle = self.idle.iter().filter_map(|entry| {
            Some(Row {
                case: "idle",
                subject: entry.subject,
                records_per_second: None,
                cpu_seconds_per_million: None,
                peak_rss_mib: rounded(*entry.peak_rss_mib.as_ref().ok()?),
            })
        });
        let rows: Vec<Row> = busy.chain(idle).collect();
        Ok(serde_json::to_string_pretty(&rows)? + "\n")
    }
}

/// Replaces the generated part of the document.
pub(super) fn update_docs(path: &Path, machine: &str, report: &Report) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let replaced = replace(&text, &format!("{machine}\n{}", report.tables()))
        .with_context(|| format!("{} has not the lines {BEGIN:?} and {END:?}", path.display()))?;
    fs::write(path, replaced).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(text: &str, generated: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{generated}\n{END}{after}"))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// 1234567 as 1,234,567.
fn thousands(value: f64) -> String {
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

/// A table whose columns are aligned in plain text too; the first row is its head.
fn markdown<const N: usize>(rows: &[[String; N]]) -> String {
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

    fn run(subject: &'static str, round: u32, rate: f64) -> Run {
        Run {
            case: "c",
            subject,
            round,
            records: 1_000_000,
            seconds: 1.0,
            records_per_second: rate,
            cpu_seconds_per_million: 1.5,
            peak_rss_mib: f64::from(round),
            others: Some(0.5),
        }
    }

    #[test]
    fn the_share_of_raw_is_taken_within_each_round() {
        let runs = vec![
            run("raw", 1, 100.0),
            run("worker", 1, 80.0),
            run("raw", 2, 1000.0),
            run("worker", 2, 600.0),
        ];
        let report = Report::new(runs, Vec::new());
        let worker = &report.lines[1];
        assert_eq!(
            worker.of_raw.unwrap(),
            Range {
                median: 0.7,
                min: 0.6,
                max: 0.8
            }
        );
        assert_eq!(worker.peak_rss_mib, 2.0);
        assert_eq!((report.disturbed, report.runs), (4, 4));
    }

    #[test]
    fn results_have_the_five_columns_and_nothing_that_was_not_measured() {
        let idle = vec![
            Idle {
                subject: "worker",
                peak_rss_mib: Ok(20.0),
            },
            Idle {
                subject: "operator",
                peak_rss_mib: Err("no cluster".into()),
            },
        ];
        let report = Report::new(vec![run("raw", 1, 100.0)], idle);
        let rows: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(
            rows,
            serde_json::json!([
                {"case": "c", "subject": "raw", "records_per_second": 100.0, "cpu_seconds_per_million": 1.5, "peak_rss_mib": 1.0},
                {"case": "idle", "subject": "worker", "records_per_second": null, "cpu_seconds_per_million": null, "peak_rss_mib": 20.0},
            ])
        );
        assert!(report.tables().contains("not measured: no cluster"));
    }

    #[test]
    fn only_the_generated_part_of_the_document_changes() {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        assert_eq!(
            replace(&text, "new").unwrap(),
            format!("head\n{BEGIN}\n\nnew\n{END}\ntail\n")
        );
        assert_eq!(replace("no marks", "new"), None);
    }

    #[test]
    fn numbers_are_grouped_and_tables_aligned() {
        assert_eq!([thousands(12.0), thousands(1_234_567.4)], ["12", "1,234,567"]);
        let table = markdown(&[["a", "bb"].map(String::from), ["ccc", "d"].map(String::from)]);
        assert_eq!(table, "| a   | bb |\n|-----|----|\n| ccc | d  |\n");
    }
}
