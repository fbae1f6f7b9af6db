//! Observes a run: committed offsets and ends of topics, in that order, again and again; and the output live,
//! as a `read_committed` consumer sees it. With its own clients, which bypass every proxy.
//!
//! Samples are taken with `read_uncommitted`, for two reasons. Each partition commits a transaction
//! separately, perhaps that of the offsets before that of the output; so a committed record has been written,
//! and may lie after a transaction that still looks open. The end for `read_committed` would make this look
//! like a fault, so samples use the end of the log. And `read_committed` waits for offsets of an open
//! transaction, while samples need the offsets that are committed now.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tokio::{runtime::Handle, task::JoinHandle};

use super::output::{Output, Route};
use crate::{
    systems::kafka::Kafka,
    verify::checker::{Place, Sample},
};

/// Pause between two samples: several samples between two commits.
const PAUSE: Duration = Duration::from_millis(40);

/// Timeout of one request to a healthy broker on a busy machine.
const REQUEST: Duration = Duration::from_secs(30);

/// Longest time without a sample: a broker that is stopped cleanly, is unavailable for some seconds, and
/// reads its logs again.
const OUTAGE: Duration = Duration::from_secs(120);

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<i32, i64>;

/// Two observers.
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Offsets>>,
    samples: JoinHandle<Result<Vec<Sample>>>,
    /// Only for a topic; PostgreSQL never shows uncommitted rows.
    live: Option<JoinHandle<Result<Vec<Place>>>>,
}

impl Witness {
    pub fn start(kafka: &Kafka, route: &Route) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let latest: Arc<Mutex<Offsets>> = Arc::default();
        let samples = tokio::spawn(sample(
            kafka
                .clone()
                .with("group.id", &route.group)
                .with("isolation.level", "read_uncommitted"),
            route.clone(),
            stop.clone(),
            latest.clone(),
        ));
        let live = match &route.output {
            Output::Table(_) => None,
            Output::Topic(topic) => Some(tokio::spawn(follow(kafka.clone(), topic.clone(), stop.clone()))),
        };
        Self {
            stop,
            latest,
            samples,
            live,
        }
    }

    /// The last observed committed offsets.
    pub fn committed(&self) -> Offsets {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if an observer has failed; [`Witness::stop`] returns the error.
    pub fn has_ended(&self) -> bool {
        self.samples.is_finished() || self.live.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Takes a last sample, then returns everything that was observed.
    pub async fn stop(self) -> Result<(Vec<Sample>, Vec<Place>)> {
        self.stop.store(true, Ordering::Relaxed);
        let live = match self.live {
            Some(live) => live.await??,
            None => Vec::new(),
        };
        Ok((self.samples.await??, live))
    }
}

async fn follow(kafka: Kafka, topic: String, stop: Arc<AtomicBool>) -> Result<Vec<Place>> {
    let take = |places: &mut Vec<Place>, record: crate::systems::kafka::Record| {
        places.push(Place {
            partition: record.partition,
            offset: record.offset,
        });
    };
    kafka.follow(&topic, Vec::new(), take, stop).await
}

async fn sample(
    kafka: Kafka,
    route: Route,
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Offsets>>,
) -> Result<Vec<Sample>> {
    let mut sampler = Sampler {
        outputs: kafka.partitions(&route.letters).await? as i32,
        runtime: Handle::current(),
        route,
        stop,
        latest,
        samples: Vec::new(),
        answered: Instant::now(),
    };
    loop {
        let (moved, result) = kafka
            .blocking(move |consumer| {
                let result = sampler.run(consumer);
                Ok((sampler, result))
            })
            .await?;
        sampler = moved;
        match result {
            Ok(()) => return Ok(sampler.samples),
            Err(error) if sampler.answered.elapsed() > OUTAGE => return Err(error),
            // The broker is being restarted. A missing sample makes the check weaker, never wrong. A new
            // client, because a stopping broker may report to the old one that there are no brokers, and
            // librdkafka 2.12 keeps believing that.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

struct Sampler {
    route: Route,
    /// Partitions of the output, if it is a topic, and of the dead letters; only the input may get more.
    outputs: i32,
    runtime: Handle,
    stop: Arc<AtomicBool>,
    latest: Arc<Mutex<Offsets>>,
    samples: Vec<Sample>,
    /// Time of the last successful observation.
    answered: Instant,
}

impl Sampler {
    /// Takes samples until the stop flag is set, or until one fails.
    fn run(&mut self, consumer: &BaseConsumer) -> Result<()> {
        loop {
            // Read before the sample, so that the last sample is taken after everything else has ended.
            let last = self.stop.load(Ordering::Relaxed);
            if let Some(sample) = self.look(consumer)? {
                *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = sample.committed.clone();
                self.samples.push(sample);
            }
            self.answered = Instant::now();
            if last {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    /// A sample; None if nothing was committed since the previous one, so that there is nothing new to judge.
    fn look(&self, consumer: &BaseConsumer) -> Result<Option<Sample>> {
        let (route, partitions) = (&self.route, self.route.partitions());
        let committed = committed(consumer, &route.input, partitions)?;
        let table = match &route.output {
            Output::Topic(_) => None,
            Output::Table(table) => {
                let look = table.look(&route.group, &route.input, partitions);
                Some(self.runtime.block_on(look)?)
            }
        };
        let stored = table.as_ref().map(|look| look.stored.clone()).unwrap_or_default();
        let known = |before: &Sample| before.committed == committed && before.stored == stored;
        if self.samples.last().is_some_and(known) {
            return Ok(None);
        }
        Ok(Some(Sample {
            output_ends: match (&route.output, table) {
                (Output::Topic(topic), _) => ends(consumer, topic, self.outputs)?,
                (Output::Table(_), look) => look.unwrap_or_default().ends,
            },
            letter_ends: ends(consumer, &route.letters, self.outputs)?,
            committed,
            stored,
        }))
    }
}

fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Offsets> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let answer = consumer.committed_offsets(asked, REQUEST)?;
    let mut offsets = Offsets::new();
    for element in answer.elements() {
        // "Unknown at the moment" is not the same as "none".
        element.error()?;
        if let Some(offset) = element.offset().to_raw().filter(|raw| *raw >= 0) {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

fn ends(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Offsets> {
    (0..partitions)
        .map(|partition| Ok((partition, consumer.fetch_watermarks(topic, partition, REQUEST)?.1)))
        .collect()
}
