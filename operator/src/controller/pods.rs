//! Why worker pods do not run. In: a pod. Out: the facts that the status is computed from, including the
//! termination message of the container. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::build::deployment::CONTAINER;

/// The facts about one pod that matter for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodFacts {
    pub name: String,
    pub ready: bool,
    pub terminating: bool,
    /// All its containers have ended for good: evicted, failed or succeeded. The pod runs no worker and is
    /// already replaced.
    pub ended: bool,
    pub problem: Option<PodProblem>,
}

/// Why a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodProblem {
    pub reason: &'static str,
    pub message: String,
}

/// Maximum number of characters of a termination message in a condition.
const MAX_TERMINATION_MESSAGE: usize = 600;

impl PodFacts {
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let init = status.init_container_statuses.unwrap_or_default();
        let (own, others): (Vec<_>, Vec<_>) = containers.iter().partition(|it| it.name == CONTAINER);
        let unschedulable = conditions
            .iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .filter(|condition| condition.reason.as_deref() == Some("Unschedulable"))
            .map(|condition| PodProblem {
                reason: "Unschedulable",
                message: condition.message.clone().unwrap_or_default(),
            });
        Self {
            name: pod.name_any(),
            ready: conditions
                .iter()
                .any(|it| it.type_ == "Ready" && it.status == "True"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            ended: has_ended(pod),
            problem: unschedulable
                .or_else(|| {
                    init.iter()
                        .find_map(|init| foreign_problem(init, "init container"))
                })
                .or_else(|| own.iter().find_map(|own| container_problem(own)))
                .or_else(|| {
                    others
                        .iter()
                        .find_map(|other| foreign_problem(other, "container"))
                }),
        }
    }
}

/// The problem of a container that the operator did not ask for: a webhook has injected it.
fn foreign_problem(container: &ContainerStatus, kind: &str) -> Option<PodProblem> {
    let problem = container_problem(container)?;
    let name = &container.name;
    Some(PodProblem {
        reason: "InjectedContainerFailing",
        message: format!(
            "{kind} {name}, which is not part of the worker and was injected by another component: {}",
            problem.message
        ),
    })
}

/// Kubernetes keeps such pods for a while, for example after an eviction; they never run again.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

fn container_problem(container: &ContainerStatus) -> Option<PodProblem> {
    let state = container.state.clone().unwrap_or_default();
    let waiting = state.waiting.unwrap_or_default();
    let message = waiting.message.unwrap_or_default();
    let problem = |reason, message| Some(PodProblem { reason, message });
    match waiting.reason.as_deref() {
        Some(
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError",
        ) => {
            // The reason alternates between ErrImagePull and ImagePullBackOff; the message must not alternate
            // with it.
            problem(
                "ImagePullFailed",
                format!(
                    "image {} cannot be pulled: {}",
                    container.image,
                    pull_error(&message)
                ),
            )
        }
        Some("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            problem("ContainerNotStarted", message)
        }
        _ => {
            let ended = state
                .terminated
                .or_else(|| container.last_state.clone().unwrap_or_default().terminated)
                .filter(|ended| ended.exit_code != 0 && !container.ready);
            let ended = ended?;
            let output: String = ended.message.unwrap_or_default().trim().to_string();
            let skip = output.chars().count().saturating_sub(MAX_TERMINATION_MESSAGE);
            let output: String = output.chars().skip(skip).collect();
            let how = match ended.reason.as_deref() {
                Some("OOMKilled") => "ran out of memory; raise spec.worker.resources.limits.memory".into(),
                _ => format!("ended with exit code {}", ended.exit_code),
            };
            problem(
                "CrashLooping",
                if output.is_empty() {
                    how
                } else {
                    format!("{how}: {output}")
                },
            )
        }
    }
}

/// The cause in an image pull message, without the text that the kubelet adds.
fn pull_error(message: &str) -> &str {
    message
        .strip_prefix("Back-off pulling image ")
        .and_then(|rest| rest.split_once(": "))
        .map_or(message, |(_, cause)| {
            cause.strip_prefix("ErrImagePull: ").unwrap_or(cause)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> PodFacts {
        let pod = json!({"metadata": {"name": "orders-worker-abc"}, "status": status});
        PodFacts::of(&serde_json::from_value(pod).unwrap())
    }

    fn container(state: Value, last: Value) -> Value {
        json!({"containerStatuses": [{
            "name": "worker", "image": "registry/worker:1", "imageID": "", "ready": false, "restartCount": 3,
            "state": state, "lastState": last,
        }]})
    }

    #[test]
    fn a_ready_pod_has_no_problem() {
        let facts = pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!((facts.ready, facts.problem), (true, None));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named_and_both_reasons_give_one_message() {
        let one = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        let two = json!({"waiting": {
            "reason": "ImagePullBackOff",
            "message": "Back-off pulling image \"registry/worker:1\": ErrImagePull: not found",
        }});
        let (one, two) = (pod(container(one, json!({}))), pod(container(two, json!({}))));
        assert_eq!(one.problem, two.problem);
        let problem = one.problem.unwrap();
        assert_eq!(problem.reason, "ImagePullFailed");
        assert_eq!(
            problem.message,
            "image registry/worker:1 cannot be pulled: not found"
        );
    }

    #[test]
    fn the_termination_message_of_a_crashing_worker_is_shown() {
        let last = json!({"terminated": {"exitCode": 2, "reason": "Error", "message": "no such table\n"}});
        let problem = pod(container(
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            last,
        ))
        .problem
        .unwrap();
        assert_eq!(problem.reason, "CrashLooping");
        assert_eq!(problem.message, "ended with exit code 2: no such table");
    }

    #[test]
    fn failed_and_succeeded_pods_have_ended_and_lost_ones_have_not() {
        for (phase, ended) in [
            ("Failed", true),
            ("Succeeded", true),
            ("Running", false),
            ("Pending", false),
            ("Unknown", false),
        ] {
            assert_eq!(
                pod(json!({"phase": phase, "reason": "Evicted"})).ended,
                ended,
                "{phase}"
            );
        }
    }

    #[test]
    fn injected_containers_are_named() {
        let failing = |name: &str| {
            json!({
                "name": name, "image": "mesh:1", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 7}},
            })
        };
        let init = pod(json!({"initContainerStatuses": [failing("mesh-init")]}))
            .problem
            .unwrap();
        assert_eq!(init.reason, "InjectedContainerFailing");
        assert!(
            init.message.starts_with("init container mesh-init"),
            "{}",
            init.message
        );
        assert!(
            init.message.ends_with("ended with exit code 7"),
            "{}",
            init.message
        );
        let sidecar = pod(json!({"containerStatuses": [failing("mesh"), failing("worker")]}));
        assert_eq!(sidecar.problem.unwrap().reason, "CrashLooping");
        let sidecar = pod(json!({"containerStatuses": [failing("mesh")]}))
            .problem
            .unwrap();
        assert!(
            sidecar.message.starts_with("container mesh"),
            "{}",
            sidecar.message
        );
        let done = json!({
            "name": "mesh-init", "image": "mesh:1", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0}},
        });
        assert_eq!(pod(json!({"initContainerStatuses": [done]})).problem, None);
    }

    #[test]
    fn an_unschedulable_pod_shows_the_message_of_the_scheduler() {
        let facts = pod(json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes",
        }]}));
        assert_eq!(facts.problem.unwrap().message, "0/3 nodes");
    }
}
