//! The state of the poll loop's transactions ([`crate::transaction`]): the phase of the current one, what is
//! committed with it, and what keeps it from being committed. The transactor, the task that makes the calls,
//! gets its commands from here.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    assigned::{Counters, Position},
    config::Config,
};
use crate::{
    health::{
        problems::{Problem, truncate},
        snapshot::PausedReason,
    },
    processing::messages::TaskEvent,
    record::TopicPartition,
    retry::{RetryPolicy, UNAVAILABLE_AFTER},
    transaction::{Cause, Command, Gate, RejectedRecords, Transactor},
};

/// The phase of the current transaction, and the positions to commit with it.
pub(super) struct TransactionDriver {
    commands: mpsc::UnboundedSender<Command>,
    pub rejected_records: Arc<RejectedRecords>,
    retry: RetryPolicy,
    pub gate: Arc<Gate>,
    pub state: TransactionState,
    /// Positions of the transaction that is being committed, or was committed last.
    pub ending: Vec<Ending>,
    /// Events of the next transaction, deferred until the loop knows what belongs to the one that is ending.
    deferred: VecDeque<TaskEvent>,
    /// When the current transaction was opened.
    pub open_since: Instant,
    /// When the last commit or abort of a transaction started.
    pub ending_since: Instant,
    pub outage: Option<TransactionOutage>,
    /// Partitions whose out-of-order completions did not fit into the metadata of a commit.
    pub one_at_a_time: HashSet<TopicPartition>,
}

/// The phase of the current transaction.
pub(super) enum TransactionState {
    Open,
    /// Lanes have to leave the transaction with this number.
    Ending(u64),
    /// The ended one is being committed, while the next is open.
    Committing,
    Aborting,
    /// Aborted. At this time the loop reads the partitions again.
    Rewinding(Instant),
}

/// The position of a partition that is committed with a transaction.
pub(super) struct Ending {
    pub partition: TopicPartition,
    pub task_epoch: u64,
    pub position: Position,
    pub counters: Counters,
}

/// What keeps transactions from being committed.
pub(super) struct TransactionOutage {
    pub since: Instant,
    pub systemic: bool,
    /// True if no transaction can begin. False if transactions begin and then fail.
    pub cannot_begin: bool,
    pub failures: u32,
    pub message: String,
    pub reason: PausedReason,
}

impl TransactionDriver {
    /// Starts the transactor, if `config` asks for transactions.
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
        let event = Arc::new(move |event| drop(events.send(TaskEvent::Transaction(event))));
        let transactor = Transactor::new(
            gate.clone(),
            transactional.producer.clone(),
            transactional.rejected_records.clone(),
            config.retry.clone(),
            event,
            receiver,
        );
        runtime.spawn(transactor.run());
        Some(Self {
            commands,
            rejected_records: transactional.rejected_records.clone(),
            retry: config.retry.clone(),
            gate,
            state: TransactionState::Open,
            ending: Vec::new(),
            deferred: VecDeque::new(),
            open_since: Instant::now(),
            ending_since: Instant::now(),
            outage: None,
            one_at_a_time: HashSet::new(),
        })
    }

    pub fn command(&self, command: Command) {
        // Fails only after a panic of the transactor, which [`TransactionDriver::has_ended`] reports.
        let _ = self.commands.send(command);
    }

    /// True after a panic of the transactor.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// The next transaction is open.
    pub fn opened(&mut self) {
        self.state = TransactionState::Open;
        self.open_since = Instant::now();
    }

    /// Keeps an event of the next transaction while the current one ends, because the loop must know what is
    /// finished without it. Also keeps the end of a task if earlier events are kept, because the end is the
    /// last event of a task. Returns every other event.
    pub fn defer(&mut self, event: TaskEvent) -> Option<TaskEvent> {
        let defer = match (&self.state, &event) {
            (TransactionState::Ending(ended), TaskEvent::Finished { transaction, .. }) => transaction > ended,
            (TransactionState::Ending(_), TaskEvent::Ended { .. }) => !self.deferred.is_empty(),
            _ => false,
        };
        if !defer {
            return Some(event);
        }
        self.deferred.push_back(event);
        None
    }

    /// The next deferred event, unless a transaction is still ending.
    pub fn next_deferred(&mut self) -> Option<TaskEvent> {
        match self.state {
            TransactionState::Ending(_) => None,
            _ => self.deferred.pop_front(),
        }
    }

    /// True during an abort and until the partitions are read again: the loop must not read.
    pub fn is_rewinding(&self) -> bool {
        matches!(
            self.state,
            TransactionState::Aborting | TransactionState::Rewinding(_)
        )
    }

    /// The problem that the status of each partition shows.
    pub fn problem(&self) -> Option<Problem> {
        let Some(outage) = &self.outage else {
            let waited = self.ending_since.elapsed();
            let late = !matches!(self.state, TransactionState::Open) && waited >= UNAVAILABLE_AFTER;
            return late.then(|| Problem {
                attempts: 1,
                last_error: Some(format!(
                    "the transaction has not ended for {} s: the brokers do not answer",
                    waited.as_secs()
                )),
                paused_reason: Some(PausedReason::WriterUnavailable),
            });
        };
        let visible = outage.systemic || outage.since.elapsed() >= UNAVAILABLE_AFTER;
        Some(Problem {
            attempts: outage.failures,
            last_error: Some(truncate(&outage.message)),
            paused_reason: visible.then_some(outage.reason),
        })
    }

    /// Records a failure: of a transaction, or of the attempt to begin one.
    pub fn record_failure(&mut self, message: &str, cause: Cause, reason: PausedReason, cannot_begin: bool) {
        let outage = self.outage.get_or_insert_with(|| TransactionOutage {
            since: Instant::now(),
            systemic: false,
            cannot_begin,
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
    pub fn backoff(&self, cause: Cause) -> Duration {
        let failures = self.outage.as_ref().map_or(0, |outage| outage.failures);
        match cause {
            Cause::Moved | Cause::Record | Cause::TooLong => Duration::ZERO,
            Cause::Unavailable | Cause::Systemic => {
                self.retry.outage_backoff(failures, cause == Cause::Systemic)
            }
        }
    }
}
