//! The result of all sizes as tables, as `results.json`, and as the generated part of docs/benchmarks.md.
//! Pure, except for that file.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    super::{
        quantiles::Quantiles,
        report::{rounded, write_generated},
        table::{hundredths, markdown, thousands},
    },
    groups::Filled,
    process::Reading,
    trials::Latencies,
};

const BEGIN: &str = "<!-- begin: written by scripts/bench-operator.sh --update-docs -->";

/// Everything measured with one number of groups.
pub(super) struct Size {
    pub groups: u32,
    /// `desiredState` of the groups.
    pub state: &'static str,
    /// Before the first group.
    pub idle_rss_mib: f64,
    pub filled: Filled,
    pub steady: Steady,
    /// Since the start, up to the deletion.
    pub peak_rss_mib: f64,
    pub latencies: Latencies,
    /// After the deletion of all groups.
    pub after_rss_mib: f64,
    /// Number of deleted groups that the operator still had metrics of.
    pub remembered: usize,
}

/// The window without changes.
pub(super) struct Steady {
    pub seconds: f64,
    pub cpu_seconds_per_minute: f64,
    pub broker_cpu_seconds_per_minute: Option<f64>,
    /// Share of the machine that neither operator nor broker used.
    pub others: Option<f64>,
    /// At the end of the window.
    pub reading: Reading,
    /// Number of groups that somebody wrote to.
    pub written: usize,
}

impl Size {
    fn changes(&self) -> [(&'static str, &'static str, Quantiles); 3] {
        let Latencies {
            created,
            changed,
            grown,
        } = self.latencies;
        [
            ("new group", "`KafkaReachable` is True", created),
            ("changed spec", "`status.observedGeneration`", changed),
            ("more partitions", "`status.topics`", grown),
        ]
    }
}

/// Both tables.
pub(super) fn tables(sizes: &[Size]) -> String {
    format!("{}\n{}", load(sizes), latencies(sizes))
}

fn load(sizes: &[Size]) -> String {
    let tenths = |value: f64| format!("{value:.1}");
    let mut rows = vec![
        [
            "groups",
            "all reach Kafka after, s",
            "CPU-s per minute",
            "broker's CPU-s per minute",
            "RSS idle, MiB",
            "RSS, MiB",
            "peak RSS, MiB",
            "RSS after deletion, MiB",
            "threads",
            "connections to Kafka",
            "groups written in the window",
        ]
        .map(String::from),
    ];
    rows.extend(sizes.iter().map(|size| {
        let steady = &size.steady;
        [
            thousands(f64::from(size.groups)),
            tenths(size.filled.reachable.as_secs_f64()),
            hundredths(steady.cpu_seconds_per_minute),
            steady
                .broker_cpu_seconds_per_minute
                .map_or_else(String::new, hundredths),
            tenths(size.idle_rss_mib),
            tenths(steady.reading.rss_mib),
            tenths(size.peak_rss_mib),
            tenths(size.after_rss_mib),
            steady.reading.threads.to_string(),
            steady.reading.connections.to_string(),
            steady.written.to_string(),
        ]
    }));
    markdown(&rows)
}

fn latencies(sizes: &[Size]) -> String {
    let mut rows = vec![
        [
            "groups", "change", "until", "p50, s", "p99, s", "max, s", "trials",
        ]
        .map(String::from),
    ];
    for size in sizes {
        for (change, until, times) in size.changes() {
            rows.push([
                thousands(f64::from(size.groups)),
                change.into(),
                until.into(),
                hundredths(times.p50),
                hundredths(times.p99),
                hundredths(times.max),
                times.trials.to_string(),
            ]);
        }
    }
    markdown(&rows)
}

/// The content of `results.json`. Leaves out what was not measured.
pub(super) fn json(sizes: &[Size]) -> Result<String> {
    let times = |times: Quantiles| {
        json!({
            "p50_seconds": rounded(times.p50),
            "p99_seconds": rounded(times.p99),
            "max_seconds": rounded(times.max),
            "trials": times.trials,
        })
    };
    let rows: Vec<Value> = sizes
        .iter()
        .map(|size| {
            let steady = &size.steady;
            let mut row = json!({
                "groups": size.groups,
                "desired_state": size.state,
                "created_seconds": rounded(size.filled.created.as_secs_f64()),
                "reachable_seconds": rounded(size.filled.reachable.as_secs_f64()),
                "window_seconds": rounded(steady.seconds),
                "cpu_seconds_per_minute": rounded(steady.cpu_seconds_per_minute),
                "idle_rss_mib": rounded(size.idle_rss_mib),
                "rss_mib": rounded(steady.reading.rss_mib),
                "peak_rss_mib": rounded(size.peak_rss_mib),
                "after_deletion_rss_mib": rounded(size.after_rss_mib),
                "deleted_groups_with_metrics": size.remembered,
                "threads": steady.reading.threads,
                "kafka_connections": steady.reading.connections,
                "groups_written": steady.written,
                "new_group": times(size.latencies.created),
                "changed_spec": times(size.latencies.changed),
                "more_partitions": times(size.latencies.grown),
            });
            if let Some(cpu) = steady.broker_cpu_seconds_per_minute {
                row["broker_cpu_seconds_per_minute"] = json!(rounded(cpu));
            }
            if let Some(others) = steady.others {
                row["machine_used_by_others"] = json!(rounded(others));
            }
            row
        })
        .collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

/// Replaces the generated part of the document.
pub(super) fn update_docs(path: &Path, machine: &str, sizes: &[Size]) -> Result<()> {
    write_generated(path, BEGIN, &format!("{machine}\n{}", tables(sizes)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn size() -> Size {
        let times = Quantiles::of(&[Duration::from_millis(250)]);
        Size {
            groups: 1000,
            state: "Stopped",
            idle_rss_mib: 12.0,
            filled: Filled {
                created: Duration::from_secs(4),
                reachable: Duration::from_secs(7),
            },
            steady: Steady {
                seconds: 60.0,
                cpu_seconds_per_minute: 1.25,
                broker_cpu_seconds_per_minute: None,
                others: Some(0.5),
                reading: Reading {
                    rss_mib: 48.0,
                    peak_rss_mib: 50.0,
                    threads: 9,
                    connections: 2,
                },
                written: 0,
            },
            peak_rss_mib: 55.0,
            latencies: Latencies {
                created: times,
                changed: times,
                grown: times,
            },
            after_rss_mib: 20.0,
            remembered: 0,
        }
    }

    #[test]
    fn tables_have_a_row_per_size_and_per_change() {
        let text = tables(&[size()]);
        let cells = |line: &str| {
            line.split('|')
                .map(|cell| cell.trim().to_string())
                .collect::<Vec<_>>()
        };
        let lines: Vec<Vec<String>> = text.lines().map(cells).collect();
        assert_eq!(
            lines[2][1..12],
            [
                "1,000", "7.0", "1.25", "", "12.0", "48.0", "55.0", "20.0", "9", "2", "0"
            ]
        );
        assert_eq!(lines[6][1..3], ["1,000", "new group"]);
        assert_eq!(lines[8][4..8], ["0.25", "0.25", "0.25", "1"]);
    }

    #[test]
    fn results_leave_out_what_was_not_measured() {
        let rows: Value = serde_json::from_str(&json(&[size()]).unwrap()).unwrap();
        assert_eq!(rows[0]["cpu_seconds_per_minute"], 1.25);
        assert_eq!(rows[0]["more_partitions"]["p99_seconds"], 0.25);
        assert!(rows[0].get("broker_cpu_seconds_per_minute").is_none());
    }
}
