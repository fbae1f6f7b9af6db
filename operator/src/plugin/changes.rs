//! `pause`, `resume`, `stop`, `start`: request a state of groups and wait for it. In: names. Out: a merge patch of
//! `spec.desiredState` for each group, and what is awaited. Warns if a GitOps tool will put the field back.

use std::time::{Duration, Instant};

use crds::status::condition::READY;
use serde_json::json;

use super::args::StateArgs;
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::view::{GroupView, checked};
use super::{DONE, FAILED, NOT_WELL};
use crate::api::ownership::owner;

/// Time between two reads.
const POLL: Duration = Duration::from_secs(1);

/// A state that can be requested.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// `spec.desiredState`.
    state: &'static str,
    /// What is reached, for the user.
    reached: &'static str,
}

pub const PAUSE: Wanted = Wanted {
    state: "Paused",
    reached: "paused",
};
pub const RESUME: Wanted = Wanted {
    state: "Running",
    reached: "running",
};
pub const STOP: Wanted = Wanted {
    state: "Stopped",
    reached: "stopped",
};
pub const START: Wanted = Wanted {
    state: "Running",
    reached: "running",
};

pub async fn run(
    cluster: &Cluster,
    wanted: Wanted,
    args: &StateArgs,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let mut code = DONE;
    let mut awaited = Vec::new();
    for name in &args.groups {
        match request(cluster, wanted, name, terminal).await {
            Ok(()) => awaited.push(name),
            Err(error @ Error::Output(_)) => return Err(error),
            // The others are changed nevertheless.
            Err(error) => {
                terminal.note(&format!("error: {name}: {error}"))?;
                code = FAILED;
            }
        }
    }
    if args.wait {
        let end = Instant::now() + args.timeout;
        for name in awaited {
            let reached = until(cluster, wanted, name, end, args.timeout, terminal).await;
            code = code.max(match reached {
                Ok(reached) => reached,
                Err(error @ Error::Output(_)) => return Err(error),
                // The others are awaited nevertheless.
                Err(error) => {
                    terminal.note(&format!("error: {name}: {error}"))?;
                    FAILED
                }
            });
        }
    }
    Ok(code)
}

async fn request(
    cluster: &Cluster,
    wanted: Wanted,
    name: &str,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let group = GroupView::read(cluster, name).await?;
    let now = group.desired_state();
    if now == wanted.state {
        return terminal.print(&format!("{name}: {now} is requested already"));
    }
    let path = checked(&group.key)?;
    cluster
        .patch(&path, &json!({"spec": {"desiredState": wanted.state}}))
        .await?;
    terminal.print(&format!("{name}: {now} -> {} requested", wanted.state))?;
    if let Some(owner) = owner(&group.resource, "desiredState") {
        terminal.note(&format!(
            "warning: {} owns spec.desiredState of {name} (field manager {}) and will put it back; change it there",
            owner.tool, owner.manager
        ))?;
    }
    if (now, wanted.state) == ("Stopped", "Paused") {
        terminal.note(&format!(
            "note: {name} was stopped; its workers start now, and read nothing"
        ))?;
    }
    Ok(())
}

async fn until(
    cluster: &Cluster,
    wanted: Wanted,
    name: &str,
    end: Instant,
    timeout: Duration,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let mut shown = None;
    loop {
        let (waits, code) = match GroupView::read(cluster, name).await {
            Ok(group) if group.desired_state() != wanted.state => {
                terminal.note(&format!(
                    "{name}: another client has requested {} meanwhile",
                    group.desired_state()
                ))?;
                return Ok(NOT_WELL);
            }
            Ok(group) => match awaited(&group, wanted) {
                None => {
                    terminal.print(&format!("{name}: {}", wanted.reached))?;
                    return Ok(DONE);
                }
                Some(waits) => (waits, NOT_WELL),
            },
            // The state is requested, only reading it fails.
            Err(error) if error.can_pass() => (format!("the state is not known now: {error}"), FAILED),
            Err(error) => return Err(error),
        };
        if Instant::now() >= end {
            terminal.note(&format!(
                "{name}: not {} after {} s; {waits}; kubectl kcg status {name} says what to do",
                wanted.reached,
                timeout.as_secs()
            ))?;
            return Ok(code);
        }
        if shown.as_ref() != Some(&waits) {
            terminal.note(&format!("{name}: {waits}"))?;
            shown = Some(waits);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What is still awaited. None: the state is reached.
fn awaited(group: &GroupView, wanted: Wanted) -> Option<String> {
    if !group.is_observed() {
        return Some("waiting for the operator to see the change".into());
    }
    let Some(ready) = group.condition(READY) else {
        return Some("waiting for the first report of the operator".into());
    };
    let well = ready.status == "True";
    let as_requested = matches!(&*ready.reason, "Paused" | "Stopped");
    let reached = match wanted.state {
        "Running" => well && !as_requested,
        state => well && ready.reason == state,
    };
    (!reached).then(|| {
        format!(
            "waiting for the condition Ready: now it is {}, {}: {}",
            ready.status, ready.reason, ready.message
        )
    })
}
