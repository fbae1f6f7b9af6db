//! Answers of the API server that are kept for a moment. In: an answer and how long it counts. Out: the answer
//! until then. Never larger than its limit. The time is a parameter.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// Answers, each with its end.
#[derive(Debug)]
pub struct Cache<K, V> {
    limit: usize,
    entries: HashMap<K, (Instant, V)>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
        }
    }

    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (until, value) = self.entries.get(key)?;
        (now < *until).then(|| value.clone())
    }

    /// Makes room by dropping what has ended, and everything if that is not enough: whatever is dropped is
    /// asked again.
    pub fn insert(&mut self, key: K, value: V, until: Instant, now: Instant) {
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, (until, _)| now < *until);
        }
        if self.entries.len() >= self.limit {
            self.entries.clear();
        }
        self.entries.insert(key, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
