//! Waiting as long as a server asks for with `Retry-After` of a 429 or 503, in seconds or as a date. It
//! applies to all requests of the writer.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::sync;

/// Maximum wait that a server can ask for, in one answer. A server that needs longer is asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// When the server allows the next request.
#[derive(Debug, Default)]
pub(super) struct RetryAfter(Mutex<Option<Instant>>);

impl RetryAfter {
    /// Notes what an answer asks for. `header` is its `Retry-After`.
    pub fn note(&self, status: u16, header: Option<&str>) {
        if let Some(wait) = asked(status, header, SystemTime::now()) {
            let mut not_before = sync::lock(&self.0);
            *not_before = not_before.max(Some(Instant::now() + wait));
        }
    }

    /// Waits until the server allows a request.
    pub async fn wait(&self) {
        loop {
            let until = sync::lock(&self.0).filter(|until| *until > Instant::now());
            let Some(until) = until else { return };
            tokio::time::sleep_until(until).await;
        }
    }
}

/// How long an answer asks to wait, at most [`MAX_RETRY_AFTER`]. Text of another form is ignored.
fn asked(status: u16, header: Option<&str>, now: SystemTime) -> Option<Duration> {
    let text = header.filter(|_| matches!(status, 429 | 503))?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_in_seconds_or_with_a_date_how_long_to_wait() {
        let now = httpdate::parse_http_date("Mon, 30 Nov 2026 10:00:00 GMT").unwrap();
        let wait = |status, text| asked(status, Some(text), now).map(|wait| wait.as_secs());
        for (text, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("86400", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Mon, 30 Nov 2026 10:00:42 GMT", Some(42)),
            ("Monday, 30-Nov-26 10:01:00 GMT", Some(60)),
            ("Mon Nov 30 10:00:05 2026", Some(5)),
            ("Mon, 30 Nov 2026 09:59:00 GMT", Some(0)),
            ("Tue, 01 Dec 2026 10:00:00 GMT", Some(300)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(wait(429, text), seconds, "{text}");
            assert_eq!(wait(503, text), seconds, "{text}");
        }
        assert_eq!(wait(500, "7"), None);
        assert_eq!(asked(429, None, now), None);
    }
}
