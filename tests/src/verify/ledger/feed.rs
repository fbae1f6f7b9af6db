//! Writes records of a [`Shape`] at a rate, round-robin over the partitions, including those that are added
//! later, until stopped. Returns the ledger of the records that the broker has acknowledged. A record that
//! the broker rejects fails the test; it never leaves a gap in the ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::producer::{DeliveryFuture, FutureProducer, Producer};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Ledger, Shape};
use crate::systems::kafka::{Kafka, REQUEST, flush, send};

/// Pause between two checks of the clock.
const TICK: Duration = Duration::from_millis(20);

/// A feed that runs until it is stopped.
pub struct Feed {
    topic: String,
    partitions: Arc<AtomicI32>,
    producer: FutureProducer,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    writer: JoinHandle<Result<()>>,
    ledger: JoinHandle<Result<Ledger<i32>>>,
}

impl Feed {
    /// Starts writing to all partitions of `topic`.
    pub fn start(kafka: &Kafka, topic: &str, shape: Shape, partitions: i32, per_second: u64) -> Result<Self> {
        let writing = kafka.producer()?;
        let producer = writing.clone();
        let partitions = Arc::new(AtomicI32::new(partitions));
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (to_ledger, deliveries) = mpsc::unbounded_channel();
        let (stopped, counter) = (stop.clone(), sent.clone());
        let ledger = Ledger::new(&shape.run);
        let (into, existing) = (topic.to_string(), partitions.clone());
        let writer = tokio::spawn(async move {
            let started = Instant::now();
            let mut number = 0_u64;
            // The next sequence number of each partition.
            let mut next: Vec<u64> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
                next.resize(existing.load(Ordering::Relaxed) as usize, 0);
                while number < due {
                    let index = (number % next.len() as u64) as usize;
                    let (partition, seq) = (index as i32, next[index]);
                    let delivery = send(&writing, &into, &shape.message(partition, seq)).await?;
                    // The receiver is gone only after a failure, which stop() returns.
                    let _ = to_ledger.send((partition, seq, delivery));
                    next[index] += 1;
                    number += 1;
                }
                counter.store(number, Ordering::Relaxed);
                tokio::time::sleep(TICK).await;
            }
            tokio::task::spawn_blocking(move || flush(&writing)).await?
        });
        Ok(Self {
            topic: topic.to_string(),
            partitions,
            producer,
            stop,
            sent,
            writer,
            ledger: tokio::spawn(keep(ledger, deliveries)),
        })
    }

    /// Records passed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Writes to more partitions, up to this total number; they must exist.
    pub async fn grow(&self, partitions: i32) -> Result<()> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        // On its own, a producer discovers new partitions every few minutes, and rejects records for those it
        // does not know.
        let seen = tokio::task::spawn_blocking(move || -> Result<usize> {
            let metadata = producer.client().fetch_metadata(Some(&topic), REQUEST)?;
            Ok(metadata
                .topics()
                .first()
                .map_or(0, |topic| topic.partitions().len()))
        })
        .await??;
        ensure!(
            seen >= partitions as usize,
            "the feed sees {seen} of {partitions} partitions"
        );
        self.partitions.store(partitions, Ordering::Relaxed);
        Ok(())
    }

    /// Stops the feed and waits for the last acknowledgements.
    pub async fn stop(self) -> Result<Ledger<i32>> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await??;
        self.ledger.await?
    }
}

/// In the order of writing, so that an outage of the broker only makes the queue longer.
async fn keep(
    mut ledger: Ledger<i32>,
    mut deliveries: mpsc::UnboundedReceiver<(i32, u64, DeliveryFuture)>,
) -> Result<Ledger<i32>> {
    while let Some((partition, seq, delivery)) = deliveries.recv().await {
        let landed = delivery
            .await?
            .map_err(|(error, _)| error)
            .context("a record of the input was not written")?;
        ledger.acknowledged(partition, seq, landed.offset)?;
    }
    Ok(ledger)
}
