//! `make soak`: the scenarios of the end-to-end tests at length, and every planted bug. In: a Kafka and a PostgreSQL that are up
//! (scripts/soak.sh brings them), workers to test. Out: a table and target/soak/results.json; an error when any promise was
//! broken or any planted bug was missed.

mod plan;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    chaos::{self, Row, Site, planted, report},
    verify::checker::{Guarantee, Ordering, Sink},
};

#[derive(Parser, Debug)]
#[command(
    name = "soak",
    about = "Kills, restarts, freezes and cuts off workers, and checks every record; use scripts/soak.sh, which brings a Kafka \
             and a PostgreSQL"
)]
struct Cli {
    /// Plaintext brokers.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: String,

    /// The broker's listener whose clients are told to connect to --proxy-address.
    #[arg(long, value_name = "HOST:PORT", requires = "proxy_address")]
    proxied_servers: Option<String>,

    /// Where the proxy has to listen.
    #[arg(long, value_name = "IP:PORT", requires = "proxied_servers")]
    proxy_address: Option<SocketAddr>,

    /// A program that restarts the broker: when called with `restart-broker SIGNAL SECONDS`, it ends the broker by this signal
    /// and starts it again after that time.
    #[arg(long, value_name = "FILE")]
    broker_script: Option<PathBuf>,

    /// URL of a database that its user owns, for everything that writes to tables.
    #[arg(long, value_name = "URL", env = "SOAK_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<String>,

    /// The worker to test [default: beside this program].
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,

    /// A worker built with the feature planted-bugs; without it the checker itself is not checked.
    #[arg(long, value_name = "FILE")]
    planted_worker: Option<PathBuf>,

    /// Three quarters of an hour: a tenth of everything, or less.
    #[arg(long)]
    quick: bool,

    /// Kills [default: 1000 with AtLeastOnce and PerPartition, else 300].
    #[arg(long)]
    kills: Option<u32>,

    /// Records that are written at least while workers are killed [default: 5000000 with AtLeastOnce, PerPartition and a topic].
    #[arg(long)]
    records: Option<u64>,

    /// Rolling restarts of single workers [default: 100].
    #[arg(long)]
    restarts: Option<u32>,

    /// Workers frozen for longer than their session [default: 50 with AtLeastOnce and PerPartition, else 25].
    #[arg(long)]
    zombies: Option<u32>,

    /// Longest time beyond the session, in seconds [default: 60].
    #[arg(long)]
    zombie_seconds: Option<u64>,

    /// Cuts of all connections [default: 100].
    #[arg(long)]
    cuts: Option<u32>,

    /// Transactions aborted from outside [default: 300].
    #[arg(long)]
    aborts: Option<u32>,

    /// Workers that join and leave at once [default: 50].
    #[arg(long)]
    storms: Option<u32>,

    /// Times that the input gets more partitions [default: 20].
    #[arg(long)]
    growths: Option<u32>,

    /// Restarts of the broker, each second one a kill [default: 20].
    #[arg(long)]
    broker_restarts: Option<u32>,

    /// Time that the database is away, in seconds [default: 600].
    #[arg(long)]
    outage_seconds: Option<u64>,

    /// Run only scenarios whose name contains this; may be repeated. Planted bugs are named planted-<bug>.
    #[arg(long, value_name = "TEXT")]
    scenario: Vec<String>,

    /// With this guarantee; may be repeated. Without this, --ordering and --sink, a choice that docs/reliability.md tells.
    #[arg(long, value_enum)]
    guarantee: Vec<Guarantee>,

    /// In this order; may be repeated [default: PerPartition].
    #[arg(long, value_enum)]
    ordering: Vec<Ordering>,

    /// With a writer of this type; may be repeated [default: Kafka].
    #[arg(long, value_enum)]
    sink: Vec<Sink>,

    /// The faults of an earlier run again.
    #[arg(long)]
    seed: Option<u64>,

    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    output: PathBuf,
}

impl Cli {
    fn wants(&self, name: &str) -> bool {
        self.scenario.is_empty() || self.scenario.iter().any(|text| name.contains(text.as_str()))
    }
}

/// All of `main`.
pub fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(run(&cli))?;
    println!("\n{}", report::table(&rows));
    println!("written: {}", save(&cli, &rows)?.display());
    let failed = rows.iter().filter(|row| !row.passed).count();
    ensure!(failed == 0, "{failed} of {} runs failed", rows.len());
    Ok(())
}

async fn run(cli: &Cli) -> Result<Vec<Row>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let beside = program
        .parent()
        .unwrap_or(Path::new("."))
        .join("kafka-consumer-worker");
    let site = Site {
        bootstrap: cli.bootstrap_servers.clone(),
        proxied: cli.proxied_servers.clone().zip(cli.proxy_address),
        postgres: cli.postgres_url.clone(),
        broker: cli.broker_script.clone(),
        worker: cli.worker.clone().unwrap_or(beside),
        folder: cli.output.join("runs"),
    };
    fs::create_dir_all(&site.folder).with_context(|| format!("cannot make {}", site.folder.display()))?;
    let mut rows = Vec::new();
    for scenario in plan::scenarios(cli) {
        let outcome = chaos::run(&site, &scenario).await?;
        if let Err(error) = outcome.kept() {
            println!("  {error:#}");
        }
        rows.push(Row::new(&outcome));
        save(cli, &rows)?;
    }
    if let Some(worker) = &cli.planted_worker {
        let site = Site {
            worker: worker.clone(),
            ..site
        };
        let bugs = planted::BUGS
            .iter()
            .filter(|bug| cli.wants(&format!("planted-{}", bug.name)));
        rows.extend(planted::rows(&site, bugs).await?);
    }
    ensure!(!rows.is_empty(), "nothing is called like that");
    Ok(rows)
}

/// What is done so far: a soak takes hours, and may be interrupted.
fn save(cli: &Cli, rows: &[Row]) -> Result<PathBuf> {
    let file = cli.output.join("results.json");
    fs::write(&file, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
