//! Ends transactions and begins new ones, one call at a time, as the poll loop commands. Tries again what can be tried again,
//! makes a new client when the old one is of no use any more, and answers with [`Event`]s.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{Cause, Event, Gate, Refusals, Spoiled};
use crate::{
    partition::Report,
    planted::planted,
    producer::{ErrorClass, Producer, TransactionError, TransactionErrorKind},
    retry::RetryPolicy,
};

/// Between two calls of which librdkafka says that they may be repeated.
const AGAIN: Duration = Duration::from_millis(50);

/// What the poll loop wants.
pub(crate) enum Command {
    /// Close the gate, and say when nobody is inside.
    Close,
    /// Open it again: there is nothing to commit, or the partitions are ready to be read again.
    Open,
    /// Commit these offsets with everything that was written, begin the next transaction, and open the gate. Only while it is
    /// closed.
    Commit {
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    },
    /// Close the gate, abort, begin the next one after a while.
    Abort { backoff: Duration },
}

/// See the module.
pub(crate) struct Transactor {
    pub gate: Arc<Gate>,
    pub producer: Producer,
    pub refusals: Arc<Refusals>,
    pub retry: RetryPolicy,
    pub reports: std_mpsc::Sender<Report>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    open: bool,
    /// The client has registered its `transactional.id`.
    registered: bool,
}

impl Transactor {
    pub fn new(
        gate: Arc<Gate>,
        producer: Producer,
        refusals: Arc<Refusals>,
        retry: RetryPolicy,
        reports: std_mpsc::Sender<Report>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            gate,
            producer,
            refusals,
            retry,
            reports,
            commands,
            open: false,
            registered: false,
        }
    }

    /// Works until nobody commands any more.
    pub async fn run(mut self) {
        self.begin().await;
        self.open();
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Close => {
                    self.close().await;
                    self.report(Event::Quiet);
                }
                Command::Open => self.open(),
                Command::Commit { offsets, group } => match self.commit(offsets, group).await {
                    Ok(()) => {
                        self.report(Event::Committed);
                        self.begin().await;
                        self.open();
                    }
                    Err(_) if planted("abort-is-committed") => {
                        self.report(Event::Committed);
                        self.abort().await;
                        self.begin().await;
                        self.open();
                    }
                    Err(error) => self.report(Event::Spoiled(spoiled(error))),
                },
                Command::Abort { backoff } => {
                    self.close().await;
                    self.abort().await;
                    self.try_suspects().await;
                    tokio::time::sleep(backoff).await;
                    self.begin().await;
                    self.report(Event::Aborted);
                }
            }
        }
    }

    async fn close(&mut self) {
        if std::mem::replace(&mut self.open, false) {
            self.gate.close().await;
        }
    }

    fn open(&mut self) {
        if !std::mem::replace(&mut self.open, true) {
            self.gate.open();
        }
    }

    fn report(&self, event: Event) {
        // A poll loop that is gone needs no answer.
        let _ = self.reports.send(Report::Transaction(event));
    }

    /// Begins a transaction, however long it takes, with a new client if need be.
    async fn begin(&mut self) {
        let mut failures = 0;
        loop {
            let begun = match self.registered {
                true => self.call(Producer::begin).await,
                false => match self.call(Producer::initialise).await {
                    Ok(()) => {
                        self.registered = true;
                        self.call(Producer::begin).await
                    }
                    Err(error) => Err(error),
                },
            };
            let Err(error) = begun else {
                if failures > 0 {
                    self.report(Event::Recovered);
                }
                return;
            };
            if std::mem::replace(&mut self.registered, false) {
                // The client broke some time ago; its successor has not been asked yet.
                self.producer.renew();
                continue;
            }
            failures += 1;
            if u32::is_power_of_two(failures) {
                tracing::warn!(
                    attempt = failures,
                    "there is no transaction: {error}; trying again"
                );
            }
            let systemic = error.kind == TransactionErrorKind::Systemic;
            let wait = self
                .retry
                .random_backoff(if systemic { failures.max(3) } else { failures });
            if error.kind != TransactionErrorKind::Again {
                self.producer.renew();
            }
            self.report(Event::Trouble(error.to_string()));
            tokio::time::sleep(wait).await;
        }
    }

    async fn commit(
        &self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let call = Arc::new((offsets, group));
        loop {
            let call = call.clone();
            let sent = self
                .call(move |producer| producer.send_offsets(&call.0, &call.1))
                .await;
            match sent {
                Err(error) if error.kind == TransactionErrorKind::Again => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        // Never given up: an unanswered commit may have happened, and only the same call again tells.
        loop {
            match self.call(Producer::commit).await {
                Err(error) if error.kind == TransactionErrorKind::Again => {
                    self.report(Event::Trouble(error.to_string()));
                    tokio::time::sleep(AGAIN).await;
                }
                committed => return committed,
            }
        }
    }

    /// Aborts; a client that cannot is replaced, and its successor aborts for it.
    async fn abort(&self) {
        loop {
            match self.call(Producer::abort).await {
                Ok(()) => return,
                Err(error) if error.kind == TransactionErrorKind::Again => tokio::time::sleep(AGAIN).await,
                Err(error) => {
                    tracing::debug!(%error, "a new client takes over");
                    self.producer.renew();
                    return;
                }
            }
        }
    }

    /// Finds out which of the suspects the broker really refuses. Each refusal spoils the transaction that it is tried in.
    async fn try_suspects(&mut self) {
        let suspects = self.refusals.take_suspects();
        let mut convicted = 0;
        let mut rest = &suspects[..];
        while !rest.is_empty() {
            self.begin().await;
            while let Some((suspect, later)) = rest.split_first() {
                match self.producer.send(&[suspect.record()]).await.pop() {
                    Some(Err(error)) if error.class == ErrorClass::Record => {
                        rest = later;
                        convicted += 1;
                        self.refusals.convict(suspect, error.message);
                        break;
                    }
                    Some(Err(_)) => {
                        // The brokers are away: when the records come again, it is found out again.
                        self.abort().await;
                        return;
                    }
                    _ => rest = later,
                }
            }
            self.abort().await;
        }
        if !suspects.is_empty() && convicted == 0 {
            tracing::warn!(
                "the broker takes each record alone, but not together: sending smaller batches from now on; a topic's \
                 max.message.bytes below 1 MiB does that"
            );
            self.producer.shrink_batches();
            self.registered = false;
        }
    }

    async fn call(
        &self,
        call: impl FnOnce(&Producer) -> Result<(), TransactionError> + Send + 'static,
    ) -> Result<(), TransactionError> {
        let producer = self.producer.clone();
        match tokio::task::spawn_blocking(move || call(&producer)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn spoiled(error: TransactionError) -> Spoiled {
    Spoiled {
        message: error.message,
        cause: match error.kind {
            TransactionErrorKind::Moved => Cause::Moved,
            TransactionErrorKind::Systemic => Cause::Systemic,
            _ => Cause::Unavailable,
        },
    }
}
