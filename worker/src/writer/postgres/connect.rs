//! Connects with the URL from the Secret and reads the table's columns. The URL is never part of an error.
//!
//! A certificate is verified against key `ca.crt` of the same Secret if it exists, otherwise against the
//! system's root certificates.

use std::time::Duration;

use crds::{postgres_url, spec::SecretKey};
use futures::{TryFutureExt, future::join3};
use openssl::{
    ssl::{SslConnector, SslMethod, SslVerifyMode},
    x509::{X509, store::X509StoreBuilder},
};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Client;

use super::{
    catalog, classify,
    error::NewPostgresError,
    session_settings,
    table::Table,
    url::{self, Address, Verify},
};
use crate::{secrets::SecretFiles, writer::WriteError};

/// TCP, TLS and login take a few round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Detects a dead server before the usual limits of NAT and firewalls.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// A connection with the columns of the table.
pub(super) struct Session {
    pub client: Client,
    pub table: Table,
    /// Begins a transaction with our settings ([`session_settings::begin`]).
    pub begin: String,
}

impl Session {
    /// True if the columns of the table have changed; reads them again then.
    pub async fn has_changed(&mut self, name: &str) -> Result<bool, WriteError> {
        let begin = (self.client.batch_execute(&self.begin)).map_err(|error| read_failed(&error));
        let commit = (self.client.batch_execute("COMMIT")).map_err(|error| read_failed(&error));
        let print = catalog::read_fingerprint(&self.client, name);
        let (began, print, committed) = join3(begin, print, commit).await;
        began?;
        committed?;
        if print?.as_ref() == Some(&self.table.fingerprint) {
            return Ok(false);
        }
        self.read_again(name).await?;
        Ok(true)
    }

    /// Reads the columns and constraints of the table again. Returns true if they have changed.
    pub async fn read_again(&mut self, name: &str) -> Result<bool, WriteError> {
        let table = read_table(&self.client, &self.begin, name).await?;
        let changed = table != self.table;
        self.table = table;
        Ok(changed)
    }
}

async fn read_table(client: &Client, begin: &str, name: &str) -> Result<Table, WriteError> {
    client
        .batch_execute(begin)
        .await
        .map_err(|error| read_failed(&error))?;
    let table = catalog::read(client, name).await?;
    client
        .batch_execute("COMMIT")
        .await
        .map_err(|error| read_failed(&error))?;
    Ok(table)
}

fn read_failed(error: &tokio_postgres::Error) -> WriteError {
    classify::other(error, "reading the columns of the table")
}

/// Opens sessions.
pub(super) struct Connector {
    secrets: SecretFiles,
    url: SecretKey,
    statement_timeout: Duration,
}

impl Connector {
    pub fn new(secrets: SecretFiles, url: SecretKey, statement_timeout: Duration) -> Self {
        Self {
            secrets,
            url,
            statement_timeout,
        }
    }

    /// Checks that the URL exists and is well-formed.
    pub fn check(&self) -> Result<(), NewPostgresError> {
        self.address().map(drop)
    }

    /// Connects and reads the columns of `table`.
    pub async fn connect(&self, table: &str) -> Result<Session, WriteError> {
        let Address {
            config,
            verify,
            schema,
        } = self
            .address()
            .map_err(|error| WriteError::Systemic(error.to_string()))?;
        let tls = self.tls(verify).map_err(|error| {
            WriteError::Systemic(format!(
                "TLS to PostgreSQL cannot be set up: {error}; check ca.crt in the Secret"
            ))
        })?;
        let (client, connection) = config
            .connect(tls)
            .await
            .map_err(|error| classify::other(&error, "connecting"))?;
        tokio::spawn(async move {
            // The client gets the same error; this task ends when the client is dropped.
            if let Err(error) = connection.await {
                tracing::debug!("a PostgreSQL connection ended: {error}");
            }
        });
        let begin = session_settings::begin(self.statement_timeout, schema.as_deref());
        let table = read_table(&client, &begin, table).await?;
        Ok(Session { client, table, begin })
    }

    fn address(&self) -> Result<Address, NewPostgresError> {
        let text = self.secrets.read(&self.url)?;
        let mut address = url::parse(&text).map_err(|what| {
            NewPostgresError::Url(format!(
                "the Secret {:?} key {:?} {what}; write {}",
                self.url.secret_name,
                self.url.key,
                postgres_url::EXAMPLE
            ))
        })?;
        let config = &mut address.config;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("kafka-consumer-worker");
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        Ok(address)
    }

    fn tls(&self, verify: Verify) -> Result<MakeTlsConnector, openssl::error::ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls())?;
        if verify == Verify::Nothing {
            builder.set_verify(SslVerifyMode::NONE);
        } else {
            let ca = SecretKey {
                secret_name: self.url.secret_name.clone(),
                key: "ca.crt".into(),
            };
            if let Ok(pem) = self.secrets.read(&ca) {
                let mut store = X509StoreBuilder::new()?;
                for certificate in X509::stack_from_pem(pem.as_bytes())? {
                    store.add_cert(certificate)?;
                }
                builder.set_cert_store(store.build());
            }
        }
        let mut connector = MakeTlsConnector::new(builder.build());
        connector.set_callback(move |configuration, _| {
            configuration.set_verify_hostname(verify == Verify::AuthorityAndHost);
            Ok(())
        });
        Ok(connector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(url: &str) -> (tempfile::TempDir, Connector) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        std::fs::write(dir.path().join("db/url"), url).unwrap();
        let secrets = SecretFiles::new(dir.path().into(), dir.path().into());
        let key = SecretKey {
            secret_name: "db".into(),
            key: "url".into(),
        };
        (dir, Connector::new(secrets, key, Duration::from_secs(30)))
    }

    #[test]
    fn an_invalid_url_is_reported_without_its_text() {
        for url in [
            "host=h password=s3cret",
            "postgresql://u:s3cret@h:port/d",
            "postgresql:///d",
        ] {
            let (_dir, connector) = connector(url);
            let message = connector.check().unwrap_err().to_string();
            assert!(
                message.contains("Secret \"db\" key \"url\"") && message.contains("postgresql://user"),
                "{message}"
            );
            assert!(!message.contains("s3c"), "{message}");
        }
    }
}
