//! Finds out whether a failure is about single records or about the database as a whole, where the SQLSTATE
//! does not say: by trying, in transactions that are rolled back.
//!
//! - If the statement fails without any row, no record causes it.
//! - Otherwise the batch is halved. If a single record fails and others pass, it is the record.
//! - If the other records fail in the same way, it is the database, and the records wait.
//! - Before a record is found to be the cause, it is tried once more. If it passes now, the failure was
//!   transient.
//! - If nothing is known that could pass, the record counts as failed after [`LONE_ATTEMPTS`]: a record that
//!   nothing is compared with must not wait indefinitely.

use std::{collections::HashMap, sync::Mutex};

use futures::FutureExt;
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
    /// The record passes when it is tried again.
    Transient,
}

/// What is known to work, and what has failed alone.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// The last row that was written, and the fingerprint of its table.
    passed: Mutex<Option<(String, Group<'static>)>>,
    lone: Mutex<HashMap<(TopicPartition, Offset), u32>>,
}

impl Doubt {
    /// These rows were written, for the records of the partition with these offsets.
    pub fn written(
        &self,
        fingerprint: &str,
        groups: &[Group<'_>],
        partition: &TopicPartition,
        offsets: impl IntoIterator<Item = Offset>,
    ) {
        let mut lone = sync::lock(&self.lone);
        let row = groups.iter().rev().find(|group| !group.delete);
        let row = row.map(Group::last_row);
        match row.filter(|row| row.size() <= LARGEST_KEPT_ROW) {
            Some(row) => {
                // From now on there is something to compare with.
                lone.clear();
                *sync::lock(&self.passed) = Some((fingerprint.to_string(), row));
            }
            // The attempts of other records still count: nothing else ends their wait.
            None if !lone.is_empty() => {
                for offset in offsets {
                    lone.remove(&(partition.clone(), offset));
                }
            }
            None => {}
        }
    }

    /// Judges the failure of a single record, whose rows are `own`. `others` are other records of its batch, one
    /// row each at least.
    pub async fn judge(
        &self,
        record: (TopicPartition, Offset),
        error: &Error,
        trial: &Trial<'_>,
        own: &[Group<'_>],
        others: &[Vec<Group<'_>>],
    ) -> Result<Cause, Error> {
        match self.compare(record, error, trial, others).await? {
            // The others were tried later than the record.
            Cause::Record if trial.outcome(own, error).await? == Outcome::Passes => Ok(Cause::Transient),
            cause => Ok(cause),
        }
    }

    async fn compare(
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
        Ok(self.failed_alone(record))
    }

    /// A record failed that nothing can be compared with.
    fn failed_alone(&self, record: (TopicPartition, Offset)) -> Cause {
        let mut lone = sync::lock(&self.lone);
        let attempts = lone.entry(record.clone()).or_insert(0);
        *attempts += 1;
        if *attempts < LONE_ATTEMPTS {
            return Cause::Database;
        }
        lone.remove(&record);
        Cause::Record
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
        let write = |group| statements::write(self.client, self.table, self.rules, group).boxed();
        statements::try_out(self.client, self.begin, groups.iter().map(write)).await
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::writer::postgres::groups::{Row, RowKey, add};

    fn rows(text: &str) -> Vec<Group<'_>> {
        let mut groups = Vec::new();
        let row = Row {
            delete: false,
            values: vec![(0, Some(Cow::Borrowed(text)))],
            key: RowKey::Unique,
        };
        add(&mut groups, row, true);
        groups
    }

    #[test]
    fn a_lone_record_does_not_wait_indefinitely_while_large_rows_are_written() {
        let large = "x".repeat(LARGEST_KEPT_ROW + 1);
        let (here, there) = (TopicPartition::new("orders", 1), TopicPartition::new("orders", 2));
        let doubt = Doubt::default();
        for _ in 1..LONE_ATTEMPTS {
            assert_eq!(doubt.failed_alone((here.clone(), 7)), Cause::Database);
            doubt.written("f", &rows(&large), &there, [7]);
            doubt.written("f", &rows(&large), &here, [8, 9]);
            doubt.written("f", &[], &there, [8]);
        }
        assert_eq!(doubt.failed_alone((here.clone(), 7)), Cause::Record);
        // A record that was written is forgotten, and all are when there is a row to compare with.
        for (text, offsets) in [(large.as_str(), 7..8), ("small", 8..9)] {
            doubt.failed_alone((here.clone(), 7));
            doubt.written("f", &rows(text), &here, offsets);
            assert!(sync::lock(&doubt.lone).is_empty());
        }
    }
}
