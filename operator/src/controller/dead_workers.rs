//! Replaces dead workers without waiting for the session timeout. In: pods whose worker process has ended. Out:
//! their members taken out of the consumer group, an Event for each, a metric. Never fails a reconcile: what
//! cannot be removed leaves with its session timeout, as without this stage.

use std::time::Duration;

use crds::KafkaConsumerGroup;
use crds::worker_config::group_id;
use kube::runtime::events::Event;
use kube::{Resource, ResourceExt};

use super::memory::GroupMemory;
use super::names::group_label;
use super::scope::Scope;
use super::terminations::Termination;
use super::update_status::events;
use crate::group::observed::Observed;
use crate::kafka::model::{DeadProcess, GroupKey, KafkaProblem, RemovedMember};

/// Removes the members of worker processes that have ended since the last reconcile. Returns the time until
/// the next attempt if Kafka did not answer.
pub async fn remove(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
    memory: &mut GroupMemory,
) -> Option<Duration> {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let deleted = scope.caches.deleted_pods.of(&namespace, &group_label(&name));
    let present = observed.pods.iter().filter_map(|pod| Termination::of(pod));
    let new = memory.dead_workers.new_ones(present.chain(deleted).collect());
    // Without credentials nobody can connect, and the worker could not either.
    let credentials = observed.credentials.as_ref().ok().filter(|_| !new.is_empty())?;
    let (spec, kafka) = (&group.spec, &scope.context.kafka);
    let dead: Vec<DeadProcess> = new.iter().map(Termination::process).collect();
    let id = group_id(&namespace, &name, spec);
    let protocol = spec.consumer.group_protocol;
    let removed = kafka
        .remove_members(&spec.kafka, credentials, &id, protocol, &dead)
        .await;
    let events = match removed {
        Ok(removed) => {
            memory.dead_workers.done(&new);
            if removed.is_empty() {
                return None;
            }
            kafka.invalidate(&GroupKey::new(&namespace, &name));
            scope
                .context
                .metrics
                .dead_members_removed(&namespace, &name, removed.len());
            removed.iter().map(|member| removal(member, &new)).collect()
        }
        Err(problem @ KafkaProblem::Unreachable(_)) => {
            tracing::debug!(namespace, name, %problem, "dead members are not removed yet");
            return memory.dead_workers.failed();
        }
        Err(problem) => {
            tracing::warn!(namespace, name, %problem, "members of dead workers cannot be removed");
            memory.dead_workers.done(&new);
            vec![refusal(&problem, &new)]
        }
    };
    for event in events {
        tracing::info!(
            namespace,
            name,
            reason = event.reason,
            note = event.note,
            "dead worker"
        );
        scope.publish(&event, &group.object_ref(&())).await;
    }
    None
}

fn removal(member: &RemovedMember, ended: &[Termination]) -> Event {
    let worker = &member.worker;
    let why = ended.iter().find(|ended| ended.worker == *worker);
    let why = why.map(|ended| format!(" ({})", ended.why)).unwrap_or_default();
    let note = format!(
        "worker {worker} ended{why}; its member was removed from the consumer group, so that {} assigned to other workers at once and not after the session timeout",
        member.partitions()
    );
    events::normal("DeadWorkerRemoved", &note)
}

fn refusal(problem: &KafkaProblem, ended: &[Termination]) -> Event {
    let workers: Vec<&str> = ended.iter().map(|ended| ended.worker.as_str()).collect();
    let note = format!(
        "members of ended workers ({}) cannot be removed from the consumer group, so that their partitions are assigned to other workers only after the session timeout: {problem}",
        workers.join(", ")
    );
    events::warning("DeadWorkerNotRemoved", &note)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(worker: &str, second: i64, reason: &str) -> Termination {
        let finished = jiff::Timestamp::from_second(second).unwrap();
        let pod = json!({
            "metadata": {"name": worker, "uid": worker},
            "status": {"containerStatuses": [{
                "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"terminated": {"exitCode": 137, "reason": reason, "finishedAt": finished}},
            }]},
        });
        Termination::of(&serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn the_events_name_the_worker_the_cause_and_what_happens_to_its_partitions() {
        let dead = [ended("orders-a", 10, "OOMKilled"), ended("orders-b", 10, "Error")];
        let member = RemovedMember {
            worker: "orders-a".into(),
            assigned: Some(3),
        };
        let event = removal(&member, &dead);
        assert_eq!(event.reason, "DeadWorkerRemoved");
        let note = event.note.unwrap();
        for part in [
            "worker orders-a ended (OOMKilled, exit code 137)",
            "its 3 partitions are assigned",
        ] {
            assert!(note.contains(part), "{note}");
        }
        let denied =
            KafkaProblem::AuthorizationFailed("group \"shop.orders\": GROUP_AUTHORIZATION_FAILED".into());
        let event = refusal(&denied, &dead);
        assert_eq!(event.reason, "DeadWorkerNotRemoved");
        let note = event.note.unwrap();
        for part in [
            "orders-a, orders-b",
            "GROUP_AUTHORIZATION_FAILED",
            "Read on the topics and on the group",
        ] {
            assert!(note.contains(part), "{note}");
        }
    }
}
