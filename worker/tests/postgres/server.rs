//! A PostgreSQL server for tests: the one at `POSTGRES_URL`, otherwise one that this module starts if
//! PostgreSQL is installed. The tests of the Postgres writer share it.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crds::spec;
use kafka_consumer_worker::{secrets::SecretFiles, writer::postgres::PostgresWriter};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

/// Creates a database in `$1` and serves it on port `$3` with the programs in `$2`, until its standard input
/// ends. That happens when the test process ends, for any reason.
const SERVE: &str = r#"
    # PostgreSQL refuses to run as root.
    as_postgres=
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$1"
        as_postgres="setpriv --reuid=postgres --regid=postgres --clear-groups"
    fi
    cd "$1" || exit 1
    $as_postgres "$2/initdb" --username=tester --auth=trust --encoding=UTF8 --no-sync -D "$1/data" || exit 1
    $as_postgres "$2/postgres" -D "$1/data" -p "$3" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c fsync=off -c max_connections=40 -c log_min_messages=fatal </dev/null &
    server=$!
    cat >/dev/null
    kill -QUIT $server
    wait $server
    cd / && rm -rf "$1"
"#;

struct Server {
    url: String,
    _own: Option<Child>,
}

fn newest_installation() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn start() -> Option<Server> {
    if let Ok(url) = std::env::var("POSTGRES_URL") {
        return Some(Server { url, _own: None });
    }
    let Some(programs) = newest_installation() else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no PostgreSQL is installed and POSTGRES_URL is not set"
        );
        return None;
    };
    let directory = tempfile::Builder::new()
        .prefix("postgres-")
        .tempdir()
        .unwrap()
        .keep();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let own = Command::new("sh")
        .args(["-c", SERVE, "sh"])
        .args([directory.as_os_str(), programs.as_os_str()])
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Server {
        url: format!("postgresql://tester@127.0.0.1:{port}/postgres"),
        _own: Some(own),
    })
}

/// A separate table for each test, and a client to inspect it.
pub struct Fixture {
    pub client: Client,
    #[allow(dead_code)] // Not every test crate uses it.
    pub url: String,
    pub table: String,
    pub secrets: tempfile::TempDir,
}

impl Fixture {
    /// None if there is no PostgreSQL on this machine.
    pub async fn new(columns: &str) -> Option<Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        static TABLES: AtomicU32 = AtomicU32::new(0);
        let url = SERVER.get_or_init(start).as_ref()?.url.clone();
        let mut tries = 0;
        let client = loop {
            match tokio_postgres::connect(&url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    break client;
                }
                // Creating a database takes seconds, on a busy machine many seconds.
                Err(error) if tries == 1200 => panic!("{error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
            tries += 1;
        };
        let table = format!(
            "t_{}_{}",
            std::process::id(),
            TABLES.fetch_add(1, Ordering::Relaxed)
        );
        client
            .batch_execute(&format!("CREATE TABLE {table} ({columns})"))
            .await
            .unwrap();
        let secrets = tempfile::tempdir().unwrap();
        fs::create_dir(secrets.path().join("db")).unwrap();
        fs::write(secrets.path().join("db/url"), &url).unwrap();
        Some(Self {
            client,
            url,
            table,
            secrets,
        })
    }

    pub fn writer(&self, more: serde_json::Value) -> PostgresWriter {
        let mut config = json!({"connection": {"secretName": "db", "key": "url"}, "table": self.table});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let config: spec::PostgresWriter = serde_json::from_value(config).unwrap();
        let secrets = SecretFiles::new(self.secrets.path().into(), self.secrets.path().into());
        PostgresWriter::new(&config, secrets).unwrap()
    }

    pub async fn sql(&self, sql: &str) {
        self.client
            .batch_execute(&sql.replace("$TABLE", &self.table))
            .await
            .unwrap();
    }

    /// Logs this integer column of every row that reaches the table, to show order and repetition.
    #[allow(dead_code)] // Not every test crate uses it.
    pub async fn log_writes(&self, column: &str) {
        let sql = format!(
            "CREATE TABLE $TABLE_log (n bigserial, {column} int);
             CREATE FUNCTION $TABLE_trace() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO $TABLE_log ({column}) VALUES (NEW.{column}); RETURN NULL; END';
             CREATE TRIGGER trace AFTER INSERT OR UPDATE ON $TABLE
                 FOR EACH ROW EXECUTE FUNCTION $TABLE_trace();"
        );
        self.sql(&sql).await;
    }

    /// That column of every row that reached the table, in this order.
    #[allow(dead_code)]
    pub async fn written(&self, column: &str) -> Vec<i32> {
        let sql = format!("SELECT {column} FROM {}_log ORDER BY n", self.table);
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The rows as JSON, ordered by the first column.
    #[allow(dead_code)] // Not every test crate uses it.
    pub async fn rows(&self) -> Vec<serde_json::Value> {
        let sql = format!(
            "SELECT row_to_json(r)::text FROM (SELECT * FROM {} ORDER BY 1) AS r",
            self.table
        );
        let rows = self.client.query(&sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| serde_json::from_str(row.get(0)).unwrap())
            .collect()
    }
}
