//! The work of a lane: some records of a chunk with what the transforms made of them, taken apart by key where records may
//! be finished out of order. Pure.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
};

use crds::spec::Ordering;

use crate::{
    offsets::Sequence,
    processing::messages::FinishedRecords,
    record::{Chunk, Offset, batch::Batch, failure::FailedRecord},
    seeded_bugs::seeded_bug,
};

/// What is still to be written by one writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingWrite {
    /// Index of the writer.
    pub writer: usize,
    /// Outputs of the batch, ascending.
    pub outputs: Vec<u32>,
    /// Attempts so far.
    pub attempts: u32,
}

/// Records that a lane finishes together. Every record of a chunk is in exactly one unit at a time.
#[derive(Debug)]
pub(crate) struct BatchPart {
    batch: Arc<Batch>,
    first: Sequence,
    sources: Sources,
    /// By writer.
    pub pending: Vec<PendingWrite>,
    /// What has failed of these records, by source.
    pub failed_records: Vec<FailedRecord>,
    /// What has failed did so before its cause was perhaps mended: it is tried again before it counts.
    pub again: bool,
}

/// Indices in the chunk, ascending.
#[derive(Clone, Debug)]
enum Sources {
    Run(Range<u32>),
    Some(Vec<u32>),
}

impl BatchPart {
    /// All of a batch, for `writers` writers. `first` is the number of the chunk's first record.
    pub fn new(batch: Batch, first: Sequence, writers: usize) -> Self {
        let failed_records = batch
            .failures()
            .iter()
            .map(|failure| FailedRecord {
                failure: failure.clone(),
                attempts: 1,
            })
            .collect();
        let outputs: Vec<u32> = (0..batch.len() as u32).collect();
        let pending = |writer| PendingWrite {
            writer,
            outputs: outputs.clone(),
            attempts: 0,
        };
        let mut part = Self {
            first,
            sources: Sources::Run(0..batch.chunk().len() as u32),
            pending: (0..writers).map(pending).collect(),
            failed_records,
            again: false,
            batch: Arc::new(batch),
        };
        part.failed_records
            .sort_by_key(|failed_record| failed_record.failure.source);
        part
    }

    /// The batch that the outputs are of.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The chunk that the records are of.
    pub fn chunk(&self) -> &Arc<Chunk> {
        self.batch.chunk()
    }

    /// Number of the chunk's first record.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        match &self.sources {
            Sources::Run(run) => run.len(),
            Sources::Some(sources) => sources.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Indices of the records in the chunk, ascending.
    pub fn sources(&self) -> Vec<u32> {
        match &self.sources {
            Sources::Run(run) => run.clone().collect(),
            Sources::Some(sources) => sources.clone(),
        }
    }

    /// True when the record is in it.
    pub fn contains(&self, source: u32) -> bool {
        match &self.sources {
            Sources::Run(run) => run.contains(&source),
            Sources::Some(sources) => sources.binary_search(&source).is_ok(),
        }
    }

    /// Offset of the first record; -1 without any.
    pub fn offset(&self) -> Offset {
        let first = match &self.sources {
            Sources::Run(run) => run.clone().next(),
            Sources::Some(sources) => sources.first().copied(),
        };
        first.map_or(-1, |source| self.chunk().record(source as usize).offset)
    }

    /// The key of a record.
    pub fn key(&self, source: u32) -> Option<&[u8]> {
        self.chunk().record(source as usize).key
    }

    /// Takes the records that match out of this unit, with what belongs to them; None when none does.
    pub fn take(&mut self, matches: impl Fn(u32) -> bool) -> Option<BatchPart> {
        let (taken, kept): (Vec<u32>, Vec<u32>) =
            self.sources().into_iter().partition(|source| matches(*source));
        if taken.is_empty() {
            return None;
        }
        self.sources = Sources::Some(kept);
        let batch = &self.batch;
        let pending = self.pending.iter_mut().map(|pending| {
            let all = std::mem::take(&mut pending.outputs);
            let (outputs, kept) = all.into_iter().partition(|output| matches(batch.source(*output)));
            pending.outputs = kept;
            PendingWrite { outputs, ..*pending }
        });
        let pending = pending.collect();
        let (failed_records, kept) = std::mem::take(&mut self.failed_records)
            .into_iter()
            .partition(|failed_record| matches(failed_record.failure.source as u32));
        self.failed_records = kept;
        Some(BatchPart {
            batch: self.batch.clone(),
            first: self.first,
            sources: Sources::Some(taken),
            pending,
            failed_records,
            again: self.again,
        })
    }

    /// True when something of the record has failed.
    pub fn has_failed(&self, source: u32) -> bool {
        let of_source = |failed_record: &FailedRecord| (failed_record.failure.source as u32).cmp(&source);
        self.failed_records.binary_search_by(of_source).is_ok()
    }

    /// In order, with what is to be tried again record by record: what becomes of one decides on those behind it.
    pub fn pieces(mut self) -> Vec<BatchPart> {
        let mut pieces = Vec::new();
        if self.again {
            let mut failed: Vec<u32> = self
                .failed_records
                .iter()
                .map(|failed_record| failed_record.failure.source as u32)
                .collect();
            failed.dedup();
            for source in failed {
                pieces.extend(self.take(|other| other < source));
                pieces.extend(self.take(|other| other == source));
            }
        }
        if !self.is_empty() {
            pieces.push(self);
        }
        pieces
    }

    /// What to report once everything in it is finished.
    pub fn finished(&self) -> FinishedRecords {
        match &self.sources {
            Sources::Run(run) => {
                FinishedRecords::Run(self.first + u64::from(run.start)..self.first + u64::from(run.end))
            }
            Sources::Some(sources) => FinishedRecords::Some(self.first, sources.clone()),
        }
    }

    /// Deals the records out to `lanes` lanes: all to one when the order of the partition counts; by key, so that the
    /// records of a key stay in one lane; or in equal runs. Records without a key have no order among each other.
    pub fn deal(mut self, ordering: Ordering, lanes: usize) -> Vec<(usize, BatchPart)> {
        let count = self.len();
        let together = ordering == Ordering::PerPartition && !seeded_bug("partition-order-by-key");
        if together || lanes <= 1 || count == 0 {
            return vec![(0, self)];
        }
        // Where the last chunk ended, the next begins, so that small chunks do not all go to the first lane.
        let turn = self.first as usize;
        let run = count.div_ceil(lanes);
        let lane_of = |source: u32| match (ordering, self.key(source)) {
            (Ordering::PerKey | Ordering::PerPartition, Some(key)) if !seeded_bug("key-order-by-chance") => {
                lane_of_key(key, lanes)
            }
            _ => (turn + source as usize / run) % lanes,
        };
        let lane_of: Vec<usize> = (0..count as u32).map(lane_of).collect();
        let mut dealt: BTreeMap<usize, BatchPart> = BTreeMap::new();
        for (source, lane) in lane_of.iter().enumerate() {
            let part = dealt.entry(*lane).or_insert_with(|| self.empty());
            if let Sources::Some(sources) = &mut part.sources {
                sources.push(source as u32);
            }
        }
        for pending in &self.pending {
            for output in &pending.outputs {
                if let Some(part) = dealt.get_mut(&lane_of[self.batch.source(*output) as usize]) {
                    part.pending[pending.writer].outputs.push(*output);
                }
            }
        }
        for failed_record in self.failed_records.drain(..) {
            if let Some(part) = dealt.get_mut(&lane_of[failed_record.failure.source]) {
                part.failed_records.push(failed_record);
            }
        }
        dealt.into_iter().collect()
    }

    /// A unit of the same batch without records.
    fn empty(&self) -> BatchPart {
        let pending = self.pending.iter().map(|pending| PendingWrite {
            outputs: Vec::new(),
            ..*pending
        });
        BatchPart {
            batch: self.batch.clone(),
            first: self.first,
            sources: Sources::Some(Vec::new()),
            pending: pending.collect(),
            failed_records: Vec::new(),
            again: false,
        }
    }
}

fn lane_of_key(key: &[u8], lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{TopicPartition, batch::Payload, failure::Stage};

    /// Records with these keys at offsets from 10 on. A record whose key ends in "!" has failed, one in "0" was filtered
    /// out, one in "2" has two outputs.
    pub(crate) fn part(keys: &[&str], first: Sequence, writers: usize) -> BatchPart {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (index, key) in keys.iter().enumerate() {
            let key = (!key.is_empty()).then_some(key.as_bytes());
            chunk.push(10 + index as i64, 0, key, Some(b"v"), []);
        }
        let batch = Batch::identity(Arc::new(chunk));
        let mut builder = batch.next();
        for (index, key) in keys.iter().enumerate() {
            match key.chars().last() {
                Some('!') => builder.fail(index, Stage::Transform, &"t".into(), "no"),
                Some('0') => builder.filter(),
                Some('2') => {
                    builder.emit(index, Payload::Keep, Payload::Keep);
                    builder.emit(index, Payload::Keep, Payload::Keep);
                }
                _ => builder.emit(index, Payload::Keep, Payload::Keep),
            }
        }
        BatchPart::new(builder.finish().0, first, writers)
    }

    fn contents(part: &BatchPart) -> (Vec<u32>, Vec<u32>, Vec<usize>) {
        let failed_records = part
            .failed_records
            .iter()
            .map(|failed_record| failed_record.failure.source);
        (
            part.sources(),
            part.pending[0].outputs.clone(),
            failed_records.collect(),
        )
    }

    #[test]
    fn records_are_taken_out_with_their_outputs_and_failures() {
        let mut rest = part(&["a2", "b!", "c0", "d"], 100, 2);
        assert_eq!(rest.finished(), FinishedRecords::Run(100..104));
        let taken = rest.take(|source| source == 0 || source == 1).unwrap();
        assert_eq!(contents(&taken), (vec![0, 1], vec![0, 1], vec![1]));
        assert_eq!(contents(&rest), (vec![2, 3], vec![2], vec![]));
        assert_eq!(
            taken.pending[1],
            PendingWrite {
                writer: 1,
                outputs: vec![0, 1],
                attempts: 0
            }
        );
        assert_eq!(rest.finished().runs(), vec![102..104]);
        assert_eq!((taken.offset(), rest.offset()), (10, 12));
        assert!(rest.take(|source| source > 7).is_none());
    }

    #[test]
    fn finished_records_are_told_in_runs() {
        assert_eq!(
            FinishedRecords::Some(5, vec![0, 1, 4, 6, 7]).runs(),
            [5..7, 9..10, 11..13]
        );
    }

    #[test]
    fn the_order_of_a_partition_needs_one_lane() {
        let dealt = part(&["a", "b"], 0, 1).deal(Ordering::PerPartition, 8);
        assert_eq!(dealt.len(), 1);
    }

    #[test]
    fn small_chunks_without_order_take_turns() {
        let lanes: Vec<usize> = (0..4)
            .flat_map(|first| part(&["a"], first, 1).deal(Ordering::Unordered, 3))
            .map(|(lane, _)| lane)
            .collect();
        assert_eq!(lanes, [0, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn every_record_is_dealt_once_and_a_key_to_one_lane(
            keys in prop::collection::vec("[a-e]{0,2}[012!]?", 1..60),
            lanes in 1_usize..9,
            first in 0_u64..1000,
            ordering in prop::sample::select(vec![Ordering::PerKey, Ordering::Unordered]),
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let whole = part(&keys, first, 2);
            let expected = contents(&whole);
            let dealt = whole.deal(ordering, lanes);
            let mut sources = Vec::new();
            let mut outputs = Vec::new();
            let mut failed_records = Vec::new();
            for (lane, part) in &dealt {
                prop_assert!(*lane < lanes && !part.is_empty());
                let (some, out, failed) = contents(part);
                prop_assert!(some.is_sorted() && out.is_sorted() && failed.is_sorted());
                prop_assert!(out.iter().all(|output| some.contains(&part.batch().source(*output))));
                prop_assert_eq!(&part.pending[1].outputs, &out);
                for source in &some {
                    if let (Ordering::PerKey, Some(key)) = (ordering, part.key(*source)) {
                        let elsewhere = dealt.iter().filter(|(other, _)| other != lane);
                        for (_, other) in elsewhere {
                            prop_assert!(other.sources().iter().all(|source| other.key(*source) != Some(key)));
                        }
                    }
                }
                sources.extend(some);
                outputs.extend(out);
                failed_records.extend(failed);
            }
            sources.sort();
            outputs.sort();
            failed_records.sort();
            prop_assert_eq!((sources, outputs, failed_records), expected);
        }
    }
}
