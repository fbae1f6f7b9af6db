//! What the poll loop does with transactions: it decides when one ends and with which offsets. When one cannot be committed,
//! the loop ends the work on all partitions, aborts the transaction, and reads each partition again from its committed
//! offset (`rewind.rs`). Calls that block are made elsewhere; only when partitions are revoked, and at a stop, the loop waits
//! for the outcome, within a budget.

use std::time::{Duration, Instant};

use rdkafka::topic_partition_list::TopicPartitionList;

use super::{
    PollLoop,
    assigned::AssignedPartition,
    commit,
    error::PollError,
    transaction_driver::{Ending, TransactionDriver, TransactionState},
};
use crate::{
    health::snapshot::PausedReason,
    record::TopicPartition,
    seeded_bugs::seeded_bug,
    transaction::{Cause, Command, Event, TransactionFailure},
};

/// How long partitions that are given up wait for the end of the transaction: as long as a commit without transactions.
pub(super) const END_BUDGET: Duration = Duration::from_secs(5);

/// So much longer may a transaction last that has to go on: the broker gives it 20 s beyond a commit interval.
const GO_ON: Duration = Duration::from_secs(10);

/// Between two signs of life while waiting.
const TICK: Duration = Duration::from_millis(100);

impl PollLoop {
    /// Ends the transaction when it is time, and goes on after an abort.
    pub(super) fn serve_transaction(&mut self) {
        let Some(transactions) = &self.transactions else {
            return;
        };
        let due = transactions.since.elapsed() >= self.config.commit_interval;
        match transactions.state {
            TransactionState::Open if due && self.is_uncommitted() && !self.goes_on() => self.begin_to_end(),
            TransactionState::Rewinding(at) if Instant::now() >= at => self.rewind(),
            _ => {}
        }
    }

    pub(super) fn is_rewinding(&self) -> bool {
        self.transactions
            .as_ref()
            .is_some_and(TransactionDriver::is_rewinding)
    }

    fn is_uncommitted(&self) -> bool {
        self.assigned.iter().any(|entry| entry.uncommitted().is_some())
    }

    /// See [`AssignedPartition::must_go_on`].
    fn goes_on(&self) -> bool {
        let longest = self.config.commit_interval + GO_ON;
        let young = self
            .transactions
            .as_ref()
            .is_some_and(|transactions| transactions.since.elapsed() < longest);
        young && self.assigned.iter().any(AssignedPartition::must_go_on)
    }

    fn begin_to_end(&mut self) {
        if let Some(transactions) = &mut self.transactions {
            transactions.state = TransactionState::Ending(transactions.gate.current());
            transactions.ended = Instant::now();
            transactions.command(Command::End);
        }
    }

    pub(super) fn take_transaction_event(&mut self, event: Event) {
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        match (event, &transactions.state) {
            (Event::Drained, TransactionState::Ending(_)) => self.commit_transaction(),
            (Event::Committed, _) => {
                if matches!(transactions.state, TransactionState::Committing) {
                    transactions.state = TransactionState::Open;
                    transactions.outage = None;
                }
                self.shared.metrics.committed(None);
                self.shared.metrics.transaction("committed");
                for ending in std::mem::take(&mut transactions.ending) {
                    let Ending {
                        partition,
                        epoch,
                        position,
                        counters,
                    } = ending;
                    transactions
                        .rejected_records
                        .forget_below(&partition, position.offset);
                    self.counters.add(counters);
                    let current = |entry: &&mut AssignedPartition| {
                        entry.partition == partition && entry.task_epoch == epoch
                    };
                    if let Some(entry) = self.assigned.iter_mut().find(current) {
                        let offset = position.offset;
                        entry.committing(position);
                        entry.commit_answered(Some(offset));
                        entry.count(counters);
                        if entry.relax() {
                            transactions.one_at_a_time.remove(&partition);
                        }
                    }
                }
            }
            // It was spoiled meanwhile.
            (Event::Drained, _) => {}
            (Event::Failed(_), TransactionState::Aborting | TransactionState::Rewinding(_)) => {}
            (Event::Failed(failure), _) => {
                if failure.cause == Cause::TooLong {
                    // It is not told which partition's was too long; the longest was.
                    let lengths = transactions
                        .ending
                        .iter()
                        .map(|ending| ending.position.metadata.len());
                    let longest = lengths.max().unwrap_or_default();
                    self.shrink_metadata(longest);
                }
                self.abort_transaction(failure);
            }
            (Event::Aborted, _) => {
                transactions.state = TransactionState::Rewinding(Instant::now());
                transactions.outage = transactions.outage.take().filter(|outage| !outage.beginning);
                self.rewind();
            }
            (Event::Unavailable(message), _) => {
                transactions.failed(
                    &message,
                    Cause::Unavailable,
                    PausedReason::WriterUnavailable,
                    true,
                );
                self.errors.note(&message);
            }
            (Event::Recovered, _) => {
                transactions.outage = transactions.outage.take().filter(|outage| !outage.beginning);
            }
        }
    }

    /// What is finished now is what was written in the transaction.
    fn commit_transaction(&mut self) {
        let too_far: Vec<TopicPartition> = self
            .assigned
            .iter()
            .filter(|entry| entry.uncommitted().is_some() && !entry.fits())
            .map(|entry| entry.partition.clone())
            .collect();
        if let Some(first) = too_far.first() {
            let message = format!(
                "{first}: more records were finished out of order than a commit can tell; they are written again, one after the other"
            );
            if let Some(transactions) = &mut self.transactions {
                transactions.one_at_a_time.extend(too_far);
            }
            return self.abort_transaction(TransactionFailure::new(Cause::Record, message));
        }
        let mut offsets = TopicPartitionList::new();
        let mut ending = Vec::new();
        for entry in &mut self.assigned {
            let Some(position) = entry.uncommitted() else {
                continue;
            };
            commit::add(&mut offsets, &entry.partition, &position);
            ending.push(Ending {
                partition: entry.partition.clone(),
                epoch: entry.task_epoch,
                position,
                counters: std::mem::take(&mut entry.uncounted),
            });
        }
        if seeded_bug("offsets-outside-transaction") {
            let _ = self.client.commit(&offsets);
            offsets = TopicPartitionList::new();
        }
        let group = self.client.membership();
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        let Some(group) = group.filter(|_| !ending.is_empty()) else {
            // Without a commit of its own, what was written in it would have to go with the next: nobody could tell them apart.
            let message = "the worker is not a member of its group for now";
            return self.abort_transaction(TransactionFailure::new(Cause::Unavailable, message.into()));
        };
        transactions.begun();
        transactions.state = TransactionState::Committing;
        transactions.ending = ending;
        transactions.command(Command::Commit { offsets, group });
    }

    /// Ends the work on all partitions, because what they have written will be gone.
    pub(super) fn abort_transaction(&mut self, failure: TransactionFailure) {
        let TransactionFailure {
            message,
            cause,
            reason,
        } = failure;
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        self.shared.metrics.transaction("aborted");
        match cause {
            Cause::Moved => {
                tracing::info!("aborting a transaction, because partitions have moved: {message}")
            }
            Cause::Record | Cause::TooLong => tracing::warn!("aborting a transaction: {message}"),
            Cause::Unavailable | Cause::Systemic => {
                transactions.failed(&message, cause, reason, false);
                // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log.
                let attempt = transactions.outage.as_ref().map_or(0, |outage| outage.failures);
                if attempt.is_power_of_two() {
                    tracing::warn!(attempt, "aborting a transaction: {message}; trying again");
                }
            }
        }
        self.assigned.iter_mut().for_each(AssignedPartition::discard);
        let backoff = transactions.backoff(cause);
        transactions.state = TransactionState::Aborting;
        transactions.ended = Instant::now();
        transactions.command(Command::Abort { backoff });
    }

    /// Ends the transaction now: with a commit, or, when that takes longer than the budget or `commit` is false, with an
    /// abort that is only begun. Its records are then read again by whoever gets the partitions next.
    pub(super) fn end_transaction(&mut self, commit: bool) -> Result<(), PollError> {
        if self.transactions.is_none() || self.is_rewinding() {
            return Ok(());
        }
        if commit && self.end_transaction_within(Instant::now() + END_BUDGET)? {
            return Ok(());
        }
        if !self.is_rewinding() {
            let message = match commit {
                true => "partitions are given up, and the transaction could not be committed in time",
                false => "partitions are given up before the work on them was done",
            };
            self.abort_transaction(TransactionFailure::new(Cause::Moved, message.into()));
        }
        Ok(())
    }

    /// True when everything that was finished at the call is committed. Lanes that go on meanwhile finish more, so one
    /// transaction that is ended after the call has to do.
    fn end_transaction_within(&mut self, deadline: Instant) -> Result<bool, PollError> {
        let mut covered = false;
        loop {
            match self.transactions.as_ref().map(|transactions| &transactions.state) {
                None => return Ok(true),
                Some(TransactionState::Open) if covered || !self.is_uncommitted() => return Ok(true),
                Some(TransactionState::Open) => {
                    self.begin_to_end();
                    covered = true;
                }
                Some(TransactionState::Aborting | TransactionState::Rewinding(_)) => return Ok(false),
                Some(TransactionState::Ending(_) | TransactionState::Committing) => {}
            }
            if !self.wait_for_event(deadline)? {
                return Ok(false);
            }
        }
    }

    /// Waits until a transaction that is being aborted is, so that nobody has to wait for its timeout.
    pub(super) fn await_abort(&mut self, deadline: Instant) -> Result<(), PollError> {
        let aborting = |this: &Self| {
            let state = this.transactions.as_ref().map(|transactions| &transactions.state);
            matches!(state, Some(TransactionState::Aborting))
        };
        while aborting(self) && self.wait_for_event(deadline)? {}
        Ok(())
    }

    /// False when the time is over.
    fn wait_for_event(&mut self, deadline: Instant) -> Result<bool, PollError> {
        self.handles.liveness.tick();
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(event) = self.events.recv_timeout(left.min(TICK)) {
            self.take(event)?;
        }
        Ok(!left.is_zero())
    }
}
