//! Records of a lane that wait for another attempt, and the later records that must not overtake them. Pure: time comes in
//! as a value. Bounded by what the poll loop lets into a partition.

use std::collections::{HashMap, HashSet, VecDeque};

use crds::spec::Ordering;
use tokio::time::Instant;

use crate::{health::problems::Progress, processing::batch_part::Unit};

/// A record that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The record alone.
    pub unit: Unit,
    /// When it is due.
    pub due: Instant,
    /// Times it has waited before.
    pub waits: u32,
    /// Its trouble, which lasts as long as it waits.
    pub progress: Progress,
    /// What comes after it, in order.
    pub followers: VecDeque<Unit>,
}

impl Waiting {
    /// Takes another one of the same order in. It may be an earlier one: what is known to have failed waits before the others of
    /// its batch are written. What follows the earlier one was taken from between them, or before it from behind both.
    fn join(&mut self, mut other: Waiting) {
        if other.unit.offset() < self.unit.offset() {
            std::mem::swap(self, &mut other);
        }
        self.followers.push_back(other.unit);
        self.followers.append(&mut other.followers);
    }
}

/// All waiting records of a lane.
#[derive(Debug)]
pub(crate) struct Parked {
    ordering: Ordering,
    by_key: HashMap<Box<[u8]>, Waiting>,
    others: Vec<Waiting>,
}

impl Parked {
    /// None. `ordering` says what may overtake what.
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

    /// Takes the records out of `unit` that come after `source` and must not overtake it.
    pub fn followers(&self, unit: &mut Unit, source: u32) -> Option<Unit> {
        match self.ordering {
            Ordering::PerPartition => unit.take(|later| later > source),
            Ordering::PerKey => {
                let chunk = unit.chunk().clone();
                let key = |source: u32| chunk.record(source as usize).key;
                let same = key(source)?;
                unit.take(|later| later > source && key(later) == Some(same))
            }
            Ordering::Unordered => None,
        }
    }

    /// As [`Parked::followers`], when everything of `unit` that had not failed was written: what has failed, too, and with
    /// `repeat` what was written of the same keys, so that it is written again behind them.
    pub fn written_followers(&self, unit: &mut Unit, source: u32, repeat: bool) -> Option<Unit> {
        let whole_partition = match self.ordering {
            Ordering::PerPartition => true,
            Ordering::PerKey => false,
            Ordering::Unordered => return None,
        };
        let chunk = unit.chunk().clone();
        let key = |source: u32| chunk.record(source as usize).key;
        if !whole_partition && key(source).is_none() {
            return None;
        }
        let mut keys = HashSet::from([key(source)]);
        let mut sources = unit.sources();
        sources.retain(|later| {
            let key = key(*later);
            let follows = *later > source
                && match unit.has_failed(*later) {
                    true => whole_partition || keys.contains(&key),
                    false => repeat && key.is_some() && keys.contains(&key),
                };
            if follows {
                keys.insert(key);
            }
            follows
        });
        unit.take(|other| sources.binary_search(&other).is_ok())
    }

    /// Lets a record wait. Of one order, only one record can: the others are its followers.
    pub fn park(&mut self, waiting: Waiting) {
        let source = waiting.unit.sources().first().copied();
        let key = source.and_then(|source| waiting.unit.key(source));
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

    /// Keeps the records of `unit` that must not overtake a waiting one; gives back the rest.
    pub fn catch(&mut self, mut unit: Unit) -> Option<Unit> {
        if self.is_empty() {
            return Some(unit);
        }
        if self.ordering == Ordering::PerPartition {
            // Everything after a waiting record waits. Which one it follows does not matter: it is caught again as long as
            // another one waits.
            if let Some(last) = self.others.last_mut() {
                last.followers.push_back(unit);
            }
            return None;
        }
        if self.by_key.is_empty() {
            return Some(unit);
        }
        let chunk = unit.chunk().clone();
        let key = |source: u32| chunk.record(source as usize).key;
        let mut caught: Vec<u32> = unit.sources();
        caught.retain(|source| key(*source).is_some_and(|key| self.by_key.contains_key(key)));
        for source in caught {
            let Some(key_caught) = key(source) else { continue };
            if let Some(follower) = unit.take(|other| key(other) == Some(key_caught))
                && let Some(waiting) = self.by_key.get_mut(key_caught)
            {
                waiting.followers.push_back(follower);
            }
        }
        (!unit.is_empty()).then_some(unit)
    }

    /// When the next record is due.
    pub fn due(&self) -> Option<Instant> {
        let all = self.by_key.values().chain(&self.others);
        all.map(|waiting| waiting.due).min()
    }

    /// The next record that is due.
    pub fn release(&mut self, now: Instant) -> Option<Waiting> {
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
    use crate::{health::problems::Troubles, processing::batch_part::tests::unit};

    fn waiting(unit: Unit, due: Instant) -> Waiting {
        Waiting {
            progress: Troubles::default().at(unit.offset()),
            unit,
            due,
            waits: 0,
            followers: VecDeque::new(),
        }
    }

    fn sources(units: impl IntoIterator<Item = Unit>) -> Vec<u32> {
        units.into_iter().flat_map(|unit| unit.sources()).collect()
    }

    #[test]
    fn a_waiting_key_holds_back_its_own_records_only() {
        let now = Instant::now();
        let mut parked = Parked::new(Ordering::PerKey);
        let mut first = unit(&["a", "b", "a", ""], 0, 1);
        let failed = first.take(|source| source == 0).unwrap();
        let followers = parked.followers(&mut first, 0).into_iter().collect();
        parked.park(Waiting {
            followers,
            ..waiting(failed, now)
        });
        assert_eq!(first.sources(), [1, 3]);
        let rest = parked.catch(unit(&["b", "a", "", "c"], 4, 1)).unwrap();
        assert_eq!(rest.sources(), [0, 2, 3]);
        assert!(parked.catch(unit(&["a", "a"], 8, 1)).is_none());
        assert!(parked.release(now - Duration::from_millis(1)).is_none());
        let released = parked.release(now).unwrap();
        assert_eq!(released.unit.sources(), [0]);
        assert_eq!(sources(released.followers), [2, 1, 0, 1]);
        assert!(parked.is_empty());
        assert!(parked.catch(unit(&["a"], 10, 1)).is_some());
    }

    #[test]
    fn without_order_nothing_is_held_back() {
        let mut parked = Parked::new(Ordering::Unordered);
        let mut first = unit(&["a", "a"], 0, 1);
        let failed = first.take(|source| source == 0).unwrap();
        assert!(parked.followers(&mut first, 0).is_none());
        parked.park(waiting(failed, Instant::now()));
        assert_eq!(parked.catch(unit(&["a"], 2, 1)).map(|unit| unit.len()), Some(1));
    }

    #[test]
    fn in_partition_order_everything_is_held_back() {
        let now = Instant::now();
        let mut parked = Parked::new(Ordering::PerPartition);
        let mut first = unit(&["a", "b", "c"], 0, 1);
        let failed = first.take(|source| source == 1).unwrap();
        let followers = parked.followers(&mut first, 1).into_iter().collect();
        parked.park(Waiting {
            followers,
            ..waiting(failed, now)
        });
        assert_eq!(first.sources(), [0]);
        assert!(parked.catch(unit(&["x"], 3, 1)).is_none());
        assert_eq!(sources(parked.release(now).unwrap().followers), [2, 0]);
    }

    #[test]
    fn what_waits_earlier_goes_first_though_it_was_found_later() {
        let now = Instant::now();
        for ordering in [Ordering::PerPartition, Ordering::PerKey] {
            let mut parked = Parked::new(ordering);
            let mut whole = unit(&["a", "a", "a", "a"], 0, 1);
            let failed = whole.take(|source| source == 2).unwrap();
            let followers = parked.followers(&mut whole, 2).into_iter().collect();
            parked.park(Waiting {
                followers,
                ..waiting(failed, now)
            });
            let refused = whole.take(|source| source == 0).unwrap();
            let followers = parked
                .written_followers(&mut whole, 0, true)
                .into_iter()
                .collect();
            parked.park(Waiting {
                followers,
                ..waiting(refused, now)
            });
            let first = parked.release(now).unwrap();
            assert_eq!(first.unit.sources(), [0], "{ordering:?}");
            assert_eq!(sources(first.followers), [1, 2, 3], "{ordering:?}");
            assert!(parked.is_empty());
        }
    }

    proptest! {
        /// Chunks come, records wait at random and are released at random; per key, records come out in their order, and
        /// none is lost or doubled.
        #[test]
        fn no_record_overtakes_a_waiting_one_of_its_key(
            chunks in prop::collection::vec(prop::collection::vec("[a-c]?", 1..8), 1..12),
            waits in prop::collection::vec(any::<bool>(), 200),
        ) {
            let start = Instant::now();
            let mut parked = Parked::new(Ordering::PerKey);
            let mut waits = waits.into_iter().chain(std::iter::repeat(false));
            let mut out: Vec<(Option<Vec<u8>>, u64)> = Vec::new();
            let mut first = 0;
            let mut expected = 0;
            let mut work = |parked: &mut Parked, mut unit: Unit, out: &mut Vec<_>, now: Instant| {
                for source in unit.sources() {
                    if !waits.next().unwrap_or(false) { continue; }
                    let Some(failed) = unit.take(|other| other == source) else { continue };
                    let followers = parked.followers(&mut unit, source).into_iter().collect();
                    parked.park(Waiting { followers, ..waiting(failed, now) });
                }
                for source in unit.sources() {
                    out.push((unit.key(source).map(<[u8]>::to_vec), unit.first() + u64::from(source)));
                }
            };
            let release = |parked: &mut Parked, out: &mut Vec<_>, now: Instant, work: &mut dyn FnMut(&mut Parked, Unit, &mut Vec<_>, Instant)| {
                if let Some(released) = parked.release(now) {
                    work(parked, released.unit, out, now);
                    for follower in released.followers {
                        if let Some(follower) = parked.catch(follower) { work(parked, follower, out, now); }
                    }
                }
            };
            for keys in &chunks {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                expected += keys.len();
                if let Some(unit) = parked.catch(unit(&keys, first, 1)) { work(&mut parked, unit, &mut out, start); }
                first += keys.len() as u64;
                release(&mut parked, &mut out, start, &mut work);
            }
            while !parked.is_empty() { release(&mut parked, &mut out, start, &mut work); }
            prop_assert_eq!(out.len(), expected);
            for key in [b"a", b"b", b"c"] {
                let of_key: Vec<u64> = out.iter().filter(|(k, _)| k.as_deref() == Some(key)).map(|(_, n)| *n).collect();
                prop_assert!(of_key.is_sorted_by(|a, b| a < b), "{:?}", out);
            }
            let mut all: Vec<u64> = out.iter().map(|(_, n)| *n).collect();
            all.sort();
            prop_assert_eq!(all, (0..expected as u64).collect::<Vec<_>>());
        }
    }
}
