//! A table that logs every write, the table of offsets beside it, and a proxy that breaks the connection when
//! a test asks for it.

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

/// Records with these offsets and values, read under this assignment.
pub fn batch<'v>(assignment: u64, records: impl IntoIterator<Item = (i64, &'v str)>) -> Batch {
    let mut chunk = Chunk::new(partition(), assignment);
    for (offset, value) in records {
        chunk.push(offset, 0, None, Some(value.as_bytes()), []);
    }
    Batch::identity(Arc::new(chunk))
}

/// Records whose id is their offset. They have a second column, because a row that consists of only its key
/// and exists already is not written, whichever worker writes it.
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

/// The table with its log of writes, and the table of offsets.
pub struct Once {
    pub db: Fixture,
    pub offsets: String,
}

impl Once {
    /// None if there is no PostgreSQL. Creates the table of offsets with the statement in the worker's error.
    pub async fn new() -> Option<Self> {
        let once = Self::without_offsets().await?;
        match once.writer("maker").claim(&partition(), 1, None).await {
            Err(WriteError::Systemic(message)) => {
                let (_, create) = message.split_once("create the table: ").unwrap();
                once.db.sql(create).await;
            }
            other => panic!("{other:?}"),
        }
        Some(once)
    }

    /// Without the table of offsets.
    pub async fn without_offsets() -> Option<Self> {
        let db = Fixture::new("id int primary key check (id <> 13), n smallint").await?;
        let offsets = format!("{}_offsets", db.table);
        db.log_writes("id").await;
        Some(Self { db, offsets })
    }

    pub fn writer(&self, worker: &str) -> PostgresWriter {
        let writer = self
            .db
            .writer(json!({"keyColumns": ["id"], "timeoutSeconds": 30}));
        writer.exactly_once(&self.offsets, GROUP, worker)
    }

    /// The ids of all rows ever written, in the order of the writes.
    pub async fn writes(&self) -> Vec<i64> {
        let ids = self.db.written("id").await;
        ids.into_iter().map(i64::from).collect()
    }

    /// The finished offsets according to the database.
    pub async fn finished(&self) -> FinishedSet {
        let sql = format!(
            "SELECT next_offset, ahead FROM {} WHERE group_id = $1 AND topic = 'orders' AND partition = 1",
            self.offsets
        );
        let row = self.db.client.query_one(&sql, &[&GROUP]).await.unwrap();
        FinishedSet::decode(row.get(0), row.get(1)).unwrap()
    }

    /// As after a failover to a standby that lacks the last transactions: the stored offsets are these, and
    /// only rows whose ids are among them exist.
    pub async fn go_back(&self, finished: &FinishedSet) {
        self.say_finished(finished).await;
        let rows = self.db.client.query(&self.ids(), &[]).await.unwrap();
        for id in rows.iter().map(|row| row.get::<_, i32>(0)) {
            if !finished.contains(id.into()) {
                self.db.sql(&format!("DELETE FROM $TABLE WHERE id = {id}")).await;
            }
        }
    }

    /// Changes only the stored offsets.
    pub async fn say_finished(&self, finished: &FinishedSet) {
        let sql = format!("UPDATE {} SET next_offset = $1, ahead = $2", self.offsets);
        let (next, ahead) = (finished.next(), finished.ahead());
        self.db.client.execute(&sql, &[&next, &ahead]).await.unwrap();
    }

    /// The ids of the rows that exist.
    pub async fn rows(&self) -> Vec<i64> {
        let rows = self.db.client.query(&self.ids(), &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, i32>(0).into()).collect()
    }

    fn ids(&self) -> String {
        format!("SELECT id FROM {} ORDER BY id", self.db.table)
    }

    /// The number of rows in the table of offsets.
    pub async fn rows_of_offsets(&self) -> usize {
        let sql = format!("SELECT 1 FROM {}", self.offsets);
        self.db.client.query(&sql, &[]).await.unwrap().len()
    }

    /// Writers created after this call reach the server through the returned proxy.
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

/// What a proxy does when a client commits a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AtCommit {
    Pass,
    /// The server never receives the commit.
    CutBefore,
    /// The server commits, and the client never learns it.
    CutAfter,
    /// The commit never arrives, and the connection stays open.
    Freeze,
}

/// A TCP proxy in front of the server that acts at each commit as the test asks.
pub struct Proxy {
    port: u16,
    at_commit: Arc<AtomicU8>,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let at_commit = Arc::new(AtomicU8::new(AtCommit::Pass as u8));
        let current = at_commit.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, current) = (TcpStream::connect(&server).await.unwrap(), current.clone());
                tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // When one direction ends, the other ends too, and with it both connections.
                    tokio::select! {
                        () = copy(from_client, to_server, &current, AtCommit::CutBefore) => {}
                        () = copy(from_server, to_client, &current, AtCommit::CutAfter) => {}
                    }
                });
            }
        });
        Self { port, at_commit }
    }

    /// Sets what the proxy does from now on.
    pub fn at_commit(&self, action: AtCommit) {
        self.at_commit.store(action as u8, Ordering::SeqCst);
    }
}

/// Copies one direction. `cut` is the action at which this direction ends instead of passing a commit on.
async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, current: &AtomicU8, cut: AtCommit) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let action = current.load(Ordering::SeqCst);
        let commit = buffer[..length].windows(7).any(|text| text == b"COMMIT\0");
        if commit && action == cut as u8 {
            return;
        }
        if commit && action == AtCommit::Freeze as u8 && cut == AtCommit::CutBefore {
            return std::future::pending().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
