//! A lane: finishes units one after the other. Writers, then for failed records dead letters, skipping or waiting; what
//! is finished is reported. A record that waits holds back only what must not overtake it ([`RetryQueue`]). One lane per
//! partition keeps the order of the partition; several keep the order of each key, or none.

mod failures;

use std::sync::Arc;

use crds::spec::{DeliveryGuarantee, Ordering};
use futures::future::join_all;
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};

use self::failures::add_failed_record;
use crate::{
    dead_letter::FailurePolicy,
    processing::{
        batch_part::BatchPart,
        context::PartitionContext,
        delivery::{Delivery, RetryMode, WriteOutcome, wait_for_writer},
        messages::TaskEvent,
        retry_queue::{RetryQueue, WaitingRecord},
    },
    record::failure::{FailedRecord, Stage},
    transaction::{Event, TransactionFailure},
};

/// See the module.
pub(crate) struct Lane {
    context: Arc<PartitionContext>,
    input: mpsc::UnboundedReceiver<BatchPart>,
    retry_queue: RetryQueue,
    /// A failed record was made to wait.
    stopped: bool,
}

/// Told to drain.
struct Drained;

enum Next {
    /// A waiting record is due.
    Retry,
    BatchPart(BatchPart),
    /// Nothing more comes in.
    End,
}

impl Lane {
    /// Takes units from `input`, in order.
    pub fn new(context: Arc<PartitionContext>, input: mpsc::UnboundedReceiver<BatchPart>) -> Self {
        Self {
            retry_queue: RetryQueue::new(context.shared.ordering),
            context,
            input,
            stopped: false,
        }
    }

    /// Works until told to drain, or until the input has ended and nothing waits.
    pub async fn run(mut self) {
        // Drained or finished: either way nothing more is to be done here.
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

    async fn take(&mut self, part: BatchPart) -> Result<(), Drained> {
        match self.retry_queue.hold_back(part) {
            Some(part) => self.work(part, 0).await,
            None => Ok(()),
        }
    }

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
        self.stopped = false;
        let failed = part.again;
        self.work(part, waits + 1).await?;
        drop(reporter);
        let mended = failed && !self.stopped;
        for mut follower in followers {
            // What failed behind it did so before that was mended.
            follower.again |= mended;
            for piece in follower.pieces() {
                self.take(piece).await?;
            }
        }
        Ok(())
    }

    /// Finishes a unit, but for the records that have to wait.
    async fn work(&mut self, mut part: BatchPart, waits: u32) -> Result<(), Drained> {
        let context = self.context.clone();
        let shared = &context.shared;
        let mut draining = context.draining.clone();
        let permit = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(Drained),
            permit = Self::permit(&context, &part) => permit?,
        };
        let again = part.again && !part.failed_records.is_empty();
        if again {
            part = self.try_again(part).await;
        }
        self.park_before_writing(&mut part, waits);
        if part.is_empty() {
            return Ok(());
        }
        let inside = match &shared.gate {
            Some(gate) => tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return Err(Drained),
                inside = gate.enter(context.round) => Some(inside.ok_or(Drained)?),
            },
            None => None,
        };
        let reporter = context.problems.at(part.offset());
        let transaction = inside.as_ref().map_or(0, |inside| inside.transaction);
        let mut delivered = self.write(&part, transaction, again).await;
        if let Some(failure) = delivered
            .iter_mut()
            .find_map(|delivered| delivered.failure.take())
        {
            return self.fail_transaction(failure).await;
        }
        // WaitingRecord for dead letters is no work: it must not keep others from theirs.
        drop(permit);
        let repeat = self.may_repeat();
        let batch = part.batch().clone();
        for (pending, delivered) in part.pending.iter_mut().zip(&delivered) {
            pending.outputs = delivered.left(&batch, &pending.outputs, repeat);
        }
        self.park_later(&mut part, &delivered, waits);
        let given_up: usize = delivered.iter().map(|delivered| delivered.given_up).sum();
        for refused in delivered.into_iter().flat_map(|delivered| delivered.refused) {
            add_failed_record(
                &mut part,
                FailedRecord {
                    failure: refused.failure,
                    attempts: refused.attempts,
                },
            );
        }
        if let (true, FailurePolicy::DeadLetter(queue)) = (again, &shared.policy)
            && part.failed_records.is_empty()
            && !part.is_empty()
        {
            // Only a breaker makes records wait to be tried again.
            queue.close_breaker(part.chunk());
        }
        let finished = self
            .finish(part, transaction, waits, given_up as u64, &reporter)
            .await;
        match finished {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_transaction(failure).await,
        }
    }

    /// Waits for a lane's turn to write. While a writer is away, nothing is begun, and no other lane kept from its turn.
    async fn permit<'c>(
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

    /// Says that the transaction cannot be committed. The poll loop answers by ending this task, and reads the records again.
    async fn fail_transaction(&self, failure: TransactionFailure) -> Result<(), Drained> {
        let event = TaskEvent::Transaction(Event::Failed(failure));
        let _ = self.context.events.send(event);
        std::future::pending().await
    }

    /// A failed record from where it failed: through the transforms, or only what a writer has not taken.
    async fn try_again(&self, mut part: BatchPart) -> BatchPart {
        let refused = |failed_record: &FailedRecord| failed_record.failure.stage == Stage::Write;
        if part.failed_records.iter().all(refused) {
            part.failed_records.clear();
            part.again = false;
            part.pending.iter_mut().for_each(|pending| pending.attempts = 0);
            return part;
        }
        let source = part.sources().first().copied().unwrap_or_default();
        let record = Arc::new(part.chunk().single(source as usize));
        let shared = &self.context.shared;
        let batch = shared.runs.process(record, &self.context.problems).await;
        BatchPart::new(batch, part.first() + u64::from(source), shared.writers.len())
    }

    /// True when a record may be written once more, behind one that should have been written before it.
    fn may_repeat(&self) -> bool {
        let shared = &self.context.shared;
        shared.guarantee == DeliveryGuarantee::AtLeastOnce && shared.ordering != Ordering::Unordered
    }

    async fn write(&self, part: &BatchPart, transaction: u64, again: bool) -> Vec<WriteOutcome> {
        let shared = &self.context.shared;
        let retry_mode = match (shared.guarantee, shared.ordering) {
            _ if shared.gate.is_some() => RetryMode::AbortTransaction,
            (DeliveryGuarantee::AtMostOnce, _) => RetryMode::Never,
            (_, Ordering::PerPartition) => RetryMode::RequeueWithFollowers,
            (_, Ordering::PerKey | Ordering::Unordered) => RetryMode::Requeue,
        };
        let deliveries = part.pending.iter().map(async |pending| {
            // Each its own: the success of one must not hide the trouble of another.
            let reporter = self.context.problems.at(part.offset());
            let delivery = Delivery {
                writer: &shared.writers[pending.writer],
                breaker: &shared.breakers[pending.writer],
                batch: part.batch(),
                transaction,
                again,
                retry_mode,
                retry: &shared.retry,
                reporter: &reporter,
                metrics: &shared.metrics,
            };
            delivery.run(pending).await
        });
        join_all(deliveries).await
    }

    /// Lets the records wait that a writer will perhaps take later, and those behind them.
    fn park_later(&mut self, part: &mut BatchPart, delivered: &[WriteOutcome], waits: u32) {
        let batch = part.batch().clone();
        let later = || {
            delivered
                .iter()
                .zip(0..)
                .flat_map(|(delivered, writer)| delivered.later.iter().map(move |later| (writer, later)))
        };
        let mut sources: Vec<u32> = later().map(|(_, later)| batch.source(later.output)).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            // It may follow one of the same key already.
            let Some(mut waiting) = part.take(|other| other == source) else {
                continue;
            };
            let followers = self.retry_queue.followers(part, source);
            let reporter = self.context.problems.at(waiting.offset());
            let mut attempts = 0;
            // What another writer has refused for good is still to be done as well, so that writer is asked once more.
            for (writer, later) in later().filter(|(_, later)| batch.source(later.output) == source) {
                waiting.pending[writer].attempts = later.attempts;
                attempts = attempts.max(later.attempts);
                reporter.failing(later.attempts, &later.message);
            }
            self.retry_queue.park(WaitingRecord {
                part: waiting,
                due: Instant::now() + self.context.shared.retry.random_backoff(attempts),
                waits,
                reporter,
                followers: followers.into_iter().collect(),
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
