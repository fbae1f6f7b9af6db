//! Builds the worker from its [`Settings`] and runs it: the shared context, the poll loop on a separate
//! thread, and the watchdog that ends a hanging close.

use std::{sync::Arc, time::Duration};

use crds::spec::{OnExhausted, OnOffsetOutOfRange};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    consumer::{
        PollLoop,
        bounds::Bounds,
        config::Config,
        error::PollError,
        handles::{Flag, Handles},
    },
    dead_letter::{DeadLetters, FailurePolicy},
    exit,
    kafka::producer::{Producer, ProducerError},
    pipeline::{Pipeline, time_limit::TimedPipeline},
    processing::context::WorkerContext,
    seeded_bugs::seeded_bug,
    settings::{Parts, Settings},
    transaction::{Gate, Transactional},
    writer::breaker::WriterBreaker,
};

/// After the drain budget a close takes at most a second, and the process must not wait for a coordinator
/// that does not answer. Including the commit, which takes up to 5 s, this stays within the pod's grace
/// period (the drain budget plus 5 s), or the kubelet cuts it short.
const CLOSE_BUDGET: Duration = Duration::from_secs(10);

/// Why the engine ended, if it did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The poll loop cannot continue.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The producer for dead letters could not be created.
    #[error("cannot create the Kafka producer for dead letters: {0}")]
    Producer(#[source] ProducerError),
    /// The consumer did not close.
    #[error("leaving the group took longer than {} s; exiting without leaving", CLOSE_BUDGET.as_secs())]
    CloseHung,
    /// The poll thread could not be started or has panicked.
    #[error("the poll thread failed: {0}")]
    Thread(String),
}

impl EngineError {
    /// The process exit code that belongs to it.
    pub fn exit_code(&self) -> u8 {
        match self {
            EngineError::Poll(error) => error.exit_code(),
            EngineError::Producer(_) => exit::CONFIG,
            EngineError::CloseHung => exit::STUCK,
            EngineError::Thread(_) => exit::PANIC,
        }
    }
}

/// Runs until `handles.shutdown` is set and everything is drained, or until the poll loop cannot continue.
pub async fn run(settings: Settings, parts: Parts, handles: Handles) -> Result<(), EngineError> {
    let policy = failure_policy(&settings, parts.transactions.as_ref())?;
    let headers = settings.on_exhausted == OnExhausted::DeadLetter || parts.read_headers();
    let Parts {
        decoders,
        transforms,
        writers,
        transactions,
    } = parts;
    let pipeline = Pipeline::new(decoders, transforms, handles.metrics.clone());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Arc::new(WorkerContext {
        pipeline: Arc::new(TimedPipeline::new(
            pipeline,
            cores,
            settings.transform_timeout,
            handles.metrics.clone(),
        )),
        writers: writers.clone(),
        breakers: writers
            .iter()
            .map(|writer| WriterBreaker::new(writer.name.clone(), handles.metrics.clone()))
            .collect(),
        policy,
        retry: settings.retry.clone(),
        guarantee: settings.guarantee,
        ordering: settings.ordering,
        concurrency: settings.concurrency,
        lanes: Semaphore::new(settings.concurrency),
        gate: transactions.as_ref().map(|_| Gate::closed()),
        metrics: handles.metrics.clone(),
    });
    let drain = settings.drain;
    let config = poll_config(settings, transactions, headers);
    let mut shutdown = handles.shutdown.clone();
    let runtime = tokio::runtime::Handle::current();
    let (send, mut ended) = oneshot::channel();
    let (closing, closes) = oneshot::channel();
    std::thread::Builder::new()
        .name("poll".into())
        .spawn(move || {
            // The consumer is created here because it stays on this thread.
            let outcome = PollLoop::new(config, shared, handles, runtime).and_then(|poll| poll.run(closing));
            // The receiver is dropped only if the watchdog has ended the wait.
            let _ = send.send(outcome);
        })
        .map_err(|error| EngineError::Thread(error.to_string()))?;
    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = watchdog(&mut shutdown, drain + CLOSE_BUDGET) => return Err(EngineError::CloseHung),
        () = after_closing(closes) => return Err(EngineError::CloseHung),
    };
    for writer in &writers {
        writer.writer.close().await;
    }
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(EngineError::Thread("it panicked; the log shows the panic".into())),
    }
}

/// `headers` is true if a transform or a writer reads headers, or if failed records are copied to the dead
/// letter topic.
fn poll_config(settings: Settings, transactions: Option<Transactional>, headers: bool) -> Config {
    let bounds = settings.until.as_ref().map(Bounds::new);
    let on_offset_out_of_range = match bounds {
        None => settings.on_offset_out_of_range,
        // A bounded run reads what is left of its part, and never records behind it.
        Some(_) => OnOffsetOutOfRange::Earliest,
    };
    Config {
        headers,
        bounds: bounds.map(Arc::new),
        worker: settings.worker_name,
        group: settings.group_id,
        topics: settings.topics,
        properties: settings.consumer_properties,
        start_time: settings.start_time,
        on_topic_recreated: settings.on_topic_recreated,
        on_offset_out_of_range,
        commit_interval: settings.commit_interval,
        drain: settings.drain,
        max_records: settings.batch.max_records,
        max_bytes: settings.batch.max_bytes,
        bytes_in_flight: settings.memory.in_flight,
        linger: settings.batch.linger,
        records_per_second: settings.records_per_second,
        stalled_after: settings.stalled_after,
        transactions,
        retry: settings.retry,
    }
}

/// Returns when a poll loop that cannot continue, or whose bounded run is at its end, has not left the group after
/// [`CLOSE_BUDGET`] and the budget of its message. The loop has logged why it closes.
async fn after_closing(closes: oneshot::Receiver<Duration>) {
    match closes.await {
        Ok(budget) => tokio::time::sleep(budget + CLOSE_BUDGET).await,
        Err(_) => std::future::pending().await,
    }
}

/// Returns `budget` after the shutdown started.
async fn watchdog(shutdown: &mut Flag, budget: Duration) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(budget).await;
}

fn failure_policy(
    settings: &Settings,
    transactions: Option<&Transactional>,
) -> Result<FailurePolicy, EngineError> {
    Ok(match (settings.on_exhausted, &settings.dead_letter) {
        (OnExhausted::DeadLetter, Some(dead_letter)) => {
            let producer = match transactions {
                Some(transactions) if !seeded_bug("dead-letter-outside-transaction") => {
                    transactions.producer.clone()
                }
                _ => Producer::new(&settings.producer_properties).map_err(EngineError::Producer)?,
            };
            FailurePolicy::DeadLetter(Arc::new(DeadLetters::new(
                producer,
                dead_letter.clone(),
                settings.group_id.clone(),
                settings.worker_name.clone(),
                transactions.map(|transactions| transactions.rejected_records.clone()),
            )))
        }
        // Validation rejects DeadLetter without a topic. Stop is the policy that loses nothing.
        (OnExhausted::Stop | OnExhausted::DeadLetter, _) => FailurePolicy::Stop,
        (OnExhausted::Skip, _) => FailurePolicy::Skip,
    })
}
