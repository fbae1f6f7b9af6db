//! Which offset of a partition may be committed: the first record that is not finished. Pure,
//! single-threaded, one tracker per task of a partition.
//!
//! Delivered records get dense sequence numbers, so gaps in the offsets (compaction, transaction markers)
//! cannot hold the watermark back, and completions may come in any order. Out-of-order completions above the
//! watermark go into the commit's metadata ([`commit_metadata`]), so that the worker does not repeat them
//! after a restart.

pub mod commit_metadata;
mod finished_set;

use std::{collections::VecDeque, ops::Range};

pub use self::finished_set::FinishedSet;
use crate::record::Offset;

/// Sequence number of a delivered record, dense from 0 within one task.
pub type Sequence = u64;

/// Tracks the records of one partition from delivery to completion.
#[derive(Debug, Default)]
pub struct Tracker {
    /// Sequence number of `pending[0]`.
    first: Sequence,
    /// Records from the first unfinished one on: offset, and whether it is finished.
    pending: VecDeque<(Offset, bool)>,
    unfinished: usize,
    /// Offset of the last finished record below `first`, plus one.
    watermark: Option<Offset>,
}

impl Tracker {
    /// Adds records that were dispatched, in the order of their offsets; returns their sequence numbers.
    pub fn deliver(&mut self, offsets: impl IntoIterator<Item = Offset>) -> Range<Sequence> {
        let start = self.first + self.pending.len() as u64;
        for offset in offsets {
            if self.pending.is_empty() && self.watermark.is_none() {
                self.watermark = Some(offset);
            }
            self.pending.push_back((offset, false));
            self.unfinished += 1;
        }
        start..self.first + self.pending.len() as u64
    }

    /// Adds a record that an earlier owner has finished. Call it in the order of the offsets, like
    /// [`Tracker::deliver`].
    pub fn deliver_finished(&mut self, offset: Offset) {
        let range = self.deliver([offset]);
        self.complete(range);
    }

    /// Notes that all records below `end` were delivered. Transaction markers at the end of a partition are
    /// not records and would count as lag indefinitely. It has an effect only while nothing is unfinished.
    pub fn deliver_end(&mut self, end: Offset) {
        if self.pending.is_empty() {
            self.watermark = self.watermark.max(Some(end));
        }
    }

    /// Marks records as finished. Finishing a record twice changes nothing.
    pub fn complete(&mut self, finished: Range<Sequence>) {
        for sequence in finished.start.max(self.first)..finished.end {
            let Some((_, done)) = self.pending.get_mut((sequence - self.first) as usize) else {
                break;
            };
            if !*done {
                *done = true;
                self.unfinished -= 1;
            }
        }
        while let Some((offset, true)) = self.pending.front() {
            self.watermark = Some(offset + 1);
            self.pending.pop_front();
            self.first += 1;
        }
        if let Some((offset, false)) = self.pending.front() {
            // No records were delivered between the last finished one and this one, so the gap counts as
            // finished.
            self.watermark = Some(*offset);
        }
    }

    /// Out-of-order completions above the watermark, as ascending ranges of offsets, at most `limit` of them.
    /// A range includes the offsets between two finished neighbors that were never delivered, because those
    /// do not exist.
    pub fn out_of_order(&self, limit: usize) -> Vec<Range<Offset>> {
        let mut ranges: Vec<Range<Offset>> = Vec::new();
        // Whether the record before was finished too.
        let mut open = false;
        for (offset, done) in &self.pending {
            match (*done, open) {
                (true, true) => {
                    if let Some(last) = ranges.last_mut() {
                        last.end = offset + 1;
                    }
                }
                (true, false) if ranges.len() == limit => break,
                (true, false) => ranges.push(*offset..offset + 1),
                (false, _) => {}
            }
            open = *done;
        }
        ranges
    }

    /// Number of records from the first unfinished one to the last delivered: how far out-of-order
    /// completions may reach above the watermark.
    pub fn span(&self) -> usize {
        self.pending.len()
    }

    /// The offset to commit: the first unfinished record, or one past the last. None before the first
    /// delivery.
    pub fn committable(&self) -> Option<Offset> {
        self.watermark
    }

    /// Records delivered and not finished.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Offset of the first unfinished record.
    pub fn oldest(&self) -> Option<Offset> {
        self.pending.front().map(|(offset, _)| *offset)
    }

    /// Sequence number of the first unfinished record, or of the next delivery.
    pub fn oldest_sequence(&self) -> Sequence {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_never_holds_the_watermark_back() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.committable(), None);
        let range = tracker.deliver([5, 9, 10]);
        assert_eq!((range.clone(), tracker.committable()), (0..3, Some(5)));
        tracker.complete(1..2);
        assert_eq!(tracker.committable(), Some(5));
        tracker.complete(0..1);
        assert_eq!((tracker.committable(), tracker.oldest()), (Some(10), Some(10)));
        tracker.complete(2..3);
        assert_eq!((tracker.committable(), tracker.unfinished()), (Some(11), 0));
    }

    #[test]
    fn the_position_before_the_first_completion_is_the_first_record_not_zero() {
        let mut tracker = Tracker::default();
        tracker.deliver([100, 101]);
        assert_eq!(tracker.committable(), Some(100));
    }

    #[test]
    fn records_finished_by_an_earlier_owner_and_markers_at_the_end_advance_the_watermark() {
        let mut tracker = Tracker::default();
        let range = tracker.deliver([5, 6]);
        tracker.deliver_finished(7);
        assert_eq!(tracker.committable(), Some(5));
        assert_eq!(tracker.out_of_order(9).first(), Some(&(7..8)));
        tracker.deliver_end(9);
        assert_eq!(tracker.committable(), Some(5));
        tracker.complete(range);
        assert_eq!((tracker.committable(), tracker.span()), (Some(8), 0));
        tracker.deliver_end(9);
        tracker.deliver_end(3);
        assert_eq!(tracker.committable(), Some(9), "never goes back");
    }

    #[test]
    fn out_of_order_completions_are_ranges_that_span_gaps() {
        let mut tracker = Tracker::default();
        tracker.deliver([1, 2, 4, 7, 8, 9, 20]);
        tracker.complete(1..4);
        tracker.complete(5..7);
        assert_eq!(tracker.out_of_order(9), [2..8, 9..21]);
        assert_eq!(tracker.out_of_order(1).last(), Some(&(2..8)));
    }

    proptest! {
        /// Deliveries and completions in any order: the watermark is never past an unfinished record, never
        /// goes back, and reaches the end once everything is finished.
        #[test]
        fn the_watermark_is_safe_and_live(
            gaps in prop::collection::vec(1i64..4, 1..60),
            cuts in prop::collection::vec(1usize..8, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut tracker = Tracker::default();
            let offsets: Vec<Offset> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut open: Vec<Offset> = Vec::new();
            let mut ranges: Vec<(Range<Sequence>, Vec<Offset>)> = Vec::new();
            let (mut rest, mut last) = (offsets.as_slice(), None);
            let mut step = 0;
            while !rest.is_empty() || !ranges.is_empty() {
                let deliver = !rest.is_empty() && (ranges.is_empty() || step % 2 == 0);
                if deliver {
                    let (now, later) = rest.split_at(cuts[step % cuts.len()].min(rest.len()));
                    rest = later;
                    ranges.push((tracker.deliver(now.iter().copied()), now.to_vec()));
                    open.extend(now);
                } else {
                    let (range, done) = ranges.swap_remove(order[step % order.len()].index(ranges.len()));
                    tracker.complete(range.clone());
                    tracker.complete(range);
                    open.retain(|offset| !done.contains(offset));
                }
                let mark = tracker.committable();
                prop_assert!(mark >= last);
                let completions = tracker.out_of_order(usize::MAX);
                let finished = |offset: &Offset| completions.iter().any(|range| range.contains(offset));
                prop_assert!(!open.iter().any(finished), "{:?} {:?}", open, completions);
                let delivered = &offsets[..offsets.len() - rest.len()];
                prop_assert!(delivered.iter().all(|offset| open.contains(offset) || Some(*offset) < mark || finished(offset)));
                prop_assert_eq!(tracker.unfinished(), open.len());
                match open.iter().min() {
                    Some(oldest) => prop_assert!(mark <= Some(*oldest)),
                    None => prop_assert_eq!(mark, Some(offsets[offsets.len() - rest.len() - 1] + 1)),
                }
                last = mark;
                step += 1;
            }
        }
    }
}
