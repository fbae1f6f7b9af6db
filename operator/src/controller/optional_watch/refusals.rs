//! Refusals of the API server to list or watch a kind. In: its answers, the time. Out: what to do about one, and
//! whether the objects that are known are given up. Pure.

use std::time::{Duration, Instant};

use kube::runtime::watcher;

use super::About;

/// A refusal of what was listed before usually passes: API servers answer 403 and 404 while they start, and
/// roles are replaced. Afterwards they have no effect, because what nobody can see or delete must not, for example,
/// hold a group.
const GIVE_UP: Duration = Duration::from_secs(300);

/// Refusals in a row.
#[derive(Default)]
pub(super) struct Refusals {
    /// Whether the objects were known before.
    listed: bool,
    since: Option<Instant>,
}

impl Refusals {
    /// The objects are known.
    pub(super) fn end(&mut self) {
        *self = Self {
            listed: true,
            since: None,
        };
    }

    /// Counts one. Returns whether the objects are given up.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        !self.listed || now.duration_since(since) > GIVE_UP
    }
}

/// What to do, if the resource does not exist or may not be watched.
pub(super) fn unavailable(about: &About, error: &watcher::Error) -> Option<&'static str> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => advice(about, status.code),
        _ => None,
    }
}

/// What to do about an answer of the API server that waiting does not change.
pub(super) fn advice(about: &About, code: u16) -> Option<&'static str> {
    match code {
        404 => Some(about.missing),
        403 => Some(about.forbidden),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ABOUT: About = About {
        kinds: "KafkaThings",
        missing: "install it",
        forbidden: "grant get, list, watch",
    };

    #[test]
    fn objects_that_were_listed_are_given_up_only_after_minutes_of_refusals() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        assert!(refusals.count(start), "the CRD is not installed");
        refusals.end();
        assert!(!refusals.count(start));
        assert!(!refusals.count(start + GIVE_UP));
        refusals.end();
        assert!(!refusals.count(start + GIVE_UP + SECOND));
        assert!(refusals.count(start + GIVE_UP * 2 + SECOND * 2));
    }

    #[test]
    fn a_missing_crd_and_a_missing_right_say_what_to_do() {
        let failed = |code: u16| {
            let status = serde_json::json!({"status": "Failure", "message": "no", "code": code});
            watcher::Error::InitialListFailed(kube::Error::Api(serde_json::from_value(status).unwrap()))
        };
        assert!(unavailable(&ABOUT, &failed(404)).unwrap().contains("install it"));
        assert!(
            unavailable(&ABOUT, &failed(403))
                .unwrap()
                .contains("grant get, list, watch")
        );
        assert_eq!(unavailable(&ABOUT, &failed(500)), None);
    }
}
