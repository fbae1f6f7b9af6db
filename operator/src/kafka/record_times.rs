//! Times of records, so that a person recognizes an offset. In: a cluster, offsets. Out: the time of the record
//! at each offset, as far as it is found quickly: batches are fetched and only their headers are read. In the
//! middle of a batch it is the time of the batch's first record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;

use super::cluster::{ANSWER, Cluster};
use super::model::{KafkaProblem, Partition};
use super::protocol::fetch::{Batch, Fetch};
use super::protocol::offsets::by_topic;
use super::topics::{self, Offsets};

/// No request is sent later than this. What is not found until then has no time.
const BUDGET: Duration = Duration::from_secs(4);

/// Partitions of one request, and the bytes of each: more than a producer's default batch of 16 KiB. A longer
/// batch is fetched alone, because the first partition of a request always gets a whole one.
const PARTITIONS: usize = 32;
const PARTITION_BYTES: i32 = 32 * 1024;
/// The broker returns a whole batch or nothing, so one byte is enough to get exactly one.
const ONE_BATCH: i32 = 1;

pub(super) async fn record_times(
    cluster: &Cluster,
    offsets: &Offsets,
) -> Result<BTreeMap<Partition, Timestamp>, KafkaProblem> {
    let started = Instant::now();
    let names = offsets.keys().map(|(topic, _)| topic.clone()).collect();
    let topics = topics::topics(cluster, &names).await?;
    let mut by_leader: BTreeMap<i32, Vec<(Partition, i64)>> = BTreeMap::new();
    for (partition, offset) in offsets {
        let found = topics
            .get(&partition.0)
            .and_then(|found| found.as_ref().ok()?.as_ref());
        if let Some(leader) = found.and_then(|topic| topic.leaders.get(&partition.1)) {
            by_leader
                .entry(*leader)
                .or_default()
                .push((partition.clone(), *offset));
        }
    }
    let asked = by_leader
        .iter()
        .map(|(leader, wanted)| at_leader(cluster, *leader, wanted, started));
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// One request after the other: times are not worth more load.
async fn at_leader(
    cluster: &Cluster,
    leader: i32,
    wanted: &[(Partition, i64)],
    started: Instant,
) -> BTreeMap<Partition, Timestamp> {
    let mut found = BTreeMap::new();
    let together = wanted.chunks(PARTITIONS).map(|chunk| (chunk, PARTITION_BYTES));
    let alone = wanted.chunks(1).map(|one| (one, ONE_BATCH));
    for (chunk, bytes) in together.chain(alone) {
        if started.elapsed() > BUDGET {
            break;
        }
        if chunk.iter().all(|(partition, _)| found.contains_key(partition)) {
            continue;
        }
        let request = Fetch {
            max_bytes: bytes.saturating_mul(i32::try_from(chunk.len()).unwrap_or(1)),
            partition_max_bytes: bytes,
            topics: by_topic(
                chunk
                    .iter()
                    .map(|((topic, index), offset)| (topic, (*index, *offset))),
            ),
        };
        let Ok(topics) = cluster.node(leader, &request, ANSWER).await else {
            // The leader has moved or does not answer.
            break;
        };
        for (topic, partitions) in topics {
            for answer in partitions.into_iter().filter(|answer| answer.error.is_ok()) {
                let partition = (topic.clone(), answer.index);
                let asked = chunk.iter().find(|(asked, _)| *asked == partition);
                if let Some(time) = asked.and_then(|(_, offset)| time_at(&answer.batches, *offset)) {
                    found.insert(partition, time);
                }
            }
        }
    }
    found
}

/// Compaction may have removed the record at the offset; then it is the next one that a consumer reads.
fn time_at(batches: &[Batch], offset: i64) -> Option<Timestamp> {
    let mut from = batches
        .iter()
        .filter(|batch| batch.last_offset >= offset && !batch.is_control);
    let time = from.next()?.first_timestamp;
    (time >= 0).then(|| Timestamp::from_millisecond(time).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(last_offset: i64, first_timestamp: i64) -> Batch {
        Batch {
            last_offset,
            first_timestamp,
            is_control: false,
        }
    }

    #[test]
    fn the_time_is_that_of_the_first_batch_with_records_from_the_offset_on() {
        let marker = Batch {
            is_control: true,
            ..batch(10, 3000)
        };
        let batches = [
            batch(4, 1000),
            batch(9, 2000),
            marker,
            batch(20, 4000),
            batch(30, -1),
        ];
        let time = |offset| time_at(&batches, offset).map(|time| time.as_millisecond());
        assert_eq!(time(0), Some(1000));
        assert_eq!(time(4), Some(1000));
        assert_eq!(time(5), Some(2000));
        assert_eq!(time(10), Some(4000), "a marker is no record");
        assert_eq!(time(21), None, "the producer has set no time");
        assert_eq!(time(31), None);
        assert_eq!(time_at(&[batch(4, i64::MAX)], 0), None);
    }
}
