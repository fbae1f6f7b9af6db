//! The poll loop: one thread owns the consumer and makes all decisions about it. In each turn it handles
//! rebalances and completions, commits what is finished, and reads more if the limits allow it. It never
//! waits for a writer, so a slow or unavailable writer never costs the worker its membership in the group.
//!
//! This file holds one turn of the loop. Each step is in a separate file, as methods of [`PollLoop`]. The
//! state is split by concern into parts that do not know the loop.

pub mod config;
pub mod error;
pub mod handles;

mod assigned;
mod backpressure;
mod bounded;
mod bounded_run;
pub mod bounds;
mod commit;
mod commit_schedule;
mod completions;
mod dispatch;
mod error_log;
mod housekeeping;
mod out_of_range;
mod publish;
mod rate_limit;
mod read;
mod read_pace;
mod rebalance;
mod recreated;
mod recreated_topics;
mod revocation;
mod rewind;
mod shutdown;
mod stopping;
mod transaction_driver;
mod transactions;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::oneshot;

use self::{
    assigned::{AssignedPartition, Counters},
    bounded_run::{BoundedRun, denies_existence},
    commit_schedule::CommitSchedule,
    config::Config,
    error::PollError,
    error_log::ErrorLog,
    handles::Handles,
    housekeeping::Housekeeping,
    read_pace::ReadPace,
    recreated_topics::RecreatedTopics,
    revocation::Revocation,
    stopping::Stopping,
    transaction_driver::TransactionDriver,
};
use crate::{
    health::{snapshot::Phase, stalls::Stalls},
    kafka::{
        callbacks::ConsumerCallbacks,
        ffi::{ConsumerClient, add_brokers},
        topic_ids,
    },
    offsets::commit_metadata::MetadataLimit,
    processing::{context::WorkerContext, messages::TaskEvent},
    seeded_bugs::seeded_bug,
};

/// Longest wait for records or completions in one turn. It bounds how late the loop notices a commit, a
/// rebalance or a stop.
const TICK: Duration = Duration::from_millis(20);

/// The poll loop and everything it owns.
pub(crate) struct PollLoop {
    client: ConsumerClient,
    callbacks: Arc<ConsumerCallbacks>,
    shared: Arc<WorkerContext>,
    runtime: tokio::runtime::Handle,
    handles: Handles,
    config: Config,
    assigned: Vec<AssignedPartition>,
    /// Every task of a partition has its own task epoch. The loop discards completions of an older one.
    next_task_epoch: u64,
    revocation: Option<Revocation>,
    /// Events from the tasks of the partitions.
    events: std_mpsc::Receiver<TaskEvent>,
    event_sender: std_mpsc::Sender<TaskEvent>,
    pace: ReadPace,
    commits: CommitSchedule,
    /// How much metadata commits may carry, as far as known from what the brokers accept.
    metadata_limit: MetadataLimit,
    transactions: Option<TransactionDriver>,
    housekeeping: Housekeeping,
    recreated: RecreatedTopics,
    /// Set if the worker processes a part of the log and then ends.
    bounded: Option<BoundedRun>,
    errors: ErrorLog,
    counters: Counters,
    stalls: Stalls,
    phase: Phase,
    paused: bool,
    stopping: Option<Stopping>,
}

impl PollLoop {
    /// Creates the consumer and subscribes.
    pub fn new(
        config: Config,
        shared: Arc<WorkerContext>,
        handles: Handles,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, PollError> {
        let mut client = ClientConfig::new();
        for (key, value) in &config.properties {
            client.set(key, value);
        }
        // The log is the only source of topic ids, see `kafka::topic_ids`.
        client.set("debug", topic_ids::DEBUG_CONTEXT);
        client.set_log_level(RDKafkaLogLevel::Debug);
        if seeded_bug("latest-on-new-partitions") {
            client.set("auto.offset.reset", "latest");
        }
        let consumer: BaseConsumer<ConsumerCallbacks> = client
            .create_with_context(ConsumerCallbacks::default())
            .map_err(PollError::Client)?;
        consumer.subscribe(&config.topics()).map_err(PollError::Client)?;
        let (event_sender, events) = std_mpsc::channel();
        let now = Instant::now();
        let paused = *handles.paused.borrow();
        let bounded = config.bounds.clone().map(|bounds| BoundedRun::new(bounds, now));
        let transactions = TransactionDriver::start(&config, shared.gate.as_ref(), &runtime, &event_sender);
        Ok(Self {
            callbacks: consumer.client().context().clone(),
            client: ConsumerClient::new(consumer),
            pace: ReadPace::new(config.records_per_second, now),
            stalls: Stalls::new(config.stalled_after),
            shared,
            runtime,
            handles,
            config,
            assigned: Vec::new(),
            next_task_epoch: 1,
            revocation: None,
            events,
            event_sender,
            commits: CommitSchedule::new(now),
            metadata_limit: MetadataLimit::default(),
            transactions,
            housekeeping: Housekeeping::new(now),
            recreated: RecreatedTopics::new(now),
            bounded,
            errors: ErrorLog::default(),
            counters: Counters::default(),
            phase: Phase::Joining,
            paused,
            stopping: None,
        })
    }

    /// Runs until the worker is asked to stop or a bounded run is at its end, and everything is drained, or until
    /// an error makes it impossible to continue. `closing` gets a message before the consumer closes without being
    /// asked to: how long that may take beyond the usual.
    pub fn run(mut self, closing: oneshot::Sender<Duration>) -> Result<(), PollError> {
        let mut closing = Some(closing);
        let mut announce = |budget| closing.take().map(|closing| closing.send(budget));
        let served = self.serve();
        if self.bounded.as_ref().is_some_and(|run| run.done) {
            announce(self.drain_budget());
        }
        match served.and_then(|()| self.close()) {
            Ok(outcome) => {
                self.leave();
                outcome
            }
            Err(error) => {
                tracing::error!("{error}");
                announce(Duration::ZERO);
                self.release_uncommitted();
                self.leave();
                Err(error)
            }
        }
    }

    /// Runs turns until everything is drained.
    fn serve(&mut self) -> Result<(), PollError> {
        self.publish();
        while !self.turn()? {}
        Ok(())
    }

    /// Runs one turn. Returns true when the loop is drained and may close.
    fn turn(&mut self) -> Result<bool, PollError> {
        self.handles.liveness.tick();
        self.serve_client()?;
        self.serve_recreated_topics()?;
        self.serve_out_of_range();
        self.serve_rebalance()?;
        self.serve_bounds()?;
        self.take_events()?;
        self.dispatch_due_chunks();
        self.serve_commits();
        self.check_transactor()?;
        if self.housekeeping.is_due(Instant::now()) {
            self.run_housekeeping();
        }
        if self.serve_stop() {
            return Ok(true);
        }
        let limit = self.pace.available(Instant::now());
        let budget = if limit > 0 { self.read_budget() } else { 0 };
        if budget > 0 {
            self.read(limit, budget);
        } else if let Ok(event) = self.events.recv_timeout(TICK) {
            self.take(event)?;
        }
        Ok(false)
    }

    /// Serves librdkafka's events. librdkafka calls the rebalance callbacks in here.
    fn serve_client(&mut self) -> Result<(), PollError> {
        self.client.serve_logs();
        if !self.callbacks.topic_ids.knows_cluster()
            && let Some(id) = self.client.consumer().client().fetch_cluster_id(Duration::ZERO)
        {
            self.callbacks.topic_ids.set_cluster(id);
        }
        while let Some(event) = self.client.consumer().poll(Duration::ZERO) {
            match event {
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(PollError::Fatal(error)),
                Err(error) => {
                    let code = error.rdkafka_error_code();
                    if code == Some(RDKafkaErrorCode::AllBrokersDown) {
                        self.housekeeping.reminder.brokers_down();
                    }
                    if let Some(run) = &mut self.bounded
                        && code.is_some_and(denies_existence)
                    {
                        run.suspect_gone();
                    }
                    self.errors.note(&error.to_string());
                }
                // The queues of all partitions are forwarded before the partitions are assigned, so no record
                // arrives here. Continuing would skip this record.
                Ok(_) => return Err(PollError::StrayRecord),
            }
        }
        Ok(())
    }

    /// Dispatches chunks that are not full once they have waited long enough.
    fn dispatch_due_chunks(&mut self) {
        for entry in self.assigned.iter_mut().filter(|entry| !entry.is_draining()) {
            entry.dispatch_if_due(self.config.linger);
        }
    }

    /// Fails if the transactor has ended: while the loop runs, it ends only by a panic.
    fn check_transactor(&self) -> Result<(), PollError> {
        match &self.transactions {
            Some(transactions) if transactions.has_ended() => Err(PollError::TransactorDied),
            _ => Ok(()),
        }
    }

    /// Does what is due a few times per second rather than every turn.
    fn run_housekeeping(&mut self) {
        let now = Instant::now();
        self.housekeeping.started(now);
        if self.housekeeping.take_reminder(now) {
            add_brokers(self.client.consumer().client(), self.config.bootstrap_servers());
        }
        if self.housekeeping.take_markers(now) {
            self.assigned
                .iter_mut()
                .for_each(AssignedPartition::commit_marker_again);
        }
        let paused = *self.handles.paused.borrow();
        if paused != self.paused {
            self.paused = paused;
            tracing::info!(paused, "desired state changed");
        }
        if self.phase == Phase::Joining && self.client.is_member() {
            self.phase = Phase::Consuming;
        }
        self.send_heartbeat(now);
        self.seek();
        self.advance_past_markers();
        self.report_out_of_range();
        self.pause_and_resume();
        self.publish();
    }

    /// Lets a member whose partitions the broker assigns learn of a new assignment soon. librdkafka waits for
    /// the interval that the broker asks for, unless the member subscribes: then it sends a heartbeat at once.
    /// The same topics again change nothing for the broker.
    fn send_heartbeat(&mut self, now: Instant) {
        let steady = self.phase == Phase::Consuming && self.revocation.is_none() && self.stopping.is_none();
        if self.config.is_classic() || !steady || !self.housekeeping.take_heartbeat(now) {
            return;
        }
        if let Err(error) = self.client.consumer().subscribe(&self.config.topics()) {
            // A fatal error arrives as an event, too.
            tracing::debug!("cannot send a heartbeat: {error}");
        }
    }
}
