//! Detects that the database has lost offsets: a standby without the last transactions has taken over, or a
//! backup was restored. In: the offsets that were stored, and those in the row now. Out: the first lost
//! offset. Pure.
//!
//! While a group runs, a row only grows: each worker locks it, adds to its contents, and stores the result.
//! So whatever was in it once stays in it. Kafka's committed offset proves nothing: records that are
//! filtered, skipped or sent to the dead letter topic move it, but not the row.

use std::ops::Range;

use crate::{
    offsets::{FinishedSet, commit_metadata},
    record::Offset,
};

/// The first offset that was finished in `stored` and is not finished in `now`.
pub(super) fn first_lost(stored: &FinishedSet, now: &FinishedSet) -> Option<Offset> {
    if stored == now {
        return None;
    }
    if now.next() < stored.next() {
        return Some(now.next());
    }
    let there = ranges(now);
    let lost_of = |range: Range<Offset>| {
        let start = range.start.max(now.next());
        if start >= range.end {
            return None;
        }
        let at = there.partition_point(|known| known.end <= start);
        match there.get(at).filter(|known| known.start <= start) {
            Some(known) => (known.end < range.end).then_some(known.end),
            None => Some(start),
        }
    };
    ranges(stored).into_iter().find_map(lost_of)
}

/// The finished offsets above the first unfinished one.
fn ranges(finished: &FinishedSet) -> Vec<Range<Offset>> {
    // A set can always decode its own text.
    commit_metadata::decode(finished.next(), &finished.ahead()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[Range<Offset>]) -> FinishedSet {
        let mut finished = FinishedSet::default();
        ranges.iter().cloned().for_each(|range| finished.insert(range));
        finished
    }

    #[test]
    fn only_what_is_missing_is_lost() {
        let stored = set(&[0..10, 12..15, 20..30]);
        for (now, lost) in [
            (set(&[0..10, 12..15, 20..30]), None),
            (set(&[0..10, 12..30]), None),
            (set(&[0..30, 40..50]), None),
            (set(&[0..9, 12..15, 20..30]), Some(9)),
            (set(&[0..10, 13..15, 20..30]), Some(12)),
            (set(&[0..11, 12..14, 20..30]), Some(14)),
            (set(&[0..14, 40..50]), Some(14)),
            (set(&[0..15, 20..29, 40..50]), Some(29)),
            (FinishedSet::default(), Some(0)),
        ] {
            assert_eq!(first_lost(&stored, &now), lost, "{now:?}");
        }
        assert_eq!(first_lost(&FinishedSet::default(), &FinishedSet::default()), None);
    }

    proptest! {
        /// Compares with sets of numbers.
        #[test]
        fn it_is_the_first_number_that_is_missing(
            stored in prop::collection::btree_set(0_i64..60, 0..50),
            now in prop::collection::btree_set(0_i64..60, 0..60),
        ) {
            let of = |offsets: &BTreeSet<Offset>| {
                let mut finished = FinishedSet::default();
                offsets.iter().for_each(|offset| finished.insert(*offset..offset + 1));
                finished
            };
            let expected = stored.difference(&now).next().copied();
            prop_assert_eq!(first_lost(&of(&stored), &of(&now)), expected);
            let both: BTreeSet<Offset> = stored.union(&now).copied().collect();
            prop_assert_eq!(first_lost(&of(&stored), &of(&both)), None);
        }
    }
}
