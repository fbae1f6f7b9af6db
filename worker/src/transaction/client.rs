//! One of the two clients whose transactions take turns, and the stage of its transaction. Makes the calls on
//! threads that may block, and retries the calls that can be retried.

use std::{sync::Arc, time::Duration};

use rdkafka::{consumer::ConsumerGroupMetadata, topic_partition_list::TopicPartitionList};

use super::event::{Event, Reporter};
use crate::retry;
use crate::{
    kafka::producer::{TransactionError, TransactionErrorKind, TransactionalClient},
    retry::RetryPolicy,
};

/// Wait between two attempts of a call that librdkafka reports as retriable.
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// Number of attempts. Each one waits up to 10 s before it fails.
const ATTEMPTS: u32 = 3;

/// A call that takes longer than this never returns. librdkafka 2.12 gives up after the call's own timeout of
/// 10 s, but waits for the result of `send_offsets_to_transaction` without a limit, and the result is lost if
/// the client is fenced meanwhile: seen when the broker of the transaction coordinator was killed.
const LOST: Duration = Duration::from_secs(15);

/// A client with the stage of its transaction.
pub(super) struct PairedClient {
    client: TransactionalClient,
    stage: ClientStage,
    retry: RetryPolicy,
    report: Reporter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientStage {
    /// The `transactional.id` is not registered yet.
    New,
    /// No transaction has started.
    Ready,
    /// A transaction has started.
    Started,
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

    /// Begins a transaction unless one has started. Retries indefinitely, with a new client if necessary.
    pub async fn begin(&mut self) {
        let mut failures = 0;
        while self.stage != ClientStage::Started {
            let Err(error) = self.try_to_begin().await else {
                break;
            };
            if std::mem::replace(&mut self.stage, ClientStage::New) != ClientStage::New {
                // The client broke some time ago; try a new one before this counts as a failure.
                self.client.discard();
                continue;
            }
            failures += 1;
            if retry::is_logged(failures) {
                tracing::warn!(
                    attempt = failures,
                    "cannot begin a transaction: {error}; retrying"
                );
            }
            let systemic = error.kind == TransactionErrorKind::Systemic;
            let wait = self.retry.outage_backoff(failures, systemic);
            if error.kind != TransactionErrorKind::Again {
                self.client.discard();
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
            call(&self.client, TransactionalClient::initialize).await?;
            self.stage = ClientStage::Ready;
        }
        call(&self.client, TransactionalClient::begin).await?;
        self.stage = ClientStage::Started;
        Ok(())
    }

    /// Commits the written records together with these offsets.
    pub async fn commit(
        &mut self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let offsets = Arc::new((offsets, group));
        let sent = self
            .call_with_retries(move |client| {
                let (offsets, group) = &*offsets;
                client.send_offsets(offsets, group)
            })
            .await;
        let committed = match sent {
            Ok(()) => self.call_with_retries(TransactionalClient::commit).await,
            Err(error) => Err(error),
        };
        match &committed {
            Ok(()) => self.stage = ClientStage::Ready,
            Err(error) if error.kind == TransactionErrorKind::NewClient => self.start_over(),
            Err(_) => {}
        }
        committed
    }

    /// Aborts the transaction. A client that cannot is replaced, and its successor aborts the transaction. A
    /// client with records in flight is also replaced: librdkafka 2.12 drops them and gives their sequence
    /// numbers to other records, but the broker may have received them, and would take the other records for
    /// duplicates.
    pub async fn abort(&mut self) {
        if self.stage != ClientStage::Started {
            return;
        }
        if !self.client.is_idle() {
            return self.start_over();
        }
        match self.call_with_retries(TransactionalClient::abort).await {
            Ok(()) => self.stage = ClientStage::Ready,
            Err(error) => {
                tracing::debug!(%error, "cannot abort the transaction; a new client takes over");
                self.start_over();
            }
        }
    }

    /// Drops the client; its successor aborts the transaction that it leaves open.
    pub fn start_over(&mut self) {
        self.client.discard();
        self.stage = ClientStage::New;
    }

    /// Retries a call that librdkafka reports as retriable, but not indefinitely. A new client with the same
    /// `transactional.id` also learns from the broker how the transaction ended, and sometimes only that
    /// helps.
    async fn call_with_retries(
        &self,
        request: impl Fn(&TransactionalClient) -> Result<(), TransactionError> + Clone + Send + 'static,
    ) -> Result<(), TransactionError> {
        let mut attempt = 0;
        loop {
            match call(&self.client, request.clone()).await {
                Err(error) if error.kind == TransactionErrorKind::Again => {
                    attempt += 1;
                    (self.report)(Event::Unavailable(error.to_string()));
                    if attempt == ATTEMPTS {
                        let kind = TransactionErrorKind::NewClient;
                        return Err(TransactionError { kind, ..error });
                    }
                    tokio::time::sleep(RETRY_WAIT).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Makes a blocking call on a thread that may block.
pub(super) async fn call(
    client: &TransactionalClient,
    request: impl FnOnce(&TransactionalClient) -> Result<(), TransactionError> + Send + 'static,
) -> Result<(), TransactionError> {
    call_within(LOST, client, request).await
}

/// A call that does not return keeps its thread and its client until the process ends. The next client with
/// the same `transactional.id` fences that client.
async fn call_within(
    limit: Duration,
    client: &TransactionalClient,
    request: impl FnOnce(&TransactionalClient) -> Result<(), TransactionError> + Send + 'static,
) -> Result<(), TransactionError> {
    let calling = client.clone();
    let call = tokio::task::spawn_blocking(move || request(&calling));
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            let message = format!(
                "librdkafka has not answered a call about the transaction within {} s; the worker starts a new client",
                limit.as_secs()
            );
            tracing::warn!("{message}");
            client.discard();
            Err(TransactionError {
                message,
                kind: TransactionErrorKind::NewClient,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crds::client_config::Properties;

    use super::*;
    use crate::kafka::producer::Producer;

    #[tokio::test]
    async fn a_call_that_never_returns_costs_its_client_and_not_the_worker() {
        let properties = |id: &str| {
            Properties::from([
                ("bootstrap.servers".to_string(), "127.0.0.1:1".to_string()),
                ("transactional.id".to_string(), id.to_string()),
            ])
        };
        let producer = Producer::transactional([properties("a"), properties("b")]).unwrap();
        let [client, _] = producer.transactional_clients();
        let (release, blocked) = mpsc::channel::<()>();
        let stuck = call_within(Duration::from_millis(50), &client, move |_| {
            let _ = blocked.recv();
            Ok(())
        });
        let error = stuck.await.unwrap_err();
        assert_eq!(error.kind, TransactionErrorKind::NewClient);
        assert!(error.message.contains("starts a new client"), "{error}");
        // The next call is not affected by it.
        assert_eq!(call(&client, |_| Ok(())).await, Ok(()));
        drop(release);
    }
}
