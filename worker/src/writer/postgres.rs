//! Upserts JSON objects into a table. A field goes to the column of the same name, in PostgreSQL's text form,
//! so every type with a text form works. JSON arrays become PostgreSQL arrays; `json` columns get the JSON
//! unchanged.
//!
//! - A record changes the columns that it has fields for, and no others; a JSON null writes NULL.
//! - Within a batch, later records win over earlier ones with the same key, as if written one by one.
//! - A batch is one transaction and leaves nothing behind if it fails. Written twice, it leaves the same
//!   rows.
//! - Tombstones, values that are not objects, missing keys and (unless `unknownFields: Ignore`) fields
//!   without a column are rejected one by one. What only PostgreSQL can check (constraints, types) fails the
//!   batch.
//!
//! With `ExactlyOnce`, the offsets of the records are written in the same transaction ([`transaction`]).
//!
//! The writer reads the connection URL from its Secret at each connect, so it picks up a corrected Secret
//! without a restart. It creates and alters nothing in the database.

mod claims;
mod classify;
mod connect;
mod error;
mod identifier;
mod key;
mod lost_offsets;
mod offsets;
mod rows;
mod sql;
mod stored_offsets;
mod table;
mod text;
mod transaction;

use std::{sync::Mutex, time::Duration};

use crds::spec;
use futures::future::BoxFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use tokio_postgres::types::{ToSql, Type};

pub use self::error::NewPostgresError;
use self::{
    connect::{Connector, Session},
    key::Key,
    rows::{Encoded, Group, Rows},
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
/// A missing column may have been added since the columns were read: read them again if they are older than
/// this.
const TABLE_TTL_REJECT: Duration = Duration::from_secs(5);
/// The same, if the writer ignores such fields.
const TABLE_TTL_IGNORE: Duration = Duration::from_secs(60);

/// Writes to one table.
pub struct PostgresWriter {
    connector: Connector,
    table: String,
    key: Key,
    unknown_fields: spec::UnknownFields,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
    /// Set with `ExactlyOnce`.
    offsets: Option<StoredOffsets>,
}

impl PostgresWriter {
    /// Reads and checks the connection URL; connects at the first batch.
    pub fn new(config: &spec::PostgresWriter, secrets: SecretFiles) -> Result<Self, NewPostgresError> {
        let timeout = Duration::from_secs(config.timeout_seconds.max(1).unsigned_abs().into());
        let connector = Connector::new(secrets, config.connection.clone(), timeout);
        connector.check()?;
        let key = match &config.record_id_column {
            Some(column) => Key::RecordId(column.clone()),
            None => Key::Columns(config.key_columns.clone()),
        };
        Ok(Self {
            connector,
            table: config.table.clone(),
            key,
            unknown_fields: config.unknown_fields,
            timeout,
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
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
            None => self.connector.connect(&self.table).await?,
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
        let mut encoded = self.encode(&session.table, batch.records())?;
        if encoded.unknown_fields && self.refresh(session).await? {
            encoded = self.encode(&session.table, batch.records())?;
        }
        let Encoded { groups, rejected, .. } = encoded;
        self.upsert(session, &groups).await?;
        Ok(rejected)
    }

    /// Reads the columns again if they are old: a missing column may have been added. Returns true if it read
    /// them.
    async fn refresh(&self, session: &mut Session) -> Result<bool, WriteError> {
        let ttl = match self.unknown_fields {
            spec::UnknownFields::Reject => TABLE_TTL_REJECT,
            spec::UnknownFields::Ignore => TABLE_TTL_IGNORE,
        };
        let stale = session.table_read.elapsed() > ttl;
        if stale {
            session.table = table::read(&session.client, &self.table).await?;
            session.table_read = Instant::now();
        }
        Ok(stale)
    }

    fn encode<'a>(
        &self,
        table: &Table,
        records: impl IntoIterator<Item = OutputRecord<'a>>,
    ) -> Result<Encoded<'a>, WriteError> {
        let rows = Rows::new(table, &self.key, self.unknown_fields).map_err(WriteError::Systemic)?;
        Ok(rows.encode(records))
    }

    async fn upsert(&self, session: &mut Session, groups: &[Group<'_>]) -> Result<(), WriteError> {
        let table = &session.table;
        let result = match groups {
            [] => Ok(()),
            // A single statement is its own transaction, in one round trip.
            [group] => insert(&session.client, table, &self.key, group).await,
            groups => {
                let transaction = session.client.transaction().await;
                async {
                    let transaction = transaction?;
                    for group in groups {
                        insert(transaction.client(), table, &self.key, group).await?;
                    }
                    transaction.commit().await
                }
                .await
            }
        };
        let Err(error) = result else { return Ok(()) };
        let error = classify::write(&error, &session.table.quoted, &self.key);
        Err(explain(session, groups, error).await)
    }
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

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            sync::lock(&self.idle).clear();
        })
    }
}

/// Statements are not prepared by name: that fails behind connection poolers, and named statements would pile
/// up with many sets of columns.
async fn insert(
    client: &tokio_postgres::Client,
    table: &Table,
    key: &Key,
    group: &Group<'_>,
) -> Result<(), tokio_postgres::Error> {
    let sql = sql::upsert(table, key, &group.columns);
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = group
        .values
        .iter()
        .map(|values| (values as &(dyn ToSql + Sync), Type::TEXT_ARRAY))
        .collect();
    client.execute_typed(&sql, &parameters).await?;
    Ok(())
}

/// The server does not say which column caused the error; for a single record, find out.
async fn explain(session: &Session, groups: &[Group<'_>], error: WriteError) -> WriteError {
    if let (WriteError::Refused(message), [group]) = (&error, groups)
        && group.len() == 1
        && let Some(column) = misfit(session, group).await
    {
        return WriteError::Refused(format!("column {column:?}: {message}"));
    }
    error
}

/// The first column whose type does not accept the text in the only row of the group.
async fn misfit(session: &Session, group: &Group<'_>) -> Option<String> {
    for (column, values) in group.columns.iter().zip(&group.values) {
        let column = &session.table.columns[*column];
        let sql = sql::cast(column);
        if session
            .client
            .query_typed(&sql, &[(&values.first()?, Type::TEXT)])
            .await
            .is_err()
        {
            return (!session.client.is_closed()).then(|| column.name.clone());
        }
    }
    None
}
