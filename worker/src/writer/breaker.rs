//! The breaker of a writer, shared by everything in this worker that writes with it: while the system behind it is away,
//! one delivery tries and the others wait for what comes of it. A delivery asks before each call and tells how it was; one
//! that is ended in between hands its turn on. When to open is decided in `state`.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::watch, time::Instant};

pub(crate) use self::state::FailedCall;
use self::state::{Admission, BreakerState, Probe, Verdict};
use crate::{retry::RetryPolicy, telemetry::Metrics};

/// See the module.
pub(crate) struct WriterBreaker {
    writer: Arc<str>,
    state: Mutex<BreakerState>,
    /// Wakes all that wait when it closes, when a probe has failed and when one is handed on.
    changed: watch::Sender<()>,
    metrics: Metrics,
}

impl WriterBreaker {
    /// Closed.
    pub fn new(writer: Arc<str>, metrics: Metrics) -> Self {
        metrics.writer_breaker_open(&writer, false);
        Self {
            writer,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            metrics,
        }
    }

    /// Waits until the writer may be called. Whoever waits is given the latest error, first of all and whenever something
    /// has changed.
    pub async fn admit(&self, waiting: impl Fn(&str)) -> Pass<'_> {
        let ask = |state: &mut BreakerState, now| match state.admit(now) {
            Admission::Go => Ok(None),
            Admission::Probe(probe) => Ok(Some(probe)),
            Admission::Wait(until, error) => Err((until, error)),
        };
        let probe = self.wait(waiting, ask).await;
        Pass { breaker: self, probe }
    }

    /// Waits until [`WriterBreaker::admit`] would let somebody in, without taking the turn.
    pub async fn passable(&self, waiting: impl Fn(&str)) {
        let ask = |state: &mut BreakerState, now| match state.closed_until(now) {
            None => Ok(()),
            Some(wait) => Err(wait),
        };
        self.wait(waiting, ask).await;
    }

    async fn wait<T>(
        &self,
        waiting: impl Fn(&str),
        ask: impl Fn(&mut BreakerState, Instant) -> Result<T, (Instant, Arc<str>)>,
    ) -> T {
        let mut changed = None;
        loop {
            let answer = ask(&mut self.lock(), Instant::now());
            let (until, error) = match answer {
                Ok(answer) => return answer,
                Err(wait) => wait,
            };
            waiting(&error);
            let Some(changed) = &mut changed else {
                // From here on nothing is missed; but something may have been.
                changed = Some(self.changed.subscribe());
                continue;
            };
            tokio::select! {
                // The sender is ours, so this is no error.
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn to call the writer once. Dropped without a word, it goes to the next one.
pub(crate) struct Pass<'a> {
    breaker: &'a WriterBreaker,
    probe: Option<Probe>,
}

impl Pass<'_> {
    /// The system behind the writer has answered, whatever it said of the records.
    pub fn answered(mut self) {
        self.probe = None;
        let breaker = self.breaker;
        if let Some(open) = breaker.lock().answered(Instant::now()) {
            breaker.changed.send_replace(());
            breaker.metrics.writer_breaker_open(&breaker.writer, false);
            tracing::info!(writer = %breaker.writer, "the writer is back after {} s", open.as_secs());
        }
    }

    /// It has not. True when it is open now, so that all wait for the next probe; else the caller waits alone.
    pub fn failed(mut self, failed: FailedCall<'_>, retry: &RetryPolicy) -> bool {
        let breaker = self.breaker;
        let probe = self.probe.take();
        let verdict = breaker.lock().failed(failed, probe, Instant::now(), |failures| {
            retry.random_backoff(failures)
        });
        match verdict {
            Verdict::Closed => return false,
            Verdict::Opened => {
                breaker.metrics.writer_breaker_open(&breaker.writer, true);
                tracing::warn!(
                    writer = %breaker.writer,
                    "the writer is away: from now on one batch at a time tries it and all others wait: {}", failed.error
                );
            }
            Verdict::Open if probe.is_some() => {
                breaker.changed.send_replace(());
            }
            Verdict::Open => {}
        }
        true
    }

    /// Answers so far: with this at one failure, [`FailedCall::seen`] at the next tells whether others pass.
    pub fn answers(&self) -> u64 {
        self.breaker.lock().answers()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(probe) = self.probe
            && self.breaker.lock().abandoned(probe, Instant::now())
        {
            self.breaker.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests;
