//! `processing.recordsPerSecond`: how many records the poll thread may read now. A token bucket that fills at
//! the rate, holds the records of one second and starts empty, so that the loop never reads more than that at
//! once, even after a pause or a restart. Pure: time comes in as a value, and the caller never waits here.

use std::time::{Duration, Instant};

/// One record, in the unit of the bucket: nanoseconds times records per second.
const RECORD: u64 = 1_000_000_000;
/// The limiter releases records in lots: this many lots make up one second. Single records would make chunks
/// of one record.
const LOTS_PER_SECOND: u64 = 50;

/// A limit on the records read.
#[derive(Debug)]
pub struct RateLimiter {
    per_second: u64,
    /// At most the records of one second: 10^16 at the highest rate.
    filled: u64,
    at: Instant,
}

impl RateLimiter {
    /// A bucket that is empty at `now`.
    pub fn new(per_second: u64, now: Instant) -> Self {
        Self {
            per_second,
            filled: 0,
            at: now,
        }
    }

    /// How many records may be read at `now`; 0 until there are enough for a lot.
    pub fn available(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.at).min(Duration::from_secs(1));
        self.at = self.at.max(now);
        let added = passed.as_nanos() as u64 * self.per_second;
        self.filled = (self.filled + added).min(self.per_second * RECORD);
        let records = self.filled / RECORD;
        if records < (self.per_second / LOTS_PER_SECOND).max(1) {
            return 0;
        }
        records as usize
    }

    /// Takes the records that were read, at most as many as were available.
    pub fn take(&mut self, records: usize) {
        self.filled = self.filled.saturating_sub(records as u64 * RECORD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(20);

    #[test]
    fn it_starts_empty_and_holds_one_second() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(500, start);
        assert_eq!(rate_limiter.available(start), 0);
        assert_eq!(rate_limiter.available(start + Duration::from_millis(100)), 50);
        assert_eq!(rate_limiter.available(start + Duration::from_secs(3600)), 500);
        rate_limiter.take(480);
        assert_eq!(rate_limiter.available(start + Duration::from_secs(3600)), 20);
        rate_limiter.take(15);
        // Less than a lot, which is 10 records.
        assert_eq!(rate_limiter.available(start + Duration::from_secs(3600)), 0);
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_records_available() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate_limiter = RateLimiter::new(10, start);
        assert_eq!(rate_limiter.available(start - Duration::from_secs(5)), 0);
        assert_eq!(rate_limiter.available(start), 0);
        assert_eq!(rate_limiter.available(start + Duration::from_secs(1)), 10);
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(1, start);
        let mut read = 0;
        for tick in 0..=1000 {
            let available = rate_limiter.available(start + TICK * tick);
            read += available;
            rate_limiter.take(available);
        }
        assert_eq!(read, 20);
    }

    proptest! {
        /// In any stretch of time, the limiter releases at most the records of one second plus the rate times
        /// that stretch. A caller that takes everything at every tick gets the whole rate, except the last
        /// lot.
        #[test]
        fn it_allows_the_rate_and_never_more(
            per_second in 1_u64..=10_000_000,
            steps in prop::collection::vec((0_u64..3_000_000_000, 0_usize..=100), 1..60),
        ) {
            let start = Instant::now();
            let mut rate_limiter = RateLimiter::new(per_second, start);
            let mut nanos = 0_u64;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (step, percent) in steps {
                nanos += step;
                let available = rate_limiter.available(start + Duration::from_nanos(nanos));
                prop_assert!(available as u64 <= per_second);
                let records = available * percent / 100;
                rate_limiter.take(records);
                taken.push((nanos, records as u64));
            }
            for from in 0..taken.len() {
                let mut sum = 0_u128;
                for (at, records) in &taken[from..] {
                    sum += u128::from(*records);
                    let stretch = u128::from(at - taken[from].0) + u128::from(RECORD);
                    prop_assert!(sum * u128::from(RECORD) <= u128::from(per_second) * stretch);
                }
            }

            let mut rate_limiter = RateLimiter::new(per_second, start);
            let mut read = 0_u64;
            for tick in 1..=500 {
                let available = rate_limiter.available(start + TICK * tick);
                rate_limiter.take(available);
                read += available as u64;
            }
            prop_assert!(read <= per_second * 10);
            prop_assert!(read + (per_second / LOTS_PER_SECOND).max(1) >= per_second * 10);
        }
    }
}
