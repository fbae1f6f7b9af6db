//! The breaker of one partition: says when so many records fail that the cause is not the records, before all of them
//! are in the dead letter topic. In: what becomes of the partition's records, in order. Out: whether the next failed one may
//! still be written. Pure; it never waits, never counts a record that was refused, and knows no clock.
//!
//! After Sentry's `DlqLimit`: a limit on failures in a row, which finds a sudden and complete breakage, and one on their
//! share, which finds a partial one.

use std::{collections::VecDeque, fmt};

/// The share is that of the last records; so many that it stands for the stream and not for one batch of it.
const WINDOW: u64 = 10_000;
/// Fewer records have no share worth the name.
const SHARE_FROM: u64 = 100;

/// `errorHandling.deadLetter.breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most failed records in a row.
    pub consecutive: u64,
    /// Most failed records of the last 10,000, in percent.
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

/// Counts of one partition under one assignment.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    consecutive: u64,
    /// Records seen, which number the records.
    seen: u64,
    /// Numbers of the failed ones among the last `WINDOW`, ascending. No longer than the limit allows.
    failed: VecDeque<u64>,
}

impl Breaker {
    /// Closed, with nothing seen.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            consecutive: 0,
            seen: 0,
            failed: VecDeque::new(),
        }
    }

    /// This many records were processed.
    pub fn passed(&mut self, records: u64) {
        if records > 0 {
            self.consecutive = 0;
            self.advance(records);
        }
    }

    /// A record failed. An error, and nothing changes, when it would be one too many.
    pub fn failed(&mut self) -> Result<(), Exceeded> {
        if self.consecutive >= self.limits.consecutive {
            return Err(Exceeded::Consecutive(self.limits.consecutive));
        }
        let records = (self.seen + 1).min(WINDOW);
        // With this record in it, the window leaves out at most the oldest failure.
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

    /// Forgets everything: the record that was refused has passed.
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
    fn as_many_in_a_row_as_allowed_are_taken_and_the_next_is_refused_until_one_passes() {
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
    fn the_share_is_judged_from_a_hundred_records_on() {
        let mut breaker = breaker(1000, 50);
        for _ in 0..99 {
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(50)));
    }

    #[test]
    fn half_and_half_is_no_more_than_half() {
        let mut breaker = breaker(1000, 50);
        for _ in 0..20_000 {
            breaker.passed(1);
            assert_eq!(breaker.failed(), Ok(()));
        }
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(50)));
    }

    #[test]
    fn what_is_long_past_does_not_count() {
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
    fn a_closed_breaker_begins_anew() {
        let mut breaker = breaker(1000, 1);
        breaker.passed(99);
        assert_eq!(breaker.failed(), Ok(()));
        assert_eq!(breaker.failed(), Err(Exceeded::Percent(1)));
        breaker.close();
        assert_eq!(breaker.failed(), Ok(()));
    }

    proptest! {
        /// Against a list of everything that happened, in any order of runs of both kinds.
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
                    // So that the next run of failures is a row of its own.
                    breaker.passed(1);
                    before.push(before[before.len() - 1]);
                }
            }
        }
    }
}
