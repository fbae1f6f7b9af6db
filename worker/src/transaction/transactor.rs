//! Ends and begins transactions, one command of the poll loop at a time, and answers with [`Event`]s. Two
//! clients take turns: while the transaction of one is being committed, lanes write in the transaction of the
//! other, which is committed only afterwards. So no lane waits for the transaction coordinators.

use std::{sync::Arc, time::Duration};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};
use tokio::sync::mpsc;

use super::{
    client::{PairedClient, call},
    event::{Cause, Event, Reporter, TransactionFailure},
    gate::Gate,
    rejected_records::{RejectedRecords, Suspect},
};
use crate::{
    kafka::producer::{Producer, SendError, TransactionError, TransactionErrorKind, TransactionalClient},
    record::failure::FailureClass,
    retry::RetryPolicy,
    seeded_bugs::seeded_bug,
};

/// What the poll loop commands.
pub(crate) enum Command {
    /// Move lanes to the next transaction, and report when no lane writes in the current one any more.
    /// Allowed only after the previous one is committed.
    End,
    /// Commit these offsets together with everything written in the ended transaction.
    Commit {
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    },
    /// Close the gate, abort everything uncommitted, and begin the next transaction after `backoff`.
    Abort { backoff: Duration },
    /// Open the gate: the partitions are ready to be read again.
    Open,
}

/// Runs the commands of the poll loop.
pub(crate) struct Transactor {
    gate: Arc<Gate>,
    producer: Producer,
    rejected_records: Arc<RejectedRecords>,
    report: Reporter,
    commands: mpsc::UnboundedReceiver<Command>,
    /// The clients of the even and of the odd transactions.
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

    /// Runs until the poll loop drops the sender of commands.
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

    /// Commits the transaction before the current one, and begins the next one on its client.
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

    /// Aborts the current transaction, and the ended one that is not committed yet.
    async fn abort(&mut self) {
        let suspects = self.rejected_records.take_suspects();
        for client in &mut self.clients {
            if suspects.is_empty() {
                client.abort().await;
            } else {
                // After a rejected batch, librdkafka 2.12 continues with the sequence numbers behind it. The
                // broker would then reject the next transaction of the same client as well.
                client.start_over();
            }
        }
        if !suspects.is_empty() {
            self.isolate_suspects(suspects).await;
        }
    }

    /// Finds out which suspects the broker really rejects, in transactions that are all aborted. The client
    /// for this makes no batches, so every rejection concerns one record. The first rejection fails the
    /// transaction, so the remaining suspects are tried again in the next one.
    async fn isolate_suspects(&mut self, suspects: Vec<Suspect>) {
        let mut confirmed = 0;
        let mut open: Vec<&Suspect> = suspects.iter().collect();
        while !open.is_empty() {
            let before = open.len();
            let answers = match self.isolate(&open).await {
                Ok(answers) => answers,
                Err(error) => {
                    // When the records are read again, this runs again.
                    tracing::debug!(%error, "cannot find out yet which records the broker rejects");
                    return;
                }
            };
            let mut answers = answers.into_iter();
            open.retain(|suspect| match answers.next() {
                Some(Err(error)) if error.class == FailureClass::Record => {
                    self.rejected_records.confirm(suspect, error);
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
                "the broker accepts each of {} records alone, but not together: sending smaller batches from \
                 now on; a max.message.bytes of the topic below 1 MiB causes this",
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
            client.initialize().and_then(|()| client.begin())
        })
        .await?;
        let records: Vec<_> = suspects.iter().map(|suspect| suspect.record()).collect();
        let over = async {
            // Records behind the first rejected one are not sent any more; the abort answers for them.
            producer.first_failure().await;
            call(&client, TransactionalClient::abort).await
        };
        let mut sent = std::pin::pin!(producer.send(&records));
        tokio::select! {
            answers = &mut sent => {
                // If the abort fails, the next client with this id aborts the transaction, or the broker does
                // after its timeout.
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
