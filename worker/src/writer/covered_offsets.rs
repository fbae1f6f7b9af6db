//! Which offsets are finished once a batch is written, for writers that store offsets in one transaction with
//! the records. Pure.

use std::ops::Range;

use super::WriteBatch;
use crate::record::Offset;

impl WriteBatch<'_> {
    /// The offsets that are finished once this batch is written, except those of the records `without`
    /// (indices in the chunk): records with all their outputs in this batch, and records that were filtered
    /// out. Offsets between two of them that are neighbors in the chunk do not exist. They are included,
    /// which keeps the number of ranges small.
    pub(super) fn covered_offsets(&self, without: &[usize]) -> Vec<Range<Offset>> {
        let chunk = self.batch.chunk();
        // Reasons why a record is not finished: outputs that are not in this batch, and failures.
        let mut open = vec![0_i64; chunk.len()];
        self.batch.outputs().for_each(|output| open[output.source] += 1);
        self.records().for_each(|output| open[output.source] -= 1);
        let failures = self.batch.failures().iter().map(|failure| failure.source);
        failures
            .chain(without.iter().copied())
            .for_each(|source| open[source] += 1);
        let mut ranges: Vec<Range<Offset>> = Vec::new();
        let mut joins = false;
        for (offset, open) in chunk.offsets().zip(open) {
            match ranges.last_mut().filter(|_| joins) {
                _ if open != 0 => {}
                Some(last) => last.end = offset + 1,
                None => ranges.push(offset..offset + 1),
            }
            joins = open == 0;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        WriteBatch,
        record::{
            Chunk, TopicPartition,
            batch::{Batch, builder::Payload},
            failure::Stage,
        },
    };

    /// A record at each of these offsets, with this number of outputs; -1 means that it failed.
    fn batch(records: &[(i64, i32)]) -> Batch {
        let mut chunk = Chunk::new(TopicPartition::new("t", 0), 1);
        for (offset, _) in records {
            chunk.push(*offset, 0, None, None, []);
        }
        let batch = Batch::identity(Arc::new(chunk));
        let mut builder = batch.next();
        for (index, (_, outputs)) in records.iter().enumerate() {
            if *outputs < 0 {
                builder.fail(index, Stage::Transform, &"t".into(), "no");
            }
            for _ in 0..*outputs {
                builder.emit(index, Payload::Keep, Payload::Keep);
            }
        }
        builder.finish().0
    }

    #[test]
    fn gaps_and_filtered_records_are_included_and_failed_ones_are_not() {
        let batch = batch(&[(10, 0), (11, 1), (15, 1), (16, -1), (17, 1), (18, 0), (30, 1)]);
        let all = WriteBatch::new(&batch, &[0, 1, 2, 3]);
        assert_eq!(all.covered_offsets(&[]), [10..16, 17..31]);
        assert_eq!(all.covered_offsets(&[2]), [10..12, 17..31]);
    }

    #[test]
    fn a_record_counts_only_with_all_its_outputs() {
        let batch = batch(&[(10, 2), (11, 1), (12, 3), (13, 1)]);
        assert_eq!(
            WriteBatch::new(&batch, &[1, 2, 3, 4, 6]).covered_offsets(&[]),
            [11..12, 13..14]
        );
        assert_eq!(
            WriteBatch::new(&batch, &[0, 1, 3, 4, 5]).covered_offsets(&[]),
            [10..11, 12..13]
        );
        assert!(WriteBatch::new(&batch, &[]).covered_offsets(&[]).is_empty());
    }
}
