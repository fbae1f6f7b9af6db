//! How the poll loop drives transactions: it decides when one ends and with which offsets. If one cannot be
//! committed, the loop ends the work on all partitions, aborts the transaction, and reads each partition
//! again from its committed offset (`rewind.rs`). The transactor makes the blocking calls. The loop waits for
//! the outcome only when partitions are revoked and at a stop, within a budget.

use std::time::{Duration, Instant};

use rdkafka::topic_partition_list::TopicPartitionList;

use super::{
    PollLoop,
    assigned::AssignedPartition,
    commit,
    error::PollError,
    transaction_driver::{Ending, TransactionDriver, TransactionState},
};
use crate::retry;
use crate::{
    health::snapshot::PausedReason,
    record::TopicPartition,
    seeded_bugs::seeded_bug,
    transaction::{Cause, Command, Event, TransactionFailure},
};

/// How long partitions that are being released wait for the end of the transaction: as long as for a commit
/// without transactions.
pub(super) const END_BUDGET: Duration = Duration::from_secs(5);

/// How long a transaction that has to stay open may last beyond a commit interval. The broker allows 20 s
/// beyond it.
const EXTENSION: Duration = Duration::from_secs(10);

/// Time between two liveness ticks while waiting.
const TICK: Duration = Duration::from_millis(100);

impl PollLoop {
    /// Ends the transaction when it is due, and reads the partitions again after an abort.
    pub(super) fn serve_transaction(&mut self) {
        let Some(transactions) = &self.transactions else {
            return;
        };
        let elapsed = transactions.open_since.elapsed() >= self.config.commit_interval;
        let due = elapsed || self.waits_for_last_commit();
        match transactions.state {
            TransactionState::Open if due && self.is_uncommitted() && !self.must_stay_open() => {
                self.start_ending()
            }
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

    /// True while [`AssignedPartition::must_stay_open`] holds for a partition, up to [`EXTENSION`] beyond the
    /// commit interval.
    fn must_stay_open(&self) -> bool {
        let longest = self.config.commit_interval + EXTENSION;
        let young = self
            .transactions
            .as_ref()
            .is_some_and(|transactions| transactions.open_since.elapsed() < longest);
        young && self.assigned.iter().any(AssignedPartition::must_stay_open)
    }

    fn start_ending(&mut self) {
        if let Some(transactions) = &mut self.transactions {
            transactions.state = TransactionState::Ending(transactions.gate.current());
            transactions.ending_since = Instant::now();
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
                        task_epoch,
                        position,
                        counters,
                    } = ending;
                    transactions
                        .rejected_records
                        .forget_below(&partition, position.offset);
                    self.counters.add(counters);
                    let current = self
                        .assigned
                        .iter_mut()
                        .find(|entry| entry.has_task(&partition, task_epoch));
                    if let Some(entry) = current {
                        let offset = position.offset;
                        entry.committing(position);
                        entry.commit_answered(Some(offset));
                        entry.count(counters);
                        if entry.end_one_at_a_time() {
                            transactions.one_at_a_time.remove(&partition);
                        }
                    }
                }
            }
            // The transaction failed meanwhile.
            (Event::Drained, _) => {}
            (Event::Failed(_), TransactionState::Aborting | TransactionState::Rewinding(_)) => {}
            (Event::Failed(failure), _) => {
                if failure.cause == Cause::TooLong {
                    // The broker does not report which partition's metadata was too long, so the longest
                    // counts.
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
                transactions.outage = transactions.outage.take().filter(|outage| !outage.cannot_begin);
                self.rewind();
            }
            (Event::Unavailable(message), _) => {
                transactions.record_failure(
                    &message,
                    Cause::Unavailable,
                    PausedReason::WriterUnavailable,
                    true,
                );
                self.errors.note(&message);
            }
            (Event::Recovered, _) => {
                transactions.outage = transactions.outage.take().filter(|outage| !outage.cannot_begin);
            }
        }
    }

    /// Commits the transaction. The records that are finished now are exactly those that were written in it.
    fn commit_transaction(&mut self) {
        let do_not_fit: Vec<TopicPartition> = self
            .assigned
            .iter()
            .filter(|entry| entry.uncommitted().is_some() && !entry.metadata_fits())
            .map(|entry| entry.partition.clone())
            .collect();
        if let Some(first) = do_not_fit.first() {
            let message = format!(
                "{first}: the metadata of a commit cannot list all out-of-order completions; \
                 the records are written again, one at a time"
            );
            if let Some(transactions) = &mut self.transactions {
                transactions.one_at_a_time.extend(do_not_fit);
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
                task_epoch: entry.task_epoch,
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
            // Without its own commit, the records of this transaction would have to be committed with the
            // next one, and the loop could not distinguish them.
            let message = "the worker is not a member of its group for now";
            return self.abort_transaction(TransactionFailure::new(Cause::Unavailable, message.into()));
        };
        transactions.opened();
        transactions.state = TransactionState::Committing;
        transactions.ending = ending;
        transactions.command(Command::Commit { offsets, group });
    }

    /// Ends the work on all partitions and aborts the transaction: what they have written is removed.
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
                tracing::info!("aborting the transaction, because partitions are being reassigned: {message}")
            }
            Cause::Record | Cause::TooLong => tracing::warn!("aborting the transaction: {message}"),
            Cause::Unavailable | Cause::Systemic => {
                transactions.record_failure(&message, cause, reason, false);
                // Logs the 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log.
                let attempt = transactions.outage.as_ref().map_or(0, |outage| outage.failures);
                if retry::is_logged(attempt) {
                    tracing::warn!(attempt, "aborting the transaction: {message}; retrying");
                }
            }
        }
        self.assigned.iter_mut().for_each(AssignedPartition::discard);
        let backoff = transactions.backoff(cause);
        transactions.state = TransactionState::Aborting;
        transactions.ending_since = Instant::now();
        transactions.command(Command::Abort { backoff });
    }

    /// Ends the transaction now: with a commit, or, if that takes longer than the budget or `commit` is
    /// false, with an abort. It starts the abort and does not wait for it. The next owners of the partitions
    /// then read the records again.
    pub(super) fn end_transaction(&mut self, commit: bool) -> Result<(), PollError> {
        if self.transactions.is_none() || self.is_rewinding() {
            return Ok(());
        }
        if commit && self.end_transaction_within(Instant::now() + END_BUDGET)? {
            return Ok(());
        }
        if !self.is_rewinding() {
            let message = if commit {
                "the transaction could not be committed before its partitions had to be released"
            } else {
                "partitions have to be released before their work in flight is finished"
            };
            self.abort_transaction(TransactionFailure::new(Cause::Moved, message.into()));
        }
        Ok(())
    }

    /// Returns true when everything that was finished at the call is committed. Lanes continue and finish
    /// more meanwhile, so the call waits for one transaction that ends after its start, and not for more.
    fn end_transaction_within(&mut self, deadline: Instant) -> Result<bool, PollError> {
        let mut covered = false;
        loop {
            match self.transactions.as_ref().map(|transactions| &transactions.state) {
                None => return Ok(true),
                Some(TransactionState::Open) if covered || !self.is_uncommitted() => return Ok(true),
                Some(TransactionState::Open) => {
                    self.start_ending();
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

    /// Waits until a running abort is complete, so that no other client has to wait for the timeout of the
    /// transaction.
    pub(super) fn await_abort(&mut self, deadline: Instant) -> Result<(), PollError> {
        let aborting = |this: &Self| {
            let state = this.transactions.as_ref().map(|transactions| &transactions.state);
            matches!(state, Some(TransactionState::Aborting))
        };
        while aborting(self) && self.wait_for_event(deadline)? {}
        Ok(())
    }

    /// Waits for one event, at most until the next liveness tick. Returns false when the deadline has passed.
    fn wait_for_event(&mut self, deadline: Instant) -> Result<bool, PollError> {
        self.handles.liveness.tick();
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(event) = self.events.recv_timeout(left.min(TICK)) {
            self.take(event)?;
        }
        Ok(!left.is_zero())
    }
}
