//! A lane: finishes units one after the other. Writers, then for failed records dead letters, skipping or waiting; what
//! is finished is reported. A record that waits holds back only what must not overtake it ([`Parked`]). One lane per
//! partition keeps the order of the partition; several keep the order of each key, or none.

mod failures;

use std::sync::Arc;

use crds::spec::{DeliveryGuarantee, Ordering};
use futures::future::join_all;
use tokio::{
    sync::{SemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};

use self::failures::add_letter;
use crate::{
    dead_letter::FailurePolicy,
    processing::{
        batch_part::Unit,
        context::PartitionContext,
        delivery::{Delivered, Delivery, Patience, wait_for_writer},
        messages::TaskEvent,
        retry_queue::{Parked, Waiting},
    },
    record::failure::{FailedRecord, Stage},
    transaction::{Event, Spoiled},
};

/// See the module.
pub(crate) struct Lane {
    context: Arc<PartitionContext>,
    input: mpsc::UnboundedReceiver<Unit>,
    parked: Parked,
    /// A failed record was made to wait.
    stopped: bool,
}

/// Told to drain.
struct Drained;

enum Next {
    /// A waiting record is due.
    Retry,
    Unit(Unit),
    /// Nothing more comes in.
    End,
}

impl Lane {
    /// Takes units from `input`, in order.
    pub fn new(context: Arc<PartitionContext>, input: mpsc::UnboundedReceiver<Unit>) -> Self {
        Self {
            parked: Parked::new(context.shared.ordering),
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
        while open || !self.parked.is_empty() {
            let due = self.parked.due();
            let next = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return Err(Drained),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Retry,
                unit = self.input.recv(), if open => unit.map_or(Next::End, Next::Unit),
            };
            match next {
                Next::Retry => self.retry().await?,
                Next::Unit(unit) => self.take(unit).await?,
                Next::End => open = false,
            }
        }
        Ok(())
    }

    async fn take(&mut self, unit: Unit) -> Result<(), Drained> {
        match self.parked.catch(unit) {
            Some(unit) => self.work(unit, 0).await,
            None => Ok(()),
        }
    }

    async fn retry(&mut self) -> Result<(), Drained> {
        let Some(waiting) = self.parked.release(Instant::now()) else {
            return Ok(());
        };
        let Waiting {
            unit,
            waits,
            progress,
            followers,
            ..
        } = waiting;
        self.stopped = false;
        let failed = unit.again;
        self.work(unit, waits + 1).await?;
        drop(progress);
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
    async fn work(&mut self, mut unit: Unit, waits: u32) -> Result<(), Drained> {
        let context = self.context.clone();
        let shared = &context.shared;
        let mut draining = context.draining.clone();
        let permit = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(Drained),
            permit = Self::permit(&context, &unit) => permit?,
        };
        let again = unit.again && !unit.letters.is_empty();
        if again {
            unit = self.try_again(unit).await;
        }
        self.hold_before_writing(&mut unit, waits);
        if unit.is_empty() {
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
        let progress = context.troubles.at(unit.offset());
        let transaction = inside.as_ref().map_or(0, |inside| inside.transaction);
        let mut delivered = self.write(&unit, transaction, again).await;
        if let Some(spoiled) = delivered
            .iter_mut()
            .find_map(|delivered| delivered.spoiled.take())
        {
            return self.spoil(spoiled).await;
        }
        // Waiting for dead letters is no work: it must not keep others from theirs.
        drop(permit);
        let repeat = self.may_repeat();
        let batch = unit.batch().clone();
        for (todo, delivered) in unit.todo.iter_mut().zip(&delivered) {
            todo.outputs = delivered.left(&batch, &todo.outputs, repeat);
        }
        self.park_later(&mut unit, &delivered, waits);
        let given_up: usize = delivered.iter().map(|delivered| delivered.given_up).sum();
        for refused in delivered.into_iter().flat_map(|delivered| delivered.refused) {
            add_letter(
                &mut unit,
                FailedRecord {
                    failure: refused.failure,
                    attempts: refused.attempts,
                },
            );
        }
        if let (true, FailurePolicy::DeadLetter(queue)) = (again, &shared.policy)
            && unit.letters.is_empty()
            && !unit.is_empty()
        {
            // Only a breaker makes records wait to be tried again.
            queue.close_breaker(unit.chunk());
        }
        let settled = self
            .settle(unit, transaction, waits, given_up as u64, &progress)
            .await;
        match settled {
            Ok(()) => Ok(()),
            Err(spoiled) => self.spoil(spoiled).await,
        }
    }

    /// Waits for a lane's turn to write. While a writer is away, nothing is begun, and no other lane kept from its turn.
    async fn permit<'c>(context: &'c PartitionContext, unit: &Unit) -> Result<SemaphorePermit<'c>, Drained> {
        let progress = context.troubles.at(unit.offset());
        for todo in unit.todo.iter().filter(|todo| !todo.outputs.is_empty()) {
            let waiting = |error: &str| wait_for_writer(&progress, todo.attempts, error);
            context.shared.circuits[todo.writer].passable(waiting).await;
        }
        context.shared.lanes.acquire().await.map_err(|_| Drained)
    }

    /// Says that the transaction cannot be committed. The poll loop answers by ending this task, and reads the records again.
    async fn spoil(&self, spoiled: Spoiled) -> Result<(), Drained> {
        let report = TaskEvent::Transaction(Event::Spoiled(spoiled));
        let _ = self.context.reports.send(report);
        std::future::pending().await
    }

    /// A failed record from where it failed: through the transforms, or only what a writer has not taken.
    async fn try_again(&self, mut unit: Unit) -> Unit {
        let refused = |letter: &FailedRecord| letter.failure.stage == Stage::Write;
        if unit.letters.iter().all(refused) {
            unit.letters.clear();
            unit.again = false;
            unit.todo.iter_mut().for_each(|todo| todo.attempts = 0);
            return unit;
        }
        let source = unit.sources().first().copied().unwrap_or_default();
        let record = Arc::new(unit.chunk().single(source as usize));
        let shared = &self.context.shared;
        let batch = shared.runs.process(record, &self.context.troubles).await;
        Unit::new(batch, unit.first() + u64::from(source), shared.writers.len())
    }

    /// True when a record may be written once more, behind one that should have been written before it.
    fn may_repeat(&self) -> bool {
        let shared = &self.context.shared;
        shared.guarantee == DeliveryGuarantee::AtLeastOnce && shared.ordering != Ordering::Unordered
    }

    async fn write(&self, unit: &Unit, transaction: u64, again: bool) -> Vec<Delivered> {
        let shared = &self.context.shared;
        let patience = match (shared.guarantee, shared.ordering) {
            _ if shared.gate.is_some() => Patience::Rewind,
            (DeliveryGuarantee::AtMostOnce, _) => Patience::Once,
            (_, Ordering::PerPartition) => Patience::HandBackWithRest,
            (_, Ordering::PerKey | Ordering::Unordered) => Patience::HandBack,
        };
        let deliveries = unit.todo.iter().map(async |todo| {
            // Each its own: the success of one must not hide the trouble of another.
            let progress = self.context.troubles.at(unit.offset());
            let delivery = Delivery {
                writer: &shared.writers[todo.writer],
                circuit: &shared.circuits[todo.writer],
                batch: unit.batch(),
                transaction,
                again,
                patience,
                retry: &shared.retry,
                progress: &progress,
                metrics: &shared.metrics,
            };
            delivery.run(todo).await
        });
        join_all(deliveries).await
    }

    /// Lets the records wait that a writer will perhaps take later, and those behind them.
    fn park_later(&mut self, unit: &mut Unit, delivered: &[Delivered], waits: u32) {
        let batch = unit.batch().clone();
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
            let Some(mut waiting) = unit.take(|other| other == source) else {
                continue;
            };
            let followers = self.parked.followers(unit, source);
            let progress = self.context.troubles.at(waiting.offset());
            let mut attempts = 0;
            // What another writer has refused for good is still to be done as well, so that writer is asked once more.
            for (writer, later) in later().filter(|(_, later)| batch.source(later.output) == source) {
                waiting.todo[writer].attempts = later.attempts;
                attempts = attempts.max(later.attempts);
                progress.failing(later.attempts, &later.message);
            }
            self.parked.park(Waiting {
                unit: waiting,
                due: Instant::now() + self.context.shared.retry.random_backoff(attempts),
                waits,
                progress,
                followers: followers.into_iter().collect(),
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
