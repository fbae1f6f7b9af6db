//! A table whose every write leaves a trace, the offsets beside it, and a connection that breaks when told to.

use std::{
    fs,
    ops::Range,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use kafka_consumer_worker::{
    Batch, Chunk, Rejected, WriteBatch, WriteError, Writer, offsets::FinishedSet, record::TopicPartition,
    writer::postgres::PostgresWriter,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
};
use tokio_postgres::config::Host;

use super::server::Fixture;

pub const GROUP: &str = "shop.orders";

pub fn partition() -> TopicPartition {
    TopicPartition::new("orders", 1)
}

/// Records with these offsets and values, read under an assignment.
pub fn batch<'v>(assignment: u64, records: impl IntoIterator<Item = (i64, &'v str)>) -> Batch {
    let mut chunk = Chunk::new(partition(), assignment);
    for (offset, value) in records {
        chunk.push(offset, 0, None, Some(value.as_bytes()), []);
    }
    Batch::identity(Arc::new(chunk))
}

/// Records whose id is their offset. With a second column, because a row of nothing but its key is not written when it is
/// there already, whoever asks for it.
pub fn run(assignment: u64, offsets: Range<i64>) -> Batch {
    let values: Vec<(i64, String)> = offsets
        .map(|offset| (offset, format!("{{\"id\": {offset}, \"n\": 1}}")))
        .collect();
    batch(
        assignment,
        values.iter().map(|(offset, value)| (*offset, value.as_str())),
    )
}

pub async fn write(writer: &PostgresWriter, batch: &Batch) -> Result<Vec<Rejected>, WriteError> {
    let all: Vec<u32> = (0..batch.len() as u32).collect();
    writer.write(WriteBatch::new(batch, &all)).await
}

/// See the module.
pub struct Once {
    pub db: Fixture,
    pub offsets: String,
}

impl Once {
    /// None when there is no PostgreSQL. The table of offsets is made with the statement that the worker asks for.
    pub async fn new() -> Option<Self> {
        let once = Self::without_offsets().await?;
        match once.writer("maker").claim(&partition(), 1).await {
            Err(WriteError::Systemic(message)) => {
                let (_, create) = message.split_once("create the table: ").unwrap();
                once.db.sql(create).await;
            }
            other => panic!("{other:?}"),
        }
        Some(once)
    }

    pub async fn without_offsets() -> Option<Self> {
        let db = Fixture::new("id int primary key check (id <> 13), n smallint").await?;
        let offsets = format!("{}_offsets", db.table);
        db.sql(
            "CREATE TABLE $TABLE_log (n bigserial, id int);
             CREATE FUNCTION $TABLE_trace() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO $TABLE_log (id) VALUES (NEW.id); RETURN NULL; END';
             CREATE TRIGGER trace AFTER INSERT OR UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_trace();",
        )
        .await;
        Some(Self { db, offsets })
    }

    pub fn writer(&self, worker: &str) -> PostgresWriter {
        let writer = self
            .db
            .writer(json!({"keyColumns": ["id"], "timeoutSeconds": 30}));
        writer.exactly_once(&self.offsets, GROUP, worker)
    }

    /// The ids of all rows that were ever written, in the order of the writes.
    pub async fn writes(&self) -> Vec<i64> {
        let sql = format!("SELECT id FROM {}_log ORDER BY n", self.db.table);
        let rows = self.db.client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, i32>(0).into()).collect()
    }

    /// What the database says is finished.
    pub async fn finished(&self) -> FinishedSet {
        let sql = format!(
            "SELECT next_offset, ahead FROM {} WHERE group_id = $1 AND topic = 'orders' AND partition = 1",
            self.offsets
        );
        let row = self.db.client.query_one(&sql, &[&GROUP]).await.unwrap();
        FinishedSet::decode(row.get(0), row.get(1)).unwrap()
    }

    /// As after a failover to a standby that lacks the last transactions: the offsets say this, and of the rows there are
    /// only those whose ids are finished offsets.
    pub async fn go_back(&self, finished: &FinishedSet) {
        self.say_finished(finished).await;
        let rows = self.db.client.query(&self.ids(), &[]).await.unwrap();
        for id in rows.iter().map(|row| row.get::<_, i32>(0)) {
            if !finished.contains(id.into()) {
                self.db.sql(&format!("DELETE FROM $TABLE WHERE id = {id}")).await;
            }
        }
    }

    /// Only the offsets.
    pub async fn say_finished(&self, finished: &FinishedSet) {
        let sql = format!("UPDATE {} SET next_offset = $1, ahead = $2", self.offsets);
        let (next, ahead) = (finished.next(), finished.ahead());
        self.db.client.execute(&sql, &[&next, &ahead]).await.unwrap();
    }

    /// The ids of the rows that are there.
    pub async fn rows(&self) -> Vec<i64> {
        let rows = self.db.client.query(&self.ids(), &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, i32>(0).into()).collect()
    }

    fn ids(&self) -> String {
        format!("SELECT id FROM {} ORDER BY id", self.db.table)
    }

    /// How often the table of offsets tells of a partition.
    pub async fn rows_of_offsets(&self) -> usize {
        let sql = format!("SELECT 1 FROM {}", self.offsets);
        self.db.client.query(&sql, &[]).await.unwrap().len()
    }

    /// Writers that are made from here on reach the server through this.
    pub async fn through_proxy(&self) -> Proxy {
        let config = tokio_postgres::Config::from_str(&self.db.url).unwrap();
        let [Host::Tcp(host)] = config.get_hosts() else {
            panic!("one host, by TCP")
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let proxy = Proxy::start(format!("{host}:{port}")).await;
        let url = self
            .db
            .url
            .replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", proxy.port));
        fs::write(self.db.secrets.path().join("db/url"), url).unwrap();
        proxy
    }
}

/// What a proxy does when a transaction is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AtCommit {
    Pass,
    /// The server never gets to see it.
    CutBefore,
    /// The server does it, and nobody hears of that.
    CutAfter,
    /// It is on its way for ever.
    Freeze,
}

/// A connection that breaks when told to.
pub struct Proxy {
    port: u16,
    does: Arc<AtomicU8>,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let does = Arc::new(AtomicU8::new(AtCommit::Pass as u8));
        let told = does.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, told) = (TcpStream::connect(&server).await.unwrap(), told.clone());
                tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // The first of both to end ends the other, and so both connections.
                    tokio::select! {
                        () = copy(from_client, to_server, &told, AtCommit::CutBefore) => {}
                        () = copy(from_server, to_client, &told, AtCommit::CutAfter) => {}
                    }
                });
            }
        });
        Self { port, does }
    }

    pub fn tell(&self, does: AtCommit) {
        self.does.store(does as u8, Ordering::SeqCst);
    }
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, told: &AtomicU8, cut: AtCommit) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let does = told.load(Ordering::SeqCst);
        let commit = buffer[..length].windows(7).any(|text| text == b"COMMIT\0");
        if commit && does == cut as u8 {
            return;
        }
        if commit && does == AtCommit::Freeze as u8 && cut == AtCommit::CutBefore {
            return std::future::pending().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
