//! Which partition records without a key go to, many at a time. librdkafka 2.12 has one request in flight for each partition
//! of an idempotent producer, and while the next one waits for the answer, its thread looks again and again instead of
//! sleeping. Its own partitioner stays with one partition for some milliseconds, so under load that is what happens, and
//! most of all in short transactions. So what makes a batch by itself goes to a partition with nothing in flight. That also
//! keeps off partitions whose leader is away. Pure.

use std::{collections::HashMap, ops::Range};

use super::ProduceRecord;

/// Fewer bytes than this do not make a batch by themselves: librdkafka gathers them with those of others.
const WORTH: usize = 64 * 1024;
/// More bytes than this do not fit into one batch, unless `batch.size` says otherwise. With smaller ones a run becomes several
/// batches of one partition; they are as right, only not as spread.
const BATCH: usize = 1024 * 1024;

/// Consecutive records to one topic that may go to any of its partitions, and make a batch by themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeylessRun<'a> {
    pub topic: &'a str,
    /// Of the positions that are sent.
    pub indices: Range<usize>,
}

/// The runs among the records at `positions`.
pub(super) fn runs<'a>(records: &[ProduceRecord<'a>], positions: &[usize]) -> Vec<KeylessRun<'a>> {
    let mut runs = Vec::new();
    let mut run: Option<(KeylessRun<'a>, usize)> = None;
    let mut finish = |run: Option<(KeylessRun<'a>, usize)>| {
        if let Some((run, bytes)) = run
            && bytes >= WORTH
        {
            runs.push(run);
        }
    };
    for (index, position) in positions.iter().enumerate() {
        let record = &records[*position];
        if record.key.is_some() || record.partition.is_some() {
            finish(run.take());
            continue;
        }
        let size = record.value.map_or(0, <[u8]>::len);
        match &mut run {
            Some((run, bytes)) if run.topic == record.topic && *bytes + size <= BATCH => {
                run.indices.end = index + 1;
                *bytes += size;
            }
            _ => {
                let new = KeylessRun {
                    topic: record.topic,
                    indices: index..index + 1,
                };
                finish(run.replace((new, size)));
            }
        }
    }
    finish(run);
    runs
}

/// What is in flight to the partitions of each topic, in runs.
#[derive(Debug, Default)]
pub(super) struct Partitioner {
    topics: HashMap<String, Flights>,
}

#[derive(Debug, Default)]
struct Flights {
    partitions: Vec<usize>,
    /// Where the next search begins.
    next: usize,
}

impl Partitioner {
    /// The partition with the least in flight, of so many. The search begins behind the last choice; or in a transaction at
    /// a place that moves with its number, so that each has few partitions, and over time all get the same.
    pub fn choose(&mut self, topic: &str, partitions: usize, transaction: Option<u64>) -> usize {
        let flights = self.topics.entry(topic.into()).or_default();
        flights.partitions.resize(partitions, 0);
        let first = match transaction {
            Some(number) => (number % partitions.max(1) as u64) as usize,
            None => flights.next,
        };
        let chosen = (0..partitions)
            .map(|step| (first + step) % partitions)
            .min_by_key(|partition| flights.partitions[*partition])
            .unwrap_or_default();
        flights.next = chosen + 1;
        if let Some(count) = flights.partitions.get_mut(chosen) {
            *count += 1;
        }
        chosen
    }

    /// A run is answered for.
    pub fn landed(&mut self, topic: &str, partition: usize) {
        let flights = self.topics.get_mut(topic);
        if let Some(count) = flights.and_then(|flights| flights.partitions.get_mut(partition)) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(topic: &'a str, key: Option<&'a [u8]>, value: &'a [u8]) -> ProduceRecord<'a> {
        ProduceRecord {
            topic,
            key,
            value: Some(value),
            ..ProduceRecord::default()
        }
    }

    #[test]
    fn runs_have_one_topic_and_at_most_a_batch_of_bytes_and_no_record_with_a_place_of_its_own() {
        let value = vec![0; WORTH];
        let free = || record("t", None, &value);
        let of = |records: &[ProduceRecord<'_>]| -> Vec<(usize, usize)> {
            let positions: Vec<usize> = (0..records.len()).collect();
            let runs = runs(records, &positions);
            runs.iter()
                .map(|run| (run.indices.start, run.indices.end))
                .collect()
        };
        assert!(of(&[]).is_empty());
        assert_eq!(of(&vec![free(); BATCH / WORTH]), [(0, 16)]);
        assert_eq!(of(&vec![free(); BATCH / WORTH + 1]), [(0, 16), (16, 17)]);
        assert_eq!(
            of(&[free(), record("u", None, &value), free()]),
            [(0, 1), (1, 2), (2, 3)]
        );
        assert_eq!(
            of(&[free(), record("t", Some(b"k"), &value), free()]),
            [(0, 1), (2, 3)]
        );
        let placed = ProduceRecord {
            partition: Some(7),
            ..free()
        };
        assert_eq!(of(&[placed, free()]), [(1, 2)]);
        assert!(
            of(&[record("t", None, b"small")]).is_empty(),
            "left to librdkafka"
        );
    }

    #[test]
    fn indices_are_those_of_what_is_sent() {
        let value = vec![0; WORTH];
        let records = [
            record("t", Some(b"k"), &value),
            record("t", None, &value),
            record("t", None, &value),
        ];
        let runs = runs(&records, &[1, 2]);
        assert_eq!((runs.len(), runs[0].indices.clone()), (1, 0..2));
    }

    #[test]
    fn partitions_take_turns_and_those_with_something_in_flight_are_left_out() {
        let mut spread = Partitioner::default();
        let choose = |spread: &mut Partitioner| spread.choose("t", 3, None);
        assert_eq!([(); 3].map(|()| choose(&mut spread)), [0, 1, 2]);
        spread.landed("t", 1);
        spread.landed("t", 2);
        assert_eq!(
            [(); 2].map(|()| choose(&mut spread)),
            [1, 2],
            "0 is still in flight"
        );
        spread.landed("t", 2);
        assert_eq!(choose(&mut spread), 2);
        assert_eq!(choose(&mut spread), 0, "all have one: by turns again");
        assert_eq!(spread.choose("u", 3, None), 0, "another topic");
    }

    #[test]
    fn a_transaction_begins_at_a_place_of_its_own_and_uses_as_few_partitions_as_are_in_flight() {
        let mut spread = Partitioner::default();
        for _ in 0..5 {
            assert_eq!(spread.choose("t", 12, Some(13)), 1);
            spread.landed("t", 1);
        }
        assert_eq!(spread.choose("t", 12, Some(13)), 1);
        assert_eq!(spread.choose("t", 12, Some(13)), 2);
        assert_eq!(spread.choose("t", 12, Some(14)), 3, "2 is in flight");
    }

    #[test]
    fn a_topic_may_grow_and_shrink() {
        let mut spread = Partitioner::default();
        assert_eq!([(); 2].map(|()| spread.choose("t", 2, None)), [0, 1]);
        assert_eq!(spread.choose("t", 3, None), 2);
        assert_eq!(spread.choose("t", 1, None), 0);
        spread.landed("t", 2);
        spread.landed("never", 0);
        assert_eq!(spread.choose("t", 0, None), 0);
    }
}
