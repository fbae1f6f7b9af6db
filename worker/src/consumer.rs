//! The poll loop: one thread owns the consumer and decides. Each turn it serves rebalances, takes completions, commits
//! what is finished, and reads on while there is room. It never waits for a writer, so a slow or dead one never costs
//! the membership in the group.

pub mod rate_limit;

mod assigned;
mod commit;
pub mod config;
mod dispatch;
pub mod error;
pub mod handles;
mod read;
mod rebalance;
mod rewind;
mod shutdown;
mod transactions;

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::oneshot;

use self::{
    assigned::{AssignedPartition, Counters},
    rebalance::Revocation,
    transactions::TransactionDriver,
};
use self::{config::Config, error::PollError, handles::Handles, rate_limit::RateLimiter};
use crate::{
    health::{
        problems::truncate,
        snapshot::{Phase, Snapshot, most_severe_error},
        stalls::Stalls,
    },
    kafka::{
        callbacks::ConsumerCallbacks,
        ffi::{ConsumerClient, add_brokers},
        reconnect::{self, BootstrapReminder},
    },
    offsets::commit_metadata::MetadataLimit,
    processing::{context::WorkerContext, messages::TaskEvent},
    seeded_bugs::seeded_bug,
};

/// Longest wait for records or completions in one turn: bounds how late a commit, a rebalance or a stop is noticed.
const TICK: Duration = Duration::from_millis(20);
/// How often partitions are paused and resumed, and the snapshot is taken.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// The same kind of consumer error is logged at most this often; librdkafka repeats some once a second.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What the poll loop needs from the rest of the worker.
pub(crate) struct PollLoop {
    source: ConsumerClient,
    context: Arc<ConsumerCallbacks>,
    shared: Arc<WorkerContext>,
    runtime: tokio::runtime::Handle,
    handles: Handles,
    config: Config,
    assigned: Vec<AssignedPartition>,
    next_epoch: u64,
    revocation: Option<Revocation>,
    events: std_mpsc::Receiver<TaskEvent>,
    event_sender: std_mpsc::Sender<TaskEvent>,
    phase: Phase,
    stopping: Option<Instant>,
    /// It stops because so many threads do not come back.
    stuck: Option<usize>,
    paused: bool,
    /// A commit is on its way; the next waits for its answer.
    commit_running: bool,
    /// The last one was refused.
    commit_refused: bool,
    last_commit: Instant,
    last_housekeeping: Instant,
    last_reminder: Instant,
    reminders: BootstrapReminder,
    counters: Counters,
    /// For the metadata of commits, as far as brokers take it.
    metadata_limit: MetadataLimit,
    stalls: Stalls,
    transactions: Option<TransactionDriver>,
    rate_limiter: Option<RateLimiter>,
    /// Of one record, as the last ones were; at first, large ones are expected.
    record_bytes: usize,
    last_error: Option<String>,
    logged: Vec<(String, Instant)>,
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
        if seeded_bug("latest-on-new-partitions") {
            client.set("auto.offset.reset", "latest");
        }
        let consumer: BaseConsumer<ConsumerCallbacks> = client
            .create_with_context(ConsumerCallbacks::default())
            .map_err(PollError::Client)?;
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(PollError::Client)?;
        let (event_sender, events) = std_mpsc::channel();
        let now = Instant::now();
        let paused = *handles.paused.borrow();
        let transactions = TransactionDriver::start(&config, shared.gate.as_ref(), &runtime, &event_sender);
        Ok(Self {
            context: consumer.client().context().clone(),
            source: ConsumerClient::new(consumer),
            shared,
            runtime,
            paused,
            handles,
            assigned: Vec::new(),
            next_epoch: 1,
            revocation: None,
            events,
            event_sender,
            phase: Phase::Joining,
            stopping: None,
            stuck: None,
            commit_running: false,
            commit_refused: false,
            last_commit: now,
            last_housekeeping: now,
            last_reminder: now,
            reminders: BootstrapReminder::default(),
            counters: Counters::default(),
            metadata_limit: MetadataLimit::default(),
            stalls: Stalls::new(config.stalled_after),
            transactions,
            rate_limiter: config
                .records_per_second
                .map(|limit| RateLimiter::new(limit, now)),
            config,
            record_bytes: 64 << 10,
            last_error: None,
            logged: Vec::new(),
        })
    }

    /// TimedPipeline until told to stop and drained, or until Kafka makes it impossible to go on; `failing` hears of that before the
    /// consumer is closed.
    pub fn run(mut self, failing: oneshot::Sender<()>) -> Result<(), PollError> {
        match self.serve().and_then(|()| self.close()) {
            Ok(outcome) => {
                self.leave();
                outcome
            }
            Err(error) => {
                tracing::error!("{error}");
                let _ = failing.send(());
                self.let_go();
                self.leave();
                Err(error)
            }
        }
    }

    /// Until everything is drained.
    fn serve(&mut self) -> Result<(), PollError> {
        self.publish();
        loop {
            self.handles.liveness.tick();
            self.serve_client()?;
            self.serve_rebalance()?;
            self.take_events()?;
            for entry in self.assigned.iter_mut().filter(|entry| !entry.draining) {
                entry.dispatch_if_due(self.config.linger);
            }
            self.serve_commits();
            if self
                .transactions
                .as_ref()
                .is_some_and(TransactionDriver::has_ended)
            {
                return Err(PollError::TransactorDied);
            }
            if self.last_housekeeping.elapsed() >= HOUSEKEEPING {
                self.housekeeping();
            }
            if self.serve_stop() {
                return Ok(());
            }
            let limit = self
                .rate_limiter
                .as_mut()
                .map_or(usize::MAX, |rate_limiter| rate_limiter.available(Instant::now()));
            let budget = if limit > 0 { self.read_budget() } else { 0 };
            if budget > 0 {
                self.read(limit, budget);
            } else if let Ok(event) = self.events.recv_timeout(TICK) {
                self.take(event)?;
            }
        }
    }

    /// Serves librdkafka's events: rebalance callbacks run in here.
    fn serve_client(&mut self) -> Result<(), PollError> {
        while let Some(event) = self.source.consumer().poll(Duration::ZERO) {
            match event {
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(PollError::Fatal(error)),
                Err(error) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
                        self.reminders.brokers_down();
                    }
                    self.note_error(&error.to_string());
                }
                // All partitions are forwarded before they are assigned. Going on would skip this record.
                Ok(_) => return Err(PollError::StrayRecord),
            }
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), PollError> {
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: TaskEvent) -> Result<(), PollError> {
        let event = match &mut self.transactions {
            Some(transactions) => transactions.defer(event),
            None => Some(event),
        };
        if let Some(event) = event {
            self.take_in(event)?;
        }
        while let Some(event) = self.transactions.as_mut().and_then(TransactionDriver::deferred) {
            self.take_in(event)?;
        }
        Ok(())
    }

    fn take_in(&mut self, event: TaskEvent) -> Result<(), PollError> {
        match event {
            TaskEvent::Transaction(event) => self.take_transaction_event(event),
            TaskEvent::Finished {
                partition,
                epoch,
                finished,
                transaction: _,
                dead_lettered,
                skipped,
            } => {
                let current = |entry: &&mut AssignedPartition| {
                    entry.partition == partition && entry.task_epoch == epoch
                };
                // A completion of an older epoch: somebody else has the partition, or we have it anew.
                let Some(entry) = self.assigned.iter_mut().find(current) else {
                    return Ok(());
                };
                entry.complete(&finished);
                let counters = Counters {
                    done: finished.len() as u64,
                    dead_lettered,
                    skipped,
                };
                // Inside of a transaction they count with its commit.
                if self.transactions.is_some() {
                    entry.uncounted.add(counters);
                } else {
                    entry.count(counters);
                    self.counters.add(counters);
                }
            }
            TaskEvent::Ended { partition, epoch } => {
                let current = |entry: &&mut AssignedPartition| {
                    entry.partition == partition && entry.task_epoch == epoch
                };
                if let Some(entry) = self.assigned.iter_mut().find(current) {
                    entry.ended = true;
                    if !entry.draining {
                        return Err(PollError::TaskDied(partition));
                    }
                }
            }
        }
        Ok(())
    }

    fn housekeeping(&mut self) {
        self.last_housekeeping = Instant::now();
        if self.last_reminder.elapsed() >= reconnect::INTERVAL {
            self.last_reminder = Instant::now();
            if self.reminders.take() {
                add_brokers(self.source.consumer().client(), self.config.bootstrap_servers());
            }
        }
        let paused = *self.handles.paused.borrow();
        if paused != self.paused {
            self.paused = paused;
            tracing::info!(paused, "the resource's desired state changed");
        }
        if self.phase == Phase::Joining && self.source.is_member() {
            self.phase = Phase::Consuming;
        }
        self.seek();
        self.pass_markers();
        self.pause_and_resume();
        self.publish();
    }

    fn note_error(&mut self, error: &str) {
        self.last_error = Some(format!("{} at {}", truncate(error), Timestamp::now()));
        let now = Instant::now();
        self.logged
            .retain(|(_, at)| now.duration_since(*at) < ERROR_LOG_INTERVAL);
        if !self.logged.iter().any(|(known, _)| known == error) {
            tracing::warn!("{error}");
            self.logged.push((error.to_owned(), now));
        }
    }

    /// Shows the world how things are.
    fn publish(&mut self) {
        let outage = self.transactions.as_ref().and_then(TransactionDriver::problem);
        let mut shown: Vec<_> = self
            .assigned
            .iter()
            .map(|entry| {
                let end = self
                    .source
                    .cached_end(&entry.partition.topic, entry.partition.partition);
                entry.snapshot(self.paused, end, outage.as_ref())
            })
            .collect();
        shown.sort_by(|(a, _), (b, _)| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let (mut partitions, errors): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
        self.stalls.look(&mut partitions, self.paused);
        self.shared
            .metrics
            .paused_partitions(partitions.iter().filter_map(|partition| partition.paused_reason));
        let reasons = partitions.iter().map(|partition| partition.paused_reason);
        let failing = most_severe_error(reasons.zip(errors))
            // Without partitions it is told as well.
            .or_else(|| outage.and_then(|outage| outage.last_error));
        self.handles.snapshot.publish(Snapshot {
            worker: self.config.worker.clone(),
            group_id: self.config.group.clone(),
            phase: self.phase,
            paused: self.paused,
            records_total: self.counters.done,
            dead_lettered_total: self.counters.dead_lettered,
            skipped_total: self.counters.skipped,
            last_error: failing.or_else(|| self.last_error.clone()),
            partitions,
        });
    }
}
