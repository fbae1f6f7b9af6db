//! Writes records of a [`Shape`] at a rate, partition after partition in turn, until stopped; out comes the ledger of what
//! the broker has acknowledged. A record that the broker refuses is an error of the test, never a gap in the ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rdkafka::producer::DeliveryFuture;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Ledger, Shape};
use crate::kafka::{Kafka, flush, send};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// A feed that goes on until it is stopped.
pub struct Feed {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    writer: JoinHandle<Result<()>>,
    ledger: JoinHandle<Result<Ledger>>,
}

impl Feed {
    /// Starts writing to all partitions of `topic`.
    pub fn start(kafka: &Kafka, topic: &str, shape: Shape, partitions: i32, per_second: u64) -> Result<Self> {
        let producer = kafka.producer()?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (to_ledger, deliveries) = mpsc::unbounded_channel();
        let (stopped, counter, topic, plan) = (stop.clone(), sent.clone(), topic.to_string(), shape.clone());
        let writer = tokio::spawn(async move {
            let started = Instant::now();
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
                while number < due {
                    let (partition, seq) = ((number % partitions as u64) as i32, number / partitions as u64);
                    let delivery = send(&producer, &topic, &plan.message(partition, seq)).await?;
                    // Its end is gone only when it has failed, which stop() tells.
                    let _ = to_ledger.send((partition, seq, delivery));
                    number += 1;
                }
                counter.store(number, Ordering::Relaxed);
                tokio::time::sleep(TICK).await;
            }
            tokio::task::spawn_blocking(move || flush(&producer)).await?
        });
        Ok(Self {
            stop,
            sent,
            writer,
            ledger: tokio::spawn(keep(Ledger::new(shape), deliveries)),
        })
    }

    /// Records handed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the feed and waits for the last acknowledgements.
    pub async fn stop(self) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await??;
        self.ledger.await?
    }
}

/// In the order of writing, so that an outage of the broker only makes the queue longer.
async fn keep(
    mut ledger: Ledger,
    mut deliveries: mpsc::UnboundedReceiver<(i32, u64, DeliveryFuture)>,
) -> Result<Ledger> {
    while let Some((partition, seq, delivery)) = deliveries.recv().await {
        let landed = delivery
            .await?
            .map_err(|(error, _)| error)
            .context("a record of the input was not written")?;
        ledger.acknowledged(partition, seq, landed.offset)?;
    }
    Ok(ledger)
}
