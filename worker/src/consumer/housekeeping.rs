//! When the poll loop does what is not needed every turn. Pure: time comes in as a value.

use std::time::{Duration, Instant};

use crate::kafka::reconnect::{self, BootstrapReminder};

/// How often the loop pauses and resumes partitions, and publishes the snapshot.
const INTERVAL: Duration = Duration::from_millis(250);

/// How often a member whose partitions the broker assigns sends a heartbeat, like a member of a classic group.
/// The broker asks for one every 5 s by default, and the partitions of a dead worker stand still until then.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often the markers of parked partitions are committed again. A coordinator may remove the offsets of a
/// deleted topic after the worker has learned of the new topic and has committed its marker.
const MARKERS: Duration = Duration::from_secs(30);

/// The times of the last housekeeping.
pub(super) struct Housekeeping {
    last: Instant,
    last_reminder: Instant,
    last_heartbeat: Instant,
    last_markers: Instant,
    /// Decides whether the client needs its bootstrap servers again.
    pub reminder: BootstrapReminder,
}

impl Housekeeping {
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            last_reminder: now,
            last_heartbeat: now,
            last_markers: now,
            reminder: BootstrapReminder::default(),
        }
    }

    /// True once per interval.
    pub fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= INTERVAL
    }

    /// Records that housekeeping starts now; the next is due an interval later.
    pub fn started(&mut self, now: Instant) {
        self.last = now;
    }

    /// True once per [`HEARTBEAT`].
    pub fn take_heartbeat(&mut self, now: Instant) -> bool {
        take(&mut self.last_heartbeat, now, HEARTBEAT)
    }

    /// True once per [`MARKERS`].
    pub fn take_markers(&mut self, now: Instant) -> bool {
        take(&mut self.last_markers, now, MARKERS)
    }

    /// True when the client needs its bootstrap servers again.
    pub fn take_reminder(&mut self, now: Instant) -> bool {
        take(&mut self.last_reminder, now, reconnect::INTERVAL) && self.reminder.take()
    }
}

/// True once per interval.
fn take(last: &mut Instant, now: Instant, interval: Duration) -> bool {
    let due = now.duration_since(*last) >= interval;
    if due {
        *last = now;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn housekeeping_is_due_an_interval_after_the_last() {
        let start = Instant::now();
        let mut housekeeping = Housekeeping::new(start);
        assert!(!housekeeping.is_due(start));
        assert!(housekeeping.is_due(start + INTERVAL));
        housekeeping.started(start + INTERVAL);
        assert!(!housekeeping.is_due(start + INTERVAL));
    }

    #[test]
    fn heartbeats_and_markers_are_taken_once_per_interval() {
        let start = Instant::now();
        let mut housekeeping = Housekeeping::new(start);
        assert!(!housekeeping.take_heartbeat(start));
        assert!(housekeeping.take_heartbeat(start + HEARTBEAT));
        assert!(!housekeeping.take_heartbeat(start + HEARTBEAT));
        assert!(!housekeeping.take_markers(start + HEARTBEAT));
        assert!(housekeeping.take_markers(start + MARKERS));
        assert!(!housekeeping.take_markers(start + MARKERS));
    }

    #[test]
    fn a_reminder_is_taken_at_most_once_per_reminder_interval() {
        let start = Instant::now();
        let mut housekeeping = Housekeeping::new(start);
        assert!(!housekeeping.take_reminder(start));
        assert!(housekeeping.take_reminder(start + reconnect::INTERVAL));
        assert!(!housekeeping.take_reminder(start + reconnect::INTERVAL));
    }
}
