//! Ends transactions and begins new ones, one command at a time, as the poll loop wants, and answers with [`Event`]s. Two
//! clients take turns: while the transaction of one is being committed, lanes write in that of the other, which is committed only
//! after it. So nobody waits for the brokers that coordinate transactions.

use std::{sync::Arc, time::Duration};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{
    Cause, Event, Gate, Refusals, Reporter, Spoiled,
    client::{Client, call},
    rejected_records::Suspect,
};
use crate::{
    kafka::producer::{ErrorClass, Producer, SendError, TransactionError, TransactionErrorKind, Turn},
    retry::RetryPolicy,
    seeded_bugs::planted,
};

/// What the poll loop wants.
pub(crate) enum Command {
    /// Have lanes go on in the next transaction, and say when nobody writes in this one any more. Not before the last one is
    /// committed.
    End,
    /// Commit these offsets with everything that was written in the ended transaction.
    Commit {
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    },
    /// Keep lanes from writing, abort everything that is not committed, begin the next one after a while.
    Abort { backoff: Duration },
    /// Let lanes write: the partitions are ready to be read again.
    Open,
}

/// See the module.
pub(crate) struct Transactor {
    gate: Arc<Gate>,
    producer: Producer,
    refusals: Arc<Refusals>,
    report: Reporter,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Those of even and of odd transactions.
    clients: [Client; 2],
}

impl Transactor {
    pub fn new(
        gate: Arc<Gate>,
        producer: Producer,
        refusals: Arc<Refusals>,
        retry: RetryPolicy,
        report: Reporter,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let clients = producer
            .turns()
            .map(|turn| Client::new(turn, retry.clone(), report.clone()));
        Self {
            gate,
            producer,
            refusals,
            report,
            commands,
            clients,
        }
    }

    /// Works until nobody commands any more.
    pub async fn run(mut self) {
        self.begin().await;
        self.gate.open();
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::End => {
                    let ended = self.gate.turn_over();
                    if !planted("ends-before-its-lanes") {
                        self.gate.left(ended).await;
                    }
                    (self.report)(Event::Quiet);
                }
                Command::Commit { offsets, group } => self.commit(offsets, group).await,
                Command::Abort { backoff } => {
                    self.gate.close().await;
                    self.abort().await;
                    tokio::time::sleep(backoff).await;
                    self.begin().await;
                    (self.report)(Event::Aborted);
                }
                Command::Open => self.gate.open(),
            }
        }
    }

    async fn begin(&mut self) {
        for client in &mut self.clients {
            client.begin().await;
        }
    }

    /// Commits the transaction before the current one, and has its client begin the next.
    async fn commit(&mut self, offsets: TopicPartitionList, group: ConsumerGroupMetadata) {
        let index = (self.gate.current().wrapping_sub(1) % 2) as usize;
        let client = &mut self.clients[index];
        match client.commit(offsets, group).await {
            Err(_) if planted("abort-is-committed") => client.abort().await,
            Err(error) => return (self.report)(Event::Spoiled(spoiled(error))),
            Ok(()) => {}
        }
        (self.report)(Event::Committed);
        self.clients[index].begin().await;
    }

    /// Aborts what is being written, and what was ended and is not committed.
    async fn abort(&mut self) {
        let suspects = self.refusals.take_suspects();
        for client in &mut self.clients {
            match suspects.is_empty() {
                true => client.abort().await,
                // After a refused batch librdkafka 2.12 goes on with the sequence numbers behind it, so that the broker refuses
                // the next transaction of the same client, too.
                false => client.start_over(),
            }
        }
        if !suspects.is_empty() {
            self.try_alone(suspects).await;
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
        TransactionErrorKind::TooLong => Cause::TooLong,
        TransactionErrorKind::Systemic => Cause::Systemic,
        _ => Cause::Unavailable,
    };
    Spoiled::new(cause, error.message)
}
