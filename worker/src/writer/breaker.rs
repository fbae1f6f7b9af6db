//! The circuit breaker of a writer, shared by everything in this worker that writes with it. While the target
//! system is unavailable, one delivery probes and the others wait for the result. A delivery asks before each
//! call and reports the result. A delivery that is stopped in between passes its turn to the next one.
//! `state` decides when the breaker opens.

mod state;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::{sync::watch, time::Instant};

pub(crate) use self::state::FailedCall;
use self::state::{Admission, BreakerState, FailureVerdict, Probe};
use crate::sync;
use crate::{retry::RetryPolicy, telemetry::Metrics};

/// The circuit breaker of one writer.
pub(crate) struct WriterBreaker {
    writer: Arc<str>,
    state: Mutex<BreakerState>,
    /// Wakes all waiting deliveries when the breaker closes, when a probe has failed, and when a probe was
    /// abandoned.
    changed: watch::Sender<()>,
    metrics: Metrics,
}

impl WriterBreaker {
    /// A closed breaker.
    pub fn new(writer: Arc<str>, metrics: Metrics) -> Self {
        metrics.writer_breaker_open(&writer, false);
        Self {
            writer,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            metrics,
        }
    }

    /// Waits until the writer may be called. Calls `waiting` with the latest error, first immediately and
    /// then whenever something has changed.
    pub async fn admit(&self, waiting: impl Fn(&str)) -> Pass<'_> {
        let ask = |state: &mut BreakerState, now| match state.admit(now) {
            Admission::Go => Ok(None),
            Admission::Probe(probe) => Ok(Some(probe)),
            Admission::Wait(until, error) => Err((until, error)),
        };
        let probe = self.wait(waiting, ask).await;
        Pass { breaker: self, probe }
    }

    /// Waits until [`WriterBreaker::admit`] would return immediately, without taking the turn.
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
                // From here on no change is missed; but one may have been missed before, so ask again.
                changed = Some(self.changed.subscribe());
                continue;
            };
            tokio::select! {
                // `self` owns the sender, so this cannot fail.
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        sync::lock(&self.state)
    }
}

/// The permission to call the writer once. Dropping it without a result passes the turn to the next delivery.
pub(crate) struct Pass<'a> {
    breaker: &'a WriterBreaker,
    probe: Option<Probe>,
}

impl Pass<'_> {
    /// The target system has answered, whatever it said about the records.
    pub fn answered(mut self) {
        self.probe = None;
        let breaker = self.breaker;
        if let Some(open) = breaker.lock().answered(Instant::now()) {
            breaker.changed.send_replace(());
            breaker.metrics.writer_breaker_open(&breaker.writer, false);
            tracing::info!(writer = %breaker.writer, "writer available again after {} s", open.as_secs());
        }
    }

    /// The call has failed. Returns true if the breaker is open now, so that all deliveries wait for the next
    /// probe; otherwise only the caller waits.
    pub fn failed(mut self, failed: FailedCall<'_>, retry: &RetryPolicy) -> bool {
        let breaker = self.breaker;
        let probe = self.probe.take();
        let verdict = breaker.lock().failed(failed, probe, Instant::now(), |failures| {
            retry.random_backoff(failures)
        });
        match verdict {
            FailureVerdict::Closed => return false,
            FailureVerdict::Opened => {
                breaker.metrics.writer_breaker_open(&breaker.writer, true);
                tracing::warn!(
                    writer = %breaker.writer,
                    "writer unavailable, circuit breaker open: probing with one batch at a time: {}",
                    failed.error
                );
            }
            FailureVerdict::Open if probe.is_some() => {
                breaker.changed.send_replace(());
            }
            FailureVerdict::Open => {}
        }
        true
    }

    /// Number of answers so far. Keep it at a failure: at the next one, [`FailedCall::seen`] shows whether
    /// other calls succeeded in between.
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
