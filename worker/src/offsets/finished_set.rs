//! The finished offsets of a partition: all below one offset, and ranges above it. A writer that stores
//! offsets together with its records keeps one set per partition. In: ranges, and text written before. Out:
//! answers, and text. Pure.

use std::ops::Range;

use super::commit_metadata::{self, Unreadable};
use crate::record::Offset;

/// Finished offsets of a partition. The set only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinishedSet {
    /// Everything below is finished; this offset is not.
    next: Offset,
    /// Finished ranges above it, ascending, with unfinished offsets between any two of them.
    ahead: Vec<Range<Offset>>,
}

impl FinishedSet {
    /// Reads what [`FinishedSet::next`] and [`FinishedSet::ahead`] returned.
    pub fn decode(next: Offset, ahead: &str) -> Result<Self, Unreadable> {
        let ahead = commit_metadata::decode(next, ahead)?;
        Ok(Self { next, ahead })
    }

    /// The first offset that is not finished.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The finished ranges above [`FinishedSet::next`], as text of any length.
    pub fn ahead(&self) -> String {
        commit_metadata::encode_all(self.next, &self.ahead)
    }

    /// One past the last finished offset.
    pub fn end(&self) -> Offset {
        self.ahead.last().map_or(self.next, |range| range.end)
    }

    /// Number of finished ranges above the first unfinished offset.
    pub fn ranges(&self) -> usize {
        self.ahead.len()
    }

    /// Whether this offset is finished.
    pub fn contains(&self, offset: Offset) -> bool {
        let after = || self.ahead.partition_point(|range| range.end <= offset);
        offset < self.next || self.ahead.get(after()).is_some_and(|range| range.start <= offset)
    }

    /// Marks everything below `offset` as finished.
    pub fn finish_below(&mut self, offset: Offset) {
        if offset <= self.next {
            return;
        }
        self.next = offset;
        let passed = self.ahead.partition_point(|range| range.start <= offset);
        if let Some(last) = self.ahead.drain(..passed).next_back() {
            self.next = offset.max(last.end);
        }
    }

    /// Marks the offsets of `range` as finished.
    pub fn insert(&mut self, range: Range<Offset>) {
        if range.start <= self.next {
            return self.finish_below(range.end);
        }
        if range.is_empty() {
            return;
        }
        // Adjacent ranges become one, so that the text stays short.
        let first = self.ahead.partition_point(|known| known.end < range.start);
        let last = self.ahead.partition_point(|known| known.start <= range.end);
        let joined = self.ahead[first..last].iter().fold(range, |joined, known| {
            joined.start.min(known.start)..joined.end.max(known.end)
        });
        self.ahead.splice(first..last, [joined]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(next: Offset, ahead: &[Range<Offset>]) -> FinishedSet {
        FinishedSet {
            next,
            ahead: ahead.to_vec(),
        }
    }

    #[test]
    fn adjacent_ranges_become_one() {
        let mut finished = FinishedSet::default();
        finished.insert(10..12);
        finished.insert(14..16);
        finished.insert(20..21);
        assert_eq!(finished, set(0, &[10..12, 14..16, 20..21]));
        finished.insert(12..14);
        assert_eq!(finished, set(0, &[10..16, 20..21]));
        finished.insert(5..5);
        finished.insert(0..10);
        assert_eq!((finished.next(), finished.end()), (16, 21));
        assert!(finished.contains(15) && !finished.contains(16) && finished.contains(20));
    }

    #[test]
    fn ranges_below_a_committed_offset_are_dropped() {
        let mut finished = set(3, &[5..7, 9..11, 20..22, 30..31]);
        finished.finish_below(2);
        assert_eq!(finished.next(), 3);
        finished.finish_below(10);
        assert_eq!(finished, set(11, &[20..22, 30..31]));
        finished.finish_below(20);
        assert_eq!((finished.next(), finished.ranges()), (22, 1));
        finished.finish_below(40);
        assert_eq!(finished, set(40, &[]));
    }

    proptest! {
        /// Compares with a set of numbers after every step, and reads the set back from its text.
        #[test]
        fn it_contains_exactly_the_inserted_offsets(
            steps in prop::collection::vec((any::<bool>(), 0_i64..120, 0_i64..12), 0..40),
        ) {
            let mut finished = FinishedSet::default();
            let mut expected = BTreeSet::new();
            for (floor, start, length) in steps {
                if floor {
                    finished.finish_below(start);
                    expected.extend(0..start);
                } else {
                    finished.insert(start..start + length);
                    expected.extend(start..start + length);
                }
                for offset in 0..140 {
                    prop_assert_eq!(finished.contains(offset), expected.contains(&offset), "{} {:?}", offset, finished);
                }
                prop_assert!(!finished.contains(finished.next()));
                let end = expected.last().map_or(0, |last| last + 1);
                prop_assert_eq!(finished.end(), end);
                let read = FinishedSet::decode(finished.next(), &finished.ahead());
                prop_assert_eq!(read.as_ref(), Ok(&finished));
            }
        }

        /// Records that are never written take no space once they are below the floor.
        #[test]
        fn holes_below_the_floor_take_no_space(holes in prop::collection::btree_set(0_i64..5_000, 0..400), floor in 0_i64..5_000) {
            let mut finished = FinishedSet::default();
            for offset in (0..5_000).filter(|offset| !holes.contains(offset)) {
                finished.insert(offset..offset + 1);
            }
            prop_assert!(finished.ranges() <= holes.len());
            finished.finish_below(floor);
            prop_assert!(finished.ranges() <= holes.range(floor..).count());
        }
    }
}
