//! Upserts JSON objects into a table. A field goes to the column of the same name, in PostgreSQL's text form,
//! so every type with a text form works. JSON arrays become PostgreSQL arrays; `json` columns get the JSON
//! unchanged.
//!
//! - A record changes the columns that it has fields for, and no others; a JSON null writes NULL.
//! - Records of one key take effect in their order, whichever columns they set. Those with the same columns
//!   are merged within a batch, unless `merge: None`.
//! - The values are assigned as the types of the columns are when the statement runs ([`sql`]).
//! - A batch is one transaction and leaves nothing behind if it fails. Written twice, it leaves the same
//!   rows.
//! - Tombstones (unless `onNull: Delete`), values that are not objects, missing keys and (unless
//!   `unknownFields: Ignore`) fields without a column are rejected one by one. What only PostgreSQL can check
//!   (constraints, types) fails the batch.
//!
//! With `ExactlyOnce`, the offsets of the records are written in the same transaction ([`transaction`]).
//!
//! The writer reads the connection URL from its Secret at each connect, so it picks up a corrected Secret
//! without a restart. It creates and alters nothing in the database.

mod catalog;
mod claims;
mod classify;
mod connect;
mod doubt;
mod error;
mod failure;
mod groups;
mod identifier;
mod key;
mod lost_offsets;
mod offsets;
mod rows;
mod session_settings;
mod sql;
mod statements;
mod stored_offsets;
mod table;
mod temporal;
mod text;
mod transaction;
mod url;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crds::spec;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

pub use self::error::NewPostgresError;
use self::{
    connect::{Connector, Session},
    doubt::Doubt,
    groups::Group,
    rows::{Encoded, Rows, Rules},
    stored_offsets::StoredOffsets,
    table::Table,
};
use super::{Rejected, WriteBatch, WriteError, Writer};
use crate::sync;
use crate::{
    offsets::FinishedSet,
    record::{Offset, TopicPartition, batch::OutputRecord},
    secrets::SecretFiles,
};

/// Maximum number of concurrent batches of one worker. With PostgreSQL's default of 100 connections, there is
/// room for 20 workers and other users.
const MAX_CONNECTIONS: usize = 4;
/// The server ends a statement after `timeoutSeconds`. The writer waits this much longer for a server that
/// does not respond at all.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(5);
/// How often a batch is encoded again because the columns of the table have changed.
const ENCODINGS: usize = 3;

/// Writes to one table.
pub struct PostgresWriter {
    connector: Connector,
    table: String,
    rules: Rules,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
    doubt: Doubt,
    /// Records that were merged and not reported yet.
    merged: AtomicU64,
    /// Set with `ExactlyOnce`.
    offsets: Option<StoredOffsets>,
}

impl PostgresWriter {
    /// Reads and checks the connection URL; connects at the first batch.
    pub fn new(config: &spec::PostgresWriter, secrets: SecretFiles) -> Result<Self, NewPostgresError> {
        let timeout = Duration::from_secs(config.timeout_seconds.max(1).unsigned_abs().into());
        let connector = Connector::new(secrets, config.connection.clone(), timeout);
        connector.check()?;
        Ok(Self {
            connector,
            table: config.table.clone(),
            rules: Rules::new(config),
            timeout,
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
            doubt: Doubt::default(),
            merged: AtomicU64::new(0),
            offsets: None,
        })
    }

    /// Stores offsets with the rows, in table `offsets`, for `ExactlyOnce`.
    pub fn exactly_once(mut self, offsets: &str, group: &str, worker: &str) -> Self {
        self.offsets = Some(StoredOffsets::new(offsets, group, worker));
        self
    }

    async fn write_batch(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let (_permit, mut session) = self.session().await?;
        let result = self.in_time(self.write_with(&mut session, &batch)).await;
        self.put_back(session, &result);
        result
    }

    async fn session(&self) -> Result<(SemaphorePermit<'_>, Session), WriteError> {
        let closed = |_| WriteError::Transient("the writer is closed".into());
        let permit = self.permits.acquire().await.map_err(closed)?;
        let session = match self.idle_session() {
            Some(session) => session,
            None => self.in_time(self.connector.connect(&self.table)).await?,
        };
        Ok((permit, session))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, WriteError>>) -> Result<T, WriteError> {
        let limit = self.timeout + NETWORK_ALLOWANCE;
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(WriteError::Transient(format!(
                "PostgreSQL did not answer within {} s",
                limit.as_secs()
            )))
        })
    }

    /// Keeps a session for the next batch. Other sessions are closed: after a cancelled write, and after
    /// errors that they may not survive.
    fn put_back<T>(&self, session: Session, result: &Result<T, WriteError>) {
        if matches!(
            result,
            Ok(_) | Err(WriteError::Refused(_) | WriteError::Fenced(_))
        ) {
            sync::lock(&self.idle).push(session);
        }
    }

    fn idle_session(&self) -> Option<Session> {
        let mut idle = sync::lock(&self.idle);
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }

    async fn write_with(
        &self,
        session: &mut Session,
        batch: &WriteBatch<'_>,
    ) -> Result<Vec<Rejected>, WriteError> {
        for _ in 0..ENCODINGS {
            let encoded = match self.encode(&session.table, batch.records()) {
                Ok(encoded) => encoded,
                Err(_) if session.has_changed(&self.table).await? => continue,
                Err(error) => return Err(error),
            };
            let Encoded { groups, rejected } = encoded;
            if groups.is_empty() {
                // A statement would have compared the columns.
                if !rejected.is_empty() && session.has_changed(&self.table).await? {
                    continue;
                }
                return Ok(rejected);
            }
            let error = match self.upsert(session, &groups).await {
                Ok(()) => {
                    self.written(&session.table, &groups, batch);
                    return Ok(rejected);
                }
                Err(error) => error,
            };
            if error.code().is_none() {
                return Err(classify::of_statement(
                    &error,
                    &session.table.quoted,
                    &self.rules.key,
                ));
            }
            if self.has_changed(session, &error).await? {
                continue;
            }
            return self.failed(session, batch, &groups, error).await;
        }
        Err(columns_keep_changing(&self.table))
    }

    fn encode<'a>(
        &self,
        table: &Table,
        records: impl IntoIterator<Item = OutputRecord<'a>>,
    ) -> Result<Encoded<'a>, WriteError> {
        let rows = Rows::new(table, &self.rules).map_err(WriteError::Systemic)?;
        Ok(rows.encode(records))
    }

    /// Writes the groups in one transaction, in one round trip.
    async fn upsert(&self, session: &Session, groups: &[Group<'_>]) -> Result<(), tokio_postgres::Error> {
        let Session {
            client, table, begin, ..
        } = session;
        let mut requests = vec![client.batch_execute(begin).boxed()];
        for group in groups {
            requests.push(statements::write(client, table, &self.rules, group).boxed());
        }
        requests.push(client.batch_execute("COMMIT").boxed());
        statements::together(requests).await
    }

    /// True if the table may have changed since the rows were encoded that failed with this error.
    async fn has_changed(
        &self,
        session: &mut Session,
        error: &tokio_postgres::Error,
    ) -> Result<bool, WriteError> {
        // A CHECK may have been added, which decides about the form of the statement.
        if classify::code(error) == Some("23514") {
            return session.read_again(&self.table).await;
        }
        session.has_changed(&self.table).await
    }

    /// The groups of this batch are in the database.
    fn written(&self, table: &Table, groups: &[Group<'_>], batch: &WriteBatch<'_>) {
        let outputs = batch.selected().iter();
        let offsets = outputs.map(|output| batch.batch().output(*output as usize).offset());
        self.doubt
            .written(&table.fingerprint, groups, batch.partition(), offsets);
        let merged: usize = groups.iter().map(Group::merged).sum();
        self.merged.fetch_add(merged as u64, Ordering::Relaxed);
    }
}

fn columns_keep_changing(table: &str) -> WriteError {
    WriteError::Transient(format!(
        "the columns of table {table:?} change while records are written to it"
    ))
}

impl Writer for PostgresWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(async move {
            match &self.offsets {
                _ if batch.is_empty() => Ok(Vec::new()),
                Some(offsets) => self.write_with_offsets(offsets, &batch).await,
                None => self.write_batch(batch).await,
            }
        })
    }

    fn claim<'a>(
        &'a self,
        partition: &'a TopicPartition,
        task_epoch: u64,
        topic_id: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FinishedSet, WriteError>> {
        Box::pin(async move {
            match &self.offsets {
                Some(offsets) => {
                    self.claim_partition(offsets, partition, task_epoch, topic_id)
                        .await
                }
                None => Ok(FinishedSet::default()),
            }
        })
    }

    fn committed(&self, partition: &TopicPartition, task_epoch: u64, offset: Offset) {
        if let Some(offsets) = &self.offsets {
            offsets.claims.committed(partition, task_epoch, offset);
        }
    }

    fn reads_headers(&self) -> bool {
        false
    }

    fn take_merged(&self) -> u64 {
        self.merged.swap(0, Ordering::Relaxed)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            sync::lock(&self.idle).clear();
        })
    }
}
