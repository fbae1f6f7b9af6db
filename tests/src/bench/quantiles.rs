//! The distribution of a few durations. Pure.

use std::{fmt, time::Duration};

/// Seconds, by the nearest rank: every value is one that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub trials: usize,
}

impl Quantiles {
    /// All zero without durations.
    pub fn of(durations: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p99: at(99),
            max: at(100),
            trials: sorted.len(),
        }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.2} s, p99 {:.2} s, max {:.2} s",
            self.p50, self.p99, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let durations: Vec<Duration> = (1..=200).rev().map(Duration::from_secs).collect();
        let quantiles = Quantiles::of(&durations);
        let expected = Quantiles {
            p50: 100.0,
            p99: 198.0,
            max: 200.0,
            trials: 200,
        };
        assert_eq!(quantiles, expected);
        let one = Quantiles::of(&durations[..1]);
        assert_eq!((one.p50, one.p99, one.max), (200.0, 200.0, 200.0));
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }
}
