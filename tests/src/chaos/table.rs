//! The table of a run: a schema with the table that workers write to, the offsets that they may store next to
//! the rows, and a log of every write, which a trigger keeps in the writer's own transaction. Upserts hide
//! that a row was written twice; the log does not, and it shows the order of the writes. A rollback leaves
//! only a gap in the numbers of the log.
//!
//! Every worker connects under its own application name, so that a test can end its connections and no
//! others.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};

use super::proxy::Proxy;
use crate::{
    systems::{
        postgres::Postgres,
        process::{WorkerProcess, free_address},
    },
    verify::{
        checker::{Arrival, Place},
        ledger::{Document, Shape},
    },
};

/// The Secret with the URL, and its key.
const SECRET: (&str, &str) = ("database", "url");

/// How long a test waits for a worker that it wants to hit in the middle of a write: longer than a retry and
/// a rebalance. A worker without partitions does not write at all.
const WRITE: Duration = Duration::from_secs(5);

/// Pause between two checks of a worker's activity; all workers stand still meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// A table, its log and its offsets.
pub(super) struct Table {
    url: String,
    /// The URL that the workers use.
    workers_url: String,
    /// The proxy between the workers and the database, if the run needs one.
    proxy: Option<Proxy>,
    schema: String,
    postgres: Postgres,
}

/// Observations of one moment, by partition of the input.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Offsets stored next to the rows.
    pub stored: BTreeMap<i32, i64>,
    /// The end after the last visible write.
    pub ends: BTreeMap<i32, i64>,
}

impl Table {
    /// Creates an empty table in the database at `url`. With `proxied`, a test can disconnect the workers
    /// from it.
    pub async fn create(url: &str, run: &str, proxied: bool) -> Result<Self> {
        let (workers_url, proxy) = if proxied {
            let address = free_address()?;
            let (through, upstream) = through(url, address)?;
            (through, Some(Proxy::start(address, &upstream).await?))
        } else {
            (url.to_string(), None)
        };
        let table = Self {
            url: url.into(),
            workers_url,
            proxy,
            schema: run.replace('-', "_"),
            postgres: Postgres::connect_to(url).await?,
        };
        let schema = &table.schema;
        let columns = "run text not null, partition integer not null, seq bigint not null, key text not null, \
                       checksum text not null";
        let sql = format!(
            "create schema {schema};
             create table {schema}.copies ({columns}, primary key (partition, seq));
             create table {schema}.writes (id bigserial, {columns}, primary key (partition, id));
             create function {schema}.log() returns trigger language plpgsql as $$
             declare
                 -- Taken first: a write that has to wait for the lock of an abort must count as tried.
                 number bigint := nextval('{schema}.writes_id_seq');
             begin
                 insert into {schema}.writes (id, run, partition, seq, key, checksum)
                 values (number, new.run, new.partition, new.seq, new.key, new.checksum);
                 return null;
             end $$;
             create trigger log after insert or update on {schema}.copies
                 for each row execute function {schema}.log();
             create table {schema}.kafka_consumer_offsets (
                 group_id text not null, topic text not null, partition int not null,
                 topic_id text not null, next_offset bigint not null, ahead text not null,
                 owner text not null, owner_epoch bigint not null, updated_at timestamptz not null,
                 primary key (group_id, topic, partition));"
        );
        let made = table.postgres.client.batch_execute(&sql).await;
        made.with_context(|| format!("cannot create the schema {schema}"))?;
        Ok(table)
    }

    /// Removes the schema with everything in it.
    pub async fn remove(&self) -> Result<()> {
        let sql = format!("drop schema {} cascade", self.schema);
        Ok(self.postgres.client.batch_execute(&sql).await?)
    }

    /// `spec.writers[].postgres`. A batch is written in the order of its keys, which is the order of the
    /// input.
    pub fn writer(&self) -> Value {
        json!({
            "connection": {"secretName": SECRET.0, "key": SECRET.1},
            "table": "copies",
            "keyColumns": ["partition", "seq"],
        })
    }

    /// Puts the Secret where the worker looks for it.
    pub fn give_secret(&self, folder: &Path, worker: &str) -> Result<()> {
        let secret = WorkerProcess::secrets(folder, worker).join(SECRET.0);
        fs::create_dir_all(&secret)?;
        let file = secret.join(SECRET.1);
        fs::write(
            &file,
            with_settings(&self.workers_url, &self.schema, &self.login(worker)),
        )
        .with_context(|| format!("cannot write {}", file.display()))
    }

    /// The application name of a worker's connections.
    fn login(&self, worker: &str) -> String {
        format!("{}.{worker}", self.schema)
    }

    /// Reads offsets and ends in one statement, so that both are of the same moment.
    pub async fn look(&self, group: &str, topic: &str, partitions: i32) -> Result<Look> {
        let schema = &self.schema;
        let sql = format!(
            "select p, (select max(id) + 1 from {schema}.writes where partition = p), \
                    (select next_offset from {schema}.kafka_consumer_offsets \
                     where group_id = $1 and topic = $2 and partition = p) \
             from generate_series(0, $3 - 1) as p"
        );
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&group, Type::TEXT),
            (&topic, Type::TEXT),
            (&partitions, Type::INT4),
        ];
        let mut look = Look::default();
        for row in self.postgres.client.query_typed(&sql, &parameters).await? {
            let partition: i32 = row.try_get(0)?;
            look.ends
                .extend(row.try_get::<_, Option<i64>>(1)?.map(|end| (partition, end)));
            look.stored
                .extend(row.try_get::<_, Option<i64>>(2)?.map(|next| (partition, next)));
        }
        Ok(look)
    }

    /// All visible writes, and the number of all attempted ones.
    pub async fn read(&self, shape: &Shape) -> Result<(Vec<Arrival>, u64)> {
        let (client, schema) = (&self.postgres.client, &self.schema);
        let sql = format!("select id, run, partition, seq, key, checksum from {schema}.writes");
        let rows = client.query_raw(&sql, std::iter::empty::<&str>()).await?;
        let arrivals = rows
            .map_err(anyhow::Error::from)
            .and_then(async |row| {
                let (partition, seq): (i32, i64) = (row.try_get(2)?, row.try_get(3)?);
                let what = shape.what_row(Document {
                    run: row.try_get(1)?,
                    partition,
                    seq: seq.try_into()?,
                    key: row.try_get(4)?,
                    checksum: row.try_get(5)?,
                });
                let place = Place {
                    partition,
                    offset: row.try_get(0)?,
                };
                Ok(Arrival { place, what })
            })
            .try_collect()
            .await?;
        // A sequence gives each number once, and also to writes that are rolled back.
        let sql =
            format!("select case when is_called then last_value else 0 end from {schema}.writes_id_seq");
        let tried: i64 = client.query_one(&sql, &[]).await?.try_get(0)?;
        Ok((arrivals, tried.unsigned_abs()))
    }

    /// Ends all connections of a worker, twice: now, whatever they do; and in the middle of the next write,
    /// which waits because the log is locked.
    pub async fn abort(&self, worker: &str) -> Result<()> {
        self.end_connections(worker, "true").await?;
        let mut locking = Postgres::connect_to(&self.url).await?;
        let lock = locking.client.transaction().await?;
        lock.batch_execute(&format!("lock table {}.writes in exclusive mode", self.schema))
            .await?;
        let started = Instant::now();
        while self.end_connections(worker, "wait_event_type = 'Lock'").await? == 0
            && started.elapsed() < WRITE
        {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(lock.rollback().await?)
    }

    /// Disconnects the workers from the database for this time.
    pub fn interrupt(&self, time: Duration) -> Result<()> {
        self.proxy
            .as_ref()
            .context("an outage needs the proxy")?
            .cut(time);
        Ok(())
    }

    /// Ends the connections for which `condition` is true; returns their number.
    async fn end_connections(&self, worker: &str, condition: &str) -> Result<i64> {
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1 and {condition}"
        );
        let login = self.login(worker);
        let rows = self
            .postgres
            .client
            .query_typed(&sql, &[(&login, Type::TEXT)])
            .await?;
        Ok(rows.first().context("a count has a row")?.try_get(0)?)
    }
}

/// The URL with another address, and the host and port of the original.
fn through(url: &str, address: SocketAddr) -> Result<(String, String)> {
    let (login, rest) = url
        .rsplit_once('@')
        .context("the URL of the database has no user")?;
    let (upstream, _) = rest
        .split_once('/')
        .context("the URL of the database names no database")?;
    ensure!(upstream.contains(':'), "the URL of the database has no port");
    Ok((
        format!("{login}@{}", rest.replacen(upstream, &address.to_string(), 1)),
        upstream.to_string(),
    ))
}

/// The URL with a search path of `schema` and the application name `login`.
fn with_settings(url: &str, schema: &str, login: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20search_path%3D{schema}&application_name={login}")
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;

    use super::*;

    #[test]
    fn a_url_through_a_proxy_differs_only_in_its_address() {
        let proxy = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(
            through("postgresql://u:p@h:1/d?sslmode=disable", proxy).unwrap(),
            (
                "postgresql://u:p@127.0.0.1:7/d?sslmode=disable".into(),
                "h:1".into()
            )
        );
        assert!(through("postgresql://u:p@h/d", proxy).is_err());
    }

    #[test]
    fn a_workers_url_adds_schema_and_name_and_keeps_the_rest() {
        for url in ["postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d?sslmode=require"] {
            let before: Config = url.parse().unwrap();
            let config: Config = with_settings(url, "chaos_x", "chaos_x.worker-1").parse().unwrap();
            assert_eq!(config.get_options(), Some("-c search_path=chaos_x"));
            assert_eq!(config.get_application_name(), Some("chaos_x.worker-1"));
            assert_eq!(
                (config.get_dbname(), config.get_ssl_mode()),
                (before.get_dbname(), before.get_ssl_mode())
            );
        }
    }
}
