//! Stopping: drain all partitions within the budget, commit, leave the group.

use std::time::{Duration, Instant};

use rdkafka::{consumer::Consumer, error::RDKafkaErrorCode, topic_partition_list::TopicPartitionList};

use super::{PollLoop, error::PollError, stopping::Stopping, transactions::END_BUDGET};
use crate::{health::snapshot::Phase, seeded_bugs::seeded_bug};

/// One question to the coordinator; between two of them the process shows that it is alive.
const QUESTION: Duration = Duration::from_secs(1);
/// For a worker that is stopped right after its start: so long after finding the coordinator it is a member.
const JOINING: Duration = Duration::from_millis(200);
/// So long at least for leaving the group.
const LEAVING: Duration = Duration::from_secs(1);
/// Between two looks whether the group is left.
const ANSWER: Duration = Duration::from_millis(10);

impl PollLoop {
    /// Begins to stop when asked to, or when too many transforms do not come back; true when everything is drained, or the
    /// budget is spent.
    pub(super) fn serve_stop(&mut self) -> bool {
        let deadline = match self.stopping {
            Some(stopping) => stopping.deadline,
            None if self.told_to_stop() => {
                tracing::info!(
                    budget_seconds = self.config.drain.as_secs(),
                    "stopping: finishing what has begun"
                );
                self.phase = Phase::Draining;
                for entry in &mut self.assigned {
                    entry.drain();
                    if seeded_bug("lose-last-batch-on-shutdown") {
                        entry.pretend_finished();
                    }
                }
                self.publish();
                let stopping = Stopping {
                    deadline: Instant::now() + self.config.drain,
                    stuck: self.shared.runs.too_many_abandoned(),
                };
                self.stopping.insert(stopping).deadline
            }
            None => return false,
        };
        self.assigned.iter().all(|entry| entry.ended) || Instant::now() >= deadline
    }

    /// By somebody, or by transforms that do not come back: nothing else than a restart ends those.
    fn told_to_stop(&self) -> bool {
        *self.handles.shutdown.borrow() || self.shared.runs.too_many_abandoned().is_some()
    }

    /// Commits the rest. The answer is what to tell once the group is left.
    pub(super) fn close(&mut self) -> Result<Result<(), PollError>, PollError> {
        let budget = self.config.drain;
        let limit = self.shared.runs.limit();
        let stuck = self.stopping.and_then(|stopping| stopping.stuck);
        let unfinished = self.assigned.iter().filter(|entry| !entry.ended).count();
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
        // librdkafka waits for an answer to every rebalance it has told us of, else closing would hang.
        self.answer_open_rebalances()?;
        self.phase = Phase::Stopped;
        self.publish();
        Ok(match (stuck, unfinished) {
            (Some(threads), _) => Err(PollError::TransformsStuck { threads, limit }),
            (None, 0) => Ok(()),
            (None, partitions) => Err(PollError::DrainTimeout { partitions, budget }),
        })
    }

    /// Leaves the group and closes the client. Closing alone sends no LeaveGroup for a member without partitions, or in the
    /// middle of a rebalance (librdkafka 2.12, cooperative); then the next rebalance waits for it, for a whole session
    /// timeout. So the subscription ends first, and its end is waited for, within what is left of the drain budget, or a second.
    pub(super) fn leave(self) {
        self.callbacks.close();
        let consumer = self.client.consumer();
        consumer.unsubscribe();
        // Also when the drain budget is spent: a group that is not left stands still for a whole session.
        let deadline = self
            .stopping
            .map_or_else(Instant::now, |stopping| stopping.deadline)
            .max(Instant::now() + LEAVING);
        while self.config.is_classic() && self.client.is_member() && Instant::now() < deadline {
            self.handles.liveness.tick();
            // Rebalances are answered in here. A record that comes all the same is nobody's yet, and read again.
            let _ = consumer.poll(ANSWER);
        }
        // Dropping the consumer waits for the answer to LeaveGroup and joins its threads.
        drop(self.client.into_consumer());
    }

    /// Waits, within what is left of the drain budget, until the coordinator answers. librdkafka sends it everything over one
    /// connection, and the broker answers a JoinGroup only when all members have joined: behind one, commits wait,
    /// and LeaveGroup is given up after 5 s.
    fn await_coordinator(&mut self) {
        let deadline = self
            .stopping
            .map_or_else(Instant::now, |stopping| stopping.deadline);
        if !self.client.is_member() {
            // Nobody waits for one who has not joined yet, but it may be about to.
            std::thread::sleep(JOINING);
            if !self.client.is_member() {
                return;
            }
        }
        // Any question will do.
        let mut question = TopicPartitionList::new();
        question.add_partition(self.config.topics.first().map_or("", String::as_str), 0);
        loop {
            self.handles.liveness.tick();
            let answer = self
                .client
                .consumer()
                .committed_offsets(question.clone(), QUESTION);
            let waiting = answer
                .is_err_and(|error| error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut));
            if !waiting || Instant::now() >= deadline {
                return;
            }
        }
    }
}
