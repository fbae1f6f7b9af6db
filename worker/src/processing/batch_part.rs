//! The unit of work of a lane: some records of a chunk with their outputs, split by key where records may
//! finish out of order. Pure.

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

/// The outputs that one writer still has to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingWrite {
    /// Index of the writer.
    pub writer: usize,
    /// Indices of outputs of the batch, ascending.
    pub outputs: Vec<u32>,
    /// Attempts so far.
    pub attempts: u32,
}

/// Records that a lane finishes together. Every record of a chunk is in exactly one part at a time.
#[derive(Debug)]
pub(crate) struct BatchPart {
    batch: Arc<Batch>,
    first: Sequence,
    sources: Sources,
    /// By writer.
    pub pending: Vec<PendingWrite>,
    /// Failures of these records, ordered by source.
    pub failed_records: Vec<FailedRecord>,
    /// The cause of the failures may be fixed since: the lane retries the failed records before the failures
    /// count.
    pub retry_failed: bool,
}

/// Indices in the chunk, ascending.
#[derive(Clone, Debug)]
enum Sources {
    Run(Range<u32>),
    Some(Vec<u32>),
}

impl BatchPart {
    /// All records of a batch, for `writers` writers. `first` is the sequence number of the chunk's first
    /// record.
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
            retry_failed: false,
            batch: Arc::new(batch),
        };
        part.failed_records
            .sort_by_key(|failed_record| failed_record.failure.source);
        part
    }

    /// The batch that the outputs belong to.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The chunk that the records belong to.
    pub fn chunk(&self) -> &Arc<Chunk> {
        self.batch.chunk()
    }

    /// Sequence number of the chunk's first record.
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

    /// Takes the records that match out of this part, with their outputs and failures. None when no record
    /// matches.
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
            retry_failed: self.retry_failed,
        })
    }

    /// Adds a failure of a record of this part. A record with several outputs fails once per writer; the
    /// failures of records that have left the part go with them.
    pub fn add_failed(&mut self, failed_record: FailedRecord) {
        let failure = &failed_record.failure;
        let known = |known: &FailedRecord| {
            known.failure.source == failure.source && known.failure.component == failure.component
        };
        if !self.contains(failure.source as u32) || self.failed_records.iter().any(known) {
            return;
        }
        let at = self
            .failed_records
            .partition_point(|other| other.failure.source <= failure.source);
        self.failed_records.insert(at, failed_record);
    }

    /// True when the record has a failure.
    pub fn has_failed(&self, source: u32) -> bool {
        let of_source = |failed_record: &FailedRecord| (failed_record.failure.source as u32).cmp(&source);
        self.failed_records.binary_search_by(of_source).is_ok()
    }

    /// The part in pieces, in order. Each record to retry is a piece, because its result decides about the
    /// records behind it.
    pub fn pieces(mut self) -> Vec<BatchPart> {
        let mut pieces = Vec::new();
        if self.retry_failed {
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

    /// What to report once all its records are finished.
    pub fn finished(&self) -> FinishedRecords {
        match &self.sources {
            Sources::Run(run) => {
                FinishedRecords::Run(self.first + u64::from(run.start)..self.first + u64::from(run.end))
            }
            Sources::Some(sources) => FinishedRecords::Some(self.first, sources.clone()),
        }
    }

    /// Splits the part into one per lane, for up to `lanes` lanes: all records to one lane when the order of
    /// the partition counts; by key, so that the records of a key stay in one lane; or in equal runs. Records
    /// without a key have no order among each other.
    pub fn split_by_lane(mut self, ordering: Ordering, lanes: usize) -> Vec<(usize, BatchPart)> {
        let count = self.len();
        let together = ordering == Ordering::PerPartition && !seeded_bug("partition-order-by-key");
        if together || lanes <= 1 || count == 0 {
            return vec![(0, self)];
        }
        // A chunk starts at the lane where the last one ended, so that small chunks do not all go to the
        // first lane.
        let turn = self.first as usize;
        let run = count.div_ceil(lanes);
        let lane_of = |source: u32| match (ordering, self.key(source)) {
            (Ordering::PerKey | Ordering::PerPartition, Some(key)) if !seeded_bug("key-order-by-chance") => {
                lane_of_key(key, lanes)
            }
            _ => (turn + source as usize / run) % lanes,
        };
        let lane_of: Vec<usize> = (0..count as u32).map(lane_of).collect();
        let mut parts: BTreeMap<usize, BatchPart> = BTreeMap::new();
        for (source, lane) in lane_of.iter().enumerate() {
            let part = parts.entry(*lane).or_insert_with(|| self.empty());
            if let Sources::Some(sources) = &mut part.sources {
                sources.push(source as u32);
            }
        }
        for pending in &self.pending {
            for output in &pending.outputs {
                if let Some(part) = parts.get_mut(&lane_of[self.batch.source(*output) as usize]) {
                    part.pending[pending.writer].outputs.push(*output);
                }
            }
        }
        for failed_record in self.failed_records.drain(..) {
            if let Some(part) = parts.get_mut(&lane_of[failed_record.failure.source]) {
                part.failed_records.push(failed_record);
            }
        }
        parts.into_iter().collect()
    }

    /// A part of the same batch without records.
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
            retry_failed: false,
        }
    }
}

fn lane_of_key(key: &[u8], lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % lanes as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::processing::testing::part;

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
    fn finished_records_are_reported_in_runs() {
        assert_eq!(
            FinishedRecords::Some(5, vec![0, 1, 4, 6, 7]).runs(),
            [5..7, 9..10, 11..13]
        );
    }

    #[test]
    fn the_order_of_a_partition_needs_one_lane() {
        let parts = part(&["a", "b"], 0, 1).split_by_lane(Ordering::PerPartition, 8);
        assert_eq!(parts.len(), 1);
    }

    #[test]
    fn small_chunks_without_order_take_turns() {
        let lanes: Vec<usize> = (0..4)
            .flat_map(|first| part(&["a"], first, 1).split_by_lane(Ordering::Unordered, 3))
            .map(|(lane, _)| lane)
            .collect();
        assert_eq!(lanes, [0, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn every_record_goes_to_one_lane_and_a_key_to_one_lane(
            keys in prop::collection::vec("[a-e]{0,2}[012!]?", 1..60),
            lanes in 1_usize..9,
            first in 0_u64..1000,
            ordering in prop::sample::select(vec![Ordering::PerKey, Ordering::Unordered]),
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let whole = part(&keys, first, 2);
            let expected = contents(&whole);
            let parts = whole.split_by_lane(ordering, lanes);
            let mut sources = Vec::new();
            let mut outputs = Vec::new();
            let mut failed_records = Vec::new();
            for (lane, part) in &parts {
                prop_assert!(*lane < lanes && !part.is_empty());
                let (some, out, failed) = contents(part);
                prop_assert!(some.is_sorted() && out.is_sorted() && failed.is_sorted());
                prop_assert!(out.iter().all(|output| some.contains(&part.batch().source(*output))));
                prop_assert_eq!(&part.pending[1].outputs, &out);
                for source in &some {
                    if let (Ordering::PerKey, Some(key)) = (ordering, part.key(*source)) {
                        let elsewhere = parts.iter().filter(|(other, _)| other != lane);
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
