//! The result of a run, and whether it kept its promise.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use super::{outage::Outage, plan::Faults, scenario::Scenario};
use crate::verify::checker::{Kind, Verdict};

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub verdict: Verdict,
    /// Faults that took place: the whole plan, unless the group got stuck.
    pub done: Faults,
    pub outage: Option<Outage>,
    /// Workers that ended unexpectedly, or with an error.
    pub ended: Vec<String>,
    pub seconds: f64,
    /// The folder of the workers' logs.
    pub folder: PathBuf,
}

impl Outcome {
    /// The kinds that break the promise.
    pub fn broken(&self) -> Vec<Kind> {
        self.scenario.promise().broken_by(&self.verdict)
    }

    /// An error that names the promise and how it was broken.
    pub fn kept(&self) -> Result<()> {
        let broken: Vec<&str> = self.broken().into_iter().map(Kind::name).collect();
        ensure!(
            broken.is_empty() && self.ended.is_empty() && self.done == self.scenario.faults,
            "{}: {broken:?} after {}; {}; workers that ended: {:?}; seed {}; their logs: {}",
            self.scenario.name,
            self.done,
            self.verdict,
            self.ended,
            self.scenario.seed,
            self.folder.display()
        );
        if let Some(outage) = self.outage.filter(|outage| !outage.is_harmless()) {
            bail!("{}: {outage}", self.scenario.name);
        }
        ensure!(
            self.scenario.faults.fences == 0 || self.verdict.aborted > 0,
            "{}: {} aborted nothing, so this run proves nothing about aborts",
            self.scenario.name,
            self.done
        );
        Ok(())
    }
}
