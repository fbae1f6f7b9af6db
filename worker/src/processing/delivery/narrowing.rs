//! Which record makes a writer fail. An error such as a closed connection may mean that the system behind the
//! writer is unavailable, or that it fails over one record of the batch. In: inconclusive errors, and whether
//! the writer answers other calls meanwhile. Out: smaller attempts, down to single records, and rejected
//! records.
//!
//! - A batch that has failed `retry.maxAttempts` times is halved, and so is what fails after it, so that the
//!   suspicion ends at one record. If the system is unavailable, that costs nothing: only the first records of
//!   the batch are written in small parts afterwards.
//! - A record that fails alone proves nothing as long as the writer answers no call at all. In between, the
//!   record that was written last is written again. If there is none, other records of the batch are attempted
//!   before their turn, one at a time, and written again in their turn: twice in the right order is better
//!   than once in the wrong order. So an outage repeats at most one record of a batch, and only if no other
//!   call shows earlier that the system is available again.
//! - While the writer answers other calls, each failure of the record alone is one of its attempts.

use super::{Attempt, Delivery, DeliveryState, Pass, Probe, RetryMode, WriteError};
use crate::retry;

impl Delivery<'_> {
    /// Whether inconclusive failures may concern a record. With the other modes, a write is not repeated.
    pub(super) fn is_narrowing(&self) -> bool {
        matches!(
            self.retry_mode,
            RetryMode::Requeue | RetryMode::RequeueWithFollowers
        )
    }

    pub(super) async fn on_inconclusive(
        &self,
        mut attempt: Attempt,
        message: String,
        pass: Pass<'_>,
        state: &mut DeliveryState,
    ) {
        let answers = pass.answers();
        let others_pass = *attempt.answers.get_or_insert(answers) < answers;
        if !others_pass {
            self.on_unavailable(attempt, &WriteError::Inconclusive(message), pass, state)
                .await;
            self.suspect(state);
            return;
        }
        // The system works, so it is not reported as unavailable.
        drop(pass);
        self.reporter.recovered();
        self.metrics.write_failed(&self.writer.name, "record");
        if attempt.probe.is_some() {
            return self.return_probe(attempt, state);
        }
        attempt.failures += 1;
        // The next failure counts only after another answer: an outage may begin at any time.
        attempt.answers = Some(answers);
        attempt = match self.halve(attempt, state) {
            Ok(()) => return,
            Err(alone) => alone,
        };
        let writer = &self.writer.name;
        let partition = &self.batch.chunk().partition;
        let offset = self.batch.output(attempt.outputs[0] as usize).offset();
        let message = format!(
            "writer {writer} fails over the record {partition}@{offset} and writes others: {message}"
        );
        if attempt.failures >= self.retry.max_attempts {
            let rejected = self.rejected(attempt.outputs, message, attempt.failures);
            state.outcome.rejected.push(rejected);
            return;
        }
        if retry::is_logged(attempt.failures) {
            tracing::warn!(%writer, attempt = attempt.failures, "{message}; retrying");
        }
        self.reporter.failing(attempt.failures, &message);
        self.metrics.retried(writer);
        tokio::time::sleep(self.retry.random_backoff(attempt.failures)).await;
        state.stack.push(attempt);
    }

    /// Nothing is answered at the moment. Arranges what is attempted next.
    fn suspect(&self, state: &mut DeliveryState) {
        let Some(attempt) = state.stack.pop() else { return };
        if attempt.probe.is_some() {
            return self.return_probe(attempt, state);
        }
        if state.outage.failures < self.retry.max_attempts && attempt.failures == 0 {
            return state.stack.push(attempt);
        }
        let Err(alone) = self.halve(attempt, state) else {
            return;
        };
        if let Some(output) = state.last_written {
            let answers = alone.answers;
            state.stack.push(alone);
            return state.stack.push(Attempt {
                outputs: vec![output],
                probe: Some(Probe::Again),
                answers,
                ..Attempt::default()
            });
        }
        let others = state.stack.len();
        if others == 0 {
            return state.stack.push(alone);
        }
        // Another one each time: those tried so far may be of that kind as well.
        let place = others - 1 - state.probes % others;
        state.probes += 1;
        let (probe, place) = self.first_record(place, state);
        let answers = alone.answers;
        state.stack.push(alone);
        state.stack.push(Attempt {
            probe: Some(Probe::Early(place)),
            // Shows whether another call makes it superfluous.
            answers,
            ..probe
        });
    }

    /// Takes the first record of the attempt at `place` off the stack. Returns it and the place where it belongs.
    fn first_record(&self, place: usize, state: &mut DeliveryState) -> (Attempt, usize) {
        let mut probe = state.stack.remove(place);
        let first = self.batch.source(probe.outputs[0]);
        let end = (probe.outputs.iter()).position(|output| self.batch.source(*output) != first);
        let Some(end) = end else {
            return (probe, place);
        };
        let outputs = probe.outputs.split_off(end);
        let rest = Attempt {
            outputs,
            ..Attempt::default()
        };
        state.stack.insert(place, rest);
        (probe, place + 1)
    }

    /// True for a probe if the writer has answered another call since it was planned: the system is available.
    pub(super) fn is_superfluous(&self, attempt: &Attempt, pass: &Pass<'_>) -> bool {
        attempt.probe.is_some() && attempt.answers.is_some_and(|answers| answers < pass.answers())
    }

    /// Puts a probe back into its place. Written or not, it is written in its turn.
    pub(super) fn return_probe(&self, probe: Attempt, state: &mut DeliveryState) {
        let Some(Probe::Early(place)) = probe.probe else {
            return;
        };
        let again = Attempt {
            outputs: probe.outputs,
            ..Attempt::default()
        };
        state.stack.insert(place.min(state.stack.len()), again);
    }
}

#[cfg(test)]
mod tests;
