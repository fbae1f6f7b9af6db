//! Errors of the consumer: status shows the last one. The log shows each error at a bounded rate, because
//! librdkafka repeats some of them every second.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::health::problems::truncate;

/// The log shows the same error at most this often.
const INTERVAL: Duration = Duration::from_secs(30);

/// Errors of the poll loop itself, not of records.
#[derive(Default)]
pub(super) struct ErrorLog {
    last: Option<String>,
    logged: Vec<(String, Instant)>,
}

impl ErrorLog {
    /// Keeps the error for status, and logs it unless the log has shown it within the last 30 s.
    pub fn note(&mut self, error: &str) {
        self.last = Some(format!("{} at {}", truncate(error), Timestamp::now()));
        if self.is_news(error, Instant::now()) {
            tracing::warn!("{error}");
        }
    }

    /// The last error, with its time.
    pub fn last(&self) -> Option<&String> {
        self.last.as_ref()
    }

    fn is_news(&mut self, error: &str, now: Instant) -> bool {
        self.logged.retain(|(_, at)| now.duration_since(*at) < INTERVAL);
        let known = self.logged.iter().any(|(known, _)| known == error);
        if !known {
            self.logged.push((error.to_owned(), now));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_logged_once_per_interval() {
        let start = Instant::now();
        let mut log = ErrorLog::default();
        assert!(log.is_news("broker down", start));
        assert!(!log.is_news("broker down", start + INTERVAL / 2));
        assert!(log.is_news("timed out", start + INTERVAL / 2));
        assert!(log.is_news("broker down", start + INTERVAL));
        assert!(!log.is_news("timed out", start + INTERVAL));
    }

    #[test]
    fn status_shows_the_last_error_with_its_time() {
        let mut log = ErrorLog::default();
        assert_eq!(log.last(), None);
        log.note("first");
        log.note("second");
        assert!(log.last().is_some_and(|last| last.starts_with("second at 2")));
    }
}
