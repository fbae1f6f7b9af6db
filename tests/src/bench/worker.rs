//! The real worker in its own process: started with a configuration document, observed through its own
//! `/metrics`, stopped by the end of its stdin, which it treats as SIGTERM and which happens even if this
//! program is killed. Its result counts only if it has counted every record, none failed, and it ends with
//! exit code 0.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    cases::{Case, Subject},
    perf::Recording,
    process::{Running, Spent, Window, peak_rss_mib},
    subjects::{self, Bench, SLOWEST, START, STOP},
    topics,
    work::{ByKey, CopyGuarantee, OUTPUT_TOPIC, Work},
};
use crate::systems::process::WorkerProcess;
pub(super) use crate::systems::process::free_address;

/// Pause between two checks of a worker: at the start and at the end, where they decide about the result; and
/// in between, where they only cost the worker CPU time.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_secs(1);
/// Timeout of one check; a worker that uses all cores may answer slowly.
const ANSWER: Duration = Duration::from_secs(5);

/// A worker process, consuming in its own group.
pub(super) struct Worker {
    pub process: Running,
    address: SocketAddr,
    log: PathBuf,
}

impl Worker {
    /// `name` distinguishes its files from those of other cases.
    pub fn start(bench: &Bench, name: &str, work: Work, topic: &str, group: &str) -> Result<Self> {
        let config = work.config(&bench.bootstrap, topic, group)?;
        // Only the log of the last run is needed.
        let _ = fs::remove_file(bench.scratch.join(format!("{name}.log")));
        let address = free_address()?;
        let at = (bench.scratch.as_path(), address);
        let binary = match work {
            Work::ByKey(ByKey::OneMillisecond) => &bench.bench_worker,
            _ => &bench.worker,
        };
        let WorkerProcess { process, log } = WorkerProcess::start(binary, name, at, &config, &[])?;
        Ok(Self {
            process,
            address,
            log,
        })
    }

    /// The text of `/metrics`; None until the worker listens.
    pub fn metrics(&mut self) -> Result<Option<String>> {
        self.process.check()?;
        Ok(get(self.address, "/metrics"))
    }

    fn stop(mut self) -> Result<()> {
        drop(self.process.0.stdin.take());
        let status = self.process.wait(STOP, || {})?;
        ensure!(status.success(), "the worker ended with {status}");
        Ok(())
    }

    /// Measures from the first record to the last.
    fn measure(&mut self, bench: &Bench, records: u64, name: &str) -> Result<(Spent, f64)> {
        let started = Instant::now();
        let mut window = Window::open(self.process.pid(), bench.servers)?;
        loop {
            // Opened before the check: the last window that saw no record counts.
            let candidate = Window::open(self.process.pid(), bench.servers)?;
            if sum(self.metrics()?.as_deref(), "kcg_worker_records_consumed_total") > 0 {
                break;
            }
            window = candidate;
            ensure!(started.elapsed() < START, "no record for {} s", START.as_secs());
            thread::sleep(CLOSE_LOOK);
        }
        let recording = Recording::start(bench, self.process.pid(), name)?;
        let limit = START + Duration::from_secs(records / SLOWEST);
        let first = Instant::now();
        loop {
            let done = sum(self.metrics()?.as_deref(), "kcg_worker_records_finished_total");
            if done >= records {
                break;
            }
            ensure!(
                started.elapsed() < limit,
                "{done} of {records} records in {} s",
                limit.as_secs()
            );
            // Half of the remaining time at the rate so far: few checks, and the last ones close to the end.
            // Early rates are too low, so the first pauses are short.
            let so_far = first.elapsed();
            let left = so_far.mul_f64((records - done) as f64 / done.max(1) as f64 / 2.0);
            thread::sleep(left.min(so_far / 4).min(SELDOM).max(CLOSE_LOOK));
        }
        let spent = window.close()?;
        recording.map_or(Ok(()), Recording::finish)?;
        let peak = peak_rss_mib(self.process.pid()).context("the worker has ended")?;
        let failures = sum(self.metrics()?.as_deref(), "kcg_worker_failures_total");
        ensure!(failures == 0, "{failures} records failed");
        Ok((spent, peak))
    }

    /// Runs `work`; adds the end of the worker's log to an error.
    pub fn explained<T>(mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let log = self.log.clone();
        let result = work(&mut self).and_then(|value| self.stop().map(|()| value));
        result.with_context(|| {
            format!(
                "the worker, whose log {} ends with:\n{}",
                log.display(),
                WorkerProcess::last_words(&log, 10)
            )
        })
    }
}

/// Runs a case once.
pub(super) fn run(bench: &Bench, case: &Case, work: Work, round: u32) -> Result<(Spent, f64)> {
    if work.writes_to_kafka() {
        topics::recreate(bench, OUTPUT_TOPIC, case.data.partitions())?;
    }
    let records = case.data.records(bench.quick);
    // A new group each time: it has no committed offsets, so it starts at the first record.
    let subject = Subject::Worker(work).name();
    let group = format!("bench-{}-{subject}-{}-{round}", case.name, std::process::id());
    let worker = Worker::start(bench, case.name, work, &case.data.topic(bench.quick), &group)?;
    let name = format!("{}-{subject}", case.name);
    let measured = worker.explained(|worker| worker.measure(bench, records, &name))?;
    if work.writes_to_kafka() {
        match work {
            // End offsets also count the markers of transactions.
            Work::Copy(CopyGuarantee::ExactlyOnce) => subjects::holds_exactly(bench, OUTPUT_TOPIC, records)?,
            _ => {
                let written = topics::count(bench, OUTPUT_TOPIC)?;
                ensure!(
                    written == Some(records),
                    "{written:?} of {records} records are in {OUTPUT_TOPIC}"
                );
            }
        }
        // The next run must not wait for the disk because of this one.
        topics::delete(bench, OUTPUT_TOPIC)?;
    }
    Ok(measured)
}

/// The body of a successful answer.
pub(super) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1) == Some("200")).then(|| body.to_string())
}

/// The sum of all series of a metric; 0 if there are none.
pub(super) fn sum(metrics: Option<&str>, name: &str) -> u64 {
    metrics
        .unwrap_or_default()
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_metric_are_added_up() {
        let text = "# TYPE a counter\na_total{partition=\"0\"} 2\na_total{partition=\"1\"} 3\na_total_other 9\na 4\n";
        assert_eq!(sum(Some(text), "a_total"), 5);
        assert_eq!(sum(Some(text), "a"), 4);
        assert_eq!(sum(None, "a"), 0);
    }
}
