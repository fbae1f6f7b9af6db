//! PostgreSQL for the Postgres case: its table, created again for each run, and the connection URL where the
//! worker finds it.

use std::fs;

use anyhow::{Context, Result, ensure};
use tokio_postgres::NoTls;

use super::{
    copy_merge::{COLUMNS, TABLE},
    subjects::Bench,
};
use crate::systems::process::WorkerProcess;

/// Secret and key with the connection URL.
pub(super) const SECRET: (&str, &str) = ("database", "url");

/// Creates an empty table, and puts its URL where the worker `name` looks for it.
pub(super) fn prepare(bench: &Bench, name: &str) -> Result<()> {
    let folder = WorkerProcess::secrets(&bench.scratch, name).join(SECRET.0);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(SECRET.1), bench.database()?)?;
    execute(
        bench,
        &format!("drop table if exists {TABLE}; create table {TABLE} ({COLUMNS})"),
    )
}

/// Fails unless the table has this many rows; drops the table.
pub(super) fn finish(bench: &Bench, rows: u64) -> Result<()> {
    let url = bench.database()?;
    let found: i64 = bench.runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let row = client
            .query_one(&format!("select count(*) from {TABLE}"), &[])
            .await?;
        anyhow::Ok(row.get(0))
    })?;
    ensure!(
        found == i64::try_from(rows)?,
        "{found} of {rows} rows are in {TABLE}"
    );
    execute(bench, &format!("drop table {TABLE}"))
}

fn execute(bench: &Bench, statements: &str) -> Result<()> {
    let url = bench.database()?;
    bench.runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .context("PostgreSQL does not answer")?;
        // The next statement fails with this error.
        tokio::spawn(connection);
        Ok(client.batch_execute(statements).await?)
    })
}
