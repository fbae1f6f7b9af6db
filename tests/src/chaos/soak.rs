//! `make soak`: the scenarios of the end-to-end tests in full size, and every seeded bug. In: a running Kafka
//! broker and PostgreSQL server (scripts/soak.sh starts them), workers to test. Out: a table and
//! target/soak/results.json; an error if a promise was broken or a seeded bug was missed.

mod plan;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    chaos::{self, Row, Site, report, seeded_bugs},
    verify::checker::{Guarantee, Ordering, Sink},
};

#[derive(Parser, Debug)]
#[command(
    name = "soak",
    about = "Kills, restarts, freezes and disconnects workers, and checks every record; use \
             scripts/soak.sh, which starts a Kafka broker and a PostgreSQL server"
)]
struct SoakArgs {
    /// Plaintext brokers.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: String,

    /// The broker's listener that advertises --proxy-address to its clients.
    #[arg(long, value_name = "HOST:PORT", requires = "proxy_address")]
    proxied_servers: Option<String>,

    /// The address where the proxy listens.
    #[arg(long, value_name = "IP:PORT", requires = "proxied_servers")]
    proxy_address: Option<SocketAddr>,

    /// A program that restarts the broker: called with `restart-broker SIGNAL SECONDS`, it ends the broker
    /// with this signal and starts it again after this time.
    #[arg(long, value_name = "FILE")]
    broker_script: Option<PathBuf>,

    /// URL of a database that its user owns, for every scenario that writes to tables.
    #[arg(long, value_name = "URL", env = "SOAK_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,

    /// The worker to test [default: next to this program].
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,

    /// A worker built with the feature seeded-bugs; without it, the checker itself is not tested.
    #[arg(long, value_name = "FILE")]
    seeded_worker: Option<PathBuf>,

    /// Three quarters of an hour: a tenth of everything, or less.
    #[arg(long)]
    quick: bool,

    /// Kills [default: 1000 with AtLeastOnce and PerPartition, else 300].
    #[arg(long)]
    kills: Option<u32>,

    /// Records to write at least while workers are killed [default: 5000000 with AtLeastOnce, PerPartition
    /// and a topic].
    #[arg(long)]
    records: Option<u64>,

    /// Rolling restarts of single workers [default: 100].
    #[arg(long)]
    restarts: Option<u32>,

    /// Workers frozen for longer than their session [default: 50 with AtLeastOnce and PerPartition, else 25].
    #[arg(long)]
    zombies: Option<u32>,

    /// Longest freeze beyond the session, in seconds [default: 60].
    #[arg(long)]
    zombie_seconds: Option<u64>,

    /// Cuts of all connections [default: 100].
    #[arg(long)]
    cuts: Option<u32>,

    /// Transactions aborted from outside [default: 300].
    #[arg(long)]
    aborts: Option<u32>,

    /// Workers that join and soon leave [default: 50].
    #[arg(long)]
    storms: Option<u32>,

    /// Number of times that the input gets more partitions [default: 20].
    #[arg(long)]
    growths: Option<u32>,

    /// Restarts of the broker, every second one a kill [default: 20].
    #[arg(long)]
    broker_restarts: Option<u32>,

    /// Duration of the database outage, in seconds [default: 600].
    #[arg(long)]
    outage_seconds: Option<u64>,

    /// Run only scenarios whose name contains this; may be repeated. The names of seeded bugs are
    /// seeded-<bug>.
    #[arg(long, value_name = "TEXT")]
    scenario: Vec<String>,

    /// Guarantee to test; may be repeated. Without --guarantee, --ordering and --sink: the selection in
    /// docs/reliability.md.
    #[arg(long, value_enum)]
    guarantee: Vec<Guarantee>,

    /// Ordering to test; may be repeated [default: PerPartition].
    #[arg(long, value_enum)]
    ordering: Vec<Ordering>,

    /// Type of the writer; may be repeated [default: Kafka].
    #[arg(long, value_enum)]
    sink: Vec<Sink>,

    /// Repeat the faults of an earlier run.
    #[arg(long)]
    seed: Option<u64>,

    /// Folder of the results.
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    output: PathBuf,
}

impl SoakArgs {
    fn wants(&self, name: &str) -> bool {
        self.scenario.is_empty() || self.scenario.iter().any(|text| name.contains(text.as_str()))
    }
}

/// All of `main`.
pub fn main() -> Result<()> {
    let args = SoakArgs::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(run(&args))?;
    println!("\n{}", report::table(&rows));
    println!("written: {}", save(&args, &rows)?.display());
    let failed = rows.iter().filter(|row| !row.passed).count();
    ensure!(failed == 0, "{failed} of {} runs failed", rows.len());
    Ok(())
}

async fn run(args: &SoakArgs) -> Result<Vec<Row>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let beside = program
        .parent()
        .unwrap_or(Path::new("."))
        .join("kafka-consumer-worker");
    let site = Site {
        bootstrap: args.bootstrap_servers.clone(),
        proxied: args.proxied_servers.clone().zip(args.proxy_address),
        postgres: args.postgres_url.clone(),
        broker: args.broker_script.clone(),
        worker: args.worker.clone().unwrap_or(beside),
        folder: args.output.join("runs"),
    };
    fs::create_dir_all(&site.folder).with_context(|| format!("cannot create {}", site.folder.display()))?;
    let mut rows = Vec::new();
    for scenario in plan::scenarios(args) {
        let outcome = chaos::run(&site, &scenario).await?;
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
