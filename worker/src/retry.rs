//! Retries: how long to wait before the next attempt (exponential backoff with jitter), which failures are
//! logged, and when a failing system counts as unavailable. Pure; the caller sleeps.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// A system that fails for this long counts as unavailable: status shows the partitions that wait for it as
/// paused. Long enough for a reconnect or a leader change, which are not reported. Short against the 30 s
/// within which status must report an outage.
pub(crate) const UNAVAILABLE_AFTER: Duration = Duration::from_secs(5);

/// Whether the `attempt`-th failure in a row (1 is the first) is logged: the 1st, 2nd, 4th, 8th and so on.
/// The first failure is in the log at once, and an outage of hours leaves a few lines instead of thousands.
pub(crate) fn is_logged(attempt: u32) -> bool {
    attempt.is_power_of_two()
}

/// `spec.errorHandling.retry`, as durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of attempts for a record that its writer rejects as retryable.
    pub max_attempts: u32,
    /// Wait after the first failure.
    pub initial: Duration,
    /// Maximum wait.
    pub max: Duration,
    /// Jitter of a wait in percent of it, 0 to 100; never beyond `max`.
    pub jitter_percent: u32,
}

impl RetryPolicy {
    /// The wait after the `attempt`-th failure (1 is the first), never longer than `max`. `random` is in
    /// 0..1. It selects a wait from `jitter_percent` below the plain exponential value to `jitter_percent`
    /// above it or `max`, whichever is less. So the longest waits differ too, downwards. If they were cut off
    /// at `max`, most of them would be equal, and all workers would retry at the same time.
    pub fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let plain = self.initial.saturating_mul(1 << doublings).min(self.max);
        let jitter = f64::from(self.jitter_percent) / 100.0;
        let shortest = plain.mul_f64((1.0 - jitter).max(0.0));
        let longest = plain.mul_f64(1.0 + jitter).min(self.max);
        // The last `min` corrects rounding.
        (shortest + longest.saturating_sub(shortest).mul_f64(random)).min(self.max)
    }

    /// [`RetryPolicy::backoff`] with a new random number.
    pub fn random_backoff(&self, attempt: u32) -> Duration {
        self.backoff(attempt, random())
    }

    /// The wait after the `attempt`-th failure of a system. A user must fix a `systemic` failure, so its
    /// waits start as long as those after a third failure.
    pub fn outage_backoff(&self, attempt: u32, systemic: bool) -> Duration {
        self.random_backoff(if systemic { attempt.max(3) } else { attempt })
    }
}

/// A number in 0..1. The standard library's hasher keys are random enough to spread retries of many workers.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 5,
            initial: Duration::from_millis(200),
            max: Duration::from_secs(30),
            jitter_percent: 20,
        }
    }

    #[test]
    fn the_1st_2nd_4th_and_8th_failure_is_logged() {
        let logged: Vec<u32> = (0..=20).filter(|attempt| is_logged(*attempt)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let policy = RetryPolicy {
            jitter_percent: 0,
            ..policy()
        };
        let waits = [1, 2, 3, 8, 9, 100].map(|n| policy.backoff(n, 0.9).as_millis());
        assert_eq!(waits, [200, 400, 800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn jitter_stays_within_its_percentage() {
        let ends = |n| [0.0, 0.5, 1.0].map(|random| policy().backoff(n, random).as_millis());
        assert_eq!(ends(1), [160, 200, 240]);
        assert_eq!(ends(7), [10_240, 12_800, 15_360]);
        // Not up to 30,720.
        assert_eq!(ends(8), [20_480, 25_240, 30_000]);
        assert_eq!(ends(9), [24_000, 27_000, 30_000]);
        for _ in 0..1000 {
            let wait = policy().random_backoff(1);
            assert!((160..=240).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    #[test]
    fn the_longest_waits_of_many_workers_differ() {
        let waits: HashSet<Duration> = (0..1000).map(|_| policy().random_backoff(100)).collect();
        assert!(waits.len() > 990, "only {} different waits", waits.len());
        let under = |seconds| waits.iter().filter(|wait| wait.as_secs() < seconds).count();
        assert_eq!(under(24), 0);
        // A third each is expected.
        for (from, to) in [(24, 26), (26, 28), (28, 30)] {
            let share = under(to) - under(from);
            assert!(
                (230..440).contains(&share),
                "{share} waits from {from} s to {to} s"
            );
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_maximum_and_the_jitter_goes_down_from_it(
            initial in 1..=60_000_u64,
            max in 1..=3600_u64,
            jitter_percent in 0..=100_u32,
            attempt in 0..200_u32,
            random in 0.0..1.0_f64,
        ) {
            let policy = RetryPolicy {
                max_attempts: 5,
                initial: Duration::from_millis(initial),
                max: Duration::from_secs(max),
                jitter_percent,
            };
            for random in [0.0, random, 1.0] {
                prop_assert!(policy.backoff(attempt, random) <= policy.max);
            }
            // After this many failures, every policy is at its maximum.
            prop_assert_eq!(policy.backoff(u32::MAX, 1.0), policy.max);
            prop_assert_eq!(policy.backoff(u32::MAX, 0.0), policy.max * (100 - jitter_percent) / 100);
        }
    }
}
