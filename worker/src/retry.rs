//! How long to wait before the next attempt: exponential backoff with jitter. Pure; the caller sleeps.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// `spec.errorHandling.retry`, as durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts for one record that its writer refuses in a way that may pass.
    pub max_attempts: u32,
    /// First wait.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
    /// How much a wait is varied, in percent of it, 0 to 100.
    pub jitter_percent: u32,
}

impl RetryPolicy {
    /// The wait after the `attempt`-th failure (1 is the first). `random` is in 0..1: 0.5 is the plain exponential
    /// value, the ends are `jitter_percent` below and above it.
    pub fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let plain = self.initial.saturating_mul(1 << doublings).min(self.max);
        let factor = 1.0 + f64::from(self.jitter_percent) / 100.0 * (random * 2.0 - 1.0);
        plain.mul_f64(factor.max(0.0))
    }

    /// [`RetryPolicy::backoff`] with a random number of its own.
    pub fn random_backoff(&self, attempt: u32) -> Duration {
        self.backoff(attempt, random())
    }

    /// The wait after the `attempt`-th failure of a system. Somebody must mend a `systemic` one, so there is no use in hurrying.
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
    fn waits_double_up_to_the_maximum() {
        let waits: Vec<u128> = [1, 2, 3, 8, 9, 100]
            .map(|n| policy().backoff(n, 0.5).as_millis())
            .into();
        assert_eq!(waits, [200, 400, 800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn jitter_stays_within_its_percentage() {
        assert_eq!(policy().backoff(1, 0.0), Duration::from_millis(160));
        assert_eq!(policy().backoff(1, 1.0), Duration::from_millis(240));
        for _ in 0..1000 {
            let wait = policy().random_backoff(1);
            assert!((160..=240).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
