//! Ends transactions and begins new ones, one call at a time, as the poll loop commands. Tries again what can be tried again,
//! makes a new client when the old one is of no use any more, and answers with [`Event`]s.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{Cause, Event, Gate, Refusals, Spoiled, refusals::Suspect};
use crate::{
    partition::Report,
    planted::planted,
    producer::{ErrorClass, Producer, SendError, TransactionError, TransactionErrorKind},
    retry::RetryPolicy,
};

/// Between two calls of which librdkafka says that they may be repeated.
const AGAIN: Duration = Duration::from_millis(50);

/// So many of them, each of which waits for 10 s before it says so.
const ATTEMPTS: u32 = 3;

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
                    Err(error) => {
                        if error.kind == TransactionErrorKind::NewClient {
                            self.start_over();
                        }
                        self.report(Event::Spoiled(spoiled(error)));
                    }
                },
                Command::Abort { backoff } => {
                    self.close().await;
                    match self.refusals.take_suspects() {
                        suspects if suspects.is_empty() => self.abort().await,
                        suspects => {
                            // After a refused batch librdkafka 2.12 goes on with the sequence numbers behind it, so that the
                            // broker refuses the next transaction of the same client, too.
                            self.start_over();
                            self.try_alone(suspects).await;
                        }
                    }
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
            let wait = self.retry.outage_backoff(failures, systemic);
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
        let offsets = Arc::new((offsets, group));
        self.insist(move |producer| {
            let (offsets, group) = &*offsets;
            producer.send_offsets(offsets, group)
        })
        .await?;
        self.insist(Producer::commit).await
    }

    /// Aborts; a client that cannot is replaced, and its successor aborts for it. So is one with records on their way:
    /// librdkafka 2.12 drops them and gives their sequence numbers to others, but the broker may have got them, and would take the
    /// others for repetitions.
    async fn abort(&mut self) {
        if !self.producer.is_idle() {
            self.start_over();
        } else if let Err(error) = self.insist(Producer::abort).await {
            tracing::debug!(%error, "a new client takes over");
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        self.producer.renew();
        self.registered = false;
    }

    /// Makes the same call again while librdkafka says so, but not for ever: a new client of the same name finds out from the
    /// broker how the transaction ended, too, and sometimes only that helps.
    async fn insist(
        &self,
        made: impl Fn(&Producer) -> Result<(), TransactionError> + Clone + Send + 'static,
    ) -> Result<(), TransactionError> {
        let mut attempt = 0;
        loop {
            match self.call(made.clone()).await {
                Err(error) if error.kind == TransactionErrorKind::Again => {
                    attempt += 1;
                    self.report(Event::Trouble(error.to_string()));
                    if attempt == ATTEMPTS {
                        let kind = TransactionErrorKind::NewClient;
                        return Err(TransactionError { kind, ..error });
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Finds out which of the suspects the broker really refuses, in transactions that are all aborted: sent by a client
    /// that makes no batches, so that every refusal is of that record. The first one spoils the transaction, so the others are
    /// tried again in the next.
    async fn try_alone(&mut self, suspects: Vec<Suspect>) {
        let mut convicted = 0;
        let mut open: Vec<&Suspect> = suspects.iter().collect();
        while !open.is_empty() {
            let before = open.len();
            let answers = match self.trial(&open).await {
                Ok(answers) => answers,
                Err(error) => {
                    // When the records come again, it is found out again.
                    tracing::debug!(%error, "which records the broker refuses is not known yet");
                    return;
                }
            };
            let mut answers = answers.into_iter();
            open.retain(|suspect| match answers.next() {
                Some(Err(error)) if error.class == ErrorClass::Record => {
                    self.refusals.convict(suspect, error.message);
                    convicted += 1;
                    false
                }
                Some(Err(_)) => true,
                _ => false,
            });
            if open.len() == before {
                return;
            }
        }
        if convicted == 0 {
            let bytes = suspects.iter().map(Suspect::bytes).sum();
            self.producer.shrink_batches(bytes);
            tracing::warn!(
                "the broker takes each of {} records alone, but not together: sending smaller batches from now on; a \
                 topic's max.message.bytes below 1 MiB does that",
                suspects.len()
            );
        }
    }

    async fn trial(&self, suspects: &[&Suspect]) -> Result<Vec<Result<(), SendError>>, TransactionError> {
        let producer = self.producer.trial().map_err(|error| TransactionError {
            message: error.to_string(),
            kind: TransactionErrorKind::Systemic,
        })?;
        call(&producer, |producer| {
            producer.initialise().and_then(|()| producer.begin())
        })
        .await?;
        let records: Vec<_> = suspects.iter().map(|suspect| suspect.record()).collect();
        let over = async {
            // What is behind the first refused record is not sent any more, and answered for by the abort.
            producer.first_failure().await;
            call(&producer, Producer::abort).await
        };
        let mut sent = std::pin::pin!(producer.send(&records));
        tokio::select! {
            answers = &mut sent => {
                // If not, the next client of that name does it, or the broker in a while.
                let _ = call(&producer, Producer::abort).await;
                Ok(answers)
            }
            _ = over => Ok(sent.await),
        }
    }

    async fn call(
        &self,
        made: impl FnOnce(&Producer) -> Result<(), TransactionError> + Send + 'static,
    ) -> Result<(), TransactionError> {
        call(&self.producer, made).await
    }
}

/// Makes a call that blocks, where it may.
async fn call(
    producer: &Producer,
    made: impl FnOnce(&Producer) -> Result<(), TransactionError> + Send + 'static,
) -> Result<(), TransactionError> {
    let producer = producer.clone();
    match tokio::task::spawn_blocking(move || made(&producer)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn spoiled(error: TransactionError) -> Spoiled {
    let cause = match error.kind {
        TransactionErrorKind::Moved => Cause::Moved,
        TransactionErrorKind::Systemic => Cause::Systemic,
        _ => Cause::Unavailable,
    };
    Spoiled::new(cause, error.message)
}
