//! Looks on while a run goes on: committed offsets and ends of topics, in that order, again and again; and the output as a
//! `read_committed` consumer sees it live. With clients of its own, past every proxy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tokio::task::JoinHandle;

use super::Topics;
use crate::{
    checker::{Place, Sample},
    kafka::Kafka,
};

/// Between two samples: several between two commits.
const PAUSE: Duration = Duration::from_millis(40);

/// For one request to a healthy broker on a busy machine.
const REQUEST: Duration = Duration::from_secs(30);

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<i32, i64>;

/// Two observers.
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Offsets>>,
    samples: JoinHandle<Result<Vec<Sample>>>,
    live: JoinHandle<Result<Vec<Place>>>,
}

impl Witness {
    pub fn start(kafka: &Kafka, topics: &Topics) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let latest: Arc<Mutex<Offsets>> = Arc::default();
        let samples = tokio::spawn(sample(
            kafka
                .clone()
                .with("group.id", &topics.group)
                // A transaction's end reaches one partition after the other. Where a `read_committed` consumer would still
                // wait, its records are there all the same.
                .with("isolation.level", "read_uncommitted"),
            [&topics.input, &topics.output, &topics.letters].map(String::clone),
            stop.clone(),
            latest.clone(),
        ));
        let (kafka, output, stopped) = (kafka.clone(), topics.output.clone(), stop.clone());
        let live = tokio::spawn(async move {
            let take = |places: &mut Vec<Place>, record: crate::Record| {
                places.push(Place {
                    partition: record.partition,
                    offset: record.offset,
                });
            };
            kafka.follow(&output, Vec::new(), take, stopped).await
        });
        Self {
            stop,
            latest,
            samples,
            live,
        }
    }

    /// The committed offsets as seen last.
    pub fn committed(&self) -> Offsets {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when an observer has failed; [`Witness::stop`] says why.
    pub fn has_ended(&self) -> bool {
        self.samples.is_finished() || self.live.is_finished()
    }

    /// A last look, then everything that was seen.
    pub async fn stop(self) -> Result<(Vec<Sample>, Vec<Place>)> {
        self.stop.store(true, Ordering::Relaxed);
        Ok((self.samples.await??, self.live.await??))
    }
}

async fn sample(
    kafka: Kafka,
    [input, output, letters]: [String; 3],
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Offsets>>,
) -> Result<Vec<Sample>> {
    let partitions = kafka.partitions(&input).await? as i32;
    kafka
        .blocking(move |consumer| {
            let mut samples: Vec<Sample> = Vec::new();
            loop {
                // Before the sample, so that the last one is taken after everything else has ended.
                let last = stop.load(Ordering::Relaxed);
                let committed = committed(consumer, &input, partitions)?;
                // Without a new commit there is nothing new to judge.
                if samples.last().is_none_or(|sample| sample.committed != committed) {
                    samples.push(Sample {
                        output_ends: ends(consumer, &output, partitions)?,
                        letter_ends: ends(consumer, &letters, partitions)?,
                        committed: committed.clone(),
                    });
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = committed;
                }
                if last {
                    return Ok(samples);
                }
                thread::sleep(PAUSE);
            }
        })
        .await
}

fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Offsets> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let answer = consumer.committed_offsets(asked, REQUEST)?;
    Ok(answer
        .elements()
        .iter()
        .filter_map(|element| {
            let offset = element.offset().to_raw().filter(|raw| *raw >= 0)?;
            Some((element.partition(), offset))
        })
        .collect())
}

fn ends(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Offsets> {
    (0..partitions)
        .map(|partition| Ok((partition, consumer.fetch_watermarks(topic, partition, REQUEST)?.1)))
        .collect()
}
