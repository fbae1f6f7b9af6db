//! A lane: finishes units one after the other. Writers, then for failed records dead letters, skipping or waiting; what
//! is finished is reported. A record that waits holds back only what must not overtake it ([`Parked`]). One lane per
//! partition keeps the order of the partition; several keep the order of each key, or none.

use std::{collections::VecDeque, sync::Arc, sync::mpsc as std_mpsc};

use crds::spec::{DeliveryGuarantee, Ordering};
use futures::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    dead_letter::{DeadLetters, Exceeded, FailurePolicy, Letter},
    delivery::{Delivered, Delivery, Patience},
    parked::{Parked, Retry, Waiting},
    partition::{Report, Shared},
    planted::planted,
    progress::{Progress, Troubles},
    record::TopicPartition,
    snapshot::PausedReason,
    unit::Unit,
};

/// What the lanes of a partition share.
pub(crate) struct Context {
    pub shared: Arc<Shared>,
    pub partition: TopicPartition,
    pub epoch: u64,
    pub troubles: Troubles,
    pub reports: std_mpsc::Sender<Report>,
    /// True: finish what has begun, start nothing.
    pub draining: watch::Receiver<bool>,
}

/// See the module.
pub(crate) struct Lane {
    context: Arc<Context>,
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
    pub fn new(context: Arc<Context>, input: mpsc::UnboundedReceiver<Unit>) -> Self {
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
            Some(unit) => self.work(unit, Retry::Write, 0).await,
            None => Ok(()),
        }
    }

    async fn retry(&mut self) -> Result<(), Drained> {
        let Some(waiting) = self.parked.release(Instant::now()) else {
            return Ok(());
        };
        let Waiting {
            unit,
            retry,
            waits,
            progress,
            followers,
            ..
        } = waiting;
        self.stopped = false;
        self.work(unit, retry, waits + 1).await?;
        drop(progress);
        let dead_letters = matches!(self.context.shared.policy, FailurePolicy::DeadLetter(_));
        let closed = dead_letters && retry == Retry::Process && !self.stopped;
        for mut follower in followers {
            if closed {
                self.process_anew(&mut follower);
            }
            if !follower.is_empty() {
                self.take(follower).await?;
            }
        }
        Ok(())
    }

    /// What failed behind a record that made the breaker wait failed before that was mended: it is processed again, at once.
    fn process_anew(&mut self, unit: &mut Unit) {
        while let Some(source) = unit.letters.first().map(|letter| letter.failure.source as u32) {
            let Some(mut failed) = unit.take(|other| other == source) else {
                unit.letters.remove(0);
                continue;
            };
            failed.letters.clear();
            let followers = self.parked.followers(unit, source);
            self.parked.park(Waiting {
                retry: Retry::Process,
                due: Instant::now(),
                waits: 0,
                progress: self.context.troubles.at(failed.offset()),
                followers: followers.into_iter().collect(),
                unit: failed,
            });
        }
    }

    /// Finishes a unit, but for the records that have to wait.
    async fn work(&mut self, unit: Unit, retry: Retry, waits: u32) -> Result<(), Drained> {
        let context = self.context.clone();
        let shared = &context.shared;
        let mut draining = context.draining.clone();
        let permit = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(Drained),
            permit = shared.lanes.acquire() => permit.map_err(|_| Drained)?,
        };
        let mut unit = match retry {
            Retry::Write => unit,
            Retry::Process => self.process_again(&unit).await,
        };
        if matches!(shared.policy, FailurePolicy::Stop) {
            self.stop_at_failures(&mut unit, waits, true, PausedReason::RecordFailed, "");
        }
        if unit.is_empty() {
            return Ok(());
        }
        let progress = context.troubles.at(unit.offset());
        let delivered = self.write(&unit, &progress).await;
        // Waiting for dead letters is no work: it must not keep others from theirs.
        drop(permit);
        self.park_later(&mut unit, &delivered, waits);
        let given_up: usize = delivered.iter().map(|delivered| delivered.given_up).sum();
        for refused in delivered.into_iter().flat_map(|delivered| delivered.refused) {
            add_letter(
                &mut unit,
                Letter {
                    failure: refused.failure,
                    attempts: refused.attempts,
                },
            );
        }
        if let (Retry::Process, FailurePolicy::DeadLetter(queue)) = (retry, &shared.policy)
            && unit.letters.is_empty()
            && !unit.is_empty()
        {
            // Only a breaker makes records wait to be processed again.
            queue.close_breaker(unit.chunk());
        }
        self.settle(unit, waits, given_up as u64, &progress).await;
        Ok(())
    }

    async fn process_again(&self, unit: &Unit) -> Unit {
        let source = unit.sources().first().copied().unwrap_or_default();
        let record = Arc::new(unit.chunk().single(source as usize));
        let shared = &self.context.shared;
        let batch = shared.process(record).await;
        Unit::new(batch, unit.first() + u64::from(source), shared.writers.len())
    }

    async fn write(&self, unit: &Unit, progress: &Progress) -> Vec<Delivered> {
        let shared = &self.context.shared;
        let patience = match (shared.guarantee, shared.ordering) {
            (DeliveryGuarantee::AtMostOnce, _) => Patience::Once,
            (DeliveryGuarantee::AtLeastOnce, Ordering::PerPartition) => Patience::Wait,
            (DeliveryGuarantee::AtLeastOnce, Ordering::PerKey | Ordering::Unordered) => Patience::HandBack,
        };
        let deliveries = unit.todo.iter().map(async |todo| {
            let delivery = Delivery {
                writer: &shared.writers[todo.writer],
                batch: unit.batch(),
                patience,
                retry: &shared.retry,
                progress,
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
            for (index, todo) in waiting.todo.iter_mut().enumerate() {
                let of_writer = |output: &u32| {
                    later().find(|(writer, later)| *writer == index && later.output == *output)
                };
                todo.outputs.retain(|output| of_writer(output).is_some());
                for (_, later) in todo.outputs.iter().filter_map(of_writer) {
                    todo.attempts = later.attempts;
                    attempts = attempts.max(later.attempts);
                    progress.failing(later.attempts, &later.message);
                }
            }
            for refused in delivered.iter().flat_map(|delivered| &delivered.refused) {
                if refused.failure.source == source as usize {
                    add_letter(
                        &mut waiting,
                        Letter {
                            failure: refused.failure.clone(),
                            attempts: refused.attempts,
                        },
                    );
                }
            }
            self.parked.park(Waiting {
                unit: waiting,
                retry: Retry::Write,
                due: Instant::now() + self.context.shared.retry.random_backoff(attempts),
                waits,
                progress,
                followers: followers.into_iter().collect(),
            });
        }
    }

    /// `onExhausted: Stop`, and an open breaker: the failed records of a unit wait. `before_writing`: and what comes after
    /// them with them. `why` begins the message.
    fn stop_at_failures(
        &mut self,
        unit: &mut Unit,
        waits: u32,
        before_writing: bool,
        reason: PausedReason,
        why: &str,
    ) {
        while let Some(letter) = unit.letters.first().cloned() {
            let source = letter.failure.source as u32;
            let Some(mut failed) = unit.take(|other| other == source) else {
                // A failure of a record that is not in the unit cannot be; it must not make an endless loop either.
                unit.letters.remove(0);
                continue;
            };
            failed.letters.clear();
            let followers = match before_writing {
                true => self.parked.followers(unit, source).into_iter().collect(),
                false => VecDeque::new(),
            };
            if waits == 0 {
                self.log(&format!("{why}stopped"), unit, &letter, 1);
            }
            let failure = &letter.failure;
            let (stage, component) = (failure.stage.as_str(), &failure.component);
            let offset = failed.offset();
            let progress = self.context.troubles.at(offset);
            let partition = &self.context.partition;
            let message = format!(
                "{why}{partition}@{offset}: {stage} {component}: {}",
                failure.message
            );
            progress.failing(letter.attempts.max(waits + 1), &message);
            progress.hold(reason);
            self.stopped = true;
            self.context.shared.metrics.failure(stage, component);
            self.parked.park(Waiting {
                unit: failed,
                retry: Retry::Process,
                due: Instant::now() + self.context.shared.retry.max,
                waits,
                progress,
                followers,
            });
        }
    }

    /// Does with the failed records what the resource says, and reports the unit as finished.
    async fn settle(&mut self, mut unit: Unit, waits: u32, given_up: u64, progress: &Progress) {
        let context = self.context.clone();
        let shared = &context.shared;
        let (mut dead_lettered, mut skipped) = (0, given_up);
        if planted("failed-records-finished") {
            unit.letters.clear();
        }
        match &shared.policy {
            policy if unit.letters.is_empty() => policy.passed(unit.chunk(), unit.len()),
            FailurePolicy::Stop => {
                self.stop_at_failures(&mut unit, waits, false, PausedReason::RecordFailed, "");
            }
            FailurePolicy::DeadLetter(queue) => {
                let mut letters = std::mem::take(&mut unit.letters);
                let refusal = admit(queue, &unit, &letters);
                if let Some((source, _)) = refusal {
                    let at = letters.partition_point(|letter| letter.failure.source < source);
                    unit.letters = letters.split_off(at);
                }
                let records: Vec<_> = letters
                    .iter()
                    .map(|letter| (unit.chunk().record(letter.failure.source), letter))
                    .collect();
                queue.write(&records, &shared.retry, progress).await;
                dead_lettered = letters.len() as u64;
                for Letter { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                    shared
                        .metrics
                        .dead_lettered(failure.stage.as_str(), &failure.component);
                }
                if let Some((_, limit)) = refusal {
                    let why = format!("the dead letter breaker is open, {limit}: ");
                    let reason = PausedReason::DeadLetterBreakerOpen;
                    self.stop_at_failures(&mut unit, waits, false, reason, &why);
                }
            }
            FailurePolicy::Skip => {
                let letters = std::mem::take(&mut unit.letters);
                skipped += letters.len() as u64;
                self.log("skipped", &unit, &letters[0], letters.len());
                for Letter { failure, .. } in &letters {
                    shared.metrics.failure(failure.stage.as_str(), &failure.component);
                }
                shared.metrics.skipped(letters.len() as u64);
            }
        }
        if unit.is_empty() {
            return;
        }
        let report = Report::Done {
            partition: context.partition.clone(),
            epoch: context.epoch,
            finished: unit.finished(),
            dead_lettered,
            skipped,
        };
        // The poll loop outlives its lanes except when it has failed; then nothing is committed any more anyway.
        let _ = context.reports.send(report);
    }

    fn log(&self, what: &str, unit: &Unit, letter: &Letter, records: usize) {
        let failure = &letter.failure;
        tracing::warn!(
            partition = %self.context.partition,
            offset = unit.chunk().record(failure.source).offset,
            stage = failure.stage.as_str(),
            component = %failure.component,
            records,
            "{what} at a record that fails: {}",
            failure.message
        );
    }
}

/// The first failed record of the unit that must not go to the dead letter topic, and why.
fn admit(queue: &DeadLetters, unit: &Unit, letters: &[Letter]) -> Option<(usize, Exceeded)> {
    let mut failed: Vec<usize> = letters.iter().map(|letter| letter.failure.source).collect();
    failed.dedup();
    let sources = unit.sources();
    let position = |source: &usize| sources.partition_point(|other| (*other as usize) < *source);
    let positions: Vec<usize> = failed.iter().map(position).collect();
    let refusal = queue.admit(unit.chunk(), unit.len(), &positions)?;
    Some((failed[refusal.index], refusal.limit))
}

/// A record that became several outputs fails once per writer. Letters of records that have left the unit go with them.
fn add_letter(unit: &mut Unit, letter: Letter) {
    let failure = &letter.failure;
    let known = |known: &Letter| {
        known.failure.source == failure.source && known.failure.component == failure.component
    };
    if !unit.contains(failure.source as u32) || unit.letters.iter().any(known) {
        return;
    }
    let at = unit
        .letters
        .partition_point(|other| other.failure.source <= failure.source);
    unit.letters.insert(at, letter);
}

#[cfg(test)]
mod tests;
