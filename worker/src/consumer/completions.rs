//! Events from the tasks of the partitions: finished records, and the end of a task.

use super::{
    PollLoop,
    assigned::{AssignedPartition, Counters},
    error::PollError,
    transaction_driver::TransactionDriver,
};
use crate::{processing::messages::TaskEvent, record::TopicPartition};

impl PollLoop {
    /// Takes the events that have arrived so far.
    pub(super) fn take_events(&mut self) -> Result<(), PollError> {
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    /// Takes one event. While a transaction ends, events of the next one are deferred.
    pub(super) fn take(&mut self, event: TaskEvent) -> Result<(), PollError> {
        let event = match &mut self.transactions {
            Some(transactions) => transactions.defer(event),
            None => Some(event),
        };
        if let Some(event) = event {
            self.apply(event)?;
        }
        while let Some(event) = self
            .transactions
            .as_mut()
            .and_then(TransactionDriver::next_deferred)
        {
            self.apply(event)?;
        }
        Ok(())
    }

    fn apply(&mut self, event: TaskEvent) -> Result<(), PollError> {
        match event {
            TaskEvent::Transaction(event) => self.take_transaction_event(event),
            TaskEvent::Finished {
                partition,
                task_epoch,
                finished,
                transaction: _,
                dead_lettered,
                skipped,
            } => {
                let transactional = self.transactions.is_some();
                // Not found: a completion of an older task. Another worker owns the partition, or it was
                // assigned to this worker again.
                let Some(entry) = self.current(&partition, task_epoch) else {
                    return Ok(());
                };
                entry.complete(&finished);
                let counters = Counters {
                    done: finished.len() as u64,
                    dead_lettered,
                    skipped,
                };
                if transactional {
                    // These records count once the transaction is committed.
                    entry.uncounted.add(counters);
                } else {
                    entry.count(counters);
                    self.counters.add(counters);
                }
            }
            TaskEvent::Ended {
                partition,
                task_epoch,
            } => {
                if let Some(entry) = self.current(&partition, task_epoch) {
                    entry.task_ended();
                    if !entry.is_draining() {
                        return Err(PollError::TaskDied(partition));
                    }
                }
            }
        }
        Ok(())
    }

    /// The partition, if the task with this epoch is still its task.
    pub(super) fn current(
        &mut self,
        partition: &TopicPartition,
        task_epoch: u64,
    ) -> Option<&mut AssignedPartition> {
        self.assigned
            .iter_mut()
            .find(|entry| entry.has_task(partition, task_epoch))
    }
}
