//! Records per second of each partition from the positions that workers report. In: positions with their
//! times. Out: an average over the last few seconds. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::kafka::model::Partition;

/// Long enough for a stable average, short enough to follow changes.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Rates {
    seen: BTreeMap<Partition, VecDeque<(Instant, i64)>>,
}

impl Rates {
    /// Notes that every record of `partition` before `position` is finished. Ignores lower positions: a new
    /// worker starts at the last commit.
    pub fn note(&mut self, partition: &Partition, position: i64, at: Instant) {
        let seen = self.seen.entry(partition.clone()).or_default();
        if seen.back().is_some_and(|(_, last)| position < *last) {
            return;
        }
        seen.push_back((at, position));
        // One entry older than the window is kept: the average starts there.
        while seen
            .get(1)
            .is_some_and(|(time, _)| at.duration_since(*time) >= WINDOW)
        {
            seen.pop_front();
        }
    }

    /// Records per second; None without enough data.
    pub fn of(&self, partition: &Partition, now: Instant) -> Option<f64> {
        let seen = self.seen.get(partition)?;
        let ((from, low), (_, high)) = (seen.front()?, seen.back()?);
        let seconds = now.duration_since(*from).as_secs_f64();
        (seconds >= 0.5).then(|| (high - low) as f64 / seconds)
    }

    /// Forgets the partitions of a topic whose offsets start again.
    pub fn forget(&mut self, topic: &str) {
        self.seen.retain(|(name, _), _| name != topic);
    }

    /// The last known position.
    pub fn position(&self, partition: &Partition) -> Option<i64> {
        self.seen.get(partition)?.back().map(|(_, position)| *position)
    }
}

/// How much a count has grown in the last minute.
#[derive(Debug, Default)]
pub struct LastMinute(VecDeque<(Instant, u64)>);

const MINUTE: Duration = Duration::from_secs(60);

impl LastMinute {
    pub fn note(&mut self, count: u64, at: Instant) {
        self.0.push_back((at, count));
        while self
            .0
            .get(1)
            .is_some_and(|(time, _)| at.duration_since(*time) >= MINUTE)
        {
            self.0.pop_front();
        }
    }

    pub fn growth(&self) -> u64 {
        match (self.0.front(), self.0.back()) {
            (Some((_, first)), Some((_, last))) => last.saturating_sub(*first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_growth_of_the_last_minute_forgets_what_came_before() {
        let (mut minute, begin) = (LastMinute::default(), Instant::now());
        assert_eq!(minute.growth(), 0);
        for (second, count) in [(0, 0), (10, 7), (50, 9), (70, 10), (130, 10)] {
            minute.note(count, begin + Duration::from_secs(second));
        }
        assert_eq!(minute.growth(), 0);
    }

    #[test]
    fn the_average_follows_the_window_and_falls_to_zero() {
        let (mut rates, begin, partition) = (Rates::default(), Instant::now(), ("orders".to_string(), 0));
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..=10 {
            rates.note(&partition, second as i64 * 100, at(second));
            if second == 0 {
                assert_eq!(rates.of(&partition, at(0)), None, "unknown is not 0");
            }
        }
        assert_eq!(rates.of(&partition, at(10)).unwrap().round(), 100.0);
        for second in 11..=20 {
            rates.note(&partition, 1000, at(second));
        }
        assert_eq!(rates.of(&partition, at(20)), Some(0.0));
        assert_eq!(rates.position(&partition), Some(1000));
    }

    #[test]
    fn a_new_worker_with_a_lower_position_causes_no_negative_rate() {
        let (mut rates, begin, partition) = (Rates::default(), Instant::now(), ("orders".to_string(), 0));
        rates.note(&partition, 500, begin);
        rates.note(&partition, 300, begin + Duration::from_secs(1));
        assert_eq!(rates.of(&partition, begin + Duration::from_secs(2)), Some(0.0));
    }
}
