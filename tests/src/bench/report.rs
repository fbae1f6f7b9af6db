//! The summary of all runs: medians with their range, and each subject compared with the reference of its
//! case in the same round, as tables, as `results.json`, and as the generated part of docs/benchmarks.md.
//! Pure, except for that file.

mod delays;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    cases::{Case, Yardstick},
    idle::Idle,
    latency::{self, Latency},
    range::Range,
    subjects::Run,
    table::{hundredths, markdown, thousands},
    takeover::{self, Takeover},
};

/// A generated part of the document lies between one of these lines and the next end.
const BEGIN: &str = "<!-- begin: written by scripts/bench.sh --update-docs -->";
const BEGIN_PEERS: &str = "<!-- begin: written by scripts/bench.sh --peers --update-docs -->";
const END: &str = "<!-- end -->";

/// A run in which other processes used more of the machine than this is not clean.
const CLEAN: f64 = 0.05;

/// Everything measured.
pub(super) struct Report {
    lines: Vec<Line>,
    idle: Vec<Idle>,
    latencies: Vec<Latency>,
    takeovers: Vec<Takeover>,
    runs: usize,
    disturbed: usize,
}

/// One subject in one case.
struct Line {
    case: &'static str,
    subject: &'static str,
    rate: Range,
    cpu: Range,
    broker_cpu: Option<Range>,
    database_cpu: Option<Range>,
    peak_rss_mib: f64,
    compared: Option<Compared>,
}

/// Speed in parts of the yardstick's.
struct Compared {
    with: String,
    share: Range,
}

impl Report {
    pub fn new(cases: &[&Case], runs: &[Run], idle: Vec<Idle>) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        for run in runs {
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
            let range = |value: fn(&Run) -> Option<f64>| Range::of(same.iter().filter_map(|run| value(run)));
            let (Some(rate), Some(cpu)) = (
                range(|run| Some(run.records_per_second)),
                range(|run| Some(run.cpu_seconds_per_million)),
            ) else {
                continue;
            };
            let case = cases.iter().find(|case| case.name == run.case);
            lines.push(Line {
                case: run.case,
                subject: run.subject,
                rate,
                cpu,
                broker_cpu: range(|run| run.broker_cpu_seconds_per_million),
                database_cpu: range(|run| run.database_cpu_seconds_per_million),
                peak_rss_mib: same.iter().map(|run| run.peak_rss_mib).fold(0.0, f64::max),
                compared: case.and_then(|case| compare(case.yardstick, &same, runs)),
            });
        }
        Self {
            lines,
            idle,
            latencies: Vec::new(),
            takeovers: Vec::new(),
            disturbed: runs
                .iter()
                .filter(|run| run.others.is_some_and(|others| others > CLEAN))
                .count(),
            runs: runs.len(),
        }
    }

    /// Adds what is measured in milliseconds and seconds.
    pub fn with(self, latencies: Vec<Latency>, takeovers: Vec<Takeover>) -> Self {
        Self {
            latencies,
            takeovers,
            ..self
        }
    }

    /// The tables in Markdown; leaves out those of which nothing was measured.
    pub fn tables(&self) -> String {
        let mut tables = Vec::new();
        if !self.lines.is_empty() {
            tables.push(self.speed());
        }
        if !self.latencies.is_empty() {
            tables.push(delays::latencies(&self.latencies));
        }
        if !self.takeovers.is_empty() {
            tables.push(delays::takeovers(&self.takeovers));
        }
        tables.push(self.memory());
        let mut text = format!(
            "{}\nMedian (lowest-highest) of the rounds; memory is the highest.",
            tables.join("\n")
        );
        if self.runs > 0 {
            // Writing to memory does not fail.
            let _ = write!(
                text,
                " In {} of {} runs other processes used more than {:.0} % of the machine.",
                self.disturbed,
                self.runs,
                CLEAN * 100.0
            );
        }
        text + "\n"
    }

    fn speed(&self) -> String {
        let mut rows = vec![
            [
                "case",
                "subject",
                "records/s",
                "CPU-s per million",
                "servers' CPU-s per million",
                "peak RSS, MiB",
                "speed of yardstick",
            ]
            .map(String::from),
        ];
        rows.extend(self.lines.iter().map(|line| {
            [
                line.case.into(),
                line.subject.into(),
                line.rate.text(thousands),
                line.cpu.text(hundredths),
                line.servers_cpu(),
                format!("{:.0}", line.peak_rss_mib),
                line.compared.as_ref().map_or_else(String::new, |compared| {
                    format!("{} of {}", compared.share.text(hundredths), compared.with)
                }),
            ]
        }));
        markdown(&rows)
    }

    fn memory(&self) -> String {
        let mut rows = vec![["idle process", "peak RSS, MiB"].map(String::from)];
        for entry in &self.idle {
            let peak = match &entry.peak_rss_mib {
                Ok(peak) => format!("{peak:.1}"),
                Err(reason) => format!("not measured: {reason}"),
            };
            rows.push([entry.subject.into(), peak]);
        }
        markdown(&rows)
    }

    /// The content of `results.json`: medians. Leaves out what was not measured.
    pub fn json(&self) -> Result<String> {
        let busy = self.lines.iter().map(|line| {
            let mut row = json!({
                "case": line.case,
                "subject": line.subject,
                "records_per_second": line.rate.median.round(),
                "cpu_seconds_per_million": rounded(line.cpu.median),
                "peak_rss_mib": rounded(line.peak_rss_mib),
            });
            if let Some(cpu) = line.broker_cpu {
                row["broker_cpu_seconds_per_million"] = json!(rounded(cpu.median));
            }
            if let Some(cpu) = line.database_cpu {
                row["database_cpu_seconds_per_million"] = json!(rounded(cpu.median));
            }
            if let Some(compared) = &line.compared {
                row["compared_with"] = json!(compared.with);
                row["share"] = json!(rounded(compared.share.median));
            }
            row
        });
        let idle = self.idle.iter().filter_map(|entry| {
            let peak = rounded(*entry.peak_rss_mib.as_ref().ok()?);
            Some(json!({"case": "idle", "subject": entry.subject, "peak_rss_mib": peak}))
        });
        let takeovers = self.takeovers.iter().map(|line| {
            json!({
                "case": takeover::NAME,
                "subject": format!("SIG{}, {}, session {}", line.signal, line.protocol, line.session),
                "first_seconds": rounded(line.first.median),
                "last_seconds": rounded(line.last.median),
            })
        });
        let latencies = self.latencies.iter().map(|line| {
            json!({
                "case": latency::NAME,
                "subject": format!("{} records/s", line.rate),
                "added_p50_milliseconds": rounded(line.added.p50.median),
                "added_p99_milliseconds": rounded(line.added.p99.median),
            })
        });
        let rows: Vec<Value> = busy.chain(idle).chain(latencies).chain(takeovers).collect();
        Ok(serde_json::to_string_pretty(&rows)? + "\n")
    }
}

impl Line {
    /// CPU time of the broker, and of PostgreSQL where the case writes to it.
    fn servers_cpu(&self) -> String {
        let text = |cpu: Option<Range>| cpu.map(|cpu| hundredths(cpu.median));
        match (text(self.broker_cpu), text(self.database_cpu)) {
            (Some(broker), Some(database)) => format!("{broker} + {database} (PostgreSQL)"),
            (Some(broker), None) => broker,
            (None, Some(database)) => format!("{database} (PostgreSQL)"),
            (None, None) => String::new(),
        }
    }
}

/// The speed of these runs of one subject, in parts of the yardstick's in the same round.
fn compare(yardstick: Yardstick, of: &[&Run], runs: &[Run]) -> Option<Compared> {
    let speed = |run: &Run| match yardstick {
        Yardstick::Rate(rate) => Some(rate),
        Yardstick::Subject(subject) => runs
            .iter()
            .find(|other| (other.case, other.round, other.subject) == (run.case, run.round, subject))
            .map(|other| other.records_per_second),
    };
    Some(Compared {
        share: Range::of(
            of.iter()
                .filter_map(|run| Some(run.records_per_second / speed(run)?)),
        )?,
        with: match yardstick {
            Yardstick::Rate(rate) => format!("{}/s", thousands(rate)),
            Yardstick::Subject(subject) => subject.into(),
        },
    })
}

/// Replaces a generated part of the document; the part with peers is a separate one.
pub(super) fn update_docs(path: &Path, machine: &str, peers: bool, report: &Report) -> Result<()> {
    let begin = if peers { BEGIN_PEERS } else { BEGIN };
    write_generated(path, begin, &format!("{machine}\n{}", report.tables()))
}

/// Replaces what is between the line `begin` and the next end in a file.
pub(super) fn write_generated(path: &Path, begin: &str, generated: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let replaced = replace(&text, begin, generated)
        .with_context(|| format!("{} lacks the lines {begin:?} and {END:?}", path.display()))?;
    fs::write(path, replaced).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(text: &str, begin: &str, generated: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{generated}\n{END}{after}"))
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::{super::cases::Data, *};

    fn run(subject: &'static str, round: u32, rate: f64) -> Run {
        Run {
            case: "c",
            subject,
            round,
            records: 1_000_000,
            seconds: 1.0,
            records_per_second: rate,
            cpu_seconds_per_million: 1.5,
            broker_cpu_seconds_per_million: Some(0.1),
            database_cpu_seconds_per_million: None,
            peak_rss_mib: f64::from(round),
            others: Some(0.5),
        }
    }

    fn case(yardstick: Yardstick) -> Case {
        Case {
            name: "c",
            data: Data::P100,
            yardstick,
            subjects: &[],
        }
    }

    #[test]
    fn the_share_of_the_yardstick_is_taken_within_each_round() {
        let runs = vec![
            run("raw", 1, 100.0),
            run("worker", 1, 80.0),
            run("raw", 2, 1000.0),
            run("worker", 2, 600.0),
        ];
        let report = Report::new(&[&case(Yardstick::Subject("raw"))], &runs, Vec::new());
        let worker = &report.lines[1];
        let expected = Range::of([0.6, 0.8].into_iter());
        assert_eq!(worker.compared.as_ref().map(|compared| compared.share), expected);
        assert_eq!(worker.peak_rss_mib, 2.0);
        assert_eq!((report.disturbed, report.runs), (4, 4));
    }

    #[test]
    fn a_rate_can_be_the_yardstick() {
        let runs = [run("worker", 1, 900.0)];
        let report = Report::new(&[&case(Yardstick::Rate(1000.0))], &runs, Vec::new());
        assert!(report.tables().contains("0.90 (0.90-0.90) of 1,000/s"));
    }

    #[test]
    fn results_have_their_columns_and_nothing_that_was_not_measured() {
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
        let cases = [&case(Yardstick::Subject("raw"))];
        let report = Report::new(&cases, &[run("raw", 1, 100.0)], idle);
        let rows: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(
            rows,
            serde_json::json!([
                {"case": "c", "subject": "raw", "records_per_second": 100.0, "cpu_seconds_per_million": 1.5,
                 "broker_cpu_seconds_per_million": 0.1, "peak_rss_mib": 1.0, "compared_with": "raw", "share": 1.0},
                {"case": "idle", "subject": "worker", "peak_rss_mib": 20.0},
            ])
        );
        assert!(report.tables().contains("not measured: no cluster"));
    }

    #[test]
    fn only_the_generated_part_of_the_document_changes() {
        let text = format!("head\n{BEGIN}\nold\n{END}\nbetween\n{BEGIN_PEERS}\nold\n{END}\ntail\n");
        assert_eq!(
            replace(&text, BEGIN, "new").unwrap(),
            format!("head\n{BEGIN}\n\nnew\n{END}\nbetween\n{BEGIN_PEERS}\nold\n{END}\ntail\n")
        );
        assert_eq!(
            replace(&text, BEGIN_PEERS, "new").unwrap(),
            format!("head\n{BEGIN}\nold\n{END}\nbetween\n{BEGIN_PEERS}\n\nnew\n{END}\ntail\n")
        );
        assert_eq!(replace("no marks", BEGIN, "new"), None);
    }
}
