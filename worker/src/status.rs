//! Reports this worker to `status.workers` of its resource, by server-side apply of its own entry and nothing else. The
//! only place of the worker that talks to Kubernetes. Consumption never waits for it and never fails by it: a worker that
//! has lost its API server goes on, and says so in its log.

mod schedule;
mod summary;

use std::{future::Future, time::Duration};

use crds::{KafkaConsumerGroup, names, status::WorkerStatus};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::{Instant, timeout};

use self::schedule::Schedule;
pub use self::summary::summarise;
use crate::health::snapshot::{Phase, SharedSnapshot};

/// How often the snapshot is looked at: the first report follows joining within this time.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than a busy API server takes, shorter than the shortest useful interval.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For the last report; the pod's grace period is for records, not for this.
const FINAL_TIMEOUT: Duration = Duration::from_secs(2);
/// While reports fail they are warned about this often: an API server may be away for hours.
const WARN_EVERY: Duration = Duration::from_secs(300);

/// Why a report did not arrive.
#[derive(Debug, Error)]
pub enum ReportError {
    /// No way to the API server.
    #[error(
        "no Kubernetes API server is known: {0}; run in a pod, set KUBECONFIG, or use --no-report-status"
    )]
    Client(#[source] Box<kube::Error>),
    /// It answered with an error.
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
    /// It did not answer.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The entry cannot be written as JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Reports the worker `worker` of the resource `namespace/name`.
#[derive(Clone)]
pub struct StatusReporter {
    api: Api<DynamicObject>,
    name: String,
    worker: String,
    snapshot: SharedSnapshot,
    interval: Duration,
}

impl StatusReporter {
    /// Finds the API server as every Kubernetes client does: kubeconfig, else the pod's service account.
    pub async fn connect(
        namespace: &str,
        name: &str,
        worker: &str,
        snapshot: SharedSnapshot,
        interval: Duration,
    ) -> Result<Self, ReportError> {
        let client = Client::try_default()
            .await
            .map_err(|error| ReportError::Client(Box::new(error)))?;
        // Answers are not parsed as KafkaConsumerGroup: a newer operator may have added fields to it.
        let resource = ApiResource::erase::<KafkaConsumerGroup>(&());
        let api = Api::namespaced_with(client, namespace, &resource);
        Ok(Self {
            api,
            name: name.into(),
            worker: worker.into(),
            snapshot,
            interval,
        })
    }

    /// Reports at once after joining, then on changes every interval, at least every minute; a last time when `stop` is
    /// ready.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut schedule = Schedule::new(self.interval, Instant::now());
        let mut warned: Option<Instant> = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = look.tick() => {}
            }
            let snapshot = self.snapshot.read();
            let entry = summarise(&snapshot);
            if !schedule.is_due(&entry, snapshot.phase != Phase::Joining, Instant::now()) {
                continue;
            }
            let result = self.send(&entry, REQUEST_TIMEOUT).await;
            schedule.tried(result.is_ok().then_some(entry), Instant::now());
            match result {
                Ok(()) if warned.take().is_some() => tracing::info!("status is reported again"),
                Ok(()) => {}
                Err(error) if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) => {
                    warned = Some(Instant::now());
                    tracing::warn!("status cannot be reported, consumption goes on: {error}");
                }
                Err(_) => {}
            }
        }
        if let Err(error) = self.send(&summarise(&self.snapshot.read()), FINAL_TIMEOUT).await {
            tracing::warn!("the last status report failed: {error}");
        }
    }

    async fn send(&self, entry: &WorkerStatus, limit: Duration) -> Result<(), ReportError> {
        let document = document(&self.name, &self.worker, entry, Timestamp::now())?;
        // Nobody else may own this entry; force takes it back from whoever edited it by hand.
        let params = PatchParams::apply(&names::worker_manager(&self.worker)).force();
        match timeout(
            limit,
            self.api
                .patch_status(&self.name, &params, &Patch::Apply(document)),
        )
        .await
        {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ReportError::Api(Box::new(error))),
            Err(_) => Err(ReportError::Timeout(limit)),
        }
    }
}

/// The applied document: identity and one entry of one list, so that nothing else is owned or changed.
fn document(
    name: &str,
    worker: &str,
    entry: &WorkerStatus,
    now: Timestamp,
) -> Result<Value, serde_json::Error> {
    let mut entry = entry.clone();
    entry.name = worker.into();
    entry.reported_at = Timestamp::from_second(now.as_second()).ok();
    Ok(json!({
        "apiVersion": KafkaConsumerGroup::api_version(&()),
        "kind": KafkaConsumerGroup::kind(&()),
        "metadata": {"name": name},
        "status": {"workers": [serde_json::to_value(entry)?]},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applied_document_holds_this_workers_entry_and_nothing_else() {
        let now = "2026-01-31T10:00:00.5Z".parse().unwrap();
        let entry = WorkerStatus {
            assigned: 2,
            ..WorkerStatus::default()
        };
        assert_eq!(
            document("orders", "orders-abc", &entry, now).unwrap(),
            json!({
                "apiVersion": "kafka-consumer.dev/v1alpha1",
                "kind": "KafkaConsumerGroup",
                "metadata": {"name": "orders"},
                "status": {"workers": [{
                    "name": "orders-abc", "assigned": 2, "recordsTotal": 0, "deadLetteredTotal": 0, "skippedTotal": 0,
                    "inFlight": 0, "stalled": 0, "reportedAt": "2026-01-31T10:00:00Z"
                }]}
            })
        );
    }
}
