//! The table that stores the offsets next to the rows, with one row per group and partition: which worker
//! owns the partition, and which offsets are finished. Contains its statements and classifies their errors.
//! Never creates or alters the table.

use tokio_postgres::{
    Client, Error, Row,
    types::{ToSql, Type},
};

use super::{classify, identifier::quote_table};
use crate::{
    offsets::FinishedSet,
    record::{Offset, TopicPartition},
    writer::WriteError,
};

/// The offsets table of a consumer group.
pub(super) struct OffsetsTable {
    /// The name as configured.
    name: String,
    /// The name as SQL.
    quoted: String,
    group: String,
    owner: String,
}

/// The row of a partition.
#[derive(Debug)]
pub(super) struct OffsetsRow {
    pub owner: String,
    /// Number of claims; the worker that made the last one owns the partition.
    pub owner_epoch: i64,
    pub finished: FinishedSet,
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

const KEY: &str = "group_id = $1 AND topic = $2 AND partition = $3";
const COLUMNS: &str = "owner::text, owner_epoch::bigint, next_offset::bigint, ahead::text";

impl OffsetsTable {
    /// Uses the rows of this consumer group, as this worker.
    pub fn new(name: &str, group: &str, owner: &str) -> Self {
        Self {
            name: name.into(),
            quoted: quote_table(name),
            group: group.into(),
            owner: owner.into(),
        }
    }

    /// The statement that creates the table.
    fn create(&self) -> String {
        format!(
            "CREATE TABLE {} (group_id text NOT NULL, topic text NOT NULL, partition int NOT NULL, \
             topic_id text NOT NULL, next_offset bigint NOT NULL, ahead text NOT NULL, owner text NOT NULL, owner_epoch bigint NOT \
             NULL, updated_at timestamptz NOT NULL, PRIMARY KEY (group_id, topic, partition));",
            self.quoted
        )
    }

    /// Makes this worker the owner, and locks the row until the end of the transaction. If the row has the
    /// offsets of a deleted topic of the same name, they are removed. Without an id, the row keeps its own.
    pub async fn claim(
        &self,
        client: &Client,
        partition: &TopicPartition,
        topic_id: Option<&str>,
    ) -> Result<OffsetsRow, WriteError> {
        let recreated = "o.topic_id <> '' AND excluded.topic_id <> '' AND o.topic_id <> excluded.topic_id";
        let sql = format!(
            "INSERT INTO {} AS o \
             (group_id, topic, partition, topic_id, next_offset, ahead, owner, owner_epoch, updated_at) \
             VALUES ($1, $2, $3, $5, 0, '', $4, 1, now()) \
             ON CONFLICT (group_id, topic, partition) \
             DO UPDATE SET owner = excluded.owner, owner_epoch = o.owner_epoch + 1, updated_at = now(), \
             next_offset = CASE WHEN {recreated} THEN 0 ELSE o.next_offset END, \
             ahead = CASE WHEN {recreated} THEN '' ELSE o.ahead END, \
             topic_id = coalesce(nullif(excluded.topic_id, ''), o.topic_id) \
             RETURNING {COLUMNS}",
            self.quoted
        );
        let topic = &*partition.topic;
        let topic_id = topic_id.unwrap_or_default();
        let mut parameters = self.key(&topic, partition).to_vec();
        parameters.extend([(&self.owner as _, Type::TEXT), (&topic_id as _, Type::TEXT)]);
        let rows = client.query_typed(&sql, &parameters).await;
        match self.read(partition, rows)? {
            Some(owned) => Ok(owned),
            None => Err(WriteError::Systemic(format!(
                "the table {:?} accepts no row for {partition}: remove the trigger or rule that prevents it",
                self.name
            ))),
        }
    }

    /// Locks the row until the end of the transaction. Returns `None` if there is none.
    pub async fn lock(
        &self,
        client: &Client,
        partition: &TopicPartition,
    ) -> Result<Option<OffsetsRow>, WriteError> {
        let sql = format!("SELECT {COLUMNS} FROM {} WHERE {KEY} FOR UPDATE", self.quoted);
        let topic = &*partition.topic;
        let rows = client.query_typed(&sql, &self.key(&topic, partition)).await;
        self.read(partition, rows)
    }

    /// Stores the finished offsets in the locked row.
    pub async fn store(
        &self,
        client: &Client,
        partition: &TopicPartition,
        finished: &FinishedSet,
    ) -> Result<(), WriteError> {
        let sql = format!(
            "UPDATE {} SET next_offset = $4, ahead = $5, updated_at = now() WHERE {KEY}",
            self.quoted
        );
        let (topic, next, ahead) = (&*partition.topic, finished.next(), finished.ahead());
        let mut parameters = self.key(&topic, partition).to_vec();
        parameters.extend([(&next as _, Type::INT8), (&ahead as _, Type::TEXT)]);
        match client.execute_typed(&sql, &parameters).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// The error for a row that lacks offsets that were `stored` in it, from `lost` on.
    pub fn lost_offsets_error(
        &self,
        partition: &TopicPartition,
        stored: &FinishedSet,
        lost: Offset,
    ) -> WriteError {
        WriteError::Systemic(format!(
            "the database has gone back: this worker has stored offsets of {partition} up to {}, and the \
             table {:?} has lost them from {lost} on, and with them the rows; nothing is written until this \
             is fixed: stop the group, set its offsets in Kafka to next_offset of its rows in that table, \
             and start it again (docs/delivery.md, \"When the database goes back\")",
            stored.end(),
            self.name
        ))
    }

    fn key<'a>(&'a self, topic: &'a &'a str, partition: &'a TopicPartition) -> [Parameter<'a>; 3] {
        [
            (&self.group, Type::TEXT),
            (topic, Type::TEXT),
            (&partition.partition, Type::INT4),
        ]
    }

    fn read(
        &self,
        partition: &TopicPartition,
        rows: Result<Vec<Row>, Error>,
    ) -> Result<Option<OffsetsRow>, WriteError> {
        let rows = rows.map_err(|error| self.error(&error))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let columns = || -> Result<(String, i64, i64, String), Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        };
        let (owner, owner_epoch, next, ahead) = columns().map_err(|error| self.error(&error))?;
        // To treat this as nothing finished would write rows twice.
        let finished = FinishedSet::decode(next, &ahead).map_err(|_| {
            WriteError::Systemic(format!(
                "the column ahead of table {:?} holds text that this worker did not write, in the row of \
                 {partition}: restore it, or stop the group and delete the row; the worker then writes the \
                 records from Kafka's committed offset on again",
                self.name
            ))
        })?;
        Ok(Some(OffsetsRow {
            owner,
            owner_epoch,
            finished,
        }))
    }

    /// Classifies an error of these statements, or of a transaction with only these statements.
    pub fn error(&self, error: &Error) -> WriteError {
        let advice = error.code().and_then(|code| match code.code() {
            "42703" => Some(format!(
                "the table lacks a column; if that is topic_id, add it: ALTER TABLE {} ADD COLUMN topic_id text \
                 NOT NULL DEFAULT ''; otherwise the table must have this form: {}",
                self.quoted,
                self.create()
            )),
            "42P01" | "42P10" => Some(format!("create the table: {}", self.create())),
            "42501" => Some(format!(
                "grant the user of the connection URL SELECT, INSERT and UPDATE on {}",
                self.quoted
            )),
            _ => None,
        });
        let error = classify::other(error, &format!("offsets in table {:?}", self.name));
        let with = |message: String| match advice {
            Some(advice) => format!("{message}; {advice}"),
            None => message,
        };
        match error {
            WriteError::Systemic(message) => WriteError::Systemic(with(message)),
            WriteError::Transient(message) => WriteError::Transient(with(message)),
            // No record causes this error, so no record may go to the dead letter topic because of it.
            WriteError::Refused(message) => WriteError::Systemic(format!(
                "{message}; the table must have this form: {}",
                self.create()
            )),
            fenced => fenced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_creates_the_table_is_one_line() {
        let create = OffsetsTable::new("app.offsets", "g", "w").create();
        assert!(
            create.starts_with("CREATE TABLE \"app\".\"offsets\" (group_id text NOT NULL, "),
            "{create}"
        );
        assert!(!create.contains('\n') && !create.contains("  "), "{create}");
    }
}
