//! Upserts JSON objects into a table. A field goes to the column of the same name, in PostgreSQL's own text form, so every
//! type that can be written as text works; arrays of JSON become PostgreSQL arrays, `json` columns get the JSON as it is.
//!
//! - A record changes the columns that it has fields for and leaves the others alone; a JSON null writes NULL.
//! - Within a batch later records win over earlier ones of the same key, as they would one by one.
//! - A batch is one transaction, without a trace when it fails. Written twice, it leaves the same rows.
//! - Tombstones, values that are no objects, missing keys and (unless `unknownFields: Ignore`) fields without a column
//!   are refused one by one; what only PostgreSQL can tell (constraints, types) is refused for the batch.
//!
//! The connection URL is read from its Secret at each connect, so a corrected Secret heals without a restart. Creates
//! and alters nothing in the database.

mod classify;
mod connect;
mod rows;
mod sql;
mod table;
mod text;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crds::spec;
use futures::future::BoxFuture;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_postgres::types::{ToSql, Type};

use self::{
    connect::{Connector, Session},
    rows::{Encoded, Group, Rows},
    table::Table,
};
use super::{Rejected, WriteBatch, WriteError, Writer};
use crate::secrets::{SecretError, SecretFiles};

/// PostgreSQL works on that many batches of one worker at once; with its default of 100 connections, 20 workers and
/// other users have room.
const MAX_CONNECTIONS: usize = 4;
/// The server ends a statement after `timeoutSeconds`; this much later we stop waiting for a server that is gone.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(5);
/// A field without a column may have got one since the columns were read: they are read again when older than this.
const TABLE_TTL_REJECT: Duration = Duration::from_secs(5);
/// The same when such fields are left out anyway.
const TABLE_TTL_IGNORE: Duration = Duration::from_secs(60);

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum NewPostgresError {
    /// The Secret with the URL is missing.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The URL is none; its text may hold the password and is not shown.
    #[error("{0}")]
    Url(String),
}

/// How the rows of a table are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// One row per record.
    RecordId(String),
    /// One row per key.
    Columns(Vec<String>),
}

impl Key {
    fn columns(&self) -> &[String] {
        match self {
            Key::RecordId(column) => std::slice::from_ref(column),
            Key::Columns(columns) => columns,
        }
    }
}

/// Writes to one table.
pub struct PostgresWriter {
    connector: Connector,
    table: String,
    key: Key,
    unknown_fields: spec::UnknownFields,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
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
        })
    }

    async fn write_batch(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let closed = |_| WriteError::Transient("the writer is closed".into());
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let mut session = match self.idle_session() {
            Some(session) => session,
            None => self.connector.connect(&self.table).await?,
        };
        // A session that is not put back is closed: after a cancelled write, and after errors that it may not survive.
        let Ok(result) = timeout(
            self.timeout + NETWORK_ALLOWANCE,
            self.write_with(&mut session, &batch),
        )
        .await
        else {
            return Err(WriteError::Transient(format!(
                "PostgreSQL did not answer within {} s",
                (self.timeout + NETWORK_ALLOWANCE).as_secs()
            )));
        };
        if matches!(result, Ok(_) | Err(WriteError::Refused(_))) {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session);
        }
        result
    }

    fn idle_session(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }

    async fn write_with(
        &self,
        session: &mut Session,
        batch: &WriteBatch<'_>,
    ) -> Result<Vec<Rejected>, WriteError> {
        let mut encoded = self.encode(&session.table, batch)?;
        let ttl = match self.unknown_fields {
            spec::UnknownFields::Reject => TABLE_TTL_REJECT,
            spec::UnknownFields::Ignore => TABLE_TTL_IGNORE,
        };
        if encoded.unknown_fields && session.table_read.elapsed() > ttl {
            session.table = table::read(&session.client, &self.table).await?;
            session.table_read = Instant::now();
            encoded = self.encode(&session.table, batch)?;
        }
        let Encoded { groups, rejected, .. } = encoded;
        self.upsert(session, &groups).await?;
        Ok(rejected)
    }

    fn encode<'a>(&self, table: &Table, batch: &WriteBatch<'a>) -> Result<Encoded<'a>, WriteError> {
        let rows = Rows::new(table, &self.key, self.unknown_fields).map_err(WriteError::Systemic)?;
        Ok(rows.encode(batch))
    }

    async fn upsert(&self, session: &mut Session, groups: &[Group<'_>]) -> Result<(), WriteError> {
        let table = &session.table;
        let result = match groups {
            [] => Ok(()),
            // A statement alone is a transaction of its own, in one round trip.
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
        let error = classify::write(&error, &session.table, &self.key);
        // The server does not say which column it was; for one record it is worth finding out.
        if let (WriteError::Refused(message), [group]) = (&error, groups)
            && group.len() == 1
            && let Some(column) = misfit(session, group).await
        {
            return Err(WriteError::Refused(format!("column {column:?}: {message}")));
        }
        Err(error)
    }
}

impl Writer for PostgresWriter {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(self.write_batch(batch))
    }

    fn reads_headers(&self) -> bool {
        false
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        })
    }
}

/// Statements are not prepared by name: that would fail behind poolers, and pile up with many sets of columns.
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

/// The first column whose type does not take the text of the only row of the group.
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
