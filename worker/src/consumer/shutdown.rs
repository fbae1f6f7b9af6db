//! Stopping: the loop drains all partitions within the budget, commits, and leaves the group.

use std::time::{Duration, Instant};

use rdkafka::{consumer::Consumer, error::RDKafkaErrorCode, topic_partition_list::TopicPartitionList};

use super::{PollLoop, error::PollError, stopping::Stopping, transactions::END_BUDGET};
use crate::{health::snapshot::Phase, seeded_bugs::seeded_bug};

/// Time limit of one request to the coordinator. Between two requests the loop ticks its liveness.
const COORDINATOR_REQUEST: Duration = Duration::from_secs(1);
/// For a worker that stops right after its start: within this time after finding the coordinator, it is a
/// member.
const JOIN_WAIT: Duration = Duration::from_millis(200);
/// Minimum time for leaving the group.
const LEAVE_MINIMUM: Duration = Duration::from_secs(1);
/// Time limit for leaving the group at the end of a bounded run. A group in a rebalance may take longer.
const LEAVE_BUDGET: Duration = Duration::from_secs(10);
/// Time between two checks whether the worker has left the group.
const LEAVE_CHECK: Duration = Duration::from_millis(10);

impl PollLoop {
    /// Starts to stop when asked to, or when too many transforms do not return. Returns true when everything
    /// is drained, or the budget is spent.
    pub(super) fn serve_stop(&mut self) -> bool {
        let deadline = match self.stopping {
            Some(stopping) => stopping.deadline,
            None if self.must_stop() => {
                tracing::info!(
                    budget_seconds = self.drain_budget().as_secs(),
                    "stopping: draining the work in flight"
                );
                self.phase = Phase::Draining;
                // Read before the drain: it drops runs, and their abandoned threads count from then on.
                let stuck = self.shared.pipeline.too_many_abandoned();
                for entry in &mut self.assigned {
                    entry.drain();
                    if seeded_bug("lose-last-batch-on-shutdown") {
                        entry.pretend_finished();
                    }
                }
                self.publish();
                let stopping = Stopping {
                    deadline: Instant::now() + self.drain_budget(),
                    stuck,
                };
                self.stopping.insert(stopping).deadline
            }
            None => return false,
        };
        self.assigned.iter().all(|entry| entry.has_ended()) || Instant::now() >= deadline
    }

    /// How long the stop may take. At the end of a bounded run everything is committed, and only the group is left.
    pub(super) fn drain_budget(&self) -> Duration {
        match &self.bounded {
            Some(run) if run.done => self.config.drain.min(LEAVE_BUDGET),
            _ => self.config.drain,
        }
    }

    /// True when the process was asked to stop, when a bounded run is at its end, or when too many transforms do not return: only a restart
    /// ends those.
    fn must_stop(&self) -> bool {
        let done = self.bounded.as_ref().is_some_and(|run| run.done);
        done || *self.handles.shutdown.borrow() || self.shared.pipeline.too_many_abandoned().is_some()
    }

    /// Commits the rest. The inner result is what [`PollLoop::run`] returns after the worker has left the
    /// group.
    pub(super) fn close(&mut self) -> Result<Result<(), PollError>, PollError> {
        let budget = self.config.drain;
        let limit = self.shared.pipeline.limit();
        let stuck = self.stopping.and_then(|stopping| stopping.stuck);
        let unfinished = self.assigned.iter().filter(|entry| !entry.has_ended()).count();
        for entry in &self.assigned {
            entry.abort();
        }
        self.await_coordinator();
        if self.transactions.is_some() {
            self.end_transaction(unfinished == 0)?;
            self.await_abort(Instant::now() + END_BUDGET)?;
        } else {
            self.commit_and_wait(|_| true);
        }
        // librdkafka waits for an answer to every rebalance that it has reported, so closing would hang
        // without one.
        self.answer_open_rebalances()?;
        let ended = self.bounded_outcome();
        self.phase = Phase::Stopped;
        self.publish();
        Ok(match (stuck, unfinished) {
            (Some(threads), _) => Err(PollError::TransformsStuck { threads, limit }),
            (None, 0) => ended,
            (None, partitions) => Err(PollError::DrainTimeout { partitions, budget }),
        })
    }

    /// Leaves the group and closes the client. Closing alone sends no LeaveGroup for a member without
    /// partitions, or in the middle of a rebalance (librdkafka 2.12, cooperative). The next rebalance would
    /// then wait for this member for a whole session timeout. So the loop unsubscribes first and waits until
    /// that is done, within what is left of the drain budget, or for one second if less is left.
    pub(super) fn leave(self) {
        self.callbacks.close();
        let consumer = self.client.consumer();
        consumer.unsubscribe();
        // Also when the drain budget is spent: a group with a member that has not left stops for a whole
        // session timeout.
        let deadline = self
            .stopping
            .map_or_else(Instant::now, |stopping| stopping.deadline)
            .max(Instant::now() + LEAVE_MINIMUM);
        while self.config.is_classic() && self.client.is_member() && Instant::now() < deadline {
            self.handles.liveness.tick();
            // librdkafka calls the rebalance callbacks in here, and they answer. A record that still arrives
            // is not processed; its next owner reads it again.
            let _ = consumer.poll(LEAVE_CHECK);
        }
        // Dropping the consumer waits for the answer to LeaveGroup and joins its threads.
        drop(self.client.into_consumer());
    }

    /// Waits, within what is left of the drain budget, until the coordinator answers. librdkafka sends all
    /// requests to it over one connection, and the broker answers a JoinGroup only when all members have
    /// joined. Behind a JoinGroup, commits wait, and librdkafka stops waiting for LeaveGroup after 5 s.
    fn await_coordinator(&mut self) {
        let deadline = self
            .stopping
            .map_or_else(Instant::now, |stopping| stopping.deadline);
        if !self.client.is_member() {
            // No other member waits for a worker that has not joined yet, but it may be about to join.
            std::thread::sleep(JOIN_WAIT);
            if !self.client.is_member() {
                return;
            }
        }
        // Any request to the coordinator will do.
        let mut request = TopicPartitionList::new();
        request.add_partition(self.config.topics.first().map_or("", String::as_str), 0);
        loop {
            self.handles.liveness.tick();
            let answer = self
                .client
                .consumer()
                .committed_offsets(request.clone(), COORDINATOR_REQUEST);
            let waiting = answer
                .is_err_and(|error| error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut));
            if !waiting || Instant::now() >= deadline {
                return;
            }
        }
    }
}
