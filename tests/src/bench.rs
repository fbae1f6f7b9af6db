//! `make bench`: how many records per second the worker reads, transforms and writes, and what that costs in CPU and
//! memory, beside a raw librdkafka loop and Kafka's own ConsumerPerformance, taking turns on the same broker.
//!
//! In: a Kafka that is up and idle, release binaries. Out: a table, `results.json` (medians), `runs.jsonl` (every run) and,
//! with `--update-docs`, docs/benchmarks.md. Asserts nothing: speed is no test. A subject that does not read everything,
//! loses records or ends with an error gives no number, it ends the whole run.

mod cases;
mod idle;
mod machine;
mod process;
mod raw;
mod report;
mod subjects;
mod topics;
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
    report::Report,
    subjects::Bench,
};
use crate::Kafka;

#[derive(Parser, Debug)]
#[command(
    name = "bench",
    about = "Measures the worker; use scripts/bench.sh, which brings a Kafka"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Load the topics, run all cases, print the table.
    Run(RunArgs),
    /// Read a topic once with bare librdkafka; started by `run`.
    Raw {
        #[arg(long)]
        bootstrap_servers: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        records: u64,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// A Kafka with nothing else to do; gets topics named bench-*.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_servers: String,

    /// How often each case is run [default: 5, with --quick 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// A tenth of the records: says whether everything works, its numbers are worth little.
    #[arg(long)]
    quick: bool,

    /// Run only cases whose name contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,

    /// Write machine, commands and tables into docs/benchmarks.md.
    #[arg(long)]
    update_docs: bool,

    /// Kafka's jars, for the subject java; without it java is left out.
    #[arg(long, value_name = "DIR")]
    kafka_jars: Option<PathBuf>,

    /// Process of the broker, so that its CPU time is not taken for somebody else's.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// Where kafka-consumer-worker and kafka-consumer-operator are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,

    /// The command to name in the report.
    #[arg(long, default_value = "bench run", hide = true)]
    command_line: String,
}

/// All of `main`.
pub fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Raw {
            bootstrap_servers,
            topic,
            records,
        } => raw::run(&bootstrap_servers, &topic, records),
    }
}

fn run(args: &RunArgs) -> Result<()> {
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| args.case.is_empty() || args.case.iter().any(|text| case.name.contains(text)))
        .collect();
    ensure!(
        !cases.is_empty(),
        "no case is called like that; there are: {}",
        CASES.map(|case| case.name).join(", ")
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests crate has no parent folder")?;
    let results = repository.join("target/bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;

    let program = std::env::current_exe().context("cannot find this program")?;
    let binaries = match &args.binaries {
        Some(folder) => folder.clone(),
        None => program.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let bench = Bench {
        bootstrap: args.bootstrap_servers.clone(),
        kafka: Kafka::new(&args.bootstrap_servers),
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        quick: args.quick,
        worker: binaries.join("kafka-consumer-worker"),
        operator: binaries.join("kafka-consumer-operator"),
        program,
        jars: args.kafka_jars.clone(),
        broker: args.broker_pid,
        scratch: results.clone(),
    };
    ensure!(
        bench.worker.exists(),
        "there is no {}; build it with cargo build --release -p kafka-consumer-worker",
        bench.worker.display()
    );

    let mut data: Vec<Data> = cases.iter().map(|case| case.data).collect();
    data.dedup();
    for data in &data {
        topics::load(&bench, *data)?;
    }
    for data in &data {
        // The broker's code gets compiled and the topic into the page cache: no subject pays for that.
        println!("warming up: {}", data.name());
        subjects::raw(&bench, *data)?;
    }

    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 5 });
    let mut log = fs::File::create(results.join("runs.jsonl")).context("cannot write runs.jsonl")?;
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for case in &cases {
            for subject in case.subjects {
                if *subject == Subject::Java && bench.jars.is_none() {
                    continue;
                }
                let run = subjects::run(&bench, case, *subject, round)?;
                println!("{round}/{rounds}  {run}");
                writeln!(log, "{}", serde_json::to_string(&run)?)?;
                runs.push(run);
            }
        }
    }
    let settle = Duration::from_secs(if args.quick { 3 } else { 10 });
    let idle = vec![idle::worker(&bench, settle)?, idle::operator(&bench, settle)?];

    let report = Report::new(runs, idle);
    println!("\n{}", report.tables());
    fs::write(results.join("results.json"), report.json()?).context("cannot write results.json")?;
    println!("written: {}", results.join("results.json").display());
    if args.update_docs {
        let docs = repository.join("docs/benchmarks.md");
        report::update_docs(
            &docs,
            &machine::describe(&bench, &args.command_line, rounds),
            &report,
        )?;
        println!("written: {}", docs.display());
    }
    Ok(())
}
