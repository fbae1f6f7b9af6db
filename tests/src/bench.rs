//! `make bench`: how many records per second the worker reads, transforms and writes, and what that costs in CPU and
//! memory, beside a raw librdkafka loop and Kafka's own ConsumerPerformance, taking turns on the same broker.
//!
//! In: a Kafka that is up and idle, release binaries. Out: a table, `results.json` (medians), `runs.jsonl` (every run) and,
//! with `--update-docs`, docs/benchmarks.md. Asserts nothing: speed is no test. A subject that does not read everything,
//! loses records or ends with an error gives no number, it ends the whole run.

mod cases;
mod copy_merge;
mod database;
mod idle;
mod machine;
mod peers;
mod perf;
mod process;
mod range;
mod raw;
mod report;
mod subjects;
mod table;
mod takeover;
mod topics;
mod work;
mod worker;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use self::{
    cases::{CASES, Case, Data, Subject},
    process::Servers,
    report::Report,
    subjects::{Bench, Run},
};
use crate::systems::kafka::Kafka;

#[derive(Parser, Debug)]
#[command(
    name = "bench",
    about = "Measures the worker; use scripts/bench.sh, which brings a Kafka"
)]
struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Load the topics, run all cases, print the table.
    Run {
        #[command(flatten)]
        wishes: Wishes,
        #[command(flatten)]
        site: Prepared,
    },
    /// Read a topic once with bare librdkafka; started by `run`.
    Raw {
        #[arg(long)]
        bootstrap_servers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        records: u64,
        /// Fail if there are more.
        #[arg(long)]
        exactly: bool,
    },
    /// Write a topic into PostgreSQL by COPY and INSERT ... ON CONFLICT; started by `run`.
    CopyMerge {
        #[arg(long)]
        bootstrap_servers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        records: u64,
        #[arg(long)]
        postgres_url: String,
        #[arg(long)]
        connections: usize,
    },
    /// Print what `run` with these arguments needs beside a Kafka: postgres, peers, perf.
    Needs {
        #[command(flatten)]
        wishes: Wishes,
    },
}

/// What users say.
#[derive(Args, Debug)]
struct Wishes {
    /// How often each case is run [default: 5, with --quick 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// A tenth of the records: says whether everything works, its numbers are worth little.
    #[arg(long)]
    quick: bool,

    /// Run only cases whose name contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,

    /// Measure others too: loops in Java and Python, Kafka Connect, MirrorMaker, Parallel Consumer.
    #[arg(long)]
    peers: bool,

    /// Print the functions that take most of the worker's CPU time, by Linux' perf, and draw a flame graph; the speeds of such a run
    /// count for nothing.
    #[arg(long, conflicts_with = "update_docs")]
    perf: bool,

    /// Write machine, commands and tables into docs/benchmarks.md, where those with or without peers are.
    #[arg(long)]
    update_docs: bool,
}

/// What scripts/bench.sh has prepared.
#[derive(Args, Debug)]
struct Prepared {
    /// A Kafka with nothing else to do; gets topics named bench-*.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: String,

    /// Kafka's jars, for the subject java; without it java is left out.
    #[arg(long, value_name = "DIR")]
    kafka_jars: Option<PathBuf>,

    /// Jars and Python packages of the peers; needed with --peers.
    #[arg(long, value_name = "DIR")]
    peers_folder: Option<PathBuf>,

    /// Process of the broker, so that its CPU time is not taken for somebody else's.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// A PostgreSQL with nothing else to do; gets a table named bench_orders. Without it its case is left out.
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,

    /// Process of that PostgreSQL.
    #[arg(long, value_name = "PID")]
    postgres_pid: Option<u32>,

    /// Where kafka-consumer-worker, kafka-consumer-operator and bench-worker are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// The command to name in the report.
    #[arg(long, default_value = "bench run", hide = true)]
    command_line: String,
}

impl Wishes {
    fn wants(&self, name: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|text| name.contains(text))
    }

    fn cases(&self) -> Vec<&'static Case> {
        CASES.iter().filter(|case| self.wants(case.name)).collect()
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }
}

/// All of `main`.
pub fn main() -> Result<()> {
    match BenchArgs::parse().command {
        Command::Run { wishes, site } => run(&wishes, &site),
        Command::Raw {
            bootstrap_servers,
            topic,
            records,
            exactly,
        } => raw::run(&bootstrap_servers, &topic, records, exactly),
        Command::CopyMerge {
            bootstrap_servers,
            topic,
            records,
            postgres_url,
            connections,
        } => copy_merge::run(&bootstrap_servers, &topic, records, &postgres_url, connections),
        Command::Needs { wishes } => {
            let postgres = wishes.cases().iter().any(|case| case.needs_postgres());
            for (wanted, name) in [
                (postgres, "postgres"),
                (wishes.peers, "peers"),
                (wishes.perf, "perf"),
            ] {
                if wanted {
                    println!("{name}");
                }
            }
            Ok(())
        }
    }
}

fn run(wishes: &Wishes, site: &Prepared) -> Result<()> {
    let mut cases = wishes.cases();
    ensure!(
        !cases.is_empty() || wishes.wants(takeover::NAME),
        "no case is called like that; there are: {}, {}",
        CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", "),
        takeover::NAME
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests crate has no parent folder")?;
    let results = repository.join("target/bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let bench = prepare(wishes, site, &results)?;
    cases.retain(|case| {
        let possible = bench.database.is_some() || !case.needs_postgres();
        if !possible {
            println!("{}: skipped, there is no --postgres-url", case.name);
        }
        possible
    });

    let runs = measure(&bench, &cases, wishes.rounds())?;
    let takeovers = match wishes.wants(takeover::NAME) {
        true => takeover::run(&bench, wishes.rounds())?,
        false => Vec::new(),
    };
    let settle = Duration::from_secs(if bench.quick { 3 } else { 10 });
    let idle = vec![idle::worker(&bench, settle)?, idle::operator(&bench, settle)?];

    let report = Report::new(&cases, &runs, idle, takeovers);
    println!("\n{}", report.tables());
    fs::write(results.join("results.json"), report.json()?).context("cannot write results.json")?;
    println!("written: {}", results.join("results.json").display());
    if wishes.update_docs {
        let docs = repository.join("docs/benchmarks.md");
        report::update_docs(
            &docs,
            &machine::describe(&bench, &site.command_line, wishes.rounds()),
            wishes.peers,
            &report,
        )?;
        println!("written: {}", docs.display());
    }
    Ok(())
}

fn prepare(wishes: &Wishes, site: &Prepared, results: &Path) -> Result<Bench> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let binaries = match &site.binaries {
        Some(folder) => folder.clone(),
        None => program.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let bench = Bench {
        bootstrap: site.bootstrap_servers.clone(),
        kafka: Kafka::new(&site.bootstrap_servers),
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        quick: wishes.quick,
        perf: wishes.perf,
        worker: binaries.join("kafka-consumer-worker"),
        bench_worker: binaries.join("bench-worker"),
        operator: binaries.join("kafka-consumer-operator"),
        program,
        jars: site.kafka_jars.clone(),
        peers: site.peers_folder.clone().filter(|_| wishes.peers),
        servers: Servers {
            broker: site.broker_pid,
            database: site.postgres_pid,
        },
        database: site.postgres_url.clone(),
        scratch: results.to_path_buf(),
    };
    for program in [&bench.worker, &bench.bench_worker] {
        ensure!(
            program.exists(),
            "there is no {}; scripts/bench.sh builds it",
            program.display()
        );
    }
    Ok(bench)
}

/// Loads what the cases read, and runs them by turns.
fn measure(bench: &Bench, cases: &[&Case], rounds: u32) -> Result<Vec<Run>> {
    let mut data: Vec<Data> = Vec::new();
    for case in cases {
        if !data.contains(&case.data) {
            data.push(case.data);
        }
    }
    for data in &data {
        topics::load(bench, *data)?;
    }
    for data in &data {
        // The broker's code gets compiled and the topic into the page cache: no subject pays for that.
        println!("warming up: {}", data.name());
        subjects::raw(bench, *data)?;
    }
    let mut log = fs::File::create(bench.scratch.join("runs.jsonl")).context("cannot write runs.jsonl")?;
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for case in cases {
            for subject in case.subjects {
                let possible = match subject {
                    Subject::Java => bench.jars.is_some(),
                    Subject::Peer(_) => bench.peers.is_some(),
                    _ => true,
                };
                if !possible {
                    continue;
                }
                let run = subjects::run(bench, case, *subject, round)?;
                println!("{round}/{rounds}  {run}");
                writeln!(log, "{}", serde_json::to_string(&run)?)?;
                runs.push(run);
            }
        }
    }
    Ok(runs)
}
