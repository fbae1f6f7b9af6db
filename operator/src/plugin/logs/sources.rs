//! The workers of a group that may have logs, and where the logs are. In: pods. Out: [`Source`]s and paths.

use serde_json::Value;

use crate::controller::build::deployment::CONTAINER;
use crate::plugin::args::LogsArgs;
use crate::plugin::cluster::{Cluster, escaped};
use crate::plugin::error::Error;
use crate::plugin::view::{GroupView, named};

/// A pod that may have a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub pod: String,
    /// A restarted container has another log.
    pub restarts: i64,
    pub has_started: bool,
    pub is_running: bool,
}

/// There is no log to show.
pub fn none(group: &GroupView, args: &LogsArgs) -> Error {
    Error::NotFound(match &args.worker {
        Some(pod) => format!(
            "the group {} has no worker {pod}; kubectl get pods -n {} -l {} lists its workers",
            group.key.name,
            group.key.namespace,
            group.selector()
        ),
        None => format!(
            "the group {} has no workers; kubectl kcg status {} says why",
            group.key.name, group.key.name
        ),
    })
}

/// The pods of the group.
pub async fn pods(cluster: &Cluster, group: &GroupView) -> Result<Vec<Value>, Error> {
    let path = format!("/api/v1/namespaces/{}/pods", group.key.namespace);
    let query = format!("&labelSelector={}", escaped(&group.selector()));
    cluster.list(&path, &query).await
}

/// The pods that are asked for, by name.
pub async fn sources(cluster: &Cluster, group: &GroupView, args: &LogsArgs) -> Result<Vec<Source>, Error> {
    let pods = pods(cluster, group).await?;
    let mut sources: Vec<Source> = pods.iter().filter_map(source).collect();
    if let Some(wanted) = &args.worker {
        let wanted = named(wanted)?;
        sources.retain(|source| source.pod == wanted);
    }
    sources.sort();
    Ok(sources)
}

fn source(pod: &Value) -> Option<Source> {
    let containers = pod["status"]["containerStatuses"].as_array();
    let worker = containers.and_then(|all| all.iter().find(|container| container["name"] == CONTAINER));
    let state = worker.map(|worker| &worker["state"]);
    Some(Source {
        pod: pod["metadata"]["name"].as_str()?.into(),
        restarts: worker
            .and_then(|worker| worker["restartCount"].as_i64())
            .unwrap_or(0),
        is_running: state.is_some_and(|state| !state["running"].is_null()),
        has_started: state.is_some_and(|state| !state["running"].is_null() || !state["terminated"].is_null()),
    })
}

/// The path of a log. u32::MAX: all lines.
pub fn path(group: &GroupView, pod: &str, follow: bool, previous: bool, tail: u32) -> String {
    let mut path = format!(
        "/api/v1/namespaces/{}/pods/{pod}/log?container={CONTAINER}",
        group.key.namespace
    );
    if follow {
        path.push_str("&follow=true");
    }
    if previous {
        path.push_str("&previous=true");
    }
    if tail < u32::MAX {
        path.push_str(&format!("&tailLines={tail}"));
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_that_waits_has_no_log_and_a_restarted_one_another() {
        let pod = |restarts: i64, state: &str| {
            source(
                &json!({"metadata": {"name": "a"}, "status": {"containerStatuses": [
                    {"name": "sidecar", "restartCount": 9, "state": {"running": {}}},
                    {"name": "worker", "restartCount": restarts, "state": {state: {}}},
                ]}}),
            )
            .unwrap()
        };
        assert!(!pod(0, "waiting").has_started);
        assert!(pod(0, "running").has_started && pod(0, "terminated").has_started);
        assert_ne!(pod(0, "running"), pod(1, "running"));
        assert!(!source(&json!({"metadata": {"name": "a"}})).unwrap().has_started);
        assert!(pod(0, "running").is_running && !pod(0, "terminated").is_running);
    }
}
