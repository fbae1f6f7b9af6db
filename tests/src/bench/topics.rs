//! The input topics: loaded once and kept, because loading takes longer than reading. A topic with a wrong
//! number of records is created again. The content is the same on every machine.

use std::{
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig, ClientContext,
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
    types::RDKafkaErrorCode,
};

use super::{cases::Data, subjects::Bench};
use crate::systems::{random::Random, wait};

/// Records written to one partition before the next one follows, if there is no key: less than a batch, so
/// that batches are full and partitions have the same length.
const RUN: u64 = 1000;
/// For writing everything in a producer's queue, at most 128 MiB, on a busy machine.
const FLUSH: Duration = Duration::from_secs(120);
/// Pause between two progress lines.
const PROGRESS: Duration = Duration::from_secs(2);

/// Makes sure that the topic of `data` exists and is complete.
pub(super) fn load(bench: &Bench, data: Data) -> Result<()> {
    let (topic, wanted) = (data.topic(bench.quick), data.records(bench.quick));
    if count(bench, &topic)? == Some(wanted) {
        return Ok(());
    }
    recreate(bench, &topic, data.partitions())?;
    if wanted == 0 {
        return Ok(());
    }
    let producer: BaseProducer<Refusals> = ClientConfig::new()
        .set("bootstrap.servers", &bench.bootstrap)
        .set("enable.idempotence", "true")
        .set("batch.size", "262144")
        .set("linger.ms", "20")
        .set("compression.type", "none")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "131072")
        .create_with_context(Refusals::default())
        .context("cannot create the producer")?;
    let mut random = Random::new(42);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let (started, mut printed) = (Instant::now(), Instant::now());
    for number in 0..wanted {
        key.clear();
        value.clear();
        fill(data, number, &mut random, &mut key, &mut value);
        let partition = (number / RUN) as i32 % data.partitions();
        send(&producer, &topic, partition, &key, &value)?;
        if number % RUN == 0 {
            producer.poll(Duration::ZERO);
            if printed.elapsed() > PROGRESS {
                printed = Instant::now();
                println!("loading {topic}: {} of {wanted}", number + 1);
            }
        }
    }
    producer
        .flush(FLUSH)
        .with_context(|| format!("{topic} could not be written"))?;
    let refused = producer.context().0.load(Ordering::Relaxed);
    ensure!(refused == 0, "the broker rejected {refused} records of {topic}");
    let found = count(bench, &topic)?;
    ensure!(
        found == Some(wanted),
        "{topic} has {found:?} records instead of {wanted}"
    );
    println!("loaded {topic} in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Creates an empty topic of this name.
pub(super) fn recreate(bench: &Bench, topic: &str, partitions: i32) -> Result<()> {
    bench.runtime.block_on(async {
        bench.kafka.delete_topics(&[topic.to_string()]).await?;
        bench
            .kafka
            .create_topic_with(topic, partitions, &[("retention.ms", "-1")])
            .await
    })
}

/// Deletes the topic of this name, if it exists.
pub(super) fn delete(bench: &Bench, topic: &str) -> Result<()> {
    bench
        .runtime
        .block_on(bench.kafka.delete_topics(&[topic.to_string()]))
}

/// Number of records in a topic that never deletes records; None if it does not exist.
pub(super) fn count(bench: &Bench, topic: &str) -> Result<Option<u64>> {
    bench.runtime.block_on(async {
        if bench.kafka.partitions(topic).await.is_err() {
            return Ok(None);
        }
        // A broker that has just started leads the partitions that it kept only after a while.
        let ends = wait::until(&format!("all partitions of {topic} have a leader"), async || {
            bench.kafka.end_offsets(topic).await
        })
        .await?;
        Ok(Some(ends.values().sum::<i64>().try_into()?))
    })
}

/// Records with a key go to the partition of the key, others to `partition`.
fn send(
    producer: &BaseProducer<Refusals>,
    topic: &str,
    partition: i32,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(value);
    if key.is_empty() {
        record = record.partition(partition);
    } else {
        record = record.key(key);
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => bail!("the producer rejected a record for {topic}: {error}"),
        }
    }
}

fn fill(data: Data, number: u64, random: &mut Random, key: &mut Vec<u8>, value: &mut Vec<u8>) {
    match data {
        Data::P100 => letters(random, 100, value),
        Data::P1k => letters(random, 1000, value),
        Data::Orders | Data::OrdersOn8 | Data::OrdersFew => order(number, random, key, value),
        Data::Empty => {}
    }
}

/// An order with two to five items.
fn order(number: u64, random: &mut Random, key: &mut Vec<u8>, value: &mut Vec<u8>) {
    const CURRENCIES: [&str; 5] = ["EUR", "USD", "GBP", "INR", "JPY"];
    const STATES: [&str; 5] = ["created", "paid", "packed", "shipped", "cancelled"];
    const COUNTRIES: [&str; 4] = ["DE", "US", "IN", "JP"];
    let user = random.below(50_000);
    // Writing to memory does not fail.
    let _ = write!(key, "{user}");
    let _ = write!(
        value,
        "{{\"order_id\":{number},\"user_id\":{user},\"country\":\"{}\",\"ts\":{},\"amount\":{}.{:02},\"currency\":\"{}\",\"items\":[",
        COUNTRIES[random.below(4) as usize],
        1_760_000_000_000 + number,
        1 + random.below(900),
        random.below(100),
        CURRENCIES[random.below(5) as usize],
    );
    for item in 0..2 + random.below(4) {
        let comma = if item == 0 { "" } else { "," };
        let (sku, quantity) = (random.below(200_000), 1 + random.below(4));
        let _ = write!(value, "{comma}{{\"sku\":\"SKU-{sku:06}\",\"qty\":{quantity}}}");
    }
    let _ = write!(value, "],\"status\":\"{}\"}}", STATES[random.below(5) as usize]);
}

fn letters(random: &mut Random, count: usize, value: &mut Vec<u8>) {
    while value.len() < count {
        let letters = random.next_u64().to_le_bytes().map(|byte| b'A' + byte % 26);
        let take = letters.len().min(count - value.len());
        value.extend_from_slice(&letters[..take]);
    }
}

/// Counts the records that the broker rejects.
#[derive(Default)]
struct Refusals(AtomicU64);

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_json_of_about_250_bytes() {
        let mut random = Random::new(42);
        let mut bytes = 0;
        for number in 0..1000 {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            fill(Data::Orders, number, &mut random, &mut key, &mut value);
            let order: serde_json::Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(order["user_id"].to_string().as_bytes(), key);
            bytes += value.len();
        }
        assert!((225..275).contains(&(bytes / 1000)), "{}", bytes / 1000);
    }

    #[test]
    fn random_records_have_exactly_their_size() {
        let mut value = Vec::new();
        fill(Data::P100, 0, &mut Random::new(1), &mut Vec::new(), &mut value);
        assert_eq!(value.len(), 100);
    }
}
