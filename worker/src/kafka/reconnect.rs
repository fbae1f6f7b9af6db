//! When a Kafka client is to be reminded of its first brokers. In: that all of them are down. Out: whether it is time. Pure;
//! the caller asks once per [`INTERVAL`] and makes the call.
//!
//! A broker that is starting may answer that there are none; librdkafka 2.12 then forgets all, and begins again with those of
//! `bootstrap.servers` by a timer. Another answer that arrives just then stops that timer, and it never connects again. Each
//! reminder costs memory that is freed only with the client, and a thread for a while, so a client that has brokers gets none.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Between two reminders.
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);

/// BootstrapReminder since the brokers were last told to be down, or since the client was made: for ten minutes. They are told so again
/// as long as they are.
const TIMES: u32 = 20;

/// See the module.
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
    /// librdkafka says that all brokers are down.
    pub fn brokers_down(&self) {
        self.left.store(TIMES, Ordering::Relaxed);
    }

    /// True when it is time for one.
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
    fn a_client_is_reminded_for_a_while_after_its_brokers_were_down_and_then_no_more() {
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
