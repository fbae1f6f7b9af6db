//! How fast a replay is. In: how much is processed at each look. Out: offsets per second over the last minute, and
//! when it will end at that rate. Unknown until two looks differ in time. Pure: the caller reads the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The window.
const WINDOW: Duration = Duration::from_secs(60);
/// Two looks that are closer together say nothing.
const SHORTEST: Duration = Duration::from_secs(2);

/// Looks of the last minute, and one before.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    looks: VecDeque<(Instant, i64)>,
}

impl Rate {
    /// Takes in a look.
    pub fn add(&mut self, at: Instant, processed: i64) {
        self.looks.push_back((at, processed));
        while let Some((second, _)) = self.looks.get(1)
            && at.duration_since(*second) >= WINDOW
        {
            self.looks.pop_front();
        }
    }

    /// None: unknown.
    pub fn per_second(&self) -> Option<f64> {
        let ((first, before), (last, now)) = (self.looks.front()?, self.looks.back()?);
        let time = last.duration_since(*first);
        let processed = now.checked_sub(*before).filter(|processed| *processed >= 0)?;
        (time >= SHORTEST).then(|| processed as f64 / time.as_secs_f64())
    }

    /// Time until `left` offsets are processed. None: unknown, also while nothing is processed.
    pub fn time_for(&self, left: i64) -> Option<Duration> {
        let rate = self.per_second().filter(|rate| *rate > 0.0)?;
        // Longer than a year is no estimate.
        let seconds = left.max(0) as f64 / rate;
        (seconds < 31_536_000.0).then(|| Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[(u64, i64)]) -> Rate {
        let start = Instant::now();
        let mut rate = Rate::default();
        for (seconds, processed) in looks {
            rate.add(start + Duration::from_secs(*seconds), *processed);
        }
        rate
    }

    #[test]
    fn one_look_or_none_is_no_rate() {
        assert_eq!(after(&[]).per_second(), None);
        assert_eq!(after(&[(0, 100)]).per_second(), None);
        assert_eq!(after(&[(0, 100), (1, 200)]).per_second(), None);
        assert_eq!(after(&[(0, 0), (5, 50)]).per_second(), Some(10.0));
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let rate = after(&[(0, 0), (10, 10_000), (70, 10_060), (75, 10_065)]);
        assert_eq!(rate.per_second(), Some(1.0));
        assert_eq!(rate.looks.len(), 3);
    }

    #[test]
    fn an_estimate_needs_progress() {
        assert_eq!(after(&[(0, 7), (10, 7)]).time_for(5), None);
        assert_eq!(
            after(&[(0, 0), (10, 20)]).time_for(30),
            Some(Duration::from_secs(15))
        );
        assert_eq!(after(&[(0, 0), (10, 20)]).time_for(0), Some(Duration::ZERO));
        assert_eq!(after(&[(0, 0), (10, 1)]).time_for(i64::MAX), None);
        // Offsets that somebody has set back.
        assert_eq!(after(&[(0, 20), (10, 5)]).time_for(5), None);
    }
}
