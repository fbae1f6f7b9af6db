//! The command line of a soak.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

use crate::verify::checker::{Guarantee, Ordering, Sink};

#[derive(Parser, Debug)]
#[command(
    name = "soak",
    about = "Kills, restarts, freezes and disconnects workers, and checks every record; use \
             scripts/soak.sh, which starts a Kafka broker and a PostgreSQL server"
)]
pub(super) struct SoakArgs {
    /// Plaintext brokers.
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap_servers: String,

    /// The broker's listener that advertises --proxy-address to its clients.
    #[arg(long, value_name = "HOST:PORT", requires = "proxy_address")]
    pub proxied_servers: Option<String>,

    /// The address where the proxy listens.
    #[arg(long, value_name = "IP:PORT", requires = "proxied_servers")]
    pub proxy_address: Option<SocketAddr>,

    /// A program that restarts the broker: called with `restart-broker SIGNAL SECONDS`, it ends the broker
    /// with this signal and starts it again after this time.
    #[arg(long, value_name = "FILE")]
    pub broker_script: Option<PathBuf>,

    /// A program that performs faults of a cluster of three brokers. With it, only scenarios with such faults
    /// run.
    #[arg(long, value_name = "FILE")]
    pub cluster_script: Option<PathBuf>,

    /// URL of a database that its user owns, for every scenario that writes to tables.
    #[arg(long, value_name = "URL", env = "SOAK_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: Option<String>,

    /// The worker to test [default: next to this program].
    #[arg(long, value_name = "FILE")]
    pub worker: Option<PathBuf>,

    /// A worker built with the feature seeded-bugs; without it, the checker itself is not tested.
    #[arg(long, value_name = "FILE")]
    pub seeded_worker: Option<PathBuf>,

    /// Three quarters of an hour: a tenth of everything, or less.
    #[arg(long)]
    pub quick: bool,

    /// Kills [default: 1000 with AtLeastOnce and PerPartition, else 300].
    #[arg(long)]
    pub kills: Option<u32>,

    /// Records to write at least while workers are killed [default: 5000000 with AtLeastOnce, PerPartition
    /// and a topic].
    #[arg(long)]
    pub records: Option<u64>,

    /// Rolling restarts of single workers [default: 100].
    #[arg(long)]
    pub restarts: Option<u32>,

    /// Workers frozen for longer than their session [default: 50 with AtLeastOnce and PerPartition, else 25].
    #[arg(long)]
    pub zombies: Option<u32>,

    /// Longest freeze beyond the session, in seconds [default: 60].
    #[arg(long)]
    pub zombie_seconds: Option<u64>,

    /// Cuts of all connections [default: 100].
    #[arg(long)]
    pub cuts: Option<u32>,

    /// Transactions aborted from outside [default: 300].
    #[arg(long)]
    pub aborts: Option<u32>,

    /// Workers that join and soon leave [default: 50].
    #[arg(long)]
    pub storms: Option<u32>,

    /// Number of times that the input gets more partitions [default: 20].
    #[arg(long)]
    pub growths: Option<u32>,

    /// Restarts of the broker, every second one a kill [default: 20].
    #[arg(long)]
    pub broker_restarts: Option<u32>,

    /// Faults of each kind of a cluster of three brokers [default: 100].
    #[arg(long)]
    pub broker_faults: Option<u32>,

    /// Duration of the database outage, in seconds [default: 600].
    #[arg(long)]
    pub outage_seconds: Option<u64>,

    /// Run only scenarios whose name contains this; may be repeated. The names of seeded bugs are
    /// seeded-<bug>.
    #[arg(long, value_name = "TEXT")]
    pub scenario: Vec<String>,

    /// Guarantee to test; may be repeated. Without --guarantee, --ordering and --sink: the selection in
    /// docs/reliability.md.
    #[arg(long, value_enum)]
    pub guarantee: Vec<Guarantee>,

    /// Ordering to test; may be repeated [default: PerPartition].
    #[arg(long, value_enum)]
    pub ordering: Vec<Ordering>,

    /// Type of the writer; may be repeated [default: Kafka].
    #[arg(long, value_enum)]
    pub sink: Vec<Sink>,

    /// Repeat the faults of an earlier run.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Folder of the results.
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    pub output: PathBuf,
}

impl SoakArgs {
    /// Whether --scenario selects this name.
    pub fn wants(&self, name: &str) -> bool {
        self.scenario.is_empty() || self.scenario.iter().any(|text| name.contains(text.as_str()))
    }
}
