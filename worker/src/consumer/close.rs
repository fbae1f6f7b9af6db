//! Stopping: drain all partitions within the budget, commit, leave the group.

use std::time::Instant;

use super::PollLoop;
use crate::{engine::EngineError, planted::planted, snapshot::Phase};

impl PollLoop {
    /// Begins to stop when asked to; true when everything is drained, or the budget is spent.
    pub(super) fn serve_stop(&mut self) -> bool {
        let deadline = match self.stopping {
            Some(deadline) => deadline,
            None if *self.handles.shutdown.borrow() => {
                tracing::info!(
                    budget_seconds = self.settings.drain.as_secs(),
                    "stopping: finishing what has begun"
                );
                self.phase = Phase::Draining;
                for entry in &mut self.assigned {
                    entry.drain();
                    if planted("lose-last-batch-on-shutdown") {
                        entry.pretend_finished();
                    }
                }
                self.publish();
                *self.stopping.insert(Instant::now() + self.settings.drain)
            }
            None => return false,
        };
        self.assigned.iter().all(|entry| entry.ended) || Instant::now() >= deadline
    }

    /// Commits the rest and leaves the group.
    pub(super) fn close(mut self) -> Result<(), EngineError> {
        let unfinished = self.assigned.iter().filter(|entry| !entry.ended).count();
        for entry in &self.assigned {
            entry.abort();
        }
        self.commit_and_wait(|_| true);
        // librdkafka waits for an answer to every rebalance it has told us of, else closing would hang.
        self.answer_open_rebalances();
        self.phase = Phase::Stopped;
        self.publish();
        self.context.close();
        // Dropping the consumer answers the last revoke, sends LeaveGroup and joins its threads.
        drop(self.source.into_consumer());
        match unfinished {
            0 => Ok(()),
            partitions => Err(EngineError::DrainTimeout {
                partitions,
                budget: self.settings.drain,
            }),
        }
    }
}
