//! `restart` and `scale`: changes of the workers of a group. In: a name. Out: a patch of the Deployment, or of the
//! scale of the group. Refuses what the operator would undo.

use jiff::Timestamp;
use serde_json::json;

use super::DONE;
use super::args::{GroupArgs, ScaleArgs};
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::view::{GroupView, checked};
use crate::api::ownership::owner;
use crate::api::resource::{deployment_path, not_manual, restart_patch};

pub async fn restart(cluster: &Cluster, args: &GroupArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    if group.desired_state() == "Stopped" {
        return Err(Error::Impossible(format!(
            "the group is stopped, so there are no workers to restart; start them with: kubectl kcg start {}",
            args.group
        )));
    }
    let deployment = group.deployment();
    let patch = restart_patch(Timestamp::now());
    let patched = cluster.patch(&deployment_path(&deployment), &patch).await;
    patched.map_err(|error| match error {
        Error::NotFound(_) => Error::NotFound(format!(
            "the group has no workers yet: there is no Deployment {}; kubectl kcg status {} says why",
            deployment.name, args.group
        )),
        error => error,
    })?;
    terminal.print(&format!(
        "{}: its workers restart one after the other; follow it with: kubectl rollout status deployment/{} -n {}",
        args.group, deployment.name, deployment.namespace
    ))?;
    Ok(DONE)
}

pub async fn scale(cluster: &Cluster, args: &ScaleArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    if let Some(why) = not_manual(&group.resource) {
        return Err(Error::Impossible(why));
    }
    let (name, replicas) = (&args.group, args.replicas);
    let before = group.resource["spec"]["replicas"].as_u64();
    if before == Some(replicas.into()) {
        terminal.print(&format!("{name}: {replicas} workers are requested already"))?;
        return Ok(DONE);
    }
    let path = format!("{}/scale", checked(&group.key)?);
    cluster
        .patch(&path, &json!({"spec": {"replicas": replicas}}))
        .await?;
    let before = before.map_or_else(|| "not set".into(), |before| before.to_string());
    terminal.print(&format!("{name}: replicas {before} -> {replicas} requested"))?;
    if let Some(owner) = owner(&group.resource, "replicas") {
        terminal.note(&format!(
            "warning: {} owns spec.replicas of {name} (field manager {}) and will put it back; change it there",
            owner.tool, owner.manager
        ))?;
    }
    let partitions = group
        .status
        .partitions
        .as_ref()
        .map(|partitions| partitions.total);
    if let Some(partitions) = partitions.filter(|partitions| i64::from(*partitions) < i64::from(replicas)) {
        terminal.note(&format!(
            "note: the topics have {partitions} partitions, so the operator starts {partitions} workers at most"
        ))?;
    }
    Ok(DONE)
}
