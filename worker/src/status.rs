//! Reports this worker to `status.workers` of its resource, by server-side apply of this worker's entry only:
//! for operators that cannot connect to workers. All others read `/status`. No other module of the worker
//! connects to Kubernetes. Consumption never waits for a report and never fails because of one: a worker that
//! cannot reach its API server continues and logs that.

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
pub use self::summary::summarize;
use crate::health::snapshot::{Phase, SharedSnapshot};

/// How often the snapshot is checked: the first report follows joining the group within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a busy API server takes, shorter than the shortest useful interval.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For the last report: most of the pod's grace period belongs to the records.
const FINAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often failing reports are logged: an API server may be unavailable for hours.
const WARN_EVERY: Duration = Duration::from_secs(300);

/// Why a report failed.
#[derive(Debug, Error)]
pub enum ReportError {
    /// No API server is configured.
    #[error(
        "no Kubernetes API server is configured: {0}; run in a pod, set KUBECONFIG, or remove --report-status"
    )]
    Client(#[source] Box<kube::Error>),
    /// The API server answered with an error.
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
    /// The API server did not answer.
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
    /// Finds the API server like other Kubernetes clients: from the kubeconfig, otherwise from the pod's
    /// service account.
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

    /// Reports at once after joining, then once per interval if something has changed, and at least every
    /// minute. Reports a last time when `stop` completes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut schedule = Schedule::new(self.interval, Instant::now());
        let mut warned: Option<Instant> = None;
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = tick.tick() => {}
            }
            let snapshot = self.snapshot.read();
            let entry = summarize(&snapshot);
            if !schedule.is_due(&entry, snapshot.phase != Phase::Joining, Instant::now()) {
                continue;
            }
            let result = self.send(&entry, REQUEST_TIMEOUT).await;
            schedule.tried(result.is_ok().then_some(entry), Instant::now());
            match result {
                Ok(()) if warned.take().is_some() => tracing::info!("status reports succeed again"),
                Ok(()) => {}
                Err(error) if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) => {
                    warned = Some(Instant::now());
                    tracing::warn!("status report failed, consumption continues: {error}");
                }
                Err(_) => {}
            }
        }
        if let Err(error) = self.send(&summarize(&self.snapshot.read()), FINAL_TIMEOUT).await {
            tracing::warn!("the last status report failed: {error}");
        }
    }

    async fn send(&self, entry: &WorkerStatus, limit: Duration) -> Result<(), ReportError> {
        let document = document(&self.name, &self.worker, entry, Timestamp::now())?;
        // Only this worker may own the entry; force takes it back if a user edited it.
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

/// The applied document: the identity and one entry of one list, so that the apply owns and changes nothing
/// else.
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
    fn the_applied_document_has_only_the_entry_of_this_worker() {
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
