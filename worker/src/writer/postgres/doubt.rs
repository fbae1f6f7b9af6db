//! Finds out whether a failure is about single records or about the database as a whole, where the SQLSTATE
//! does not say: by trying, in transactions that are rolled back.
//!
//! - If the statement fails without any row, no record causes it.
//! - Otherwise the batch is halved. If a single record fails and others pass, it is the record.
//! - If the other records fail in the same way, it is the database, and the records wait.
//! - If nothing is known that could pass, the record counts as failed after [`LONE_ATTEMPTS`]: a record that
//!   nothing is compared with must not wait indefinitely.

use std::{collections::HashMap, sync::Mutex};

use futures::{FutureExt, TryFutureExt};
use tokio_postgres::{Client, Error};

use super::{classify, groups::Group, rows::Rules, statements, table::Table};
use crate::record::{Offset, TopicPartition};
use crate::sync;

/// How often a record is tried that nothing can be compared with.
const LONE_ATTEMPTS: u32 = 5;
/// A row that is larger is not kept for comparison.
const LARGEST_KEPT_ROW: usize = 64 * 1024;
/// The number of other records to compare with.
pub(super) const COMPARED: usize = 8;

/// What causes a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Record,
    Database,
}

/// What is known to work, and what has failed alone.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// The last row that was written, and the fingerprint of its table.
    passed: Mutex<Option<(String, Group<'static>)>>,
    lone: Mutex<HashMap<(TopicPartition, Offset), u32>>,
}

impl Doubt {
    /// These rows were written.
    pub fn written(&self, table: &Table, groups: &[Group<'_>]) {
        let Some(group) = groups.iter().rev().find(|group| !group.delete) else {
            return;
        };
        sync::lock(&self.lone).clear();
        let row = group.last_row();
        if row.size() <= LARGEST_KEPT_ROW {
            *sync::lock(&self.passed) = Some((table.fingerprint.clone(), row));
        }
    }

    /// Judges the failure of a single record. `others` are other records of its batch, one row each at least.
    pub async fn judge(
        &self,
        record: (TopicPartition, Offset),
        error: &Error,
        trial: &Trial<'_>,
        others: &[Vec<Group<'_>>],
    ) -> Result<Cause, Error> {
        let mut same_failure = false;
        for groups in others {
            match trial.outcome(groups, error).await? {
                Outcome::Passes => return Ok(Cause::Record),
                Outcome::SameFailure => same_failure = true,
                Outcome::OtherFailure => {}
            }
        }
        let passed = sync::lock(&self.passed).clone();
        if let Some((fingerprint, group)) = passed
            && fingerprint == trial.table.fingerprint
        {
            match trial.outcome(std::slice::from_ref(&group), error).await? {
                Outcome::Passes => return Ok(Cause::Record),
                Outcome::SameFailure => same_failure = true,
                Outcome::OtherFailure => {}
            }
        }
        if same_failure {
            return Ok(Cause::Database);
        }
        let mut lone = sync::lock(&self.lone);
        let attempts = lone.entry(record.clone()).or_insert(0);
        *attempts += 1;
        if *attempts < LONE_ATTEMPTS {
            return Ok(Cause::Database);
        }
        lone.remove(&record);
        Ok(Cause::Record)
    }
}

/// Writes that are rolled back.
pub(super) struct Trial<'a> {
    pub client: &'a Client,
    pub begin: &'a str,
    pub table: &'a Table,
    pub rules: &'a Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passes,
    SameFailure,
    OtherFailure,
}

impl Trial<'_> {
    /// The error of the statements without rows.
    pub async fn without_rows(&self, groups: &[Group<'_>]) -> Result<(), Error> {
        let empty: Vec<Group<'static>> = groups.iter().map(Group::without_rows).collect();
        self.run(&empty).await
    }

    /// Fails only if the connection does.
    async fn outcome(&self, groups: &[Group<'_>], first: &Error) -> Result<Outcome, Error> {
        match self.run(groups).await {
            Ok(()) => Ok(Outcome::Passes),
            Err(error) if error.code().is_none() => Err(error),
            Err(error) if classify::code(&error) == classify::code(first) => Ok(Outcome::SameFailure),
            Err(_) => Ok(Outcome::OtherFailure),
        }
    }

    async fn run(&self, groups: &[Group<'_>]) -> Result<(), Error> {
        let write = |group| {
            statements::write(self.client, self.table, self.rules, group)
                .map_ok(drop)
                .boxed()
        };
        statements::try_out(self.client, self.begin, groups.iter().map(write)).await
    }
}
