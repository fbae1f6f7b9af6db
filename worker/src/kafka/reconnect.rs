//! Decides when to give a Kafka client its bootstrap servers again. In: librdkafka's report that all brokers
//! are down. Out: whether it is time. Pure; the caller asks once per [`INTERVAL`] and makes the call.
//!
//! A broker that is starting may answer with an empty list of brokers. librdkafka 2.12 then forgets all
//! brokers and uses a timer to start again from `bootstrap.servers`. If another answer arrives at that
//! moment, it stops the timer, and the client never reconnects. Each reminder costs memory that is freed only
//! with the client, and for a while a thread, so a client that has brokers gets none.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Time between two reminders.
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);

/// Reminders after the last report that all brokers are down, or after the client was created: enough for ten
/// minutes. librdkafka repeats the report as long as the brokers are down.
const TIMES: u32 = 20;

/// Counts the reminders that a client may still get.
#[derive(Debug)]
pub(crate) struct BootstrapReminder {
    left: AtomicU32,
}

impl Default for BootstrapReminder {
    fn default() -> Self {
        Self {
            left: AtomicU32::new(TIMES),
        }
    }
}

impl BootstrapReminder {
    /// librdkafka reports that all brokers are down.
    pub fn brokers_down(&self) {
        self.left.store(TIMES, Ordering::Relaxed);
    }

    /// True if the client should get its bootstrap servers now. Counts as a reminder.
    pub fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_stop_until_all_brokers_are_reported_down_again() {
        let reminders = BootstrapReminder::default();
        let taken = || {
            std::iter::repeat_with(|| reminders.take())
                .take_while(|due| *due)
                .count()
        };
        assert_eq!(taken(), 20);
        assert_eq!(taken(), 0);
        reminders.brokers_down();
        reminders.brokers_down();
        assert_eq!(taken(), 20);
    }
}
