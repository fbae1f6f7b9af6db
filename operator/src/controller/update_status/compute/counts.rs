//! How many workers there are. In: the Deployment. Out: numbers, and a sentence about a rollout. Pure.

use super::inputs::Inputs;
use crate::group::wording::count;

/// Worker counts from the Deployment.
pub(super) struct WorkerCounts {
    pub(super) wanted: i32,
    pub(super) existing: i32,
    pub(super) ready: i32,
    pub(super) updated: i32,
    /// Why the Deployment cannot create pods.
    pub(super) refused: Option<String>,
    pub(super) observed: bool,
}

impl WorkerCounts {
    pub(super) fn of(inputs: &Inputs<'_>) -> Self {
        let spec = inputs.deployment.and_then(|deployment| deployment.spec.as_ref());
        let status = inputs
            .deployment
            .and_then(|deployment| deployment.status.clone())
            .unwrap_or_default();
        let generation = inputs
            .deployment
            .and_then(|deployment| deployment.metadata.generation);
        let failure = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        Self {
            wanted: spec.and_then(|spec| spec.replicas).unwrap_or(0),
            existing: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            refused: failure.map(|condition| condition.message.unwrap_or_default()),
            observed: generation.is_some() && status.observed_generation >= generation,
        }
    }

    /// How far a rollout is: workers that are ready, and what is missing.
    pub(super) fn progress(&self) -> String {
        let WorkerCounts {
            wanted,
            existing,
            ready,
            updated,
            ..
        } = *self;
        let mut message = format!("{} of {} ready", ready.min(wanted), count(wanted, "worker"));
        if updated < wanted {
            message.push_str(&format!(", {updated} with the latest configuration"));
        }
        if existing > wanted {
            message.push_str(&format!(", {} stopping", count(existing - wanted, "more worker")));
        }
        message
    }
}
