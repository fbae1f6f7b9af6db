//! `local --demo`: the whole path on one machine. An embedded broker, orders (some invalid), workers, a live
//! table, and a summary with the counts of an independent consumer. Exits when all orders are processed; exit
//! code 0 only if the sums are correct.

mod orders;
mod tally;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::args::LocalArgs;
use super::screen::Screen;
use super::session::{INVALID, Session, TICK};
use super::stop::StopSignals;
use super::supervise::Totals;
use super::table::count;
use crate::kafka::model::{GroupKey, KafkaProblem, Lag};
use crate::kafka::records::{self, Record};
use crate::sync::lock;
use orders::{order, poison_count};
use tally::Tally;

/// The resource that the demo runs, also one of the examples.
const RESOURCE: &str = include_str!("../../../deploy/examples/demo.yaml");

/// Slow enough to watch, fast enough not to wait long.
const RECORDS_PER_SECOND: u32 = 20_000;

/// The demo fails after this long without progress. Joining a group of the embedded broker takes 3 s, the
/// restart of a worker up to 30 s.
const STALL: Duration = Duration::from_secs(90);

pub async fn run(args: LocalArgs) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("cannot create a folder for the demo")?;
    let args = with_defaults(args, folder.path())?;
    let records = args.demo_records;
    let mut screen = Screen::new();
    screen.say(&format!(
        "demo: {} orders, {} of them invalid, through the group in {}",
        count(records.into()),
        count(poison_count(records).into()),
        if args.files.iter().any(|file| file.starts_with(folder.path())) {
            "deploy/examples/demo.yaml".to_string()
        } else {
            args.files
                .iter()
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        }
    ));
    let mut session = match Session::open(&args, screen).await {
        Ok(session) => session,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(INVALID));
        }
    };
    let topics = match DemoTopics::of(&session) {
        Ok(topics) => topics,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(INVALID));
        }
    };
    let mut stop = StopSignals::new()?;
    let started = Instant::now();
    let threads = Threads::start(&topics, records);
    let ended = watch(&mut session, &threads, records, &mut stop).await;
    let lag = final_lag(&session).await;
    let took = started.elapsed();
    let stay = args.demo_stay && ended.is_ok();
    if !stay {
        session.stop(|| stop.received()).await;
    }
    let totals = session
        .only_group()
        .map(|group| group.totals())
        .unwrap_or_default();
    let produced = threads.produced.load(Ordering::Relaxed);
    let (tally, failures) = threads.stop();
    let summary = Summary {
        records,
        produced,
        totals,
        lag,
        took,
        topics,
    };
    let mut reasons = failures;
    reasons.extend(ended.err());
    let code = summary.print(&mut session.screen, &tally, reasons);
    if stay {
        if let Some(url) = session.dashboard() {
            session.screen.say(&format!(
                "\nThe demo keeps running: {url}; press Ctrl-C to end it"
            ));
        }
        while !stop.received() {
            session.tick().await;
            tokio::time::sleep(TICK).await;
        }
        session.stop(|| stop.received()).await;
    }
    Ok(code)
}

fn with_defaults(mut args: LocalArgs, folder: &Path) -> anyhow::Result<LocalArgs> {
    args.embedded_kafka = true;
    if args.files.is_empty() {
        let file = folder.join("demo.yaml");
        std::fs::write(&file, RESOURCE).with_context(|| format!("cannot write {}", file.display()))?;
        args.files.push(file);
    }
    Ok(args)
}

/// The topics of the group that the demo runs.
struct DemoTopics {
    bootstrap: String,
    input: String,
    output: String,
    dead_letters: String,
    partitions: i32,
}

impl DemoTopics {
    fn of(session: &Session) -> anyhow::Result<Self> {
        let group = session
            .only_group()
            .context("the demo runs one KafkaConsumerGroup; pass one with -f")?;
        let spec = &group.prepared.valid.spec;
        let topics = super::plan::embedded_topics(spec);
        let input = spec
            .topics
            .first()
            .context("the demo needs an input topic")?
            .name
            .clone();
        let output = spec.writers.iter().find_map(|writer| writer.kafka.as_ref());
        let dead_letters = spec.error_handling.dead_letter.as_ref();
        Ok(Self {
            bootstrap: session
                .embedded_bootstrap()
                .context("the demo needs the embedded broker")?
                .to_string(),
            output: output
                .context("the demo's group needs a Kafka writer, whose topic is counted")?
                .topic
                .clone(),
            dead_letters: dead_letters
                .context("the demo's group needs errorHandling.deadLetter, whose topic is counted")?
                .topic
                .clone(),
            partitions: topics
                .get(&input)
                .copied()
                .unwrap_or(super::plan::EMBEDDED_PARTITIONS),
            input,
        })
    }
}

/// The producer of the orders and the independent consumer.
struct Threads {
    produced: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
    end: Arc<AtomicBool>,
    running: Vec<JoinHandle<Result<(), KafkaProblem>>>,
}

impl Threads {
    fn start(topics: &DemoTopics, records: u32) -> Self {
        let (produced, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let tally = Arc::new(Mutex::new(Tally::new(records)));
        let producer = {
            let (bootstrap, topic) = (topics.bootstrap.clone(), topics.input.clone());
            let (produced, end) = (Arc::clone(&produced), Arc::clone(&end));
            std::thread::spawn(move || {
                let all = (0..records).map(|number| {
                    let order = order(number);
                    Record {
                        key: order.key,
                        value: order.value,
                    }
                });
                records::write(&bootstrap, &topic, all, RECORDS_PER_SECOND, &produced, &end)
            })
        };
        let reader = {
            let (bootstrap, output) = (topics.bootstrap.clone(), topics.output.clone());
            let read = [&topics.output, &topics.dead_letters].map(|topic| (topic.clone(), topics.partitions));
            let (tally, end) = (Arc::clone(&tally), Arc::clone(&end));
            std::thread::spawn(move || {
                records::read(&bootstrap, &read, &end, |record| {
                    let mut tally = lock(&tally);
                    if record.topic == output {
                        tally.note_output(record.key, record.value);
                    } else {
                        tally.note_dead_letter(record.key, record.value, &record.headers);
                    }
                })
            })
        };
        Self {
            produced,
            tally,
            end,
            running: vec![producer, reader],
        }
    }

    /// Counts that only grow.
    fn progress(&self) -> (u64, u64, u64) {
        let (written, dead) = lock(&self.tally).counts();
        (self.produced.load(Ordering::Relaxed), written, dead)
    }

    fn complete(&self, records: u32) -> bool {
        let tally = lock(&self.tally);
        self.produced.load(Ordering::Relaxed) >= u64::from(records) && tally.complete()
    }

    fn failed(&self) -> bool {
        // The producer ends when it is done; the consumer must not end.
        self.running.last().is_some_and(JoinHandle::is_finished)
    }

    fn stop(self) -> (Arc<Mutex<Tally>>, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        let failures = self.running.into_iter().filter_map(|thread| match thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem.to_string()),
            Err(_) => Some("a thread of the demo panicked".into()),
        });
        let failures = failures.collect();
        (self.tally, failures)
    }
}

/// Runs until everything is processed and committed, until progress stops, or until a stop signal.
async fn watch(
    session: &mut Session,
    threads: &Threads,
    records: u32,
    stop: &mut StopSignals,
) -> Result<(), String> {
    let (mut last, mut moved) = (threads.progress(), Instant::now());
    loop {
        session.tick().await;
        let lag = session.only_group().and_then(|group| group.facts()?.lag.as_ref());
        if threads.complete(records) && lag.is_some_and(|lag| lag.total == 0) {
            return Ok(());
        }
        if stop.received() {
            return Err("stopped before all orders were processed".into());
        }
        if threads.failed() {
            return Err("the independent consumer ended early".into());
        }
        let now = threads.progress();
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() >= STALL {
            return Err(format!("no progress for {} s", STALL.as_secs()));
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Reads the lag again while the broker still runs.
async fn final_lag(session: &Session) -> Option<Lag> {
    let group = session.only_group()?;
    let valid = &group.prepared.valid;
    let key = GroupKey::new(&valid.namespace, &valid.name);
    let query = group.query();
    let facts = session.clients().facts(
        &key,
        &valid.spec.kafka,
        &valid.credentials,
        &query,
        Duration::ZERO,
    );
    facts.await.ok()?.lag
}

struct Summary {
    records: u32,
    produced: u64,
    totals: Totals,
    lag: Option<Lag>,
    took: Duration,
    topics: DemoTopics,
}

impl Summary {
    /// Prints the summary and returns the exit code.
    fn print(&self, screen: &mut Screen, tally: &Mutex<Tally>, mut reasons: Vec<String>) -> ExitCode {
        let tally = lock(tally);
        let (written, dead) = tally.counts();
        reasons.extend(tally.verdict().err().into_iter().flatten());
        if self.produced != u64::from(self.records) {
            reasons.push(format!(
                "{} of {} orders were produced",
                self.produced, self.records
            ));
        }
        if self.lag.as_ref().map(|lag| lag.total) != Some(0) {
            reasons.push("the lag at the end is not 0".into());
        }
        let DemoTopics {
            input,
            output,
            dead_letters,
            ..
        } = &self.topics;
        let rows = [
            (
                "produced",
                self.produced,
                format!(
                    "to {input}, {} of them invalid",
                    count(poison_count(self.records).into())
                ),
            ),
            (
                "read",
                self.totals.records,
                "finished, as the workers report".into(),
            ),
            (
                "written",
                written,
                format!("to {output}, {} of them twice", count(tally.duplicates)),
            ),
            (
                "dead-lettered",
                dead,
                format!("to {dead_letters}, byte for byte, with the reason in the headers"),
            ),
        ];
        let mut text = format!(
            "\nsummary, counted by an independent consumer; {:.1} s from the first order to lag 0\n",
            self.took.as_secs_f64()
        );
        for (name, number, remark) in rows {
            text.push_str(&format!("  {name:<14}{:>9}  {remark}\n", count(number)));
        }
        let lag = self
            .lag
            .as_ref()
            .map_or("unknown".into(), |lag| lag.total.to_string());
        text.push_str(&format!("  {:<14}{lag:>9}  records not yet committed\n", "lag"));
        let euros = format!("{}.{:02}", count(tally.cents / 100), tally.cents % 100);
        text.push_str(&format!("  sum of the written amounts: {euros}\n"));
        for example in &tally.examples {
            text.push_str(&format!("  dead letter {example}\n"));
        }
        if reasons.is_empty() {
            text.push_str("\nThe sums are correct: every order was either written or dead-lettered.\n");
            text.push_str(&next(output));
            screen.say(&text);
            return ExitCode::SUCCESS;
        }
        text.push_str("\nThe sums are WRONG:\n");
        reasons
            .iter()
            .for_each(|reason| text.push_str(&format!("  {reason}\n")));
        screen.say(&text);
        ExitCode::FAILURE
    }
}

/// What to try next, with the path of this program.
fn next(output: &str) -> String {
    let program = std::env::current_exe().map(|program| program.display().to_string());
    let program = program.unwrap_or_else(|_| "kafka-consumer-operator".into());
    format!(
        "
Next:
  with your own Kafka, without Kubernetes (create the topic {output} first)
    {program} local -f deploy/examples/demo.yaml --bootstrap-servers HOST:PORT
  on a cluster
    helm install kafka-consumer-operator charts/kafka-consumer-operator -n kafka-consumer-operator --create-namespace
    kubectl apply -f deploy/examples/minimal.yaml"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_of_the_demo_is_valid_and_has_the_required_fields() {
        let object: serde_json::Value = serde_yaml::from_str(RESOURCE).unwrap();
        let group = super::super::validate::Rules::new().check(&object, None).unwrap();
        assert!(group.spec.error_handling.dead_letter.is_some());
        assert!(group.spec.writers.iter().any(|writer| writer.kafka.is_some()));
        let topics = super::super::plan::embedded_topics(&group.spec);
        assert!(topics.values().all(|partitions| *partitions == 6), "{topics:?}");
    }
}
