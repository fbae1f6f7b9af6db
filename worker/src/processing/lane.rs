//! A lane processes batch parts in order: it writes each part, routes its failed records to the dead letter
//! topic, a skip or the retry queue, and reports the finished records to the poll loop. A waiting record
//! holds back only the records that must not overtake it ([`RetryQueue`]). One lane per partition keeps the
//! order of the partition; several lanes keep the order of each key, or no order.

mod failures;
mod retries;

use std::sync::Arc;

use crds::spec::{DeliveryGuarantee, Ordering};
use futures::future::join_all;
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};

use crate::{
    processing::{
        batch_part::BatchPart,
        context::PartitionContext,
        delivery::{Delivery, RetryMode, outcome::WriteOutcome, wait_for_writer},
        messages::TaskEvent,
        retry_queue::{RetryQueue, WaitingRecord},
    },
    record::failure::FailedRecord,
    transaction::{Event, TransactionFailure},
};

/// One lane of a partition.
pub(crate) struct Lane {
    context: Arc<PartitionContext>,
    input: mpsc::UnboundedReceiver<BatchPart>,
    retry_queue: RetryQueue,
    /// The lane has parked a failed record since the current retry started.
    has_parked_failure: bool,
}

/// The partition drains: the lane starts nothing more.
struct Drained;

/// What a lane does next.
enum Next {
    /// A waiting record is due.
    Retry,
    BatchPart(BatchPart),
    /// The input has ended.
    End,
}

impl Lane {
    /// Takes parts from `input`, in order.
    pub fn new(context: Arc<PartitionContext>, input: mpsc::UnboundedReceiver<BatchPart>) -> Self {
        Self {
            retry_queue: RetryQueue::new(context.shared.ordering),
            context,
            input,
            has_parked_failure: false,
        }
    }

    /// Works until the partition drains, or until the input has ended and no record waits.
    pub async fn run(mut self) {
        // Drained or finished: the lane ends in both cases.
        let _ = self.serve().await;
    }

    async fn serve(&mut self) -> Result<(), Drained> {
        let mut draining = self.context.draining.clone();
        let mut open = true;
        while open || !self.retry_queue.is_empty() {
            let due = self.retry_queue.due();
            let next = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return Err(Drained),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Retry,
                part = self.input.recv(), if open => part.map_or(Next::End, Next::BatchPart),
            };
            match next {
                Next::Retry => self.retry().await?,
                Next::BatchPart(part) => self.take(part).await?,
                Next::End => open = false,
            }
        }
        Ok(())
    }

    /// Works on the records of a part that follow no waiting record. The others join the retry queue.
    async fn take(&mut self, part: BatchPart) -> Result<(), Drained> {
        match self.retry_queue.hold_back(part) {
            Some(part) => self.work(part, 0).await,
            None => Ok(()),
        }
    }

    /// Retries the waiting record that is due, then takes the records behind it.
    async fn retry(&mut self) -> Result<(), Drained> {
        let Some(waiting) = self.retry_queue.pop_due(Instant::now()) else {
            return Ok(());
        };
        let WaitingRecord {
            part,
            waits,
            reporter,
            followers,
            ..
        } = waiting;
        self.has_parked_failure = false;
        let had_failed = part.retry_failed;
        self.work(part, waits + 1).await?;
        drop(reporter);
        let fixed = had_failed && !self.has_parked_failure;
        for mut follower in followers {
            // Followers that have failed did so before the cause was fixed.
            follower.retry_failed |= fixed;
            for piece in follower.pieces() {
                self.take(piece).await?;
            }
        }
        Ok(())
    }

    /// The way of one part through the lane: finishes all its records except those that have to wait.
    async fn work(&mut self, mut part: BatchPart, waits: u32) -> Result<(), Drained> {
        let context = self.context.clone();
        let permit = unless_draining(&context, write_permit(&context, &part)).await??;
        let is_retry = part.retry_failed && !part.failed_records.is_empty();
        if is_retry {
            part = self.retry_failed_records(part).await;
        }
        self.park_before_writing(&mut part, waits);
        if part.is_empty() {
            return Ok(());
        }
        // With transactions, the lane writes inside of the gate until everything is reported.
        let inside = match &context.shared.gate {
            Some(gate) => {
                let entered = unless_draining(&context, gate.enter(context.round)).await?;
                Some(entered.ok_or(Drained)?)
            }
            None => None,
        };
        let transaction = inside.as_ref().map_or(0, |inside| inside.transaction);
        let reporter = context.problems.at(part.offset());
        let mut outcomes = self.write(&part, transaction, is_retry).await;
        if let Some(failure) = outcomes.iter_mut().find_map(|outcome| outcome.failure.take()) {
            return self.fail_transaction(failure).await;
        }
        // Writing dead letters takes no permit: a wait for the dead letter topic must not keep other lanes
        // from writing.
        drop(permit);
        // Kept to the end, also while a failed transaction waits below: until then the batch is not finished.
        let batch = part.batch().clone();
        self.keep_unwritten(&mut part, &batch, &outcomes);
        self.park_retries(&mut part, &outcomes, waits);
        let given_up: usize = outcomes.iter().map(|outcome| outcome.given_up).sum();
        for rejected in outcomes.into_iter().flat_map(|outcome| outcome.rejected) {
            part.add_failed(FailedRecord {
                failure: rejected.failure,
                attempts: rejected.attempts,
            });
        }
        if is_retry {
            self.close_dead_letter_breaker(&part);
        }
        let finished = self
            .finish(part, transaction, waits, given_up as u64, &reporter)
            .await;
        match finished {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_transaction(failure).await,
        }
    }

    /// Writes the part with all its writers at the same time.
    async fn write(&self, part: &BatchPart, transaction: u64, is_retry: bool) -> Vec<WriteOutcome> {
        let shared = &self.context.shared;
        let retry_mode = self.retry_mode();
        let deliveries = part.pending.iter().map(async |pending| {
            // One reporter per writer: the success of one writer must not hide the problem of another.
            let reporter = self.context.problems.at(part.offset());
            let delivery = Delivery {
                writer: &shared.writers[pending.writer],
                breaker: &shared.breakers[pending.writer],
                batch: part.batch(),
                transaction,
                after_a_wait: is_retry,
                retry_mode,
                retry: &shared.retry,
                reporter: &reporter,
                metrics: &shared.metrics,
            };
            delivery.run(pending).await
        });
        join_all(deliveries).await
    }

    fn retry_mode(&self) -> RetryMode {
        let shared = &self.context.shared;
        match (shared.guarantee, shared.ordering) {
            _ if shared.gate.is_some() => RetryMode::AbortTransaction,
            (DeliveryGuarantee::AtMostOnce, _) => RetryMode::Never,
            (_, Ordering::PerPartition) => RetryMode::RequeueWithFollowers,
            (_, Ordering::PerKey | Ordering::Unordered) => RetryMode::Requeue,
        }
    }

    /// True when the lane may write a record again, behind one that should have been written before it.
    fn may_repeat(&self) -> bool {
        let shared = &self.context.shared;
        shared.guarantee == DeliveryGuarantee::AtLeastOnce && shared.ordering != Ordering::Unordered
    }

    /// Reports that the transaction cannot be committed. The poll loop then ends this task and reads the
    /// records again.
    async fn fail_transaction(&self, failure: TransactionFailure) -> Result<(), Drained> {
        let event = TaskEvent::Transaction(Event::Failed(failure));
        let _ = self.context.events.send(event);
        std::future::pending().await
    }
}

/// Waits, but returns as soon as the partition drains.
async fn unless_draining<T>(context: &PartitionContext, wait: impl Future<Output = T>) -> Result<T, Drained> {
    let mut draining = context.draining.clone();
    tokio::select! {
        biased;
        _ = draining.wait_for(|draining| *draining) => Err(Drained),
        result = wait => Ok(result),
    }
}

/// Waits until the lane may write. While the circuit breaker of a writer is open, the lane starts nothing and
/// takes no permit from other lanes.
async fn write_permit<'c>(
    context: &'c PartitionContext,
    part: &BatchPart,
) -> Result<SemaphorePermit<'c>, Drained> {
    let reporter = context.problems.at(part.offset());
    for pending in part.pending.iter().filter(|pending| !pending.outputs.is_empty()) {
        let waiting = |error: &str| wait_for_writer(&reporter, pending.attempts, error);
        context.shared.breakers[pending.writer].passable(waiting).await;
    }
    context.shared.lanes.acquire().await.map_err(|_| Drained)
}

#[cfg(test)]
mod tests;
