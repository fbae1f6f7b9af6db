//! `reset`: sets the committed offsets of a group through a KafkaOffsetReset. In: where to, which partitions. Out:
//! the plan of a dry run, a question, and the reset until it ends. Sets nothing that the user has not seen as a plan,
//! unless `--yes` says so.

use std::time::{Duration, Instant};

use crds::KafkaOffsetResetStatus;
use crds::offset_reset::{GroupReference, KafkaOffsetResetSpec, ResetPhase, ResetType};
use serde_json::{Value, json};

use super::args::ResetArgs;
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::view::GroupView;
use super::{DONE, NOT_WELL, advice};
use crate::api::resource::resets_path;
use crate::group::offset_reset::table::{summary, table};
use crate::kafka::model::GroupKey;

/// Time between two reads.
const POLL: Duration = Duration::from_secs(1);
/// How long dry runs are kept, as with the REST API.
const DRY_RUN_SECONDS: i64 = 3600;

/// How a reset ended here.
enum End {
    Succeeded(Box<KafkaOffsetResetStatus>),
    Failed(Box<KafkaOffsetResetStatus>),
    /// It continues without this program.
    Left,
}

pub async fn run(cluster: &Cluster, args: &ResetArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let spec = spec(args).map_err(Error::Impossible)?;
    if !args.dry_run && !args.yes && !terminal.is_interactive() {
        return Err(Error::Impossible(
            "there is no terminal to ask whether the offsets are to be set; add --dry-run to see the plan, or --yes to set them"
                .into(),
        ));
    }
    let group = GroupView::read(cluster, &args.group).await?;
    if !args.dry_run && !args.stop_group && group.desired_state() != "Stopped" {
        return Err(Error::Impossible(format!(
            "Kafka sets offsets only for a group without members, and {} is requested to be {}; add --stop-group, which starts the workers again afterwards, or stop it first: kubectl kcg stop {}",
            args.group,
            group.desired_state(),
            args.group
        )));
    }
    if !args.yes {
        let look = KafkaOffsetResetSpec {
            dry_run: true,
            ttl_seconds_after_finished: Some(DRY_RUN_SECONDS),
            ..spec.clone()
        };
        let plan = match once(cluster, &group.key, &look, args.timeout, terminal).await? {
            End::Succeeded(plan) => plan,
            End::Failed(failed) => return refused(&failed, terminal),
            End::Left => return Ok(NOT_WELL),
        };
        print(&plan, terminal)?;
        if args.dry_run {
            terminal.print("nothing is changed: this is a dry run")?;
            return Ok(DONE);
        }
        let changes = plan.totals.as_ref().is_none_or(|totals| totals.changed > 0);
        if !changes {
            terminal.print("nothing is changed: the committed offsets are the new ones already")?;
            return Ok(DONE);
        }
        let stops = match args.stop_group {
            true => ", stopping its workers meanwhile",
            false => "",
        };
        let name = format!("{}/{}", group.key.namespace, group.key.name);
        if !terminal.ask(&format!("Set these offsets of {name}{stops}?"))? {
            terminal.print("nothing is changed")?;
            return Ok(NOT_WELL);
        }
    }
    match once(cluster, &group.key, &spec, args.timeout, terminal).await? {
        End::Succeeded(done) => {
            print(&done, terminal)?;
            terminal.print(&done.message.clone().unwrap_or_default())?;
            Ok(DONE)
        }
        End::Failed(failed) => refused(&failed, terminal),
        End::Left => Ok(NOT_WELL),
    }
}

/// What the arguments say. The API server and the operator check the rest.
fn spec(args: &ResetArgs) -> Result<KafkaOffsetResetSpec, String> {
    let to = args.reset.target()?;
    let mut topics = args.reset.topics();
    if to.kind == ResetType::Offsets {
        // The resource lists the partitions once, with their offsets.
        let selected = |topic: &str, partition: i32| {
            let mut same = topics.iter().filter(|selected| selected.topic == topic);
            topics.is_empty()
                || same.any(|selected| {
                    selected.partitions.is_empty() || selected.partitions.contains(&partition)
                })
        };
        let mut offsets = to.offsets.iter().flatten();
        if let Some(other) = offsets.find(|offset| !selected(&offset.topic, offset.partition)) {
            return Err(format!(
                "--to-offset has an offset for partition {} of topic \"{}\", which --topic does not select; leave --topic out, or add the partition",
                other.partition, other.topic
            ));
        }
        topics.clear();
    }
    Ok(KafkaOffsetResetSpec {
        group_ref: GroupReference {
            name: args.group.clone(),
        },
        to,
        topics,
        dry_run: args.dry_run,
        stop_group: args.stop_group,
        ttl_seconds_after_finished: None,
    })
}

/// Creates a reset and follows it to its end.
async fn once(
    cluster: &Cluster,
    group: &GroupKey,
    spec: &KafkaOffsetResetSpec,
    timeout: Duration,
    terminal: &mut Terminal,
) -> Result<End, Error> {
    let collection = resets_path(&group.namespace);
    let resource = json!({
        "apiVersion": format!("{}/v1alpha1", crds::names::API_GROUP),
        "kind": "KafkaOffsetReset",
        "metadata": {"generateName": format!("{}-", group.name)},
        "spec": spec,
    });
    let created = match cluster.create(&collection, &resource).await {
        Err(error) if error.leaves_open() && !spec.dry_run => {
            terminal.note(&format!(
                "the reset may exist nevertheless; look before you repeat this command: kubectl get kor -n {}",
                group.namespace
            ))?;
            return Err(error);
        }
        created => created?,
    };
    let name = created["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    if !spec.dry_run {
        terminal.note(&format!("created kafkaoffsetreset {name}"))?;
    }
    let path = format!("{collection}/{name}");
    let followed = follow(cluster, &path, timeout, terminal);
    let followed = match spec.dry_run {
        // Ctrl-C ends the program, also at the question that follows: nothing is changed yet.
        true => followed.await,
        false => tokio::select! {
            followed = followed => followed,
            stopped = tokio::signal::ctrl_c() => stopped.map(|()| None).map_err(Error::from),
        },
    };
    match followed {
        Ok(Some(end)) => Ok(end),
        Ok(None) => {
            terminal.note(&left(&name, &group.namespace))?;
            Ok(End::Left)
        }
        Err(error) if error.is_not_found() => Err(Error::NotFound(format!(
            "the reset {name} was deleted before its end was seen here; kubectl get events -n {} says what it did",
            group.namespace
        ))),
        Err(error) => {
            terminal.note(&left(&name, &group.namespace))?;
            Err(error)
        }
    }
}

fn left(name: &str, namespace: &str) -> String {
    format!(
        "the reset {name} has not ended as far as known here, and continues in the cluster\n  follow it: kubectl get kor {name} -n {namespace} -w\n  cancel it: kubectl delete kor {name} -n {namespace}"
    )
}

/// None: not ended in time.
async fn follow(
    cluster: &Cluster,
    path: &str,
    timeout: Duration,
    terminal: &mut Terminal,
) -> Result<Option<End>, Error> {
    let end = Instant::now() + timeout;
    let mut shown = None;
    loop {
        let now = match cluster.get(path).await {
            Ok(resource) => {
                let status = status(&resource)?;
                match status.phase {
                    Some(ResetPhase::Succeeded) => return Ok(Some(End::Succeeded(Box::new(status)))),
                    Some(ResetPhase::Failed) => return Ok(Some(End::Failed(Box::new(status)))),
                    phase => under_way(phase, status.message),
                }
            }
            // The operator continues, only reading fails.
            Err(error) if error.can_pass() => format!("the state of the reset is not known now: {error}"),
            Err(error) => return Err(error),
        };
        if shown.as_ref() != Some(&now) {
            terminal.note(&now)?;
            shown = Some(now);
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn under_way(phase: Option<ResetPhase>, message: Option<String>) -> String {
    let phase = phase.map_or_else(|| "waiting for the operator".into(), |phase| phase.to_string());
    match message {
        Some(message) => format!("{phase}: {message}"),
        None => phase,
    }
}

fn status(resource: &Value) -> Result<KafkaOffsetResetStatus, Error> {
    match resource.get("status") {
        None | Some(Value::Null) => Ok(KafkaOffsetResetStatus::default()),
        Some(status) => serde_json::from_value(status.clone())
            .map_err(|error| Error::Unreadable(format!("the status of the reset: {error}"))),
    }
}

fn print(status: &KafkaOffsetResetStatus, terminal: &mut Terminal) -> Result<(), Error> {
    let totals = status.totals.clone().unwrap_or_default();
    let group_id = status.group_id.clone().unwrap_or_else(|| "unknown".into());
    terminal.print(&format!(
        "{}{}",
        table(&status.partitions),
        summary(&totals, &status.notes, &group_id)
    ))
}

fn refused(status: &KafkaOffsetResetStatus, terminal: &mut Terminal) -> Result<u8, Error> {
    let mut conditions = status.conditions.iter();
    let failed = conditions.find(|found| found.type_ == "Failed" && found.status == "True");
    let reason = failed.map_or("Failed", |failed| failed.reason.as_str());
    let message = status.message.clone().unwrap_or_default();
    terminal.note(&format!("failed: {reason}: {message}"))?;
    if let Some(what) = advice::text(reason) {
        terminal.note(&format!("what to do: {what}"))?;
    }
    Ok(NOT_WELL)
}
