//! The embedded broker: librdkafka's mock cluster in a separate process, in memory, on 127.0.0.1 only, for
//! trials. One part is the hidden subcommand that runs the broker; the other starts it and requests topics
//! over its standard input. The broker exits when that input closes, so it never outlives its session.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::args::{EmbeddedBrokerArgs, parse_topic};
use crate::kafka::embedded::EmbeddedBroker;

/// What users must know about the embedded broker.
pub const ABOUT: &str = "embedded broker: in memory, on 127.0.0.1 only, for trials; it keeps at most 5 MiB per partition and loses everything at the end";

/// Timeout of a process start and a bound socket, which take seconds only on a very busy machine.
const START: Duration = Duration::from_secs(20);

/// Runs the broker; blocks until standard input closes. Each line "name:partitions" on it creates a topic.
pub fn serve(args: &EmbeddedBrokerArgs) -> anyhow::Result<ExitCode> {
    let cluster = EmbeddedBroker::start().context("cannot start the embedded broker")?;
    for (topic, partitions) in &args.topics {
        cluster.create_topic(topic, *partitions)?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", cluster.bootstrap_servers())?;
    stdout.flush()?;
    for line in std::io::stdin().lock().lines() {
        let Ok((topic, partitions)) = parse_topic(line?.trim()) else {
            continue;
        };
        // An existing topic stays unchanged.
        if let Err(error) = cluster.create_topic(&topic, partitions) {
            tracing::debug!("{error}");
        }
        writeln!(stdout, "{topic}")?;
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A running broker; it ends when this is dropped.
pub struct Broker {
    pub bootstrap: String,
    topics: BTreeMap<String, i32>,
    input: ChildStdin,
    output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    /// Kept so that the process is reaped.
    _child: Child,
}

impl Broker {
    pub async fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the executable of this program")?;
        let mut child = Command::new(&program)
            .arg("embedded-broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // Ctrl-C must reach this session only: it drains the workers while the broker still runs.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} embedded-broker", program.display()))?;
        let input = child
            .stdin
            .take()
            .context("the embedded broker has no standard input")?;
        let output = child
            .stdout
            .take()
            .context("the embedded broker has no standard output")?;
        let mut output = BufReader::new(output).lines();
        let line = tokio::time::timeout(START, output.next_line())
            .await
            .context("the embedded broker did not start in time")??;
        let bootstrap = line.context("the embedded broker exited at once")?;
        Ok(Self {
            bootstrap,
            topics: BTreeMap::new(),
            input,
            output,
            _child: child,
        })
    }

    /// Creates missing topics. Returns those that exist with a different number of partitions.
    pub async fn create(&mut self, topics: &BTreeMap<String, i32>) -> anyhow::Result<Vec<String>> {
        let mut kept = Vec::new();
        for (topic, partitions) in topics {
            match self.topics.get(topic) {
                Some(existing) if existing == partitions => {}
                Some(existing) => kept.push(format!(
                    "topic {topic} keeps its {existing} partitions: the embedded broker cannot change them"
                )),
                None => {
                    self.input
                        .write_all(format!("{topic}:{partitions}\n").as_bytes())
                        .await?;
                    self.input.flush().await?;
                    let done = tokio::time::timeout(START, self.output.next_line());
                    done.await
                        .context("the embedded broker does not respond")??
                        .context("the embedded broker has exited")?;
                    self.topics.insert(topic.clone(), *partitions);
                }
            }
        }
        Ok(kept)
    }
}
