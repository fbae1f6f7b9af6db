//! `make bench-operator`: what the operator costs with many groups, and how soon it acts on a change. For
//! each number of groups: a new operator process at rest, the creation of all groups, a window without
//! changes, single changes at full load, and the memory after all groups are deleted.
//!
//! In: the environment of `tests/cluster/exec.sh` (an API server, a Kafka broker) and an operator binary.
//! Out: two tables, `results.json` and, with `--update-docs`, docs/benchmarks.md. Asserts nothing: speed is
//! not a test. A wait that exceeds its limit ends the run with an error; the sizes before it are still
//! reported. Needs no worker: the groups are stopped, or their pods match no node.

mod cluster;
mod fake_node;
mod groups;
mod phases;
mod process;
mod report;
mod sockets;
mod topics;
mod trials;
mod workers;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::{cluster::Cluster, phases::Pace, process::Operator, report::Size, topics::Topics};
use super::{machine, process::Servers};
use crate::systems::env::Env;

#[derive(Parser, Debug)]
#[command(
    name = "bench-operator",
    about = "Measures the operator with many groups; use scripts/bench-operator.sh, which starts a cluster"
)]
struct Options {
    /// Numbers of groups to measure with, each with a new operator process [default: 100,1000; with --quick
    /// 100].
    #[arg(long, value_name = "N,...", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(i64::from(topics::COUNT)..=20_000))]
    groups: Vec<u32>,

    /// Short rests and 10 trials: shows whether everything works; the numbers mean little.
    #[arg(long)]
    quick: bool,

    /// Number of single changes of each kind at full load [default: 30, with --quick 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    trials: Option<u32>,

    /// Create the groups with desiredState Running and one worker each, whose pod matches no node. By default
    /// the groups are Stopped.
    #[arg(long)]
    running: bool,

    /// Measure one group with this number of busy workers instead: what the API server does for it. Creates a
    /// Node without a kubelet; `/status` of the workers comes from this process.
    #[arg(long, value_name = "N", conflicts_with_all = ["groups", "running", "trials", "update_docs"],
        requires = "api_server_pid", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: Option<u32>,

    /// Process id of the API server, to measure its CPU time.
    #[arg(long, value_name = "PID")]
    api_server_pid: Option<u32>,

    /// Write machine, command and tables into docs/benchmarks.md.
    #[arg(long)]
    update_docs: bool,

    /// The operator to measure [default: kafka-consumer-operator next to this program].
    #[arg(long, value_name = "FILE", conflicts_with = "update_docs")]
    operator: Option<PathBuf>,

    /// Process id of the Kafka broker, to measure its CPU time too.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// The command shown in the report.
    #[arg(long, default_value = "bench-operator", hide = true)]
    command_line: String,
}

impl Options {
    fn sizes(&self) -> Vec<u32> {
        match (self.groups.is_empty(), self.quick) {
            (false, _) => self.groups.clone(),
            (true, true) => vec![100],
            (true, false) => vec![100, 1000],
        }
    }

    fn pace(&self) -> Pace {
        if self.quick { Pace::QUICK } else { Pace::FULL }
    }

    fn trials(&self) -> u32 {
        self.trials.unwrap_or(if self.quick { 10 } else { 30 })
    }

    fn operator(&self) -> Result<PathBuf> {
        let operator = match &self.operator {
            Some(operator) => operator.clone(),
            None => std::env::current_exe()
                .context("cannot find this program")?
                .with_file_name("kafka-consumer-operator"),
        };
        ensure!(
            operator.is_file(),
            "{} does not exist; scripts/bench-operator.sh builds it",
            operator.display()
        );
        Ok(operator)
    }
}

/// All of `main`.
pub fn main() -> Result<()> {
    let options = Options::parse();
    tokio::runtime::Runtime::new()?.block_on(run(&options))
}

async fn run(options: &Options) -> Result<()> {
    let (env, binary) = (Env::read()?, options.operator()?);
    let results = env.repository.join("target/bench-operator");
    fs::create_dir_all(&results).with_context(|| format!("cannot create {}", results.display()))?;
    let cluster = Cluster::prepare(&env, &binary).await?;
    let mut sizes = Vec::new();
    let measured = tokio::select! {
        measured = measure_workers(options, &cluster, &binary, &results), if options.workers.is_some() => measured,
        measured = measure(options, &cluster, &binary, &results, &mut sizes), if options.workers.is_none() => measured,
        interrupted = stop_signal() => interrupted.and(Err(anyhow!("interrupted"))),
    };
    let cleaned = cluster.clean_up(&options.sizes()).await;
    if !sizes.is_empty() {
        println!("\n{}", report::tables(&sizes));
        let file = results.join("results.json");
        fs::write(&file, report::json(&sizes)?).context("cannot write results.json")?;
        println!("written: {}", file.display());
    }
    measured?;
    cleaned.context("cannot clean up")?;
    if options.update_docs {
        let docs = env.repository.join("docs/benchmarks.md");
        let jars = env.variable("KAFKA_LIBS").ok();
        let command = format!("`{}`", options.command_line);
        let machine = machine::describe(jars.as_deref().map(Path::new), &command);
        report::update_docs(&docs, &machine, &sizes)?;
        println!("written: {}", docs.display());
    }
    Ok(())
}

/// Measures a group with many workers.
async fn measure_workers(options: &Options, cluster: &Cluster, binary: &Path, results: &Path) -> Result<()> {
    let (Some(workers), Some(api_server)) = (options.workers, options.api_server_pid) else {
        return Ok(());
    };
    let log = results.join(format!("operator-{workers}-workers.log"));
    let subject = workers::Subject {
        binary,
        log: &log,
        workers,
        api_server,
        pace: options.pace(),
    };
    let measured = workers::measure(cluster, &subject)
        .await
        .with_context(|| format!("see {}", log.display()))?;
    measured.print();
    Ok(())
}

/// Measures every size and adds it to `sizes`.
async fn measure(
    options: &Options,
    cluster: &Cluster,
    binary: &Path,
    results: &Path,
    sizes: &mut Vec<Size>,
) -> Result<()> {
    let pace = options.pace();
    let servers = Servers {
        broker: options.broker_pid,
        database: None,
    };
    for size in options.sizes() {
        let topics = Topics::create(&cluster.kafka, size).await?;
        println!("{size} groups: created {} topics", topics::COUNT);
        let log = results.join(format!("operator-{size}.log"));
        let mut operator = Operator::start(binary, &log).await?;
        let probe = operator.probe(cluster.brokers().await?);
        let groups = cluster.groups(size, options.running);
        let phases = phases::Phases {
            groups: &groups,
            topics: &topics,
            operator: &probe,
            servers,
            pace,
            trials: options.trials(),
        };
        let measured = tokio::select! {
            measured = phases.run() => measured,
            error = operator.ended() => Err(error),
        };
        let measured = measured.with_context(|| format!("{size} groups; see {}", log.display()))?;
        sizes.push(measured);
        operator.stop()?;
        topics.delete().await?;
    }
    Ok(())
}

/// Resolves at SIGINT or SIGTERM.
async fn stop_signal() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Prints a line every few seconds, for whatever lasts.
struct Progress {
    started: tokio::time::Instant,
    printed: tokio::time::Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(5);

    fn start() -> Self {
        let now = tokio::time::Instant::now();
        Self {
            started: now,
            printed: now,
        }
    }

    /// Prints `line` if the last one is old enough.
    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.printed.elapsed() >= Self::EVERY {
            self.printed = tokio::time::Instant::now();
            println!("  {}, {:.0} s", line(), self.started.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_trials_have_defaults() {
        let parse = |arguments: &[&str]| {
            let options = Options::try_parse_from([&["bench-operator"], arguments].concat()).unwrap();
            (options.sizes(), options.trials())
        };
        assert_eq!(parse(&[]), (vec![100, 1000], 30));
        assert_eq!(parse(&["--quick"]), (vec![100], 10));
        assert_eq!(
            parse(&["--quick", "--groups", "100,5000", "--trials", "3"]),
            (vec![100, 5000], 3)
        );
        assert!(Options::try_parse_from(["bench-operator", "--groups", "10"]).is_err());
    }
}
