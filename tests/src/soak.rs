//! `make soak`: the scenarios of the end-to-end tests at length, and every planted bug. In: a Kafka that is up (scripts/soak.sh
//! brings one), workers to test. Out: a table and target/soak/results.json; an error when any promise was broken or any
//! planted bug was missed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    chaos::{self, Faults, Row, SESSION_OF_A_CRASH, Scenario, Site, planted, random_seed, report},
    checker::{Guarantee, Ordering},
};

#[derive(Parser, Debug)]
#[command(
    name = "soak",
    about = "Kills, restarts, freezes and cuts off workers, and checks every record; use scripts/soak.sh, which brings a Kafka"
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

    /// The worker to test [default: beside this program].
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,

    /// A worker built with the feature planted-bugs; without it the checker itself is not checked.
    #[arg(long, value_name = "FILE")]
    planted_worker: Option<PathBuf>,

    /// A few minutes: 30 kills, 10 rolling restarts, 5 zombies, 10 cuts.
    #[arg(long)]
    quick: bool,

    /// Kills [default: 1000].
    #[arg(long)]
    kills: Option<u32>,

    /// Records that are written at least while workers are killed [default: 5000000].
    #[arg(long)]
    records: Option<u64>,

    /// Rolling restarts of single workers [default: 100].
    #[arg(long)]
    restarts: Option<u32>,

    /// Workers frozen for longer than their session [default: 50].
    #[arg(long)]
    zombies: Option<u32>,

    /// Longest time beyond the session, in seconds [default: 60].
    #[arg(long)]
    zombie_seconds: Option<u64>,

    /// Cuts of all connections [default: 100].
    #[arg(long)]
    cuts: Option<u32>,

    /// Run only scenarios whose name contains this; may be repeated. Planted bugs are named planted-<bug>.
    #[arg(long, value_name = "TEXT")]
    scenario: Vec<String>,

    /// With this guarantee; may be repeated.
    #[arg(long, value_enum, default_values_t = [Guarantee::AtLeastOnce])]
    guarantee: Vec<Guarantee>,

    /// In this order; may be repeated.
    #[arg(long, value_enum, default_values_t = [Ordering::PerPartition])]
    ordering: Vec<Ordering>,

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

    /// The scenarios that were asked for, in the order of running.
    fn scenarios(&self) -> Vec<Scenario> {
        let count = |asked: Option<u32>, full, quick| asked.unwrap_or(if self.quick { quick } else { full });
        let faults = Faults::default();
        let kinds = [
            (
                "kills",
                Faults {
                    kills: count(self.kills, 1000, 30),
                    ..faults
                },
            ),
            (
                "restarts",
                Faults {
                    restarts: count(self.restarts, 100, 10),
                    ..faults
                },
            ),
            (
                "zombies",
                Faults {
                    zombies: count(self.zombies, 50, 5),
                    zombie_seconds: self.zombie_seconds.unwrap_or(if self.quick { 5 } else { 60 }),
                    ..faults
                },
            ),
            (
                "cuts",
                Faults {
                    cuts: count(self.cuts, 100, 10),
                    ..faults
                },
            ),
        ];
        let mut scenarios = Vec::new();
        for guarantee in &self.guarantee {
            for ordering in &self.ordering {
                for (name, faults) in kinds {
                    if !self.wants(name) || (name == "cuts" && self.proxied_servers.is_none()) {
                        continue;
                    }
                    scenarios.push(self.scenario(name, faults, *guarantee, *ordering));
                }
            }
        }
        scenarios
    }

    fn scenario(&self, name: &str, faults: Faults, guarantee: Guarantee, ordering: Ordering) -> Scenario {
        let crashes = faults.kills + faults.zombies > 0;
        let plain = Scenario::new(name);
        Scenario {
            guarantee,
            ordering,
            workers: 4,
            partitions: 12,
            rate: if self.quick { 1000 } else { 2000 },
            batch: 50,
            records: match self.records {
                Some(records) => records,
                None if name == "kills" && !self.quick => 5_000_000,
                None => 0,
            },
            session: if crashes {
                SESSION_OF_A_CRASH
            } else {
                plain.session
            },
            faults,
            seed: self.seed.unwrap_or_else(random_seed),
            // A zombie that stands still for a minute must not look like a group that does.
            patience: plain.patience + Duration::from_secs(faults.zombie_seconds),
            ..plain
        }
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
        worker: cli.worker.clone().unwrap_or(beside),
        folder: cli.output.join("runs"),
    };
    fs::create_dir_all(&site.folder).with_context(|| format!("cannot make {}", site.folder.display()))?;
    let mut rows = Vec::new();
    for scenario in cli.scenarios() {
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
