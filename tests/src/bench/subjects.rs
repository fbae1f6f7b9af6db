//! One run of one subject: starts it as a separate process, watches it from the first record to the last, and
//! returns its rate, CPU time and peak memory. Each subject must prove that it has read everything: the raw
//! loop and the worker count their records, ConsumerPerformance prints its number.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{
    cases::{Case, Data, Subject},
    database, peers,
    process::{Running, Servers, Spent, Window, ended_children_cpu_seconds, peak_rss_mib},
    worker,
};
use crate::systems::kafka::Kafka;

/// From the start of a process to its first record, or until it is ready: a JVM on two busy cores takes 5 s,
/// a join 3 s.
pub(super) const START: Duration = Duration::from_secs(60);
/// From SIGTERM or the end of stdin to the end of the process: the worker's configuration has a drain budget
/// of 55 s, and there is nothing left to drain.
pub(super) const STOP: Duration = Duration::from_secs(60);
/// The slowest known consumer reads 20,000 records/s; a subject slower than this has hung.
pub(super) const SLOWEST: u64 = 10_000;

/// Everything that the runs share.
pub(super) struct Bench {
    pub bootstrap: String,
    pub kafka: Kafka,
    pub runtime: tokio::runtime::Runtime,
    pub quick: bool,
    /// Record the worker's CPU time by function.
    pub perf: bool,
    pub program: PathBuf,
    pub worker: PathBuf,
    /// The worker with work for each record.
    pub bench_worker: PathBuf,
    pub operator: PathBuf,
    pub jars: Option<PathBuf>,
    /// Jars and packages of the peers, with `--peers`.
    pub peers: Option<PathBuf>,
    pub servers: Servers,
    /// URL of a PostgreSQL server, if there is one.
    pub database: Option<String>,
    /// Folder for configuration and logs of the subjects.
    pub scratch: PathBuf,
}

impl Bench {
    pub fn database(&self) -> Result<&str> {
        self.database.as_deref().context("this needs --postgres-url")
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub case: &'static str,
    pub subject: &'static str,
    pub round: u32,
    pub records: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub cpu_seconds_per_million: f64,
    /// The same for the broker; unknown if it is not ours.
    pub broker_cpu_seconds_per_million: Option<f64>,
    /// The same for PostgreSQL; only for cases that write to it.
    pub database_cpu_seconds_per_million: Option<f64>,
    pub peak_rss_mib: f64,
    /// Share of the machine that neither the subject nor the servers used.
    pub others: Option<f64>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<27} {:<13} {:>9.0} records/s {:>7.3} CPU-s/million {:>6.1} MiB",
            self.case, self.subject, self.records_per_second, self.cpu_seconds_per_million, self.peak_rss_mib
        )?;
        match self.others {
            Some(others) if others > 0.05 => {
                write!(f, "  (other processes: {:.0} % of the machine)", others * 100.0)
            }
            _ => Ok(()),
        }
    }
}

/// Runs a subject once.
pub(super) fn run(bench: &Bench, case: &Case, subject: Subject, round: u32) -> Result<Run> {
    if case.needs_postgres() {
        database::prepare(bench, case.name)?;
    }
    bench.servers.settle()?;
    let records = case.data.records(bench.quick);
    let all = |(spent, peak)| (spent, peak, records);
    let (spent, peak, records) = match subject {
        Subject::Raw => raw(bench, case.data).map(all),
        Subject::Worker(work) => worker::run(bench, case, work, round).map(all),
        Subject::Java => java(bench, case.data).map(all),
        Subject::CopyMerge(connections) => copy_merge(bench, case.data, connections).map(all),
        Subject::Peer(peer) => peers::run(bench, case.data, peer),
    }
    .with_context(|| format!("{} in case {}", subject.name(), case.name))?;
    if case.needs_postgres() {
        database::finish(bench, records)?;
    }
    let millions = records as f64 / 1e6;
    Ok(Run {
        case: case.name,
        subject: subject.name(),
        round,
        records,
        seconds: spent.seconds,
        records_per_second: records as f64 / spent.seconds,
        cpu_seconds_per_million: spent.cpu_seconds / millions,
        broker_cpu_seconds_per_million: spent.servers.broker.map(|cpu| cpu / millions),
        database_cpu_seconds_per_million: spent
            .servers
            .database
            .filter(|_| case.needs_postgres())
            .map(|cpu| cpu / millions),
        peak_rss_mib: peak,
        others: spent.others,
    })
}

/// The raw loop, as a separate process of this program.
pub(super) fn raw(bench: &Bench, data: Data) -> Result<(Spent, f64)> {
    let mut command = raw_command(bench, &data.topic(bench.quick), data.records(bench.quick));
    watch(bench, "the raw loop", &mut command)
}

/// The loop that copies and merges, as a separate process of this program.
fn copy_merge(bench: &Bench, data: Data, connections: usize) -> Result<(Spent, f64)> {
    let mut command = Command::new(&bench.program);
    command
        .args(["copy-merge", "--bootstrap-servers", &bench.bootstrap])
        .args(["--topic", &data.topic(bench.quick)])
        .args(["--records", &data.records(bench.quick).to_string()])
        .args(["--postgres-url", bench.database()?])
        .args(["--connections", &connections.to_string()]);
    watch(bench, "copy-merge", &mut command)
}

/// Fails unless exactly this many committed records are in a topic.
pub(super) fn holds_exactly(bench: &Bench, topic: &str, records: u64) -> Result<()> {
    watch(bench, topic, raw_command(bench, topic, records).arg("--exactly")).map(|_| ())
}

fn raw_command(bench: &Bench, topic: &str, records: u64) -> Command {
    let mut command = Command::new(&bench.program);
    command
        .args(["raw", "--bootstrap-servers", &bench.bootstrap])
        .args(["--topic", topic, "--records", &records.to_string()]);
    command
}

/// Runs a program that prints marks at the first and the last record, and ends with its stdin.
pub(super) fn watch(bench: &Bench, name: &str, command: &mut Command) -> Result<(Spent, f64)> {
    let mut child = Running(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?,
    );
    let output = child.0.stdout.take().context("it has no stdout")?;
    let mut lines = BufReader::new(output).lines();
    let mut expect = |word: &str| match lines.next() {
        Some(Ok(line)) if line == word => Ok(()),
        other => bail!("{name} printed {other:?} instead of {word:?}"),
    };
    expect("first")?;
    let window = Window::open(child.pid(), bench.servers)?;
    expect("last")?;
    let spent = window.close()?;
    let peak = peak_rss_mib(child.pid()).with_context(|| format!("{name} has ended"))?;
    drop(child.0.stdin.take());
    let status = child.wait(STOP, || {})?;
    ensure!(status.success(), "{name}: {status}");
    Ok((spent, peak))
}

/// Kafka's own ConsumerPerformance. It prints the time from its first fetch to its last. Its CPU time is that
/// of the whole process less what the same program needs for one record, which is the start of the JVM.
fn java(bench: &Bench, data: Data) -> Result<(Spent, f64)> {
    let (_, boot, _) = consumer_performance(bench, data, 1)?;
    let (seconds, mut spent, peak) = consumer_performance(bench, data, data.records(bench.quick))?;
    spent.seconds = seconds;
    spent.cpu_seconds -= boot.cpu_seconds;
    Ok((spent, peak))
}

/// Returns the seconds that it prints, the resources of the process, and its peak memory.
fn consumer_performance(bench: &Bench, data: Data, records: u64) -> Result<(f64, Spent, f64)> {
    let jars = bench.jars.as_ref().context("java needs --kafka-jars")?;
    let before = ended_children_cpu_seconds()?;
    // Heap and collector of Kafka's own script.
    let mut child = Running(
        Command::new("java")
            .args([
                "-Xmx512M",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            ])
            .arg("-cp")
            .arg(jars.join("*"))
            .args([
                "org.apache.kafka.tools.ConsumerPerformance",
                "--bootstrap-server",
                &bench.bootstrap,
            ])
            .args([
                "--topic",
                &data.topic(bench.quick),
                "--messages",
                &records.to_string(),
            ])
            // Its wait for the first record; its default of 10 s is too short for a busy machine.
            .args(["--timeout", &START.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start java")?,
    );
    let window = Window::open(child.pid(), bench.servers)?;
    let started = Instant::now();
    let (pid, mut peak) = (child.pid(), 0.0_f64);
    let limit = START + Duration::from_secs(records / SLOWEST);
    let status = child.wait(limit, || peak = peak_rss_mib(pid).unwrap_or_default().max(peak))?;
    ensure!(status.success(), "ConsumerPerformance: {status}");
    // Only this child has ended meanwhile.
    let cpu_seconds = ended_children_cpu_seconds()? - before;
    let spent = window.close_with(started.elapsed().as_secs_f64(), cpu_seconds)?;
    let mut text = String::new();
    // A few lines, which fit into the pipe's buffer.
    child
        .0
        .stdout
        .take()
        .context("java has no stdout")?
        .read_to_string(&mut text)?;
    let seconds =
        fetch_seconds(&text, records).with_context(|| format!("ConsumerPerformance printed:\n{text}"))?;
    Ok((seconds, spent, peak))
}

/// From "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec,
/// rebalance.time.ms, fetch.time.ms, ...": the third value from the end, if all records were consumed.
fn fetch_seconds(text: &str, records: u64) -> Result<f64> {
    let line = text
        .lines()
        .rfind(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let fields: Vec<&str> = line.context("no result")?.split(',').map(str::trim).collect();
    let field = |index: usize| fields.get(index).context("too few columns");
    let consumed: u64 = field(4)?.parse()?;
    ensure!(consumed >= records, "only {consumed} of {records} records");
    let millis: f64 = field(7)?.parse()?;
    // The last fetch may bring some more.
    Ok(millis / 1000.0 * records as f64 / consumed as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_consumer_performance_counts_only_if_it_read_everything() {
        let line = "2026-01-01 00:00:00:000, 2026-01-01 00:00:09:000, 95.36, 10.0, 1000, 100.0, 4000, 5000, 19.0, 200.0";
        let text = format!("start.time, end.time, ...\n{line}\n");
        assert_eq!(fetch_seconds(&text, 1000).unwrap(), 5.0);
        assert_eq!(fetch_seconds(&text, 500).unwrap(), 2.5);
        assert!(
            fetch_seconds(&text, 1001)
                .unwrap_err()
                .to_string()
                .contains("only 1000")
        );
    }
}
