//! The PostgreSQL side of a test.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use crate::systems::env::Env;

/// A database connection that lives as long as the value.
pub struct Postgres {
    pub client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Postgres {
    /// Connects to the cluster's database.
    pub async fn connect(env: &Env) -> Result<Self> {
        Self::connect_to(&env.variable("POSTGRES_URL")?).await
    }

    /// Connects to any database.
    pub async fn connect_to(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .context("PostgreSQL does not answer")?;
        let connection = tokio::spawn(async move {
            // The next statement of the test fails with this error.
            let _ = connection.await;
        });
        Ok(Self { client, connection })
    }

    /// Creates a table, and replaces one of this name.
    pub async fn create_table(&self, name: &str, columns: &str) -> Result<()> {
        self.client
            .batch_execute(&format!(
                "drop table if exists {name}; create table {name} ({columns})"
            ))
            .await?;
        Ok(())
    }

    /// Number of rows.
    pub async fn count(&self, table: &str) -> Result<i64> {
        Ok(self
            .client
            .query_one(&format!("select count(*) from {table}"), &[])
            .await?
            .get(0))
    }
}
