//! `make soak` and `make soak-brokers`: the scenarios of the end-to-end tests in full size, and every seeded bug. In: a running Kafka
//! broker or cluster and PostgreSQL server (scripts/soak.sh and scripts/soak-brokers.sh start them), workers to test. Out: a table and
//! target/soak/results.json; an error if a promise was broken or a seeded bug was missed.

mod args;
mod plan;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use self::args::SoakArgs;
use super::{
    report::{self, Row},
    run::run,
    seeded_bugs,
    site::Site,
};

/// All of `main`.
pub fn main() -> Result<()> {
    let args = SoakArgs::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(run_all(&args))?;
    println!("\n{}", report::table(&rows));
    println!("written: {}", save(&args, &rows)?.display());
    let failed = rows.iter().filter(|row| !row.passed).count();
    ensure!(failed == 0, "{failed} of {} runs failed", rows.len());
    Ok(())
}

async fn run_all(args: &SoakArgs) -> Result<Vec<Row>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let default = program
        .parent()
        .unwrap_or(Path::new("."))
        .join("kafka-consumer-worker");
    let site = Site {
        bootstrap: args.bootstrap_servers.clone(),
        proxied: args.proxied_servers.clone().zip(args.proxy_address),
        postgres: args.postgres_url.clone(),
        broker: args.broker_script.clone(),
        brokers: args.cluster_script.clone(),
        worker: args.worker.clone().unwrap_or(default),
        folder: args.output.join("runs"),
    };
    fs::create_dir_all(&site.folder).with_context(|| format!("cannot create {}", site.folder.display()))?;
    let mut rows = Vec::new();
    for scenario in plan::scenarios(args) {
        let outcome = run(&site, &scenario).await?;
        if let Err(error) = outcome.kept() {
            println!("  {error:#}");
        }
        rows.push(Row::new(&outcome));
        save(args, &rows)?;
    }
    if let Some(worker) = &args.seeded_worker {
        let site = Site {
            worker: worker.clone(),
            ..site
        };
        let bugs = seeded_bugs::BUGS
            .iter()
            .filter(|bug| args.wants(&format!("seeded-{}", bug.name)));
        rows.extend(seeded_bugs::rows(&site, bugs).await?);
    }
    ensure!(!rows.is_empty(), "no scenario has such a name");
    Ok(rows)
}

/// Saves the results so far: a soak takes hours, and may be interrupted.
fn save(args: &SoakArgs, rows: &[Row]) -> Result<PathBuf> {
    let file = args.output.join("results.json");
    fs::write(&file, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
