//! How many records one read may take. The bounds are `recordsPerSecond` and memory, estimated from the size
//! of the records of the last read. Pure: time comes in as a value.

use std::time::Instant;

use super::rate_limit::RateLimiter;

/// Expected record size before the first record: a large one.
const EXPECTED_BYTES: usize = 64 << 10;

/// The pace of reading.
pub(super) struct ReadPace {
    rate_limiter: Option<RateLimiter>,
    /// Mean size of the records of the last read.
    record_bytes: usize,
}

impl ReadPace {
    /// At most `records_per_second`; without it, as fast as memory allows.
    pub fn new(records_per_second: Option<u64>, now: Instant) -> Self {
        Self {
            rate_limiter: records_per_second.map(|limit| RateLimiter::new(limit, now)),
            record_bytes: EXPECTED_BYTES,
        }
    }

    /// Records that the rate allows now.
    pub fn available(&mut self, now: Instant) -> usize {
        match &mut self.rate_limiter {
            Some(limiter) => limiter.available(now),
            None => usize::MAX,
        }
    }

    /// At most `limit` records, and no more than fit into `budget` bytes, but always at least one.
    pub fn fitting(&self, limit: usize, budget: usize) -> usize {
        limit.min((budget / self.record_bytes.max(1)).max(1))
    }

    /// A read has returned this many records, with this many bytes in total. Those that are `outside` of a bounded
    /// run do not count against the rate.
    pub fn took(&mut self, records: usize, bytes: usize, outside: usize) {
        if let Some(mean) = bytes.checked_div(records) {
            self.record_bytes = mean;
        }
        if let Some(limiter) = &mut self.rate_limiter {
            limiter.take(records - outside.min(records));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_what_fits_into_memory_and_at_least_one_record() {
        let mut pace = ReadPace::new(None, Instant::now());
        assert_eq!(pace.available(Instant::now()), usize::MAX);
        assert_eq!(pace.fitting(1000, 10 * EXPECTED_BYTES), 10);
        pace.took(4, 400, 0);
        assert_eq!(pace.fitting(1000, 5000), 50);
        assert_eq!(pace.fitting(7, 5000), 7);
        assert_eq!(pace.fitting(1000, 1), 1);
        pace.took(0, 0, 0);
        assert_eq!(
            pace.fitting(1000, 5000),
            50,
            "an empty read says nothing about the size"
        );
    }
}
