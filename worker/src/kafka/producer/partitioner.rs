//! Chooses partitions for large runs of records without keys. librdkafka 2.12 has one request in flight for
//! each partition of an idempotent producer. While the next request waits for the answer, its thread polls in
//! a loop instead of sleeping. librdkafka's own partitioner stays with one partition for some milliseconds,
//! so this happens under load, most of all in short transactions. This partitioner therefore sends each run
//! that fills a batch to a partition with nothing in flight. That also avoids partitions whose leader is
//! unavailable. Pure.

use std::{collections::HashMap, ops::Range};

use super::ProduceRecord;

/// Runs with fewer bytes do not fill a batch: librdkafka collects their records into batches with others.
const WORTH: usize = 64 * 1024;
/// Runs with more bytes do not fit into one batch, unless `batch.size` says otherwise. With a smaller
/// `batch.size` a run becomes several batches of one partition, which is correct, but spreads less.
const BATCH: usize = 1024 * 1024;

/// Consecutive records to one topic that may go to any of its partitions and fill a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeylessRun<'a> {
    pub topic: &'a str,
    /// Indices into the positions that are sent.
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

/// Number of runs in flight to each partition of each topic.
#[derive(Debug, Default)]
pub(super) struct Partitioner {
    topics: HashMap<String, Flights>,
}

#[derive(Debug, Default)]
struct Flights {
    partitions: Vec<usize>,
    /// Where the next search starts.
    next: usize,
}

impl Partitioner {
    /// Returns the partition with the fewest runs in flight, out of `partitions`. The search starts behind
    /// the last choice. In a transaction it starts at a place that moves with the number of the transaction,
    /// so that each transaction has few partitions and over time all partitions get the same number of runs.
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

    /// A run has been answered.
    pub fn answered(&mut self, topic: &str, partition: usize) {
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
    fn runs_have_one_topic_fit_into_a_batch_and_contain_no_record_with_a_key_or_partition() {
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
    fn indices_refer_to_the_positions_that_are_sent() {
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
    fn partitions_take_turns_and_those_with_runs_in_flight_are_skipped() {
        let mut partitioner = Partitioner::default();
        let choose = |partitioner: &mut Partitioner| partitioner.choose("t", 3, None);
        assert_eq!([(); 3].map(|()| choose(&mut partitioner)), [0, 1, 2]);
        partitioner.answered("t", 1);
        partitioner.answered("t", 2);
        assert_eq!(
            [(); 2].map(|()| choose(&mut partitioner)),
            [1, 2],
            "0 is still in flight"
        );
        partitioner.answered("t", 2);
        assert_eq!(choose(&mut partitioner), 2);
        assert_eq!(choose(&mut partitioner), 0, "all have one: by turns again");
        assert_eq!(partitioner.choose("u", 3, None), 0, "another topic");
    }

    #[test]
    fn a_transaction_starts_at_its_own_partition_and_uses_as_few_as_possible() {
        let mut partitioner = Partitioner::default();
        for _ in 0..5 {
            assert_eq!(partitioner.choose("t", 12, Some(13)), 1);
            partitioner.answered("t", 1);
        }
        assert_eq!(partitioner.choose("t", 12, Some(13)), 1);
        assert_eq!(partitioner.choose("t", 12, Some(13)), 2);
        assert_eq!(partitioner.choose("t", 12, Some(14)), 3, "2 is in flight");
    }

    #[test]
    fn a_topic_may_grow_and_shrink() {
        let mut partitioner = Partitioner::default();
        assert_eq!([(); 2].map(|()| partitioner.choose("t", 2, None)), [0, 1]);
        assert_eq!(partitioner.choose("t", 3, None), 2);
        assert_eq!(partitioner.choose("t", 1, None), 0);
        partitioner.answered("t", 2);
        partitioner.answered("never", 0);
        assert_eq!(partitioner.choose("t", 0, None), 0);
    }
}
