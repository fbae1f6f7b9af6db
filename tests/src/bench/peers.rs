//! Others that do the same work, with `--peers`: programs of `tests/bench-peers`, and Kafka's own Connect and
//! MirrorMaker. All except one are Java; heap and collector are those of Kafka's scripts, and the settings
//! are those that users change first for throughput: large polls, large batches. Measured from the first
//! record to the last, so without the start of the JVM.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cases::Data,
    copy_merge::{make_stage, merge_into_table},
    process::{Running, Spent, Window, peak_rss_mib},
    subjects::{Bench, SLOWEST, START, watch},
    topics,
    work::CONCURRENCY,
    worker::free_address,
};

/// Pause between two checks of MirrorMaker's target.
const PAUSE: Duration = Duration::from_millis(100);

/// MirrorMaker's names for the topics that it creates: the target is `src.` and the name of the source.
const MIRROR_TOPICS: [&str; 5] = [
    "heartbeats",
    "mm2-configs.src.internal",
    "mm2-offsets.src.internal",
    "mm2-offset-syncs.dst.internal",
    "mm2-status.src.internal",
];

/// A program of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A loop around Kafka's consumer, with Jackson.
    Jackson,
    /// Kafka Connect: JSON, two transforms, a sink that discards, two tasks.
    Connect,
    /// Parallel Consumer by key, with this many microseconds of work for each record.
    ParallelConsumer(u32),
    /// MirrorMaker 2, to a topic of the same broker.
    MirrorMaker,
    /// A loop in Python that copies and merges into PostgreSQL.
    Python,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Jackson => "java + Jackson",
            Peer::Connect => "Kafka Connect",
            Peer::ParallelConsumer(_) => "Parallel Consumer",
            Peer::MirrorMaker => "MirrorMaker 2",
            Peer::Python => "Python",
        }
    }

    /// Number of records that it reads, at most this many: the slow ones would take minutes for all.
    pub fn records(self, all: u64) -> u64 {
        match self {
            Peer::Jackson | Peer::Connect | Peer::Python => all,
            Peer::ParallelConsumer(_) | Peer::MirrorMaker => all / 4,
        }
    }
}

/// Runs it once; also returns its number of records.
pub(super) fn run(bench: &Bench, data: Data, peer: Peer) -> Result<(Spent, f64, u64)> {
    let topic = data.topic(bench.quick);
    let records = peer.records(data.records(bench.quick));
    let harness = |class: &str, more: &[String]| {
        let mut command = java(bench, "-Xmx1G")?;
        command
            .args([class, &bench.bootstrap, &topic, &records.to_string()])
            .args(more);
        Ok::<Command, anyhow::Error>(command)
    };
    let mut command = match peer {
        Peer::Jackson => harness("bench.JsonLoop", &[])?,
        Peer::ParallelConsumer(microseconds) => harness(
            "bench.ByKey",
            &[microseconds, CONCURRENCY].map(|number| number.to_string()),
        )?,
        Peer::Connect => connect(bench, &topic, records)?,
        Peer::MirrorMaker => return mirror(bench, &topic, records),
        Peer::Python => python(bench, &topic, records)?,
    };
    let (spent, peak) = watch(bench, peer.name(), command.stderr(log(bench)?))?;
    Ok((spent, peak, records))
}

/// The folder of the peers.
fn peers(bench: &Bench) -> Result<&Path> {
    bench.peers.as_deref().context("this needs --peers-folder")
}

/// Java with the peers' jars.
fn java(bench: &Bench, heap: &str) -> Result<Command> {
    let jars = peers(bench)?;
    let mut command = Command::new("java");
    command
        .args(heap.split(' '))
        .args([
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
        ])
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(jars.join("*"));
    Ok(command)
}

/// Python with the peers' packages.
fn python(bench: &Bench, topic: &str, records: u64) -> Result<Command> {
    let folder = peers(bench)?.join("python");
    let mut command = Command::new("python3");
    command
        .arg(folder.join("copy_merge.py"))
        .args([&bench.bootstrap, topic, &records.to_string(), bench.database()?])
        .args([make_stage(), merge_into_table()])
        .env("PYTHONPATH", folder);
    Ok(command)
}

fn log(bench: &Bench) -> Result<File> {
    Ok(File::create(bench.scratch.join("peer.log"))?)
}

/// Writes a properties file.
fn properties(path: &Path, entries: &[(&str, &str)]) -> Result<()> {
    let mut text = String::new();
    for (key, value) in entries {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{key}={value}");
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Connect as a separate process, which ends with its stdin because the sink makes it do so.
fn connect(bench: &Bench, topic: &str, records: u64) -> Result<Command> {
    let (worker, sink) = (
        bench.scratch.join("connect.properties"),
        bench.scratch.join("sink.properties"),
    );
    let offsets = bench.scratch.join("connect.offsets");
    properties(
        &worker,
        &[
            ("bootstrap.servers", &bench.bootstrap),
            (
                "key.converter",
                "org.apache.kafka.connect.storage.StringConverter",
            ),
            ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("value.converter.schemas.enable", "false"),
            ("offset.storage.file.filename", &offsets.to_string_lossy()),
            ("offset.flush.interval.ms", "1000"),
            ("listeners", &format!("http://{}", free_address()?)),
            ("plugin.discovery", "service_load"),
            ("consumer.max.poll.records", "5000"),
        ],
    )?;
    properties(
        &sink,
        &[
            // The name of its group contains this name, and must be new.
            (
                "name",
                &format!("bench-{}", jiff::Timestamp::now().as_millisecond()),
            ),
            ("topics", topic),
            ("tasks.max", "2"),
            ("connector.class", "bench.NullSink"),
            ("expect", &records.to_string()),
            ("transforms", "drop,add"),
            (
                "transforms.drop.type",
                "org.apache.kafka.connect.transforms.ReplaceField$Value",
            ),
            ("transforms.drop.exclude", "status"),
            (
                "transforms.add.type",
                "org.apache.kafka.connect.transforms.InsertField$Value",
            ),
            ("transforms.add.static.field", "handled_by"),
            ("transforms.add.static.value", "bench"),
        ],
    )?;
    let mut command = java(bench, "-Xms256M -Xmx2G")?;
    command
        .arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .args([&worker, &sink]);
    Ok(command)
}

/// MirrorMaker prints no marks, so the bench watches its target.
fn mirror(bench: &Bench, topic: &str, records: u64) -> Result<(Spent, f64, u64)> {
    let target = format!("src.{topic}");
    let clean = || {
        MIRROR_TOPICS
            .into_iter()
            .chain([target.as_str()])
            .try_for_each(|topic| topics::delete(bench, topic))
    };
    clean()?;
    let config = bench.scratch.join("mirror.properties");
    properties(
        &config,
        &[
            ("clusters", "src, dst"),
            ("src.bootstrap.servers", &bench.bootstrap),
            ("dst.bootstrap.servers", &bench.bootstrap),
            ("src->dst.enabled", "true"),
            ("src->dst.topics", topic),
            ("dst->src.enabled", "false"),
            ("src->dst.emit.heartbeats.enabled", "false"),
            ("dst->src.emit.heartbeats.enabled", "false"),
            ("src->dst.emit.checkpoints.enabled", "false"),
            ("sync.topic.acls.enabled", "false"),
            ("sync.topic.configs.enabled", "false"),
            ("replication.factor", "1"),
            ("offset-syncs.topic.replication.factor", "1"),
            ("checkpoints.topic.replication.factor", "1"),
            ("heartbeats.topic.replication.factor", "1"),
            ("offset.storage.replication.factor", "1"),
            ("status.storage.replication.factor", "1"),
            ("config.storage.replication.factor", "1"),
            ("offset.flush.interval.ms", "1000"),
            ("tasks.max", "2"),
            ("plugin.discovery", "service_load"),
            ("src.consumer.max.poll.records", "5000"),
            ("dst.producer.batch.size", "262144"),
            ("dst.producer.linger.ms", "5"),
            ("dst.producer.buffer.memory", "67108864"),
        ],
    )?;
    let mut process = Running(
        java(bench, "-Xms256M -Xmx2G")?
            .arg("org.apache.kafka.connect.mirror.MirrorMaker")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(bench)?)
            .spawn()
            .context("cannot start java")?,
    );
    let limit = START + Duration::from_secs(records / SLOWEST);
    let (started, mut begin) = (Instant::now(), None);
    let (spent, copied) = loop {
        process.check()?;
        let count = topics::count(bench, &target)?.unwrap_or_default();
        match &begin {
            None if count > 0 => begin = Some((Window::open(process.pid(), bench.servers)?, count)),
            // Records from before the window do not count.
            Some((window, before)) if count >= records => break (window.close()?, count - before),
            _ => {}
        }
        ensure!(
            started.elapsed() < limit,
            "{count} of {records} records in {} s",
            limit.as_secs()
        );
        thread::sleep(PAUSE);
    };
    let peak = peak_rss_mib(process.pid()).context("MirrorMaker has ended")?;
    drop(process);
    clean()?;
    Ok((spent, peak, copied))
}
