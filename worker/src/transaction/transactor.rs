//! Ends transactions and begins new ones, one command at a time, as the poll loop wants, and answers with [`Event`]s. Two
//! clients take turns: while the transaction of one is being committed, lanes write in that of the other, which is committed only
//! after it. So nobody waits for the brokers that coordinate transactions.

use std::{sync::Arc, time::Duration};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{
    Cause, Event, Gate, RejectedRecords, Reporter, TransactionFailure,
    client::{PairedClient, call},
    rejected_records::Suspect,
};
use crate::{
    kafka::producer::{Producer, SendError, TransactionError, TransactionErrorKind, TransactionalClient},
    record::failure::FailureClass,
    retry::RetryPolicy,
    seeded_bugs::seeded_bug,
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
    rejected_records: Arc<RejectedRecords>,
    report: Reporter,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Those of even and of odd transactions.
    clients: [PairedClient; 2],
}

impl Transactor {
    pub fn new(
        gate: Arc<Gate>,
        producer: Producer,
        rejected_records: Arc<RejectedRecords>,
        retry: RetryPolicy,
        report: Reporter,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let clients = producer
            .transactional_clients()
            .map(|client| PairedClient::new(client, retry.clone(), report.clone()));
        Self {
            gate,
            producer,
            rejected_records,
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
                    if !seeded_bug("ends-before-its-lanes") {
                        self.gate.left(ended).await;
                    }
                    (self.report)(Event::Drained);
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
            Err(_) if seeded_bug("abort-is-committed") => client.abort().await,
            Err(error) => return (self.report)(Event::Failed(failure(error))),
            Ok(()) => {}
        }
        (self.report)(Event::Committed);
        self.clients[index].begin().await;
    }

    /// Aborts what is being written, and what was ended and is not committed.
    async fn abort(&mut self) {
        let suspects = self.rejected_records.take_suspects();
        for client in &mut self.clients {
            if suspects.is_empty() {
                client.abort().await;
            } else {
                // After a rejected batch, librdkafka 2.12 continues with the sequence numbers behind it. The broker would
                // then reject the next transaction of the same client as well.
                client.start_over();
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
        let mut confirmed = 0;
        let mut open: Vec<&Suspect> = suspects.iter().collect();
        while !open.is_empty() {
            let before = open.len();
            let answers = match self.isolate(&open).await {
                Ok(answers) => answers,
                Err(error) => {
                    // When the records come again, it is found out again.
                    tracing::debug!(%error, "which records the broker refuses is not known yet");
                    return;
                }
            };
            let mut answers = answers.into_iter();
            open.retain(|suspect| match answers.next() {
                Some(Err(error)) if error.class == FailureClass::Record => {
                    self.rejected_records.confirm(suspect, error.message);
                    confirmed += 1;
                    false
                }
                Some(Err(_)) => true,
                _ => false,
            });
            if open.len() == before {
                return;
            }
        }
        if confirmed == 0 {
            let bytes = suspects.iter().map(Suspect::bytes).sum();
            self.producer.shrink_batches(bytes);
            tracing::warn!(
                "the broker takes each of {} records alone, but not together: sending smaller batches from now on; a \
                 topic's max.message.bytes below 1 MiB does that",
                suspects.len()
            );
        }
    }

    async fn isolate(&self, suspects: &[&Suspect]) -> Result<Vec<Result<(), SendError>>, TransactionError> {
        let producer = self.producer.isolating().map_err(|error| TransactionError {
            message: error.to_string(),
            kind: TransactionErrorKind::Systemic,
        })?;
        let [client, _] = producer.transactional_clients();
        call(&client, |client| {
            client.initialise().and_then(|()| client.begin())
        })
        .await?;
        let records: Vec<_> = suspects.iter().map(|suspect| suspect.record()).collect();
        let over = async {
            // What is behind the first refused record is not sent any more, and answered for by the abort.
            producer.first_failure().await;
            call(&client, TransactionalClient::abort).await
        };
        let mut sent = std::pin::pin!(producer.send(&records));
        tokio::select! {
            answers = &mut sent => {
                // If not, the next client of that name does it, or the broker in a while.
                let _ = call(&client, TransactionalClient::abort).await;
                Ok(answers)
            }
            _ = over => Ok(sent.await),
        }
    }
}

fn failure(error: TransactionError) -> TransactionFailure {
    let cause = match error.kind {
        TransactionErrorKind::Moved => Cause::Moved,
        TransactionErrorKind::TooLong => Cause::TooLong,
        TransactionErrorKind::Systemic => Cause::Systemic,
        _ => Cause::Unavailable,
    };
    TransactionFailure::new(cause, error.message)
}
