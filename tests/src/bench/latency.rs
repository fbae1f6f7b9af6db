//! How much later a consumer sees a record behind the worker than directly: the worker copies a topic to
//! another one with default settings, at a low and at a moderate rate, and one consumer reads each of them.
//!
//! The producer is an open loop: it sends each record at its time, however long the ones before it take. So
//! a worker that stands still makes all records late that are due in the meantime, and not only one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};

use super::{
    process::Window,
    quantiles::Quantiles,
    range::Range,
    subjects::{Bench, START},
    topics,
    work::{OUTPUT_TOPIC, Work},
    worker::{Worker, sum},
};
use crate::systems::kafka::Record;

/// Its name for `--case`.
pub(super) const NAME: &str = "latency";

const INPUT_TOPIC: &str = "bench-latency-input";
const PARTITIONS: i32 = 12;
/// Records per second over all partitions.
const RATES: [u32; 2] = [10, 1000];
/// Records sent before those that count: the first ones pay for connections and metadata.
const WARM_UP: Duration = Duration::from_secs(2);
/// From the last record to the last arrival.
const ALLOWANCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// A line of the table. Times in milliseconds.
pub(super) struct Latency {
    pub rate: u32,
    /// From the time at which a record is due to its arrival at a direct consumer.
    pub direct: Spread,
    /// From there to its arrival at the consumer of the worker's output.
    pub added: Spread,
    /// CPU time of the worker, in parts of a core.
    pub cores: Range,
    pub trials: usize,
}

/// The range of two quantiles over all trials.
pub(super) struct Spread {
    pub p50: Range,
    pub p99: Range,
}

struct Trial {
    direct: Quantiles,
    added: Quantiles,
    cores: f64,
}

/// When each record arrived, by the number in its value.
type Arrivals = HashMap<u64, Instant>;

/// Each rate `trials` times.
pub(super) fn run(bench: &Bench, trials: u32) -> Result<Vec<Latency>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut lines = Vec::new();
    for rate in RATES {
        let mut all = Vec::new();
        for number in 1..=trials {
            for topic in [INPUT_TOPIC, OUTPUT_TOPIC] {
                topics::recreate(bench, topic, PARTITIONS)?;
            }
            let trial = runtime.block_on(trial(bench, rate))?;
            println!(
                "{number}/{trials}  {NAME}: {rate}/s, direct p50 {:.1} ms, p99 {:.1} ms; added p50 {:.1} ms, \
                 p99 {:.1} ms; {:.3} cores",
                trial.direct.p50 * 1e3,
                trial.direct.p99 * 1e3,
                trial.added.p50 * 1e3,
                trial.added.p99 * 1e3,
                trial.cores
            );
            all.push(trial);
        }
        let range = |value: fn(&Trial) -> f64| Range::of(all.iter().map(value));
        let spread = |p50: fn(&Trial) -> f64, p99: fn(&Trial) -> f64| {
            Some(Spread {
                p50: range(p50)?,
                p99: range(p99)?,
            })
        };
        if let (Some(direct), Some(added), Some(cores)) = (
            spread(|trial| trial.direct.p50 * 1e3, |trial| trial.direct.p99 * 1e3),
            spread(|trial| trial.added.p50 * 1e3, |trial| trial.added.p99 * 1e3),
            range(|trial| trial.cores),
        ) {
            lines.push(Latency {
                rate,
                direct,
                added,
                cores,
                trials: all.len(),
            });
        }
    }
    for topic in [INPUT_TOPIC, OUTPUT_TOPIC] {
        topics::delete(bench, topic)?;
    }
    Ok(lines)
}

async fn trial(bench: &Bench, rate: u32) -> Result<Trial> {
    let since_epoch = std::time::UNIX_EPOCH.elapsed()?.as_millis();
    let group = format!("bench-latency-{rate}-{since_epoch}");
    let mut worker = Worker::start(bench, NAME, Work::Forward, INPUT_TOPIC, &group)?;
    let started = Instant::now();
    while sum(worker.metrics()?.as_deref(), "kcg_worker_assigned_partitions") != PARTITIONS as u64 {
        ensure!(started.elapsed() < START, "the worker has no partitions");
        tokio::time::sleep(PAUSE).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let follow = |topic: &'static str| {
        let (kafka, stop) = (bench.kafka.clone(), stop.clone());
        tokio::spawn(async move { kafka.follow(topic, Arrivals::new(), arrived, stop).await })
    };
    let (direct, copied) = (follow(INPUT_TOPIC), follow(OUTPUT_TOPIC));
    let window = Window::open(worker.process.pid(), bench.servers)?;
    let seconds = if bench.quick { 10 } else { 30 };
    let records = u64::from(rate) * (WARM_UP.as_secs() + seconds);
    let bootstrap = bench.bootstrap.clone();
    let sent = tokio::task::spawn_blocking(move || send(&bootstrap, rate, records)).await??;
    let spent = window.close()?;
    let limit = Instant::now() + ALLOWANCE;
    while sum(worker.metrics()?.as_deref(), "kcg_worker_records_finished_total") < records {
        ensure!(Instant::now() < limit, "the worker has not finished all records");
        tokio::time::sleep(PAUSE).await;
    }
    // What is finished is in the output; its consumer has it after another fetch.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let (direct, copied) = (direct.await??, copied.await??);
    drop(worker);
    let counted = u64::from(rate) * WARM_UP.as_secs()..records;
    let (mut directly, mut added) = (Vec::new(), Vec::new());
    for number in counted {
        let due = sent + at(number, rate);
        let seen = direct.get(&number).context("a record is not in the input")?;
        let behind = copied.get(&number).context("a record is not in the output")?;
        directly.push(seen.saturating_duration_since(due));
        added.push(behind.saturating_duration_since(*seen));
    }
    Ok(Trial {
        direct: Quantiles::of(&directly),
        added: Quantiles::of(&added),
        cores: spent.cpu_seconds / spent.seconds,
    })
}

/// When the record of this number is due, counted from the first one.
fn at(number: u64, rate: u32) -> Duration {
    Duration::from_micros(number * 1_000_000 / u64::from(rate))
}

/// Sends each record at its time. Returns when the first one was due.
fn send(bootstrap: &str, rate: u32, records: u64) -> Result<Instant> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .context("cannot create the producer")?;
    let first = Instant::now();
    for number in 0..records {
        std::thread::sleep((first + at(number, rate)).saturating_duration_since(Instant::now()));
        let value = number.to_string();
        // Without a key, as most producers without one do: a few records to one partition, then to another.
        let record: BaseRecord<'_, [u8], String> = BaseRecord::to(INPUT_TOPIC).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(ALLOWANCE).context("records were not written")?;
    Ok(first)
}

fn arrived(arrivals: &mut Arrivals, record: Record) {
    let value = record
        .value
        .as_deref()
        .and_then(|value| std::str::from_utf8(value).ok());
    if let Some(number) = value.and_then(|value| value.parse().ok()) {
        // Of a record that is written twice, the first one counts.
        arrivals.entry(number).or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_a_steady_rate() {
        assert_eq!(at(0, 10), Duration::ZERO);
        assert_eq!(at(25, 10), Duration::from_millis(2500));
        assert_eq!(at(1, 1000), Duration::from_millis(1));
    }
}
