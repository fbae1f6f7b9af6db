//! Connects with the URL from the Secret and reads the table's columns. The URL is never part of an error.
//!
//! `sslmode` works as in libpq: `disable`, `prefer` (default) and `require` do not verify the server's
//! certificate. `verify-ca` and `verify-full` do, against key `ca.crt` of the same Secret if it exists,
//! otherwise against the system's root certificates.

use std::{str::FromStr, time::Duration};

use crds::spec::SecretKey;
use openssl::{
    ssl::{SslConnector, SslMethod, SslVerifyMode},
    x509::{X509, store::X509StoreBuilder},
};
use postgres_openssl::MakeTlsConnector;
use tokio::time::Instant;
use tokio_postgres::{Client, Config, config::SslMode};

use super::{
    classify,
    error::NewPostgresError,
    table::{self, Table},
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
    /// When the columns were read.
    pub table_read: Instant,
}

/// How far the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Authority,
    AuthorityAndHost,
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
        self.config().map(drop)
    }

    /// Connects and reads the columns of `table`.
    pub async fn connect(&self, table: &str) -> Result<Session, WriteError> {
        let (config, verify) = self
            .config()
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
        let settings = format!("SET statement_timeout = {}", self.statement_timeout.as_millis());
        client
            .batch_execute(&settings)
            .await
            .map_err(|error| classify::other(&error, "preparing the session"))?;
        let table = table::read(&client, table).await?;
        Ok(Session {
            client,
            table,
            table_read: Instant::now(),
        })
    }

    fn config(&self) -> Result<(Config, Verify), NewPostgresError> {
        let url = self.secrets.read(&self.url)?;
        let bad = |what: &str| {
            NewPostgresError::Url(format!(
                "the Secret {:?} key {:?} {what}; write \
                 postgresql://user:password@host:5432/database?sslmode=require, with special characters in \
                 user and password percent-encoded",
                self.url.secret_name, self.url.key
            ))
        };
        if !["postgresql://", "postgres://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(bad("is not a PostgreSQL URL"));
        }
        let (url, verify) = take_ssl_mode(&url);
        let mut config = Config::from_str(&url).map_err(|_| bad("is not a valid PostgreSQL URL"))?;
        if config.get_hosts().is_empty() {
            return Err(bad("contains no host"));
        }
        if verify != Verify::Nothing {
            config.ssl_mode(SslMode::Require);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("kafka-consumer-worker");
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        Ok((config, verify))
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

/// Removes `sslmode=verify-ca` and `verify-full` from a URL: the client library does not know them.
fn take_ssl_mode(url: &str) -> (String, Verify) {
    let Some((address, query)) = url.rsplit_once('?') else {
        return (url.into(), Verify::Nothing);
    };
    let mut verify = Verify::Nothing;
    let kept: Vec<&str> = query
        .split('&')
        .filter(|parameter| {
            match *parameter {
                "sslmode=verify-ca" => verify = Verify::Authority,
                "sslmode=verify-full" => verify = Verify::AuthorityAndHost,
                _ => return true,
            }
            false
        })
        .collect();
    match kept.as_slice() {
        [] => (address.into(), verify),
        kept => (format!("{address}?{}", kept.join("&")), verify),
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
    fn ssl_modes_that_verify_are_understood() {
        for (mode, ssl_mode, verify) in [
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=require", SslMode::Require, Verify::Nothing),
            (
                "?application_name=x&sslmode=verify-ca",
                SslMode::Require,
                Verify::Authority,
            ),
            ("?sslmode=verify-full", SslMode::Require, Verify::AuthorityAndHost),
        ] {
            let (_dir, connector) = connector(&format!("postgresql://u:p@h:5432/d{mode}\n"));
            let (config, found) = connector.config().unwrap();
            assert_eq!((config.get_ssl_mode(), found), (ssl_mode, verify), "{mode}");
        }
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
