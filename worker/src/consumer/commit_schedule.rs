//! When the next commit is due. Pure: time comes in as a value.

use std::time::{Duration, Instant};

/// Time between two commits while the coordinator refuses them because the group rebalances: a fraction of
/// the time that a rebalance takes.
pub(super) const COMMIT_RETRY: Duration = Duration::from_millis(100);

/// When to commit without transactions: one commit at a time.
pub(super) struct CommitSchedule {
    /// A commit is in flight; the next waits for its answer.
    pub running: bool,
    /// The coordinator refused the last one.
    pub refused: bool,
    last: Instant,
}

impl CommitSchedule {
    pub fn new(now: Instant) -> Self {
        Self {
            running: false,
            refused: false,
            last: now,
        }
    }

    /// True when a commit may start, at most once per `interval`. With `urgent`, records wait for the commit
    /// (AtMostOnce): it starts at once, or after a short pause if the coordinator refused the last one.
    pub fn take_due(&mut self, now: Instant, interval: Duration, urgent: bool) -> bool {
        if self.running {
            return false;
        }
        let interval = if !urgent {
            interval
        } else if self.refused {
            COMMIT_RETRY
        } else {
            Duration::ZERO
        };
        let due = now.duration_since(self.last) >= interval;
        if due {
            self.last = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn commits_are_an_interval_apart_and_wait_for_the_answer_to_the_last() {
        let start = Instant::now();
        let mut schedule = CommitSchedule::new(start);
        assert!(!schedule.take_due(start, INTERVAL, false));
        assert!(schedule.take_due(start + INTERVAL, INTERVAL, false));
        assert!(!schedule.take_due(start + INTERVAL, INTERVAL, false));
        schedule.running = true;
        assert!(!schedule.take_due(start + INTERVAL * 9, INTERVAL, true));
    }

    #[test]
    fn an_urgent_commit_starts_at_once_and_pauses_only_after_a_refusal() {
        let start = Instant::now();
        let mut schedule = CommitSchedule::new(start);
        assert!(schedule.take_due(start, INTERVAL, true));
        schedule.refused = true;
        assert!(!schedule.take_due(start, INTERVAL, true));
        assert!(schedule.take_due(start + COMMIT_RETRY, INTERVAL, true));
    }
}
