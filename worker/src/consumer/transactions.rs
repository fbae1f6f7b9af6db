//! The poll loop's side of transactions ([`crate::transaction`]): when one ends, with which offsets, and what happens when it
//! cannot be committed. Then the work on all partitions is ended, the transaction aborted, and each partition read again from
//! its committed offset (`rewind.rs`). Calls that block are made elsewhere; only where partitions are given up, and at the
//! end, the loop waits for the outcome, within a budget.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;

use super::{
    PollLoop,
    assigned::{Assigned, Counters, Position},
    commit,
    config::Config,
    error::PollError,
};
use crate::{
    health::{
        problems::{Trouble, truncate},
        snapshot::PausedReason,
    },
    processing::messages::TaskEvent,
    record::TopicPartition,
    retry::{RetryPolicy, UNAVAILABLE_AFTER},
    seeded_bugs::planted,
    transaction::{Cause, Command, Event, Gate, Refusals, Spoiled, Transactor},
};

/// How long partitions that are given up wait for the end of the transaction: as long as a commit without transactions.
pub(super) const END_BUDGET: Duration = Duration::from_secs(5);

/// So much longer may a transaction last that has to go on: the broker gives it 20 s beyond a commit interval.
const GO_ON: Duration = Duration::from_secs(10);

/// Between two signs of life while waiting.
const TICK: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Transact {
    commands: mpsc::UnboundedSender<Command>,
    refusals: Arc<Refusals>,
    retry: RetryPolicy,
    gate: Arc<Gate>,
    pub(super) state: State,
    /// What goes with the transaction that is being committed, or was.
    ending: Vec<Ending>,
    /// What is reported of the next transaction, until it is known what belongs to the ended one.
    early: VecDeque<TaskEvent>,
    /// When the transaction began.
    since: Instant,
    /// When its end, or an abort, began.
    ended: Instant,
    outage: Option<Outage>,
    /// Partitions whose finished records did not fit into a commit.
    pub(super) cautious: HashSet<TopicPartition>,
}

/// Where the current transaction is.
pub(super) enum State {
    Open,
    /// Lanes have to leave the transaction of this number.
    Ending(u64),
    /// It is being committed, while the next is open.
    Committing,
    Aborting,
    /// Aborted; at this time the partitions are to be read again.
    Rewinding(Instant),
}

/// What is committed of a partition.
struct Ending {
    partition: TopicPartition,
    epoch: u64,
    position: Position,
    counters: Counters,
}

/// What keeps transactions from being committed.
struct Outage {
    since: Instant,
    systemic: bool,
    /// No transaction can begin; else they begin and are spoiled.
    beginning: bool,
    failures: u32,
    message: String,
    reason: PausedReason,
}

impl Transact {
    /// Starts the part that makes the calls, if `config` asks for transactions.
    pub fn start(
        config: &Config,
        gate: Option<&Arc<Gate>>,
        runtime: &tokio::runtime::Handle,
        events: &std_mpsc::Sender<TaskEvent>,
    ) -> Option<Self> {
        let transactional = config.transactions.as_ref()?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let gate = gate?.clone();
        let events = events.clone();
        // A poll loop that has ended needs no answer.
        let report = Arc::new(move |event| drop(events.send(TaskEvent::Transaction(event))));
        let transactor = Transactor::new(
            gate.clone(),
            transactional.producer.clone(),
            transactional.refusals.clone(),
            config.retry.clone(),
            report,
            receiver,
        );
        runtime.spawn(transactor.run());
        Some(Self {
            commands,
            refusals: transactional.refusals.clone(),
            retry: config.retry.clone(),
            gate,
            state: State::Open,
            ending: Vec::new(),
            early: VecDeque::new(),
            since: Instant::now(),
            ended: Instant::now(),
            outage: None,
            cautious: HashSet::new(),
        })
    }

    pub(super) fn command(&self, command: Command) {
        // Nobody takes it after a panic; then [`Transact::has_ended`].
        let _ = self.commands.send(command);
    }

    /// True after a panic in the part that makes the calls.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// The next transaction has begun.
    pub(super) fn begun(&mut self) {
        self.state = State::Open;
        self.since = Instant::now();
    }

    /// Takes what is reported of the next transaction while this one is being ended: what is finished must be known without
    /// it. And the end of a task whose reports were taken, because that is its last.
    pub fn defer(&mut self, report: TaskEvent) -> Option<TaskEvent> {
        let early = match (&self.state, &report) {
            (State::Ending(ended), TaskEvent::Done { transaction, .. }) => transaction > ended,
            (State::Ending(_), TaskEvent::Ended { .. }) => !self.early.is_empty(),
            _ => false,
        };
        if !early {
            return Some(report);
        }
        self.early.push_back(report);
        None
    }

    /// The first that was deferred, when it is time.
    pub fn deferred(&mut self) -> Option<TaskEvent> {
        match self.state {
            State::Ending(_) => None,
            _ => self.early.pop_front(),
        }
    }

    /// Nothing may be read for now.
    pub fn is_rewinding(&self) -> bool {
        matches!(self.state, State::Aborting | State::Rewinding(_))
    }

    /// For the status of each partition.
    pub fn trouble(&self) -> Option<Trouble> {
        let Some(outage) = &self.outage else {
            let waited = self.ended.elapsed();
            let late = !matches!(self.state, State::Open) && waited >= UNAVAILABLE_AFTER;
            return late.then(|| Trouble {
                attempts: 1,
                last_error: Some(format!(
                    "the transaction could not be ended for {} s: the brokers do not answer",
                    waited.as_secs()
                )),
                held: Some(PausedReason::WriterUnavailable),
            });
        };
        let told = outage.systemic || outage.since.elapsed() >= UNAVAILABLE_AFTER;
        Some(Trouble {
            attempts: outage.failures,
            last_error: Some(truncate(&outage.message)),
            held: told.then_some(outage.reason),
        })
    }

    fn failed(&mut self, message: &str, cause: Cause, reason: PausedReason, beginning: bool) {
        let outage = self.outage.get_or_insert_with(|| Outage {
            since: Instant::now(),
            systemic: false,
            beginning,
            failures: 0,
            message: String::new(),
            reason,
        });
        outage.failures = outage.failures.saturating_add(1);
        outage.systemic = cause == Cause::Systemic;
        outage.message = message.into();
        outage.reason = reason;
    }

    /// How long to wait before the next transaction.
    fn backoff(&self, cause: Cause) -> Duration {
        let failures = self.outage.as_ref().map_or(0, |outage| outage.failures);
        match cause {
            Cause::Moved | Cause::Record | Cause::TooLong => Duration::ZERO,
            Cause::Unavailable | Cause::Systemic => {
                self.retry.outage_backoff(failures, cause == Cause::Systemic)
            }
        }
    }
}

impl PollLoop {
    /// Ends the transaction when it is time, and goes on after an abort.
    pub(super) fn serve_transaction(&mut self) {
        let Some(transact) = &self.transact else { return };
        let due = transact.since.elapsed() >= self.config.commit_interval;
        match transact.state {
            State::Open if due && self.is_uncommitted() && !self.goes_on() => self.begin_to_end(),
            State::Rewinding(at) if Instant::now() >= at => self.rewind(),
            _ => {}
        }
    }

    pub(super) fn is_rewinding(&self) -> bool {
        self.transact.as_ref().is_some_and(Transact::is_rewinding)
    }

    fn is_uncommitted(&self) -> bool {
        self.assigned.iter().any(|entry| entry.uncommitted().is_some())
    }

    /// See [`Assigned::must_go_on`].
    fn goes_on(&self) -> bool {
        let longest = self.config.commit_interval + GO_ON;
        let young = self
            .transact
            .as_ref()
            .is_some_and(|transact| transact.since.elapsed() < longest);
        young && self.assigned.iter().any(Assigned::must_go_on)
    }

    fn begin_to_end(&mut self) {
        if let Some(transact) = &mut self.transact {
            transact.state = State::Ending(transact.gate.current());
            transact.ended = Instant::now();
            transact.command(Command::End);
        }
    }

    pub(super) fn take_event(&mut self, event: Event) {
        let Some(transact) = &mut self.transact else {
            return;
        };
        match (event, &transact.state) {
            (Event::Quiet, State::Ending(_)) => self.commit_transaction(),
            (Event::Committed, _) => {
                if matches!(transact.state, State::Committing) {
                    transact.state = State::Open;
                    transact.outage = None;
                }
                self.shared.metrics.committed(None);
                self.shared.metrics.transaction("committed");
                for ending in std::mem::take(&mut transact.ending) {
                    let Ending {
                        partition,
                        epoch,
                        position,
                        counters,
                    } = ending;
                    transact.refusals.forget_below(&partition, position.offset);
                    self.counters.add(counters);
                    let current =
                        |entry: &&mut Assigned| entry.partition == partition && entry.epoch == epoch;
                    if let Some(entry) = self.assigned.iter_mut().find(current) {
                        let offset = position.offset;
                        entry.committing(position);
                        entry.commit_answered(Some(offset));
                        entry.count(counters);
                        if entry.relax() {
                            transact.cautious.remove(&partition);
                        }
                    }
                }
            }
            // It was spoiled meanwhile.
            (Event::Quiet, _) => {}
            (Event::Spoiled(_), State::Aborting | State::Rewinding(_)) => {}
            (Event::Spoiled(spoiled), _) => {
                if spoiled.cause == Cause::TooLong {
                    // It is not told which partition's was too long; the longest was.
                    let lengths = transact
                        .ending
                        .iter()
                        .map(|ending| ending.position.metadata.len());
                    let longest = lengths.max().unwrap_or_default();
                    self.shrink_metadata(longest);
                }
                self.abort_transaction(spoiled);
            }
            (Event::Aborted, _) => {
                transact.state = State::Rewinding(Instant::now());
                transact.outage = transact.outage.take().filter(|outage| !outage.beginning);
                self.rewind();
            }
            (Event::Trouble(message), _) => {
                transact.failed(
                    &message,
                    Cause::Unavailable,
                    PausedReason::WriterUnavailable,
                    true,
                );
                self.note_error(&message);
            }
            (Event::Recovered, _) => {
                transact.outage = transact.outage.take().filter(|outage| !outage.beginning);
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
            if let Some(transact) = &mut self.transact {
                transact.cautious.extend(too_far);
            }
            return self.abort_transaction(Spoiled::new(Cause::Record, message));
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
                epoch: entry.epoch,
                position,
                counters: std::mem::take(&mut entry.uncounted),
            });
        }
        if planted("offsets-outside-transaction") {
            let _ = self.source.commit(&offsets);
            offsets = TopicPartitionList::new();
        }
        let group = self.source.membership();
        let Some(transact) = &mut self.transact else {
            return;
        };
        let Some(group) = group.filter(|_| !ending.is_empty()) else {
            // Without a commit of its own, what was written in it would have to go with the next: nobody could tell them apart.
            let message = "the worker is not a member of its group for now";
            return self.abort_transaction(Spoiled::new(Cause::Unavailable, message.into()));
        };
        transact.begun();
        transact.state = State::Committing;
        transact.ending = ending;
        transact.command(Command::Commit { offsets, group });
    }

    /// Ends the work on all partitions, because what they have written will be gone.
    pub(super) fn abort_transaction(&mut self, spoiled: Spoiled) {
        let Spoiled {
            message,
            cause,
            reason,
        } = spoiled;
        let Some(transact) = &mut self.transact else {
            return;
        };
        self.shared.metrics.transaction("aborted");
        match cause {
            Cause::Moved => {
                tracing::info!("aborting a transaction, because partitions have moved: {message}")
            }
            Cause::Record | Cause::TooLong => tracing::warn!("aborting a transaction: {message}"),
            Cause::Unavailable | Cause::Systemic => {
                transact.failed(&message, cause, reason, false);
                // The 1st, 2nd, 4th, 8th ... failure: an outage of hours must not fill the log.
                let attempt = transact.outage.as_ref().map_or(0, |outage| outage.failures);
                if attempt.is_power_of_two() {
                    tracing::warn!(attempt, "aborting a transaction: {message}; trying again");
                }
            }
        }
        self.assigned.iter_mut().for_each(Assigned::annul);
        let backoff = transact.backoff(cause);
        transact.state = State::Aborting;
        transact.ended = Instant::now();
        transact.command(Command::Abort { backoff });
    }

    /// Ends the transaction now: with a commit, or, when that takes longer than the budget or `commit` is false, with an
    /// abort that is only begun. Its records are then read again by whoever gets the partitions next.
    pub(super) fn end_transaction(&mut self, commit: bool) -> Result<(), PollError> {
        if self.transact.is_none() || self.is_rewinding() {
            return Ok(());
        }
        if commit && self.settle_transaction(Instant::now() + END_BUDGET)? {
            return Ok(());
        }
        if !self.is_rewinding() {
            let message = match commit {
                true => "partitions are given up, and the transaction could not be committed in time",
                false => "partitions are given up before the work on them was done",
            };
            self.abort_transaction(Spoiled::new(Cause::Moved, message.into()));
        }
        Ok(())
    }

    /// True when everything that was finished at the call is committed. Lanes that go on meanwhile finish more, so one
    /// transaction that is ended after the call has to do.
    fn settle_transaction(&mut self, deadline: Instant) -> Result<bool, PollError> {
        let mut covered = false;
        loop {
            match self.transact.as_ref().map(|transact| &transact.state) {
                None => return Ok(true),
                Some(State::Open) if covered || !self.is_uncommitted() => return Ok(true),
                Some(State::Open) => {
                    self.begin_to_end();
                    covered = true;
                }
                Some(State::Aborting | State::Rewinding(_)) => return Ok(false),
                Some(State::Ending(_) | State::Committing) => {}
            }
            if !self.wait_for_report(deadline)? {
                return Ok(false);
            }
        }
    }

    /// Waits until a transaction that is being aborted is, so that nobody has to wait for its timeout.
    pub(super) fn await_abort(&mut self, deadline: Instant) -> Result<(), PollError> {
        let aborting = |this: &Self| {
            let state = this.transact.as_ref().map(|transact| &transact.state);
            matches!(state, Some(State::Aborting))
        };
        while aborting(self) && self.wait_for_report(deadline)? {}
        Ok(())
    }

    /// False when the time is over.
    fn wait_for_report(&mut self, deadline: Instant) -> Result<bool, PollError> {
        self.handles.liveness.tick();
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(report) = self.reports.recv_timeout(left.min(TICK)) {
            self.take(report)?;
        }
        Ok(!left.is_zero())
    }
}
