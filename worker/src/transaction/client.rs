//! One of the two clients whose transactions take turns, and how far its own is. Makes the calls, on threads that may block,
//! and tries again what can be tried again.

use std::{sync::Arc, time::Duration};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};

use super::{Event, Reporter};
use crate::{
    kafka::producer::{TransactionError, TransactionErrorKind, TransactionalClient},
    retry::RetryPolicy,
};

/// Between two calls of which librdkafka says that they may be repeated.
const AGAIN: Duration = Duration::from_millis(50);

/// So many of them, each of which waits for 10 s before it says so.
const ATTEMPTS: u32 = 3;

/// See the module.
pub(super) struct PairedClient {
    client: TransactionalClient,
    stage: ClientStage,
    retry: RetryPolicy,
    report: Reporter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientStage {
    /// The `transactional.id` has to be registered.
    New,
    /// No transaction has begun.
    Ready,
    Begun,
}

impl PairedClient {
    pub fn new(client: TransactionalClient, retry: RetryPolicy, report: Reporter) -> Self {
        Self {
            client,
            stage: ClientStage::New,
            retry,
            report,
        }
    }

    /// Begins a transaction if none has begun, however long it takes, with a new client if need be.
    pub async fn begin(&mut self) {
        let mut failures = 0;
        while self.stage != ClientStage::Begun {
            let Err(error) = self.try_to_begin().await else {
                break;
            };
            if std::mem::replace(&mut self.stage, ClientStage::New) != ClientStage::New {
                // The client broke some time ago; its successor has not been asked yet.
                self.client.renew();
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
                self.client.renew();
            }
            (self.report)(Event::Unavailable(error.to_string()));
            tokio::time::sleep(wait).await;
        }
        if failures > 0 {
            (self.report)(Event::Recovered);
        }
    }

    async fn try_to_begin(&mut self) -> Result<(), TransactionError> {
        if self.stage == ClientStage::New {
            call(&self.client, TransactionalClient::initialise).await?;
            self.stage = ClientStage::Ready;
        }
        call(&self.client, TransactionalClient::begin).await?;
        self.stage = ClientStage::Begun;
        Ok(())
    }

    /// Commits what was written, with these offsets.
    pub async fn commit(
        &mut self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let offsets = Arc::new((offsets, group));
        let sent = self
            .insist(move |client| {
                let (offsets, group) = &*offsets;
                client.send_offsets(offsets, group)
            })
            .await;
        let committed = match sent {
            Ok(()) => self.insist(TransactionalClient::commit).await,
            Err(error) => Err(error),
        };
        match &committed {
            Ok(()) => self.stage = ClientStage::Ready,
            Err(error) if error.kind == TransactionErrorKind::NewClient => self.start_over(),
            Err(_) => {}
        }
        committed
    }

    /// Aborts what has begun; a client that cannot is replaced, and its successor aborts for it. So is one with records on their way:
    /// librdkafka 2.12 drops them and gives their sequence numbers to others, but the broker may have got them, and would take the
    /// others for repetitions.
    pub async fn abort(&mut self) {
        if self.stage != ClientStage::Begun {
            return;
        }
        if !self.client.is_idle() {
            return self.start_over();
        }
        match self.insist(TransactionalClient::abort).await {
            Ok(()) => self.stage = ClientStage::Ready,
            Err(error) => {
                tracing::debug!(%error, "a new client takes over");
                self.start_over();
            }
        }
    }

    /// Drops the client; what it has left open its successor aborts.
    pub fn start_over(&mut self) {
        self.client.renew();
        self.stage = ClientStage::New;
    }

    /// Makes the same call again while librdkafka says so, but not for ever: a new client of the same name finds out from the
    /// broker how the transaction ended, too, and sometimes only that helps.
    async fn insist(
        &self,
        made: impl Fn(&TransactionalClient) -> Result<(), TransactionError> + Clone + Send + 'static,
    ) -> Result<(), TransactionError> {
        let mut attempt = 0;
        loop {
            match call(&self.client, made.clone()).await {
                Err(error) if error.kind == TransactionErrorKind::Again => {
                    attempt += 1;
                    (self.report)(Event::Unavailable(error.to_string()));
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
}

/// Makes a call that blocks, where it may.
pub(super) async fn call(
    client: &TransactionalClient,
    made: impl FnOnce(&TransactionalClient) -> Result<(), TransactionError> + Send + 'static,
) -> Result<(), TransactionError> {
    let client = client.clone();
    match tokio::task::spawn_blocking(move || made(&client)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
