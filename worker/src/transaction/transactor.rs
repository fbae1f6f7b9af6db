//! Ends transactions and begins new ones, one command at a time, as the poll loop wants, and answers with [`Event`]s. Two
//! clients take turns: while the transaction of one is being committed, lanes write in that of the other, which is committed only
//! after it. So lanes wait for each other, but not for the brokers that coordinate transactions.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{
    Cause, Event, Gate, Refusals, Spoiled,
    client::{Client, call},
    refusals::Suspect,
};
use crate::{
    partition::Report,
    planted::planted,
    producer::{ErrorClass, Producer, SendError, TransactionError, TransactionErrorKind, Turn},
    retry::RetryPolicy,
};

/// What the poll loop wants.
pub(crate) enum Command {
    /// Close the gate, and say when nobody is inside.
    Close,
    /// Open it again: there is nothing to commit, or the partitions are ready to be read again.
    Open,
    /// Commit these offsets with everything that was written; meanwhile the gate is open for the next transaction. Only while it
    /// is closed, and not before the last commit was answered.
    Commit {
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    },
    /// Close the gate, abort everything that is not committed, begin the next one after a while.
    Abort { backoff: Duration },
}

/// See the module.
pub(crate) struct Transactor {
    gate: Arc<Gate>,
    producer: Producer,
    refusals: Arc<Refusals>,
    reports: std_mpsc::Sender<Report>,
    commands: mpsc::UnboundedReceiver<Command>,
    open: bool,
    /// What is written goes into its transaction.
    current: Client,
    /// Has the next turn; its last transaction may not be committed yet.
    other: Client,
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
        let [current, other] = producer
            .turns()
            .map(|turn| Client::new(turn, retry.clone(), reports.clone()));
        Self {
            gate,
            producer,
            refusals,
            reports,
            commands,
            open: false,
            current,
            other,
        }
    }

    /// Works until nobody commands any more.
    pub async fn run(mut self) {
        self.begin().await;
        self.open();
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Close => {
                    if !planted("gate-stays-open") {
                        self.close().await;
                    }
                    self.report(Event::Quiet);
                }
                Command::Open => self.open(),
                Command::Commit { offsets, group } => {
                    self.pass_on();
                    self.open();
                    self.commit(offsets, group).await;
                }
                Command::Abort { backoff } => {
                    self.close().await;
                    self.abort().await;
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

    /// Nobody writes: the gate is closed.
    fn pass_on(&mut self) {
        self.producer.pass_on();
        std::mem::swap(&mut self.current, &mut self.other);
    }

    async fn begin(&mut self) {
        self.current.begin().await;
        self.other.begin().await;
    }

    /// Commits the transaction of the client whose turn is over, and has it begin its next.
    async fn commit(&mut self, offsets: TopicPartitionList, group: ConsumerGroupMetadata) {
        match self.other.commit(offsets, group).await {
            Err(_) if planted("abort-is-committed") => self.other.abort().await,
            Err(error) => return self.report(Event::Spoiled(spoiled(error))),
            Ok(()) => {}
        }
        self.report(Event::Committed);
        self.other.begin().await;
    }

    /// Aborts what is being written, and what could not be committed.
    async fn abort(&mut self) {
        match self.refusals.take_suspects() {
            suspects if suspects.is_empty() => self.current.abort().await,
            suspects => {
                // After a refused batch librdkafka 2.12 goes on with the sequence numbers behind it, so that the broker refuses
                // the next transaction of the same client, too.
                self.current.start_over();
                self.try_alone(suspects).await;
            }
        }
        if self.other.has_failed() {
            self.other.abort().await;
        }
    }

    fn report(&self, event: Event) {
        // A poll loop that is gone needs no answer.
        let _ = self.reports.send(Report::Transaction(event));
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
            self.other.start_over();
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
        let [turn, _] = producer.turns();
        call(&turn, |turn| turn.initialise().and_then(|()| turn.begin())).await?;
        let records: Vec<_> = suspects.iter().map(|suspect| suspect.record()).collect();
        let over = async {
            // What is behind the first refused record is not sent any more, and answered for by the abort.
            producer.first_failure().await;
            call(&turn, Turn::abort).await
        };
        let mut sent = std::pin::pin!(producer.send(&records));
        tokio::select! {
            answers = &mut sent => {
                // If not, the next client of that name does it, or the broker in a while.
                let _ = call(&turn, Turn::abort).await;
                Ok(answers)
            }
            _ = over => Ok(sent.await),
        }
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
