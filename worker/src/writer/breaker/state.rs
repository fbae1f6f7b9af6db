//! Whether a writer may be called. In: what came of the calls, and the time as a value. Out: go, go and tell how it was, or
//! wait until then. Pure; it neither waits nor tells anybody.
//!
//! Closed, everybody calls. Open, nobody does until the wait is over; then one call probes. Any answer closes it, a probe
//! that fails doubles the wait.

use std::{sync::Arc, time::Duration};

use crate::retry::UNAVAILABLE_AFTER;
use tokio::time::Instant;

/// Twice the time limit that writers have by default. A probe that takes longer may be stuck for good in a fault of its
/// own, and must not keep all others from trying.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);

/// Somebody must mend a systemic error, so there is no use in hurrying: the waits begin as if it were the third failure.
const SYSTEMIC_FROM: u32 = 3;

/// The number of a probe.
pub(super) type Probe = u64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BreakerState {
    /// Answers so far.
    answers: u64,
    /// The first failure after the last answer.
    failing_since: Option<Instant>,
    probes: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// Failures in a row, which the wait follows from.
    failures: u32,
    /// When the next one may probe.
    until: Instant,
    probe: Option<Probe>,
    error: Arc<str>,
}

/// May the writer be called?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Go,
    /// Yes, and the others wait for what comes of it.
    Probe(Probe),
    /// Ask again then, or when something has changed.
    Wait(Instant, Arc<str>),
}

/// A call that was not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedCall<'a> {
    /// Somebody has to mend something.
    pub systemic: bool,
    /// Failures in a row of those who called, with this one.
    pub failures: u32,
    /// Answers that anybody had got at the one before.
    pub seen: Option<u64>,
    pub error: &'a str,
}

/// What a failure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: whoever failed waits alone.
    Closed,
    /// It is open from now on.
    Opened,
    /// It was open before.
    Open,
}

impl BreakerState {
    /// What stays the same as long as nothing is answered.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Lets a caller in, or not.
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

    /// Until when nobody is let in, and why.
    pub fn closed_until(&self, now: Instant) -> Option<(Instant, Arc<str>)> {
        let open = self.open.as_ref().filter(|open| now < open.until)?;
        Some((open.until, open.error.clone()))
    }

    /// The system behind the writer has answered somebody, whatever it said of the records. How long it was open, if it was.
    pub fn answered(&mut self, now: Instant) -> Option<Duration> {
        self.answers += 1;
        self.failing_since = None;
        self.open.take().map(|open| now.duration_since(open.since))
    }

    /// It has not. `wait` says how long to wait after so many failures.
    pub fn failed(
        &mut self,
        failed: FailedCall<'_>,
        probe: Option<Probe>,
        now: Instant,
        wait: impl Fn(u32) -> Duration,
    ) -> Verdict {
        let from = if failed.systemic { SYSTEMIC_FROM } else { 1 };
        if let Some(open) = &mut self.open {
            open.error = failed.error.into();
            // Calls begun before it opened say nothing new when they fail too.
            if probe.is_some() && open.probe == probe {
                open.probe = None;
                open.failures = open.failures.saturating_add(1).max(from);
                open.until = now + wait(open.failures);
            }
            return Verdict::Open;
        }
        let since = *self.failing_since.get_or_insert(now);
        // What others were answered meanwhile shows that the fault is with this caller, however systemic it looks.
        let others_pass = failed.seen.is_some_and(|seen| seen < self.answers);
        let away = now.duration_since(since) >= UNAVAILABLE_AFTER;
        if !away && (!failed.systemic || others_pass) {
            return Verdict::Closed;
        }
        let failures = failed.failures.max(from);
        self.open = Some(Open {
            since: now,
            failures,
            until: now + wait(failures),
            probe: None,
            error: failed.error.into(),
        });
        Verdict::Opened
    }

    /// Whoever probed was ended before there was an answer: the next one may at once. True if that changes anything.
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
            error: "away",
        }
    }

    fn probe(state: &mut BreakerState, now: Instant) -> Option<Probe> {
        match state.admit(now) {
            Admission::Probe(probe) => Some(probe),
            _ => None,
        }
    }

    #[test]
    fn a_systemic_error_opens_at_once_and_waits_double_with_each_probe_that_fails() {
        let (mut state, mut now) = (BreakerState::default(), Instant::now());
        assert_eq!(state.failed(failure(true), None, now, wait), Verdict::Opened);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let Admission::Wait(until, error) = state.admit(now) else {
                panic!("{state:?}")
            };
            assert_eq!(&*error, "away");
            waits.push((until - now).as_millis());
            now = until;
            let probe = probe(&mut state, now);
            assert!(probe.is_some() && matches!(state.admit(now), Admission::Wait(..)));
            assert_eq!(state.failed(failure(false), probe, now, wait), Verdict::Open);
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
        assert_eq!(fail(&mut state, second), Verdict::Closed);
        assert_eq!(fail(&mut state, 5 * second), Verdict::Closed);
        state.answered(start + 5 * second);
        assert_eq!(fail(&mut state, 20 * second), Verdict::Closed);
        assert_eq!(fail(&mut state, 24 * second), Verdict::Closed);
        assert_eq!(fail(&mut state, 25 * second), Verdict::Opened);
    }

    #[test]
    fn a_caller_that_fails_while_others_pass_does_not_open_it_again() {
        let (mut state, now) = (BreakerState::default(), Instant::now());
        state.failed(failure(true), None, now, wait);
        let seen = Some(state.answers());
        state.answered(now);
        let again = FailedCall {
            seen,
            failures: 2,
            ..failure(true)
        };
        assert_eq!(state.failed(again, None, now, wait), Verdict::Closed);
        assert_eq!(state.failed(failure(true), None, now, wait), Verdict::Opened);
    }

    #[test]
    fn a_probe_that_was_ended_or_does_not_come_back_is_handed_on() {
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
        // The one that was lost has nothing to say any more, unless it is answered.
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
            3 => (any::<prop::sample::Index>(), prop::bool::weighted(0.2)).prop_map(|(at, systemic)| Step::Fail(at, systemic)),
            1 => any::<prop::sample::Index>().prop_map(Step::Abort),
            3 => (1_u64..9_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Any callers, in any order: nothing but probes while it is open, one at a time; it opens for a reason, any answer
        /// closes it, and it never waits longer than the longest wait for a probe that nobody has.
        #[test]
        fn it_opens_for_a_reason_lets_one_probe_and_never_waits_for_ever(steps in prop::collection::vec(step(), 1..120)) {
            let (mut state, mut now) = (BreakerState::default(), Instant::now());
            let mut calls: Vec<Option<Probe>> = Vec::new();
            // Of the model: open or not, when the first failure after the last answer was, who probes and since when.
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
                            (true, _) => Verdict::Open,
                            (false, true) => Verdict::Opened,
                            (false, false) => Verdict::Closed,
                        };
                        prop_assert_eq!(state.failed(failure(systemic), probe, now, wait), expected);
                        open = expected != Verdict::Closed;
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
