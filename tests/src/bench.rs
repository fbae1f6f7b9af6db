//! `make bench`: the rate at which the worker reads, transforms and writes records, and its CPU time and
//! memory, compared with a raw librdkafka loop and Kafka's own ConsumerPerformance. They take turns on the
//! same broker.
//!
//! In: a running, idle Kafka broker and release binaries. Out: a table, `results.json` (medians),
//! `runs.jsonl` (every run) and, with `--update-docs`, docs/benchmarks.md. Asserts nothing: speed is not a
//! test. A subject that does not read everything, loses records or ends with an error has no result; it ends
//! the whole run.

mod cases;
mod copy_merge;
mod database;
mod idle;
mod latency;
mod machine;
pub mod operator;
mod peers;
mod perf;
mod process;
mod quantiles;
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
    about = "Measures the worker; use scripts/bench.sh, which starts a Kafka broker"
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
        options: Options,
        #[command(flatten)]
        prepared: Prepared,
    },
    /// Read a topic once with bare librdkafka; started by `run`.
    Raw {
        #[arg(long)]
        bootstrap_servers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        records: u64,
        /// Fail if there are more records.
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
    /// Print what `run` with these arguments needs in addition to Kafka: postgres, peers, perf.
    Needs {
        #[command(flatten)]
        options: Options,
    },
}

/// Options of users.
#[derive(Args, Debug)]
struct Options {
    /// Number of runs of each case [default: 5, with --quick 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// Use a tenth of the records: shows whether everything works; the numbers mean little.
    #[arg(long)]
    quick: bool,

    /// Run only cases whose name contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,

    /// Also measure others: loops in Java and Python, Kafka Connect, MirrorMaker, Parallel Consumer.
    #[arg(long)]
    peers: bool,

    /// Print the functions that take most of the worker's CPU time, with Linux' perf, and draw a flame graph;
    /// the speeds of such a run do not count.
    #[arg(long, conflicts_with = "update_docs")]
    perf: bool,

    /// Write machine, commands and tables into docs/benchmarks.md, into the part with or without peers.
    #[arg(long)]
    update_docs: bool,
}

/// Options that scripts/bench.sh passes.
#[derive(Args, Debug)]
struct Prepared {
    /// A Kafka broker with no other load; the bench creates topics named bench-* there.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: String,

    /// Kafka's jars, for the subject java; without them java is skipped.
    #[arg(long, value_name = "DIR")]
    kafka_jars: Option<PathBuf>,

    /// Jars and Python packages of the peers; needed with --peers.
    #[arg(long, value_name = "DIR")]
    peers_folder: Option<PathBuf>,

    /// Process id of the broker, so that its CPU time does not count as that of other processes.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// A PostgreSQL server with no other load; the bench creates a table named bench_orders there. Without
    /// it, the PostgreSQL case is skipped.
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,

    /// Process id of that PostgreSQL server.
    #[arg(long, value_name = "PID")]
    postgres_pid: Option<u32>,

    /// Folder of kafka-consumer-worker, kafka-consumer-operator and bench-worker [default: that of this
    /// program].
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// The command shown in the report.
    #[arg(long, default_value = "bench run", hide = true)]
    command_line: String,
}

impl Options {
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
        Command::Run { options, prepared } => run(&options, &prepared),
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
        Command::Needs { options } => {
            let postgres = options.cases().iter().any(|case| case.needs_postgres());
            for (wanted, name) in [
                (postgres, "postgres"),
                (options.peers, "peers"),
                (options.perf, "perf"),
            ] {
                if wanted {
                    println!("{name}");
                }
            }
            Ok(())
        }
    }
}

fn run(options: &Options, prepared: &Prepared) -> Result<()> {
    let mut cases = options.cases();
    ensure!(
        !cases.is_empty() || options.wants(latency::NAME) || options.wants(takeover::NAME),
        "no case has such a name; the cases are: {}, {}, {}",
        CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", "),
        latency::NAME,
        takeover::NAME
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests crate has no parent folder")?;
    let results = repository.join("target/bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot create {}", results.display()))?;
    let bench = prepare(options, prepared, &results)?;
    cases.retain(|case| {
        let possible = bench.database.is_some() || !case.needs_postgres();
        if !possible {
            println!("{}: skipped: --postgres-url is not set", case.name);
        }
        possible
    });

    let runs = measure(&bench, &cases, options.rounds())?;
    let latencies = if options.wants(latency::NAME) {
        latency::run(&bench, options.rounds())?
    } else {
        Vec::new()
    };
    let takeovers = if options.wants(takeover::NAME) {
        takeover::run(&bench, options.rounds())?
    } else {
        Vec::new()
    };
    let settle = Duration::from_secs(if bench.quick { 3 } else { 10 });
    let idle = vec![idle::worker(&bench, settle)?, idle::operator(&bench, settle)?];

    let report = Report::new(&cases, &runs, idle).with(latencies, takeovers);
    println!("\n{}", report.tables());
    fs::write(results.join("results.json"), report.json()?).context("cannot write results.json")?;
    println!("written: {}", results.join("results.json").display());
    if options.update_docs {
        let docs = repository.join("docs/benchmarks.md");
        let command = format!("`{}`, {} rounds", prepared.command_line, options.rounds());
        report::update_docs(
            &docs,
            &machine::describe(bench.jars.as_deref(), &command),
            options.peers,
            &report,
        )?;
        println!("written: {}", docs.display());
    }
    Ok(())
}

fn prepare(options: &Options, prepared: &Prepared, results: &Path) -> Result<Bench> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let binaries = match &prepared.binaries {
        Some(folder) => folder.clone(),
        None => program.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let bench = Bench {
        bootstrap: prepared.bootstrap_servers.clone(),
        kafka: Kafka::new(&prepared.bootstrap_servers),
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        quick: options.quick,
        perf: options.perf,
        worker: binaries.join("kafka-consumer-worker"),
        bench_worker: binaries.join("bench-worker"),
        operator: binaries.join("kafka-consumer-operator"),
        program,
        jars: prepared.kafka_jars.clone(),
        peers: prepared.peers_folder.clone().filter(|_| options.peers),
        servers: Servers {
            broker: prepared.broker_pid,
            database: prepared.postgres_pid,
        },
        database: prepared.postgres_url.clone(),
        scratch: results.to_path_buf(),
    };
    for program in [&bench.worker, &bench.bench_worker] {
        ensure!(
            program.exists(),
            "{} does not exist; scripts/bench.sh builds it",
            program.display()
        );
    }
    Ok(bench)
}

/// Loads what the cases read, and runs the subjects in turns.
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
        // Compiles the broker's code and reads the topic into the page cache, so that no subject pays for it.
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
