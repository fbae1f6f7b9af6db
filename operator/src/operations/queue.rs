//! The queue of one kind of operation. In: requests, a cache of the objects. Out: one reconcile after the other of
//! each object, each with a time limit, and again after a failure. Knows nothing of what a reconcile does.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use kube::runtime::controller::{Action, Error as QueueError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Config, applier, watcher};
use kube::{Resource, ResourceExt};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::kafka::model::KafkaProblem;

/// One change of an object is followed by others.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Objects of a kind that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// Timeout of one reconcile. It may wait for a reconcile of the group, and for Kafka several times.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Kafka gets this long for one answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A reconcile did not end by itself.
#[derive(Debug, Error)]
pub enum Interrupted {
    #[error("the reconcile did not finish within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the reconcile panicked: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

/// A kind of operation.
pub trait Operation: Send + Sync + 'static {
    type Object: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static;
    type Error: std::error::Error + From<Interrupted> + Send + 'static;
    /// For logs, such as "offset reset".
    const KIND: &'static str;

    /// Takes the next step of an object.
    fn reconcile(
        &self,
        key: &ObjectRef<Self::Object>,
        object: &Self::Object,
    ) -> impl Future<Output = Result<Action, Self::Error>> + Send;

    /// The pause after one more failure.
    fn backoff(&self, key: &ObjectRef<Self::Object>) -> Duration;
}

/// Failures in a row.
#[derive(Clone, Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// 1 s doubling to a minute.
    pub fn pause(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        Duration::from_secs(1 << self.0.saturating_sub(1).min(6)).min(Duration::from_secs(60))
    }

    pub fn end(&mut self) {
        self.0 = 0;
    }
}

/// Reconciles until `stop` resolves, then finishes the running reconciles.
pub async fn run<O: Operation>(
    operation: Arc<O>,
    store: Store<O::Object>,
    requests: UnboundedReceiver<ObjectRef<O::Object>>,
    stop: impl Future<Output = ()> + Send + 'static,
) where
    ObjectRef<O::Object>: Display,
{
    let requests = stream::unfold(requests, async |mut requests| {
        Some((Ok::<_, watcher::Error>(requests.recv().await?), requests))
    });
    let config = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let requests = requests.boxed().take_until(stop.boxed());
    let mut reconciles = std::pin::pin!(applier(
        reconcile_isolated::<O>,
        error_policy::<O>,
        operation,
        store,
        requests,
        config
    ));
    while let Some(reconcile) = reconciles.next().await {
        match reconcile {
            Ok((object, action)) => tracing::debug!(%object, ?action, "reconciled"),
            // The error policy has logged it, with the time of the next attempt.
            Err(QueueError::ReconcilerFailed(..)) => {}
            Err(QueueError::ObjectNotFound(object)) => tracing::debug!(%object, "deleted"),
            Err(error) => tracing::error!(%error, "the controller of each {} failed", O::KIND),
        }
    }
}

type Reconciling<E> = Pin<Box<dyn Future<Output = Result<Action, E>> + Send>>;

/// Runs each reconcile in a separate task, so that a panic affects only its own object.
fn reconcile_isolated<O: Operation>(object: Arc<O::Object>, operation: Arc<O>) -> Reconciling<O::Error> {
    let task = async move {
        let key = ObjectRef::from_obj(&*object);
        let reconcile = operation.reconcile(&key, &object);
        let done = tokio::time::timeout(TIMEOUT, reconcile).await;
        done.unwrap_or_else(|_| Err(Interrupted::Timeout.into()))
    };
    Box::pin(tokio::spawn(task).map(|joined| joined.map_err(Interrupted::Panic)?))
}

fn error_policy<O: Operation>(object: Arc<O::Object>, error: &O::Error, operation: Arc<O>) -> Action {
    let wait = operation.backoff(&ObjectRef::from_obj(&*object));
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::warn!(namespace, name, %error, wait_seconds = wait.as_secs(), "{}: reconcile failed", O::KIND);
    Action::requeue(wait)
}

/// An answer of Kafka, or none within seconds.
pub async fn bounded<T>(answer: impl Future<Output = Result<T, KafkaProblem>>) -> Result<T, KafkaProblem> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", ANSWER.as_secs());
        Err(KafkaProblem::Unreachable(message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.end();
        assert_eq!(backoff.pause().as_secs(), 1);
    }
}
