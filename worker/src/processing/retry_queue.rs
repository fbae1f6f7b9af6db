//! The retry queue of a lane: records that wait for another attempt, and the later records that must not
//! overtake them. Pure: time comes in as a value. Its size is bounded by the records that the poll loop
//! dispatches to a partition.

use std::collections::{HashMap, HashSet, VecDeque};

use crds::spec::Ordering;
use tokio::time::Instant;

use crate::{health::problems::ProblemReporter, processing::batch_part::BatchPart};

/// A record that waits for another attempt.
#[derive(Debug)]
pub(crate) struct WaitingRecord {
    /// The record alone.
    pub part: BatchPart,
    /// When the attempt is due.
    pub due: Instant,
    /// How many times the record has waited before.
    pub waits: u32,
    /// Reports its problem, which lasts as long as the record waits.
    pub reporter: ProblemReporter,
    /// The records behind it, in order.
    pub followers: VecDeque<BatchPart>,
}

impl WaitingRecord {
    /// Joins another waiting record that must keep its order with this one. The other may be the earlier one,
    /// because a record that is known to have failed is parked before the other records of its batch are
    /// written. The followers of the earlier record come from between the two, or were taken before from
    /// behind both.
    fn join(&mut self, mut other: WaitingRecord) {
        if other.part.offset() < self.part.offset() {
            std::mem::swap(self, &mut other);
        }
        self.followers.push_back(other.part);
        self.followers.append(&mut other.followers);
    }
}

/// All waiting records of a lane.
#[derive(Debug)]
pub(crate) struct RetryQueue {
    ordering: Ordering,
    by_key: HashMap<Box<[u8]>, WaitingRecord>,
    others: Vec<WaitingRecord>,
}

impl RetryQueue {
    /// An empty queue. `ordering` decides which records may overtake others.
    pub fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            by_key: HashMap::new(),
            others: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.others.is_empty()
    }

    /// Takes the records out of `part` that come after `source` and must not overtake it.
    pub fn followers(&self, part: &mut BatchPart, source: u32) -> Option<BatchPart> {
        match self.ordering {
            Ordering::PerPartition => part.take(|later| later > source),
            Ordering::PerKey => {
                let chunk = part.chunk().clone();
                let key = |source: u32| chunk.record(source as usize).key;
                let same = key(source)?;
                part.take(|later| later > source && key(later) == Some(same))
            }
            Ordering::Unordered => None,
        }
    }

    /// As [`RetryQueue::followers`], when all records of `part` that have not failed are written: takes the
    /// failed records and, with `repeat`, the written records with the same keys, so that they are written
    /// again behind the failed ones.
    pub fn written_followers(&self, part: &mut BatchPart, source: u32, repeat: bool) -> Option<BatchPart> {
        let whole_partition = match self.ordering {
            Ordering::PerPartition => true,
            Ordering::PerKey => false,
            Ordering::Unordered => return None,
        };
        let chunk = part.chunk().clone();
        let key = |source: u32| chunk.record(source as usize).key;
        if !whole_partition && key(source).is_none() {
            return None;
        }
        let mut keys = HashSet::from([key(source)]);
        let mut sources = part.sources();
        sources.retain(|later| {
            let key = key(*later);
            let follows = *later > source
                && if part.has_failed(*later) {
                    whole_partition || keys.contains(&key)
                } else {
                    repeat && key.is_some() && keys.contains(&key)
                };
            if follows {
                keys.insert(key);
            }
            follows
        });
        part.take(|other| sources.binary_search(&other).is_ok())
    }

    /// Parks a record. Of the records that keep one order, only one waits, and the others are its followers.
    pub fn park(&mut self, waiting: WaitingRecord) {
        let source = waiting.part.sources().first().copied();
        let key = source.and_then(|source| waiting.part.key(source));
        let first = match (self.ordering, key) {
            (Ordering::PerPartition, _) => self.others.first_mut(),
            (Ordering::PerKey, Some(key)) => match self.by_key.get_mut(key) {
                Some(first) => Some(first),
                None => {
                    self.by_key.insert(key.into(), waiting);
                    return;
                }
            },
            _ => None,
        };
        match first {
            Some(first) => first.join(waiting),
            None => self.others.push(waiting),
        }
    }

    /// Keeps the records of `part` that must not overtake a waiting one, and returns the rest.
    pub fn hold_back(&mut self, mut part: BatchPart) -> Option<BatchPart> {
        if self.is_empty() {
            return Some(part);
        }
        if self.ordering == Ordering::PerPartition {
            // Everything behind a waiting record waits. It does not matter which record it follows: it is
            // held back again as long as another record waits.
            if let Some(last) = self.others.last_mut() {
                last.followers.push_back(part);
            }
            return None;
        }
        if self.by_key.is_empty() {
            return Some(part);
        }
        let chunk = part.chunk().clone();
        let key = |source: u32| chunk.record(source as usize).key;
        let mut held_back: Vec<u32> = part.sources();
        held_back.retain(|source| key(*source).is_some_and(|key| self.by_key.contains_key(key)));
        for source in held_back {
            let Some(held_key) = key(source) else { continue };
            if let Some(follower) = part.take(|other| key(other) == Some(held_key))
                && let Some(waiting) = self.by_key.get_mut(held_key)
            {
                waiting.followers.push_back(follower);
            }
        }
        (!part.is_empty()).then_some(part)
    }

    /// When the next record is due.
    pub fn due(&self) -> Option<Instant> {
        let all = self.by_key.values().chain(&self.others);
        all.map(|waiting| waiting.due).min()
    }

    /// The next record that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<WaitingRecord> {
        let due = self.due().filter(|due| *due <= now)?;
        if let Some(index) = self.others.iter().position(|waiting| waiting.due == due) {
            return Some(self.others.remove(index));
        }
        let key = self
            .by_key
            .iter()
            .find_map(|(key, waiting)| (waiting.due == due).then(|| key.clone()))?;
        self.by_key.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{health::problems::Problems, processing::testing::part};

    fn waiting(part: BatchPart, due: Instant) -> WaitingRecord {
        WaitingRecord {
            reporter: Problems::default().at(part.offset()),
            part,
            due,
            waits: 0,
            followers: VecDeque::new(),
        }
    }

    fn sources(parts: impl IntoIterator<Item = BatchPart>) -> Vec<u32> {
        parts.into_iter().flat_map(|part| part.sources()).collect()
    }

    #[test]
    fn a_waiting_key_holds_back_its_own_records_only() {
        let now = Instant::now();
        let mut retry_queue = RetryQueue::new(Ordering::PerKey);
        let mut first = part(&["a", "b", "a", ""], 0, 1);
        let failed = first.take(|source| source == 0).unwrap();
        let followers = retry_queue.followers(&mut first, 0).into_iter().collect();
        retry_queue.park(WaitingRecord {
            followers,
            ..waiting(failed, now)
        });
        assert_eq!(first.sources(), [1, 3]);
        let rest = retry_queue.hold_back(part(&["b", "a", "", "c"], 4, 1)).unwrap();
        assert_eq!(rest.sources(), [0, 2, 3]);
        assert!(retry_queue.hold_back(part(&["a", "a"], 8, 1)).is_none());
        assert!(retry_queue.pop_due(now - Duration::from_millis(1)).is_none());
        let retried = retry_queue.pop_due(now).unwrap();
        assert_eq!(retried.part.sources(), [0]);
        assert_eq!(sources(retried.followers), [2, 1, 0, 1]);
        assert!(retry_queue.is_empty());
        assert!(retry_queue.hold_back(part(&["a"], 10, 1)).is_some());
    }

    #[test]
    fn without_order_nothing_is_held_back() {
        let mut retry_queue = RetryQueue::new(Ordering::Unordered);
        let mut first = part(&["a", "a"], 0, 1);
        let failed = first.take(|source| source == 0).unwrap();
        assert!(retry_queue.followers(&mut first, 0).is_none());
        retry_queue.park(waiting(failed, Instant::now()));
        assert_eq!(
            retry_queue.hold_back(part(&["a"], 2, 1)).map(|part| part.len()),
            Some(1)
        );
    }

    #[test]
    fn in_partition_order_everything_is_held_back() {
        let now = Instant::now();
        let mut retry_queue = RetryQueue::new(Ordering::PerPartition);
        let mut first = part(&["a", "b", "c"], 0, 1);
        let failed = first.take(|source| source == 1).unwrap();
        let followers = retry_queue.followers(&mut first, 1).into_iter().collect();
        retry_queue.park(WaitingRecord {
            followers,
            ..waiting(failed, now)
        });
        assert_eq!(first.sources(), [0]);
        assert!(retry_queue.hold_back(part(&["x"], 3, 1)).is_none());
        assert_eq!(sources(retry_queue.pop_due(now).unwrap().followers), [2, 0]);
    }

    #[test]
    fn the_earlier_of_two_waiting_records_is_retried_first() {
        let now = Instant::now();
        for ordering in [Ordering::PerPartition, Ordering::PerKey] {
            let mut retry_queue = RetryQueue::new(ordering);
            let mut whole = part(&["a", "a", "a", "a"], 0, 1);
            let failed = whole.take(|source| source == 2).unwrap();
            let followers = retry_queue.followers(&mut whole, 2).into_iter().collect();
            retry_queue.park(WaitingRecord {
                followers,
                ..waiting(failed, now)
            });
            let refused = whole.take(|source| source == 0).unwrap();
            let followers = retry_queue
                .written_followers(&mut whole, 0, true)
                .into_iter()
                .collect();
            retry_queue.park(WaitingRecord {
                followers,
                ..waiting(refused, now)
            });
            let first = retry_queue.pop_due(now).unwrap();
            assert_eq!(first.part.sources(), [0], "{ordering:?}");
            assert_eq!(sources(first.followers), [1, 2, 3], "{ordering:?}");
            assert!(retry_queue.is_empty());
        }
    }

    proptest! {
        /// Chunks arrive, and records are parked and retried at random. Records with the same key come out in
        /// order, and no record is lost or duplicated.
        #[test]
        fn no_record_overtakes_a_waiting_one_of_its_key(
            chunks in prop::collection::vec(prop::collection::vec("[a-c]?", 1..8), 1..12),
            waits in prop::collection::vec(any::<bool>(), 200),
        ) {
            let start = Instant::now();
            let mut retry_queue = RetryQueue::new(Ordering::PerKey);
            let mut waits = waits.into_iter().chain(std::iter::repeat(false));
            type Written = (Option<Vec<u8>>, u64);
            let mut out: Vec<Written> = Vec::new();
            let mut first = 0;
            let mut expected = 0;
            let mut work = |queue: &mut RetryQueue, mut part: BatchPart, out: &mut Vec<_>, now: Instant| {
                for source in part.sources() {
                    if !waits.next().unwrap_or(false) { continue; }
                    let Some(failed) = part.take(|other| other == source) else { continue };
                    let followers = queue.followers(&mut part, source).into_iter().collect();
                    queue.park(WaitingRecord { followers, ..waiting(failed, now) });
                }
                for source in part.sources() {
                    out.push((part.key(source).map(<[u8]>::to_vec), part.first() + u64::from(source)));
                }
            };
            type Work<'a> = &'a mut dyn FnMut(&mut RetryQueue, BatchPart, &mut Vec<Written>, Instant);
            let pop_due = |queue: &mut RetryQueue, out: &mut Vec<_>, now: Instant, work: Work<'_>| {
                if let Some(retried) = queue.pop_due(now) {
                    work(queue, retried.part, out, now);
                    for follower in retried.followers {
                        if let Some(follower) = queue.hold_back(follower) { work(queue, follower, out, now); }
                    }
                }
            };
            for keys in &chunks {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                expected += keys.len();
                if let Some(part) = retry_queue.hold_back(part(&keys, first, 1)) {
                    work(&mut retry_queue, part, &mut out, start);
                }
                first += keys.len() as u64;
                pop_due(&mut retry_queue, &mut out, start, &mut work);
            }
            while !retry_queue.is_empty() { pop_due(&mut retry_queue, &mut out, start, &mut work); }
            prop_assert_eq!(out.len(), expected);
            for key in [b"a", b"b", b"c"] {
                let of_key = out.iter().filter(|(k, _)| k.as_deref() == Some(key));
                let of_key: Vec<u64> = of_key.map(|(_, n)| *n).collect();
                prop_assert!(of_key.is_sorted_by(|a, b| a < b), "{:?}", out);
            }
            let mut all: Vec<u64> = out.iter().map(|(_, n)| *n).collect();
            all.sort();
            prop_assert_eq!(all, (0..expected as u64).collect::<Vec<_>>());
        }
    }
}
