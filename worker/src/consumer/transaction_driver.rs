//! The state of the poll loop's transactions ([`crate::transaction`]): where the current one is, what is committed with it, and
//! what keeps it from being committed. The task that makes the calls gets its commands from here.

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

/// Where transactions are, and what is to be committed with them.
pub(super) struct TransactionDriver {
    commands: mpsc::UnboundedSender<Command>,
    pub rejected_records: Arc<RejectedRecords>,
    retry: RetryPolicy,
    pub gate: Arc<Gate>,
    pub state: TransactionState,
    /// What goes with the transaction that is being committed, or was.
    pub ending: Vec<Ending>,
    /// What is reported of the next transaction, until it is known what belongs to the ended one.
    early: VecDeque<TaskEvent>,
    /// When the transaction began.
    pub since: Instant,
    /// When its end, or an abort, began.
    pub ended: Instant,
    pub outage: Option<TransactionOutage>,
    /// Partitions whose finished records did not fit into a commit.
    pub one_at_a_time: HashSet<TopicPartition>,
}

/// Where the current transaction is.
pub(super) enum TransactionState {
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
pub(super) struct Ending {
    pub partition: TopicPartition,
    pub epoch: u64,
    pub position: Position,
    pub counters: Counters,
}

/// What keeps transactions from being committed.
pub(super) struct TransactionOutage {
    pub since: Instant,
    pub systemic: bool,
    /// No transaction can begin; else they begin and are spoiled.
    pub beginning: bool,
    pub failures: u32,
    pub message: String,
    pub reason: PausedReason,
}

impl TransactionDriver {
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
            early: VecDeque::new(),
            since: Instant::now(),
            ended: Instant::now(),
            outage: None,
            one_at_a_time: HashSet::new(),
        })
    }

    pub fn command(&self, command: Command) {
        // Nobody takes it after a panic; then [`TransactionDriver::has_ended`].
        let _ = self.commands.send(command);
    }

    /// True after a panic in the part that makes the calls.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// The next transaction has begun.
    pub fn begun(&mut self) {
        self.state = TransactionState::Open;
        self.since = Instant::now();
    }

    /// Takes what is reported of the next transaction while this one is being ended: what is finished must be known without
    /// it. And the end of a task whose reports were taken, because that is its last.
    pub fn defer(&mut self, event: TaskEvent) -> Option<TaskEvent> {
        let early = match (&self.state, &event) {
            (TransactionState::Ending(ended), TaskEvent::Finished { transaction, .. }) => transaction > ended,
            (TransactionState::Ending(_), TaskEvent::Ended { .. }) => !self.early.is_empty(),
            _ => false,
        };
        if !early {
            return Some(event);
        }
        self.early.push_back(event);
        None
    }

    /// The first that was deferred, when it is time.
    pub fn deferred(&mut self) -> Option<TaskEvent> {
        match self.state {
            TransactionState::Ending(_) => None,
            _ => self.early.pop_front(),
        }
    }

    /// Nothing may be read for now.
    pub fn is_rewinding(&self) -> bool {
        matches!(
            self.state,
            TransactionState::Aborting | TransactionState::Rewinding(_)
        )
    }

    /// For the status of each partition.
    pub fn problem(&self) -> Option<Problem> {
        let Some(outage) = &self.outage else {
            let waited = self.ended.elapsed();
            let late = !matches!(self.state, TransactionState::Open) && waited >= UNAVAILABLE_AFTER;
            return late.then(|| Problem {
                attempts: 1,
                last_error: Some(format!(
                    "the transaction could not be ended for {} s: the brokers do not answer",
                    waited.as_secs()
                )),
                paused_reason: Some(PausedReason::WriterUnavailable),
            });
        };
        let told = outage.systemic || outage.since.elapsed() >= UNAVAILABLE_AFTER;
        Some(Problem {
            attempts: outage.failures,
            last_error: Some(truncate(&outage.message)),
            paused_reason: told.then_some(outage.reason),
        })
    }

    pub fn failed(&mut self, message: &str, cause: Cause, reason: PausedReason, beginning: bool) {
        let outage = self.outage.get_or_insert_with(|| TransactionOutage {
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
