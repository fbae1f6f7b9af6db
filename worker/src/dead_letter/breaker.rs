//! The dead letter breaker of one partition. It opens when too many records fail for the records to be the
//! cause, before all of them are in the dead letter topic. In: the results of the partition's records, in
//! order. Out: whether the next failed record may be written. Pure; it never waits, never counts a refused
//! record, and knows no clock.
//!
//! The limits follow Sentry's `DlqLimit`: one on consecutive failures, which detects a sudden complete
//! failure, and one on the share of failures, which detects a partial failure.

use std::{collections::VecDeque, fmt};

/// The share is that of the last records: this many, so that it represents the stream and not one batch.
const WINDOW: u64 = 10_000;
/// Minimum number of records to compute a share.
const SHARE_FROM: u64 = 100;

/// `errorHandling.deadLetter.breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of consecutive failed records.
    pub consecutive: u64,
    /// Maximum share of failed records among the last 10,000, in percent.
    pub percent: u64,
}

/// The limit that the next failed record would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Failures in a row.
    Consecutive(u64),
    /// Failures in percent.
    Percent(u64),
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(limit) => write!(f, "more than {limit} records in a row failed"),
            Self::Percent(limit) => write!(f, "more than {limit} % of the last records failed"),
        }
    }
}

/// Counts the records of one partition in one assignment.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    consecutive: u64,
    /// Number of records so far, which is the number of the next record.
    seen: u64,
    /// Numbers of the failed records among the last `WINDOW`, ascending. No longer than the limit allows.
    failed: VecDeque<u64>,
}

impl Breaker {
    /// A closed breaker without any counts.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            consecutive: 0,
            seen: 0,
            failed: VecDeque::new(),
        }
    }

    /// This many records did not fail.
    pub fn passed(&mut self, records: u64) {
        if records > 0 {
            self.consecutive = 0;
            self.advance(records);
        }
    }

    /// A record failed. Returns an error and changes nothing if the record would exceed a limit.
    pub fn failed(&mut self) -> Result<(), Exceeded> {
        if self.consecutive >= self.limits.consecutive {
            return Err(Exceeded::Consecutive(self.limits.consecutive));
        }
        let records = (self.seen + 1).min(WINDOW);
        // When this record enters the window, at most the oldest failure leaves it.
        let first = self.seen + 1 - records;
        let gone = self.failed.front().is_some_and(|number| *number < first);
        let failures = 1 + self.failed.len() as u64 - u64::from(gone);
        if records >= SHARE_FROM && failures * 100 > self.limits.percent * records {
            return Err(Exceeded::Percent(self.limits.percent));
        }
        self.consecutive += 1;
        self.failed.push_back(self.seen);
        self.advance(1);
        Ok(())
    }

    /// The refused record was processed: resets all counts.
    pub fn close(&mut self) {
        *self = Self::new(self.limits);
    }

    fn advance(&mut self, records: u64) {
        self.seen += records;
        let first = self.seen.saturating_sub(WINDOW);
        while self.failed.front().is_some_and(|number| *number < first) {
            self.failed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn breaker(consecutive: u64, percent: u64) -> Breaker {
        Breaker::new(Limits { consecutive, percent })
    }

    #[test]
    fn the_allowed_consecutive_failures_pass_and_the_next_is_refused_until_a_record_succeeds() {
        let mut breaker = breaker(3, 100);
        for _ in 0..3 {
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Consecutive(3)));
        assert_eq!(breaker.failed(), Err(Exceeded::Consecutive(3)));
        breaker.passed(1);
        assert_eq!(breaker.failed(), Ok(()));
    }

    #[test]
    fn the_share_counts_from_a_hundred_records() {
        let mut breaker = breaker(1000, 50);
        for _ in 0..99 {
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(50)));
    }

    #[test]
    fn exactly_half_does_not_exceed_half() {
        let mut breaker = breaker(1000, 50);
        for _ in 0..20_000 {
            breaker.passed(1);
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(50)));
    }

    #[test]
    fn failures_before_the_window_do_not_count() {
        let mut breaker = breaker(1000, 10);
        breaker.passed(10_000);
        for _ in 0..1000 {
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Consecutive(1000)));
        breaker.passed(1);
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(10)));
        breaker.passed(8_999);
        assert_eq!(breaker.failed(), Ok(()));
    }

    #[test]
    fn a_closed_breaker_starts_from_zero() {
        let mut breaker = breaker(1000, 1);
        breaker.passed(99);
        assert_eq!(breaker.failed(), Ok(()));
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(1)));
        breaker.close();
        assert_eq!(breaker.failed(), Ok(()));
    }

    proptest! {
        /// Compares with a list of all events, for runs of successes and failures in any order.
        #[test]
        fn it_refuses_exactly_the_record_that_would_exceed_a_limit(
            consecutive in 1_u64..400,
            percent in 1_u64..=100,
            runs in prop::collection::vec((any::<bool>(), 1_u64..3_000), 1..30),
        ) {
            let mut breaker = breaker(consecutive, percent);
            // Failures before each record, and after the last.
            let mut before: Vec<u64> = vec![0];
            for (passes, length) in runs {
                let mut in_a_row = 0;
                for _ in 0..length {
                    let so_far = before[before.len() - 1];
                    if passes {
                        before.push(so_far);
                        continue;
                    }
                    let last = before.len().saturating_sub(WINDOW as usize);
                    let records = (before.len() - last) as u64;
                    let failures = so_far - before[last] + 1;
                    let expected = if in_a_row >= consecutive {
                        Err(Exceeded::Consecutive(consecutive))
                    } else if records >= SHARE_FROM && failures * 100 > percent * records {
                        Err(Exceeded::Percent(percent))
                    } else {
                        Ok(())
                    };
                    prop_assert_eq!(breaker.failed(), expected);
                    if expected.is_err() {
                        break;
                    }
                    before.push(so_far + 1);
                    in_a_row += 1;
                    prop_assert!(breaker.failed.len() as u64 <= WINDOW);
                }
                if passes {
                    breaker.passed(length);
                } else {
                    // So that the next run of failures is counted separately.
                    breaker.passed(1);
                    before.push(before[before.len() - 1]);
                }
            }
        }
    }
}
