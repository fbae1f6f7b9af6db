//! Answers of the API server that are kept for a moment. In: an answer and how long it counts. Out: the answer
//! until then. Never larger than its limit; answers that have ended are dropped every minute. The time is a
//! parameter.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Time between two looks for answers that have ended.
const PURGE: Duration = Duration::from_secs(60);

/// Answers, each with its end.
#[derive(Debug)]
pub struct Cache<K, V> {
    limit: usize,
    entries: HashMap<K, (Instant, V)>,
    /// The last look for answers that have ended.
    purged: Option<Instant>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            purged: None,
        }
    }

    pub fn get(&mut self, key: &K, now: Instant) -> Option<V> {
        self.purge(now);
        let (until, value) = self.entries.get(key)?;
        (now < *until).then(|| value.clone())
    }

    /// Makes room by dropping what has ended, and everything if that is not enough: whatever is dropped is
    /// asked again.
    pub fn insert(&mut self, key: K, value: V, until: Instant, now: Instant) {
        self.purge(now);
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, (until, _)| now < *until);
        }
        if self.entries.len() >= self.limit {
            self.entries.clear();
        }
        self.entries.insert(key, (until, value));
    }

    /// Drops what has ended, once a minute.
    fn purge(&mut self, now: Instant) {
        let purged = *self.purged.get_or_insert(now);
        if now.duration_since(purged) >= PURGE {
            self.entries.retain(|_, (until, _)| now < *until);
            self.entries.shrink_to_fit();
            self.purged = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_and_the_cache_stays_small() {
        let (mut cache, start) = (Cache::new(2), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        cache.insert("a", 1, at(10), start);
        assert_eq!((cache.get(&"a", at(9)), cache.get(&"a", at(10))), (Some(1), None));
        cache.insert("b", 2, at(60), start);
        cache.insert("c", 3, at(60), at(20));
        assert_eq!(
            (cache.get(&"b", at(20)), cache.get(&"c", at(20))),
            (Some(2), Some(3)),
            "only what has ended is dropped"
        );
        cache.insert("d", 4, at(60), at(20));
        assert_eq!(
            (cache.get(&"b", at(20)), cache.get(&"d", at(20))),
            (None, Some(4))
        );
    }

    #[test]
    fn what_has_ended_is_dropped_every_minute_although_there_is_room() {
        let (mut cache, start) = (Cache::new(1000), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        for number in 0..500 {
            cache.insert(number, (), at(10), start);
        }
        cache.insert(1000, (), at(100), at(59));
        assert_eq!(cache.entries.len(), 501);
        assert_eq!(cache.get(&1000, at(60)), Some(()));
        assert_eq!(cache.entries.len(), 1);
    }
}
