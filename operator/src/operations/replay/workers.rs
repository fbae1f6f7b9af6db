//! The Job of a replay and its pods. In: names, or the objects to create. Out: what there is, in the terms of a
//! replay. Never changes what belongs to another object, and never a Job that exists.

use std::fmt::Debug;

use crds::KafkaReplay;
use crds::incarnation::Incarnation;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ReplayError;
use crate::controller::apply::error::is_not_found;
use crate::controller::build::deployment::CONTAINER;
use crate::controller::build::replay::selector;
use crate::controller::names::replay_name;
use crate::controller::pods::{PodFacts, has_ended};
use crate::controller::scope::Scope;
use crate::kafka::model::{DeadProcess, MemberFacts};

/// A pod that has not ended this long after its deletion is on a node that is lost.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// The Job of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    Missing,
    /// Another object has its name.
    Foreign(String),
    /// It belongs to an earlier replay of this name.
    Leftover(String),
    /// This number of pods runs.
    Active(i32),
    /// A worker has said that the whole plan is done.
    Complete,
    /// It has given up, for this reason.
    Failed(String),
}

/// A pod that has ended or cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEnd {
    pub name: String,
    pub exit_code: Option<i32>,
    pub problem: Option<String>,
}

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    EarlierReplay,
    Foreign,
}

/// Whose an object with the name of a child of `replay` is.
pub fn ownership(child: &ObjectMeta, replay: &KafkaReplay) -> Ownership {
    let mut owners = child.owner_references.iter().flatten();
    let kind = KafkaReplay::kind(&());
    if owners
        .clone()
        .any(|owner| Some(&owner.uid) == replay.metadata.uid.as_ref())
    {
        return Ownership::Ours;
    }
    let of_earlier = owners.any(|owner| owner.kind == kind && owner.name == replay.name_any());
    match of_earlier {
        true => Ownership::EarlierReplay,
        false => Ownership::Foreign,
    }
}

/// What a Job of the API server is for `replay`.
pub fn state(job: Option<&v1::Job>, replay: &KafkaReplay) -> Job {
    let Some(job) = job else { return Job::Missing };
    match ownership(&job.metadata, replay) {
        Ownership::Ours => {}
        Ownership::EarlierReplay => return Job::Leftover(job.name_any()),
        Ownership::Foreign => return Job::Foreign(job.name_any()),
    }
    // One that is being deleted is created again when it is gone.
    if job.metadata.deletion_timestamp.is_some() {
        return Job::Leftover(job.name_any());
    }
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |kind: &str| {
        let mut conditions = conditions.iter();
        conditions.find(|condition| condition.type_ == kind && condition.status == "True")
    };
    if holds("Complete").is_some() {
        return Job::Complete;
    }
    if let Some(failed) = holds("Failed") {
        let reason = failed.reason.clone().unwrap_or_default();
        let message = failed.message.clone().unwrap_or_default();
        return Job::Failed(format!("{reason}: {message}"));
    }
    Job::Active(status.active.unwrap_or(0))
}

/// Pods that have ended with an error, or that cannot start. The last ones come first.
pub fn ends(pods: &[Pod]) -> Vec<PodEnd> {
    let mut ends: Vec<(Option<_>, PodEnd)> = pods
        .iter()
        .filter_map(|pod| {
            let facts = PodFacts::of(pod);
            let exit_code = exit_code(pod);
            let problem = facts.problem.map(|problem| problem.message);
            let is_worth_showing = problem.is_some() || exit_code.is_some_and(|code| code != 0);
            let end = PodEnd {
                name: pod.name_any(),
                exit_code,
                problem,
            };
            is_worth_showing.then_some((pod.creation_timestamp(), end))
        })
        .collect();
    ends.sort_by(|(one, _), (other, _)| other.cmp(one));
    ends.into_iter().map(|(_, end)| end).collect()
}

/// Whether a pod runs, or may still start. Of one whose node is lost only the API server is left, and it stays until
/// the node is removed.
pub fn is_alive(pod: &Pod, now: Timestamp) -> bool {
    !has_ended(pod) && !is_overdue(pod, now)
}

/// It should have ended: the time of the deletion includes the grace period.
fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    deleted.is_some_and(|at| now.duration_since(at.0) > OVERDUE)
}

/// Pods that are being deleted and do not end.
pub fn stuck(pods: &[Pod], now: Timestamp) -> Vec<PodEnd> {
    let stuck = pods.iter().filter(|pod| !has_ended(pod) && is_overdue(pod, now));
    let end = |pod: &Pod| PodEnd {
        name: pod.name_any(),
        exit_code: None,
        problem: Some(format!(
            "is being deleted and does not end; if its node {} is lost, delete the node, or the pod with --force",
            pod.spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .unwrap_or("")
        )),
    };
    stuck.map(end).collect()
}

/// Whether a worker of the replay runs, or may still start.
fn may_run_of(job: Option<&v1::Job>, pods: &[Pod], replay: &KafkaReplay, now: Timestamp) -> bool {
    if matches!(state(job, replay), Job::Active(_)) {
        return true;
    }
    // The pods of a later replay of this name have the same labels.
    let other = job.filter(|job| ownership(&job.metadata, replay) != Ownership::Ours);
    let other = other.and_then(|job| job.metadata.uid.as_deref());
    let is_of_other = |pod: &Pod| {
        pod.owner_references()
            .iter()
            .any(|owner| Some(owner.uid.as_str()) == other)
    };
    pods.iter().any(|pod| is_alive(pod, now) && !is_of_other(pod))
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let worker = containers.iter().find(|container| container.name == CONTAINER)?;
    Some(worker.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Members of the consumer group whose pods have ended or are gone. `pods` were listed after the members were read,
/// so the pod of a member that has just joined is among them.
pub fn dead(members: &[MemberFacts], replay: &str, pods: &[Pod]) -> Vec<DeadProcess> {
    let workers = members
        .iter()
        .filter_map(|member| Incarnation::parse(&member.client_id));
    let prefix = format!("{}-", replay_name(replay));
    let is_alive = |worker: &str| pods.iter().any(|pod| pod.name_any() == worker && !has_ended(pod));
    workers
        // A user may run other programs in the group.
        .filter(|run| run.worker.starts_with(&prefix) && !is_alive(&run.worker))
        .map(|run| DeadProcess::exact(&run.worker, run.started))
        .collect()
}

fn api<K>(scope: &Scope, replay: &KafkaReplay) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = replay.namespace().unwrap_or_default();
    Api::namespaced(scope.context.client.clone(), &namespace)
}

/// The Job as the API server has it now.
pub async fn job(scope: &Scope, replay: &KafkaReplay) -> Result<Job, ReplayError> {
    Ok(state(stored_job(scope, replay).await?.as_ref(), replay))
}

/// Whether a worker of the replay runs, or may still start, according to the API server now.
pub async fn may_run(scope: &Scope, replay: &KafkaReplay) -> Result<bool, ReplayError> {
    // In this order: the Job may create a pod after they are listed.
    let job = stored_job(scope, replay).await?;
    let pods = pods(scope, replay).await?;
    Ok(may_run_of(job.as_ref(), &pods, replay, Timestamp::now()))
}

async fn stored_job(scope: &Scope, replay: &KafkaReplay) -> Result<Option<v1::Job>, ReplayError> {
    let _slot = scope.api_slot().await;
    let name = replay_name(&replay.name_any());
    let job = api::<v1::Job>(scope, replay).get_opt(&name).await;
    job.map_err(|source| ReplayError::child("read", "Job", &name, source))
}

/// The pods as the API server has them now.
pub async fn pods(scope: &Scope, replay: &KafkaReplay) -> Result<Vec<Pod>, ReplayError> {
    let _slot = scope.api_slot().await;
    let name = replay.name_any();
    let labels: Vec<String> = selector(&name)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let labels = ListParams::default().labels(&labels.join(","));
    let pods = api::<Pod>(scope, replay).list(&labels).await;
    let pods =
        pods.map_err(|source| ReplayError::child("list", "pods of Job", &replay_name(&name), source))?;
    Ok(pods.items)
}

/// Creates the ConfigMap and the Job, which does not exist. A ConfigMap that is ours and has other data is of an
/// earlier start: the workers must not run with it, and it cannot be changed, so it is deleted first.
pub async fn create(
    scope: &Scope,
    replay: &KafkaReplay,
    config_map: &ConfigMap,
    job: &v1::Job,
) -> Result<Created, ReplayError> {
    match create_one(scope, replay, "ConfigMap", config_map, has_data_of).await? {
        Created::Done => create_one(scope, replay, "Job", job, |_, _| true).await,
        other => Ok(other),
    }
}

fn has_data_of(existing: &ConfigMap, wanted: &ConfigMap) -> bool {
    existing.data == wanted.data
}

/// What became of the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    Done,
    /// An object of this kind has the name, belongs to an earlier replay or an earlier start, and is being deleted.
    Leftover(&'static str),
    /// An object of this kind has the name, and is not ours.
    Foreign(&'static str),
    /// The API server will never accept the object of this kind.
    Invalid(&'static str, String),
    /// The API server does not allow it now: a quota, a policy, a missing right.
    Refused(String),
}

async fn create_one<K>(
    scope: &Scope,
    replay: &KafkaReplay,
    kind: &'static str,
    object: &K,
    is_same: fn(&K, &K) -> bool,
) -> Result<Created, ReplayError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let api = api::<K>(scope, replay);
    let name = object.name_any();
    let _slot = scope.api_slot().await;
    let error = match api.create(&PostParams::default(), object).await {
        Ok(_) => return Ok(Created::Done),
        Err(error) => error,
    };
    let kube::Error::Api(status) = &error else {
        return Err(ReplayError::child("create", kind, &name, error));
    };
    let message = format!("the API server refuses {kind} {name}: {}", status.message);
    match status.code {
        409 => {}
        400 | 413 | 422 => return Ok(Created::Invalid(kind, message)),
        403 => return Ok(Created::Refused(message)),
        _ => return Err(ReplayError::child("create", kind, &name, error)),
    }
    let existing = api.get_opt(&name).await;
    let existing = existing.map_err(|source| ReplayError::child("read", kind, &name, source))?;
    // Or it was deleted between the two requests.
    let Some(existing) = existing else {
        return Ok(Created::Leftover(kind));
    };
    match ownership(existing.meta(), replay) {
        Ownership::Ours if is_same(&existing, object) && existing.meta().deletion_timestamp.is_none() => {
            Ok(Created::Done)
        }
        Ownership::Ours => {
            delete(&api, kind, existing.meta()).await?;
            Ok(Created::Leftover(kind))
        }
        Ownership::Foreign => Ok(Created::Foreign(kind)),
        Ownership::EarlierReplay => Ok(Created::Leftover(kind)),
    }
}

/// Deletes exactly this object, and not a later one of its name.
async fn delete<K>(api: &Api<K>, kind: &'static str, object: &ObjectMeta) -> Result<(), ReplayError>
where
    K: Clone + Debug + DeserializeOwned,
{
    let name = object.name.as_deref().unwrap_or_default();
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(source) => Err(ReplayError::child("delete", kind, name, source)),
    }
}

/// Stops the workers of a replay that has failed for another reason than its Job.
pub async fn stop(scope: &Scope, replay: &KafkaReplay) -> Result<(), ReplayError> {
    let job = stored_job(scope, replay).await?;
    let Some(job) = job.filter(|job| matches!(state(Some(job), replay), Job::Active(_))) else {
        return Ok(());
    };
    let _slot = scope.api_slot().await;
    delete(&api::<v1::Job>(scope, replay), "Job", &job.metadata).await
}

#[cfg(test)]
mod tests;
