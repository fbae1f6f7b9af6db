//! The worker of the benchmark case with work for each record: the released worker, plus the writer `wait`,
//! which takes a fixed time for each record, one after the other, like a call of a remote service. Its
//! `custom.config` is `{"microseconds": N}`. At the end it prints how many records were processed at the same
//! time and how long they really took.

mod delay;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use kafka_consumer_worker::{BoxFuture, Extensions, Rejected, WriteBatch, WriteError, Writer};
use serde_json::Value;

use self::delay::Delay;

/// A writer that waits for each record, and counts how it went.
struct Wait {
    delay: Delay,
    in_work: AtomicU64,
    most_in_work: AtomicU64,
    records: AtomicU64,
    microseconds: AtomicU64,
}

fn wait(config: &Value) -> anyhow::Result<Arc<dyn Writer>> {
    let microseconds = config["microseconds"]
        .as_u64()
        .context("custom.config.microseconds must be a number")?;
    Ok(Arc::new(Wait {
        delay: Delay::start(Duration::from_micros(microseconds))?,
        in_work: AtomicU64::new(0),
        most_in_work: AtomicU64::new(0),
        records: AtomicU64::new(0),
        microseconds: AtomicU64::new(0),
    }))
}

impl Wait {
    async fn work(&self, batch: WriteBatch<'_>) -> Result<Vec<Rejected>, WriteError> {
        let in_work = self.in_work.fetch_add(1, Relaxed) + 1;
        self.most_in_work.fetch_max(in_work, Relaxed);
        let started = Instant::now();
        for _ in batch.records() {
            self.delay.wait().await;
        }
        self.in_work.fetch_sub(1, Relaxed);
        self.records.fetch_add(batch.len() as u64, Relaxed);
        self.microseconds
            .fetch_add(started.elapsed().as_micros() as u64, Relaxed);
        Ok(Vec::new())
    }
}

impl Writer for Wait {
    fn write<'a>(&'a self, batch: WriteBatch<'a>) -> BoxFuture<'a, Result<Vec<Rejected>, WriteError>> {
        Box::pin(self.work(batch))
    }

    fn reads_headers(&self) -> bool {
        false
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let records = self.records.load(Relaxed);
        eprintln!(
            "bench-worker: {records} records, {} at once, {} us each",
            self.most_in_work.load(Relaxed),
            self.microseconds.load(Relaxed) / records.max(1)
        );
        Box::pin(async {})
    }
}

fn main() -> ExitCode {
    kafka_consumer_worker::run(Extensions::new().writer("wait", wait))
}
