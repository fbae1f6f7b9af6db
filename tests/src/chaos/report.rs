//! An outcome as a row of a table and of results.json.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{outage::Outage, outcome::Outcome, plan::Faults};
use crate::verify::checker::{Guarantee, Kind, Ordering, Sink};

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub scenario: String,
    pub guarantee: Guarantee,
    pub ordering: Ordering,
    pub sink: Sink,
    pub seed: u64,
    pub workers: usize,
    pub partitions: i32,
    pub faults: Faults,
    pub records: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// Number of records that the crashes may repeat or lose; of dead letters, where they may cost nothing
    /// else.
    pub allowance: u64,
    pub reordered: u64,
    /// Records of aborted transactions.
    pub aborted: u64,
    pub aborted_visible: u64,
    pub dead_letters: u64,
    /// Everything that the checker found, allowed or not.
    pub found: BTreeMap<Kind, u64>,
    /// The findings that are not allowed.
    pub broken: Vec<Kind>,
    /// Observations of an outage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// Workers that ended unexpectedly.
    pub ended: usize,
    pub seconds: f64,
    /// The seeded bug, in runs that test the checker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bug: Option<&'static str>,
    /// Every promise was kept; with a seeded bug: it was found under the right name.
    pub passed: bool,
}

impl Row {
    pub fn new(outcome: &Outcome) -> Self {
        let (scenario, verdict) = (&outcome.scenario, &outcome.verdict);
        Self {
            scenario: scenario.name.clone(),
            guarantee: scenario.guarantee,
            ordering: scenario.ordering,
            sink: scenario.sink,
            seed: scenario.seed,
            workers: scenario.workers,
            partitions: scenario.partitions,
            faults: outcome.done,
            records: verdict.expected,
            lost: verdict.count(Kind::Lost) + verdict.count(Kind::DeadLetterLost),
            duplicated: verdict.count(Kind::Duplicated) + verdict.count(Kind::DeadLetterDuplicated),
            allowance: match (scenario.guarantee, scenario.sink) {
                (Guarantee::ExactlyOnce, Sink::Kafka) => 0,
                (Guarantee::ExactlyOnce, Sink::Postgres) => scenario.letters(),
                _ => scenario.allowance(),
            },
            reordered: match scenario.ordering {
                Ordering::PerPartition => verdict.count(Kind::ReorderedInPartition),
                _ => verdict.count(Kind::ReorderedPerKey),
            },
            aborted: verdict.aborted,
            aborted_visible: verdict.count(Kind::AbortedVisible),
            dead_letters: verdict.letters,
            found: verdict
                .findings
                .iter()
                .map(|(kind, finding)| (*kind, finding.count))
                .collect(),
            broken: outcome.broken(),
            outage: outcome.outage,
            ended: outcome.ended.len(),
            seconds: outcome.seconds,
            bug: scenario.bug,
            passed: outcome.kept().is_ok(),
        }
    }

    fn reordered_in_words(&self) -> String {
        match self.ordering {
            Ordering::Unordered => "allowed".into(),
            _ => self.reordered.to_string(),
        }
    }

    /// The column titles that belong to [`Row::cells`].
    pub const TITLES: [&str; 14] = [
        "scenario",
        "guarantee",
        "ordering",
        "sink",
        "faults",
        "records",
        "lost",
        "duplicated",
        "allowed",
        "reordered",
        "aborted",
        "aborted seen",
        "seconds",
        "result",
    ];

    pub fn cells(&self) -> [String; 14] {
        let mut broken: Vec<&str> = self.broken.iter().map(|kind| kind.name()).collect();
        if self.ended > 0 {
            broken.push("workers ended");
        }
        if self.outage.is_some_and(|outage| !outage.is_harmless()) {
            broken.push("harmed by the outage");
        }
        if self.faults.fences > 0 && self.aborted == 0 {
            broken.push("nothing aborted");
        }
        [
            self.bug.unwrap_or(&self.scenario).to_string(),
            self.guarantee.to_string(),
            self.ordering.to_string(),
            self.sink.to_string(),
            self.faults.to_string(),
            self.records.to_string(),
            self.lost.to_string(),
            self.duplicated.to_string(),
            match self.guarantee {
                Guarantee::AtMostOnce => format!("{} lost", self.allowance),
                Guarantee::AtLeastOnce => format!("{} duplicated", self.allowance),
                Guarantee::ExactlyOnce if self.sink == Sink::Postgres => {
                    format!("{} dead letters", self.allowance)
                }
                Guarantee::ExactlyOnce => "0".into(),
            },
            self.reordered_in_words(),
            self.aborted.to_string(),
            self.aborted_visible.to_string(),
            format!("{:.0}", self.seconds),
            match (self.passed, self.bug) {
                (true, None) => "kept".into(),
                (true, Some(_)) => format!("found: {}", broken.join(", ")),
                (false, None) => format!("BROKEN: {}", broken.join(", ")),
                (false, Some(_)) => format!("NOT FOUND, only: {}", broken.join(", ")),
            },
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "chaos {} {} {} {}: {} records, {}: {} lost, {} duplicated (crashes allow {}), reordered: {}, {} aborted, {} of them \
             seen, {} dead letters, {:.0} s",
            self.bug.unwrap_or(&self.scenario),
            self.guarantee,
            self.ordering,
            self.sink,
            self.records,
            self.faults,
            self.lost,
            self.duplicated,
            self.cells()[8],
            self.reordered_in_words(),
            self.aborted,
            self.aborted_visible,
            self.dead_letters,
            self.seconds
        )?;
        if let Some(outage) = self.outage {
            write!(f, "; {outage}")?;
        }
        if !self.broken.is_empty() {
            let broken: Vec<String> = self
                .broken
                .iter()
                .map(|kind| format!("{} {}", self.found.get(kind).unwrap_or(&0), kind.name()))
                .collect();
            write!(f, "; not allowed: {}", broken.join(", "))?;
        }
        Ok(())
    }
}

/// A Markdown table, its columns aligned.
pub fn table(rows: &[Row]) -> String {
    let mut lines: Vec<Vec<String>> = vec![Row::TITLES.map(String::from).to_vec()];
    lines.extend(rows.iter().map(|row| row.cells().to_vec()));
    let widths: Vec<usize> = (0..Row::TITLES.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].len())
                .max()
                .unwrap_or_default()
        })
        .collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    lines
        .iter()
        .map(|line| {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            format!("| {} |\n", cells.join(" | "))
        })
        .collect()
}
