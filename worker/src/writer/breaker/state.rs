//! Whether a writer may be called. In: results of calls, and the time as a value. Out: call, call as a probe,
//! or wait until a given time. Pure.
//!
//! While the breaker is closed, every caller passes. While it is open, no caller passes until the wait is
//! over; then one call probes. Any answer closes the breaker; a failed probe doubles the wait.

use std::{sync::Arc, time::Duration};

use crate::retry::UNAVAILABLE_AFTER;
use tokio::time::Instant;

/// Twice the writers' default time limit. A probe that takes longer may be stuck indefinitely for a reason
/// that concerns only that call, and must not keep all others from trying.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);

/// A user has to fix the cause of a systemic error, so early retries are useless: the waits start as after
/// the third failure.
const SYSTEMIC_FROM: u32 = 3;

/// The number of a probe.
pub(super) type Probe = u64;

/// The state machine of a breaker.
#[derive(Debug, Default)]
pub(super) struct BreakerState {
    /// Number of answers so far.
    answers: u64,
    /// The first failure after the last answer.
    failing_since: Option<Instant>,
    probes: u64,
    open: Option<OpenBreaker>,
}

#[derive(Debug)]
struct OpenBreaker {
    since: Instant,
    /// Failures in a row; the wait depends on them.
    failures: u32,
    /// When the next call may probe.
    until: Instant,
    probe: Option<Probe>,
    error: Arc<str>,
}

/// May the writer be called?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Go,
    /// The call is a probe, and the others wait for its result.
    Probe(Probe),
    /// Ask again at this time, or when something has changed. With the latest error.
    Wait(Instant, Arc<str>),
}

/// A call that got no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedCall<'a> {
    /// A user has to fix the cause first.
    pub systemic: bool,
    /// Failures in a row of the caller, this one included.
    pub failures: u32,
    /// [`BreakerState::answers`] at the caller's previous failure.
    pub seen: Option<u64>,
    pub error: &'a str,
}

/// What a failure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureVerdict {
    /// Nothing: only the caller waits.
    Closed,
    /// The breaker has opened.
    Opened,
    /// The breaker was open already.
    Open,
}

impl BreakerState {
    /// Number of answers so far. It stays the same as long as no call is answered.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Decides whether a caller may call the writer.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.open {
            None => Admission::Go,
            Some(open) if now < open.until => Admission::Wait(open.until, open.error.clone()),
            Some(open) => {
                self.probes += 1;
                open.probe = Some(self.probes);
                open.until = now + PROBE_LOST_AFTER;
                Admission::Probe(self.probes)
            }
        }
    }

    /// Until when no caller passes, and the latest error.
    pub fn closed_until(&self, now: Instant) -> Option<(Instant, Arc<str>)> {
        let open = self.open.as_ref().filter(|open| now < open.until)?;
        Some((open.until, open.error.clone()))
    }

    /// The target system has answered a call, whatever it said about the records. Returns for how long the
    /// breaker was open, if it was.
    pub fn answered(&mut self, now: Instant) -> Option<Duration> {
        self.answers += 1;
        self.failing_since = None;
        self.open.take().map(|open| now.duration_since(open.since))
    }

    /// A call has failed. `wait` returns how long to wait after this many failures.
    pub fn failed(
        &mut self,
        failed: FailedCall<'_>,
        probe: Option<Probe>,
        now: Instant,
        wait: impl Fn(u32) -> Duration,
    ) -> FailureVerdict {
        let from = if failed.systemic { SYSTEMIC_FROM } else { 1 };
        if let Some(open) = &mut self.open {
            open.error = failed.error.into();
            // Calls that started before the breaker opened add no information when they fail too.
            if probe.is_some() && open.probe == probe {
                open.probe = None;
                open.failures = open.failures.saturating_add(1).max(from);
                open.until = now + wait(open.failures);
            }
            return FailureVerdict::Open;
        }
        let since = *self.failing_since.get_or_insert(now);
        // Other calls were answered in the meantime, so the cause lies with this caller, however systemic the
        // error looks.
        let others_pass = failed.seen.is_some_and(|seen| seen < self.answers);
        let unavailable = now.duration_since(since) >= UNAVAILABLE_AFTER;
        if !unavailable && (!failed.systemic || others_pass) {
            return FailureVerdict::Closed;
        }
        let failures = failed.failures.max(from);
        self.open = Some(OpenBreaker {
            since: now,
            failures,
            until: now + wait(failures),
            probe: None,
            error: failed.error.into(),
        });
        FailureVerdict::Opened
    }

    /// A caller stopped before its probe had a result: the next one may probe immediately. Returns true if
    /// that changes anything.
    pub fn abandoned(&mut self, probe: Probe, now: Instant) -> bool {
        match &mut self.open {
            Some(open) if open.probe == Some(probe) => {
                open.probe = None;
                open.until = now;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_secs(30);

    fn wait(failures: u32) -> Duration {
        LONGEST.min(Duration::from_millis(200) * (1 << failures.saturating_sub(1).min(20)))
    }

    fn failure(systemic: bool) -> FailedCall<'static> {
        FailedCall {
            systemic,
            failures: 1,
            seen: None,
            error: "unavailable",
        }
    }

    fn probe(state: &mut BreakerState, now: Instant) -> Option<Probe> {
        match state.admit(now) {
            Admission::Probe(probe) => Some(probe),
            _ => None,
        }
    }

    #[test]
    fn a_systemic_error_opens_the_breaker_and_each_failed_probe_doubles_the_wait() {
        let (mut state, mut now) = (BreakerState::default(), Instant::now());
        assert_eq!(
            state.failed(failure(true), None, now, wait),
            FailureVerdict::Opened
        );
        let mut waits = Vec::new();
        for _ in 0..7 {
            let Admission::Wait(until, error) = state.admit(now) else {
                panic!("{state:?}")
            };
            assert_eq!(&*error, "unavailable");
            waits.push((until - now).as_millis());
            now = until;
            let probe = probe(&mut state, now);
            assert!(probe.is_some() && matches!(state.admit(now), Admission::Wait(..)));
            assert_eq!(
                state.failed(failure(false), probe, now, wait),
                FailureVerdict::Open
            );
        }
        assert_eq!(waits, [800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
        assert!(state.answered(now).is_some());
        assert_eq!((state.admit(now), state.answered(now)), (Admission::Go, None));
    }

    #[test]
    fn transient_errors_open_only_after_a_while_without_any_success() {
        let (mut state, start) = (BreakerState::default(), Instant::now());
        let fail = |state: &mut BreakerState, after: Duration| {
            state.failed(failure(false), None, start + after, wait)
        };
        let second = Duration::from_secs(1);
        assert_eq!(fail(&mut state, second), FailureVerdict::Closed);
        assert_eq!(fail(&mut state, 5 * second), FailureVerdict::Closed);
        state.answered(start + 5 * second);
        assert_eq!(fail(&mut state, 20 * second), FailureVerdict::Closed);
        assert_eq!(fail(&mut state, 24 * second), FailureVerdict::Closed);
        assert_eq!(fail(&mut state, 25 * second), FailureVerdict::Opened);
    }

    #[test]
    fn a_caller_that_fails_while_others_succeed_does_not_open_the_breaker() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        state.failed(failure(true), None, now, wait);
        let seen = Some(state.answers());
        state.answered(now);
        let again = FailedCall {
            seen,
            failures: 2,
            ..failure(true)
        };
        assert_eq!(state.failed(again, None, now, wait), FailureVerdict::Closed);
        assert_eq!(
            state.failed(failure(true), None, now, wait),
            FailureVerdict::Opened
        );
    }

    #[test]
    fn an_abandoned_or_lost_probe_passes_to_the_next_caller() {
        let (mut state, start) = (BreakerState::default(), Instant::now());
        state.failed(failure(true), None, start, wait);
        let now = start + wait(3);
        let first = probe(&mut state, now).unwrap();
        assert!(state.abandoned(first, now));
        let second = probe(&mut state, now).unwrap();
        assert!(!state.abandoned(first, now));
        let later = now + PROBE_LOST_AFTER;
        assert_eq!(probe(&mut state, later - wait(1)), None);
        let third = probe(&mut state, later).unwrap();
        // The lost probe has no effect any more, unless it is answered.
        state.failed(failure(true), Some(second), later, wait);
        assert_eq!(state.closed_until(later).unwrap().0, later + PROBE_LOST_AFTER);
        state.failed(failure(true), Some(third), later, wait);
        assert_eq!(state.closed_until(later).unwrap().0, later + wait(4));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit,
        Answer(prop::sample::Index),
        Fail(prop::sample::Index, bool),
        Abort(prop::sample::Index),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Admit),
            1 => any::<prop::sample::Index>().prop_map(Step::Answer),
            3 => (any::<prop::sample::Index>(), prop::bool::weighted(0.2))
                .prop_map(|(at, systemic)| Step::Fail(at, systemic)),
            1 => any::<prop::sample::Index>().prop_map(Step::Abort),
            3 => (1_u64..9_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Any callers, in any order. While the breaker is open there are only probes, one at a time. It
        /// opens for a reason, and any answer closes it. It never waits longer than the longest wait for a
        /// probe that no caller has.
        #[test]
        fn it_opens_for_a_reason_admits_one_probe_and_never_waits_indefinitely(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let (mut state, mut now) = (BreakerState::default(), Instant::now());
            let mut calls: Vec<Option<Probe>> = Vec::new();
            // State of the model: open or not, the time of the first failure after the last answer, the
            // current probe and its start.
            let (mut open, mut failing, mut probing) = (false, None, None::<(Probe, Instant)>);
            for step in steps {
                match step {
                    Step::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::Admit => match state.admit(now) {
                        Admission::Go => {
                            prop_assert!(!open);
                            calls.push(None);
                        }
                        Admission::Probe(probe) => {
                            prop_assert!(open);
                            prop_assert!(probing.is_none_or(|(_, since)| now - since >= PROBE_LOST_AFTER));
                            probing = Some((probe, now));
                            calls.push(Some(probe));
                        }
                        Admission::Wait(until, _) => {
                            prop_assert!(open && until > now);
                            let longest = if probing.is_some() { PROBE_LOST_AFTER } else { LONGEST };
                            prop_assert!(until - now <= longest);
                        }
                    },
                    Step::Answer(at) if !calls.is_empty() => {
                        calls.swap_remove(at.index(calls.len()));
                        prop_assert_eq!(state.answered(now).is_some(), open);
                        (open, failing, probing) = (false, None, None);
                    }
                    Step::Fail(at, systemic) if !calls.is_empty() => {
                        let probe = calls.swap_remove(at.index(calls.len()));
                        let since = *failing.get_or_insert(now);
                        let opens = systemic || now - since >= UNAVAILABLE_AFTER;
                        let expected = match (open, opens) {
                            (true, _) => FailureVerdict::Open,
                            (false, true) => FailureVerdict::Opened,
                            (false, false) => FailureVerdict::Closed,
                        };
                        prop_assert_eq!(state.failed(failure(systemic), probe, now, wait), expected);
                        open = expected != FailureVerdict::Closed;
                        if probing.map(|(probe, _)| probe) == probe {
                            probing = None;
                        }
                    }
                    Step::Abort(at) if !calls.is_empty() => {
                        if let Some(probe) = calls.swap_remove(at.index(calls.len())) {
                            let ours = probing.is_some_and(|(current, _)| current == probe);
                            prop_assert_eq!(state.abandoned(probe, now), ours);
                            if ours {
                                probing = None;
                                prop_assert_eq!(state.closed_until(now), None);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
