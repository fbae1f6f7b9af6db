//! When to report. Pure. In: the time and the entry. Out: whether to report now.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use crds::status::WorkerStatus;
use tokio::time::Instant;

/// An idle worker reports this often. If its entry is older than twice this, the operator may report the
/// worker as silent.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Decides when the entry is sent: at once after joining, once per interval if it changed, and as a
/// heartbeat.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    started: Instant,
    last_try: Option<Instant>,
    sent: Option<WorkerStatus>,
}

impl Schedule {
    /// Lengthens `interval` by up to 20 %, differently for each worker, so that workers that start together
    /// do not report together.
    pub fn new(interval: Duration, started: Instant) -> Self {
        let spread = RandomState::new().build_hasher().finish() % 200;
        Self {
            interval: interval.mul_f64(1.0 + spread as f64 / 1000.0),
            started,
            last_try: None,
            sent: None,
        }
    }

    /// Whether to report `entry` at `now`.
    pub fn is_due(&self, entry: &WorkerStatus, joined: bool, now: Instant) -> bool {
        let Some(last_try) = self.last_try else {
            // A worker that cannot join has an error to report, but joining takes a moment.
            return joined || now - self.started >= self.interval;
        };
        let waited = now - last_try;
        let changed = self.sent.as_ref() != Some(entry);
        waited >= self.interval && (changed || waited >= HEARTBEAT)
    }

    /// A report was tried; `sent` is its entry if it succeeded.
    pub fn tried(&mut self, sent: Option<WorkerStatus>, now: Instant) {
        self.last_try = Some(now);
        if sent.is_some() {
            self.sent = sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn entry(records: i64) -> WorkerStatus {
        WorkerStatus {
            records_total: records,
            ..WorkerStatus::default()
        }
    }

    #[test]
    fn the_first_report_follows_joining_at_once() {
        let start = Instant::now();
        let schedule = Schedule::new(INTERVAL, start);
        assert!(!schedule.is_due(&entry(0), false, start));
        assert!(schedule.is_due(&entry(0), true, start));
    }

    #[test]
    fn a_worker_that_cannot_join_reports_after_an_interval() {
        let start = Instant::now();
        assert!(Schedule::new(INTERVAL, start).is_due(&entry(0), false, start + INTERVAL * 2));
    }

    #[test]
    fn changes_are_coalesced_to_one_report_per_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        schedule.tried(Some(entry(1)), start);
        assert!(!schedule.is_due(&entry(2), true, start + INTERVAL / 2));
        assert!(schedule.is_due(&entry(2), true, start + INTERVAL.mul_f64(1.2)));
        assert!(!schedule.is_due(&entry(1), true, start + INTERVAL.mul_f64(1.2)));
    }

    #[test]
    fn an_idle_worker_reports_every_minute() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        schedule.tried(Some(entry(1)), start);
        assert!(!schedule.is_due(&entry(1), true, start + HEARTBEAT - Duration::from_secs(1)));
        assert!(schedule.is_due(&entry(1), true, start + HEARTBEAT));
    }

    #[test]
    fn a_report_that_failed_is_repeated_after_an_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        schedule.tried(None, start);
        assert!(!schedule.is_due(&entry(1), true, start + Duration::from_secs(1)));
        assert!(schedule.is_due(&entry(1), true, start + INTERVAL.mul_f64(1.2)));
    }
}
