//! `logs`: the logs of all workers of a group. In: the pods. Out: lines, each with its pod. With `--follow` also
//! those of workers that start later. Prints lines as they are; workers never log payloads.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufReadExt, FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::mpsc;

use super::args::LogsArgs;
use super::cluster::{Cluster, escaped};
use super::error::Error;
use super::terminal::Terminal;
use super::view::{GroupView, named};
use super::{DONE, FAILED};
use crate::controller::build::deployment::CONTAINER;

/// Time between two looks for new workers.
const LOOK: Duration = Duration::from_secs(3);
/// Lines that wait for a slow terminal.
const WAITING: usize = 256;

/// A pod that may have a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    pod: String,
    /// A restarted container has another log.
    restarts: i64,
    has_started: bool,
}

pub async fn run(cluster: &Cluster, args: &LogsArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    if args.follow {
        return follow(cluster, &group, args, terminal).await;
    }
    let sources = sources(cluster, &group, args).await?;
    if sources.is_empty() {
        return Err(none(&group, args));
    }
    let mut code = DONE;
    for source in sources {
        let path = path(&group, &source.pod, false, args.previous, args.tail);
        match cluster.text(&path).await {
            Ok(text) => {
                for line in text.lines() {
                    terminal.raw(&format!("[{}] {line}", source.pod))?;
                }
            }
            // A pod that starts has no log yet; the others have one.
            Err(error) => {
                terminal.note(&format!("[{}] no log: {error}", source.pod))?;
                if !args.previous {
                    code = FAILED;
                }
            }
        }
    }
    terminal.flush()?;
    Ok(code)
}

fn none(group: &GroupView, args: &LogsArgs) -> Error {
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

/// Prints lines until Ctrl-C ends the program.
async fn follow(
    cluster: &Cluster,
    group: &GroupView,
    args: &LogsArgs,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let (lines, mut arrived) = mpsc::channel::<String>(WAITING);
    let mut known: BTreeSet<Source> = BTreeSet::new();
    let mut first = true;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut streams: FuturesUnordered<LocalBoxFuture<String>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            line = arrived.recv() => {
                if let Some(line) = line {
                    terminal.raw(&line)?;
                    terminal.flush()?;
                }
            }
            Some(ended) = streams.next() => {
                terminal.note(&ended)?;
            }
            _ = looks.tick() => {
                let found = match sources(cluster, group, args).await {
                    Ok(found) => found,
                    Err(error) if first => return Err(error),
                    Err(error) => {
                        terminal.note(&error.to_string())?;
                        continue;
                    }
                };
                if first && found.is_empty() {
                    terminal.note(&format!("{}; waiting for workers", none(group, args)))?;
                }
                for source in found.into_iter().filter(|source| source.has_started) {
                    if known.insert(source.clone()) {
                        // A worker that starts later is shown from its first line.
                        let tail = if first { args.tail } else { u32::MAX };
                        let path = path(group, &source.pod, true, false, tail);
                        streams.push(read(cluster, source.pod, path, lines.clone()).boxed_local());
                    }
                }
                first = false;
            }
        }
    }
}

/// Sends the lines of one log, each with its pod; returns why it ended.
async fn read(cluster: &Cluster, pod: String, path: String, lines: mpsc::Sender<String>) -> String {
    let stream = match cluster.stream(&path).await {
        Ok(stream) => stream,
        Err(error) => return format!("[{pod}] no log: {error}"),
    };
    let mut stream = stream.lines();
    loop {
        match stream.try_next().await {
            Ok(Some(line)) => {
                if lines.send(format!("[{pod}] {line}")).await.is_err() {
                    return String::new();
                }
            }
            Ok(None) => return format!("[{pod}] the log has ended"),
            Err(error) => return format!("[{pod}] the log has ended: {error}"),
        }
    }
}

/// The pods of the group.
pub async fn pods(cluster: &Cluster, group: &GroupView) -> Result<Vec<Value>, Error> {
    let path = format!("/api/v1/namespaces/{}/pods", group.key.namespace);
    let query = format!("&labelSelector={}", escaped(&group.selector()));
    cluster.list(&path, &query).await
}

async fn sources(cluster: &Cluster, group: &GroupView, args: &LogsArgs) -> Result<Vec<Source>, Error> {
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
    }
}
