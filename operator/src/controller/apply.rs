//! Brings the children of a group into the cluster. In: [`Resources<Prepared>`]. Out: [`Resources<Applied>`]. Writes by
//! server-side apply, in the order in which the objects need each other, and only what differs: a child that already
//! holds everything wanted costs no write, and usually no read. Never takes over an object that belongs to others.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use crds::names::{DESIRED_STATE_ANNOTATION, OPERATOR_MANAGER};
use crds::spec::{DesiredState, ScalingMode};
use crds::{KafkaConsumerGroup, KafkaConsumerGroupSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use thiserror::Error;

use super::Scope;
use super::build::labels::{APPLIED_HASH_ANNOTATION, hash};
use super::build::{Applied, Prepared, Resources};
use super::dereference::Observed;
use super::diff::{contains, fingerprint};
use super::memory::{Mark, Memory};
use super::validate::ValidatedGroup;
use crate::scaling::Decision;

/// Which step failed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot read {kind} {name}: {source}")]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("the API server does not take {kind} {name}: {source}")]
    Write {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("{kind} {name} is still there from a KafkaConsumerGroup of this name that was deleted")]
    Leftover { kind: &'static str, name: String },
    #[error(
        "{kind} {name} exists and does not belong to this KafkaConsumerGroup; delete it, or give the KafkaConsumerGroup another name"
    )]
    Conflict { kind: &'static str, name: String },
    #[error("the KafkaConsumerGroup is gone")]
    Gone,
    #[error("cannot seed spec.replicas through /scale: {0}")]
    Scale(Box<kube::Error>),
}

impl Error {
    /// As it stands in a condition, and as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "ReadFailed",
            Self::Write { .. } | Self::Scale(_) => "ApplyFailed",
            Self::Leftover { .. } => "WaitingForDeletion",
            Self::Conflict { .. } => "NameConflict",
            Self::Gone => "Gone",
        }
    }

    /// True when waiting will not help: the object itself was refused.
    pub fn needs_human(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Scale(source) => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            Self::Leftover { .. } | Self::Gone => false,
            Self::Conflict { .. } => true,
        }
    }
}

/// Applies all children, then what depends on them.
pub async fn apply(
    scope: &Scope,
    group: &ValidatedGroup,
    prepared: Resources<Prepared>,
    observed: &Observed,
    memory: &mut Memory,
) -> Result<Resources<Applied>, Error> {
    let _turn = scope.turn().await;
    let Resources {
        service_account,
        role,
        role_binding,
        config_map,
        disruption_budget,
        deployment,
        ..
    } = prepared;
    let mut children = Children {
        scope,
        group,
        memory,
        owner_lives: false,
    };
    let caches = &scope.caches;
    // Permissions and configuration before the pods that need them.
    let service_account = children
        .ensure_seen(service_account, &caches.service_accounts)
        .await?;
    let role = children.ensure_seen(role, &caches.roles).await?;
    let role_binding = children.ensure_seen(role_binding, &caches.role_bindings).await?;
    let config_map = children.ensure_seen(config_map, &caches.config_maps).await?;
    let disruption_budget = children
        .ensure_seen(disruption_budget, &caches.disruption_budgets)
        .await?;
    let deployment = children.ensure_seen(deployment, &caches.deployments).await?;
    children.memory.deployment = Some(Arc::new(deployment.clone()));
    tell_pods(scope, group, &observed.pods).await?;
    delete_orphans(scope, group).await?;
    Ok(Resources {
        service_account,
        role,
        role_binding,
        config_map,
        disruption_budget,
        deployment,
        state: PhantomData,
    })
}

/// A group that is not accepted keeps its workers as they are, with one exception: stopping must always work.
pub async fn stop_rejected(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    observed: &Observed,
) -> Result<(), Error> {
    let Some(deployment) = &observed.deployment else {
        return Ok(());
    };
    if group.spec.desired_state != DesiredState::Stopped || observed.current_replicas() == Some(0) {
        return Ok(());
    }
    let _turn = scope.turn().await;
    let api: Api<Deployment> = Api::namespaced(
        scope.context.client.clone(),
        &group.namespace().unwrap_or_default(),
    );
    let name = deployment.name_any();
    let patch = json!({"spec": {"replicas": 0}});
    match api
        .patch(&name, &PatchParams::apply(OPERATOR_MANAGER), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(source) => Err(Error::Write {
            kind: "Deployment",
            name,
            source: Box::new(source),
        }),
    }
}

/// In mode Manual spec.replicas is written once, so that `GET /scale` works for kubectl, an HPA or KEDA.
pub async fn seed_replicas(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    decision: &Decision,
) -> Result<(), Error> {
    if spec.scaling.mode != ScalingMode::Manual || spec.replicas.is_some() {
        return Ok(());
    }
    let replicas = if decision.replicas > 0 {
        decision.replicas
    } else {
        spec.scaling.min_replicas
    };
    let api: Api<KafkaConsumerGroup> = Api::namespaced(scope.context.client.clone(), namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let parameters = PatchParams {
        field_manager: Some(OPERATOR_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch_scale(name, &parameters, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::Scale(Box::new(error))),
    }
}

struct Children<'a> {
    scope: &'a Scope,
    group: &'a ValidatedGroup,
    memory: &'a mut Memory,
    /// Asked the API server itself, in this reconcile.
    owner_lives: bool,
}

impl Children<'_> {
    /// Makes sure that the cluster holds `desired`, and returns what it holds.
    async fn ensure_seen<K, C>(&mut self, desired: K, cache: &Store<C>) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug + 'static,
        C: Cached<K>,
    {
        let kind = kind_of::<K>();
        let name = desired.name_any();
        let (desired, hash) = with_hash(desired);
        let key = kube::runtime::reflector::ObjectRef::<C>::new(&name).within(&self.group.namespace);
        if let Some(cached) = cache.get(&key)
            && let Some(mark) = self.memory.marks.get(kind)
            && mark.desired == hash
            && Some(&mark.resource_version) == cached.meta().resource_version.as_ref()
        {
            return Ok(C::object(&cached).unwrap_or(desired));
        }
        let api: Api<K> = Api::namespaced(self.scope.context.client.clone(), &self.group.namespace);
        let read = api.get_opt(&name).await;
        let live = read.map_err(|source| Error::Read {
            kind,
            name: name.clone(),
            source: Box::new(source),
        })?;
        let missing = live.is_none();
        if let Some(live) = live {
            self.belongs(&live, kind)?;
            let json = serde_json::to_value(&live).unwrap_or_default();
            let print = fingerprint(&json);
            let verified = self
                .memory
                .marks
                .get(kind)
                .is_some_and(|mark| mark.desired == hash && mark.fingerprint == print);
            if verified || contains(&json, &serde_json::to_value(&desired).unwrap_or_default()) {
                self.mark(kind, hash, &live, print);
                return Ok(live);
            }
        }
        // Deleting a group deletes its children, and the watches do not tell in which order.
        if missing {
            self.owner_lives().await?;
        }
        tracing::info!(
            group = self.group.name,
            namespace = self.group.namespace,
            kind,
            name,
            "apply"
        );
        let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
        let applied = api
            .patch(&name, &parameters, &Patch::Apply(&desired))
            .await
            .map_err(|source| Error::Write {
                kind,
                name,
                source: Box::new(source),
            })?;
        let print = fingerprint(&serde_json::to_value(&applied).unwrap_or_default());
        self.mark(kind, hash, &applied, print);
        Ok(applied)
    }

    async fn owner_lives(&mut self) -> Result<(), Error> {
        if self.owner_lives {
            return Ok(());
        }
        let (kind, name) = ("KafkaConsumerGroup", self.group.name.clone());
        let api: Api<KafkaConsumerGroup> =
            Api::namespaced(self.scope.context.client.clone(), &self.group.namespace);
        match api.get_metadata_opt(&name).await {
            Ok(Some(owner)) if owner.metadata.uid.as_ref() == Some(&self.group.owner.uid) => {
                self.owner_lives = true;
                Ok(())
            }
            Ok(_) => Err(Error::Gone),
            Err(source) => Err(Error::Read {
                kind,
                name,
                source: Box::new(source),
            }),
        }
    }

    fn mark<K: Resource>(&mut self, kind: &'static str, desired: String, live: &K, fingerprint: String) {
        let resource_version = live.meta().resource_version.clone().unwrap_or_default();
        self.memory.marks.insert(
            kind,
            Mark {
                desired,
                resource_version,
                fingerprint,
            },
        );
    }

    /// Ours, or abandoned by an earlier life of this group (deleted with `--cascade=orphan`), which is adopted.
    fn belongs<K: Resource>(&self, live: &K, kind: &'static str) -> Result<(), Error> {
        let name = live.name_any();
        let owners = live.meta().owner_references.clone().unwrap_or_default();
        let Some(controller) = owners.iter().find(|owner| owner.controller == Some(true)) else {
            let managed = live.labels().get("app.kubernetes.io/managed-by");
            let ours = managed.is_some_and(|manager| manager == OPERATOR_MANAGER);
            return if ours {
                Ok(())
            } else {
                Err(Error::Conflict { kind, name })
            };
        };
        if controller.uid == self.group.owner.uid {
            Ok(())
        } else if controller.kind == self.group.owner.kind && controller.name == self.group.owner.name {
            Err(Error::Leftover { kind, name })
        } else {
            Err(Error::Conflict { kind, name })
        }
    }
}

/// What a cache holds of a `K`: all of it, or only its metadata.
trait Cached<K>: Resource<DynamicType = ()> + Clone + 'static {
    fn object(&self) -> Option<K>;
}

impl Cached<Deployment> for Deployment {
    fn object(&self) -> Option<Deployment> {
        Some(self.clone())
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cached<K> for kube::core::PartialObjectMeta<K> {
    fn object(&self) -> Option<K> {
        None
    }
}

/// The object with the hash of itself as an annotation.
fn with_hash<K: Resource + Serialize>(mut desired: K) -> (K, String) {
    let hash = hash(serde_json::to_string(&desired).unwrap_or_default().as_bytes());
    desired
        .annotations_mut()
        .insert(APPLIED_HASH_ANNOTATION.into(), hash.clone());
    (desired, hash)
}

fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}

/// Running and Paused are also written on the pods: that makes the kubelet refresh the mounted ConfigMap at once
/// instead of within a minute.
async fn tell_pods(scope: &Scope, group: &ValidatedGroup, pods: &[Arc<Pod>]) -> Result<(), Error> {
    let state = match group.spec.desired_state {
        DesiredState::Running => "Running",
        DesiredState::Paused => "Paused",
        DesiredState::Stopped => return Ok(()),
    };
    let api: Api<Pod> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    let patch = json!({"metadata": {"annotations": {DESIRED_STATE_ANNOTATION: state}}});
    for pod in pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        let told = pod
            .annotations()
            .get(DESIRED_STATE_ANNOTATION)
            .map_or("Running", String::as_str);
        if told == state {
            continue;
        }
        let name = pod.name_any();
        let parameters = PatchParams {
            field_manager: Some(OPERATOR_MANAGER.into()),
            ..PatchParams::default()
        };
        match api
            .patch_metadata(&name, &parameters, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(source) => {
                return Err(Error::Write {
                    kind: "Pod",
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

/// Children that this group owns under names that it no longer uses.
async fn delete_orphans(scope: &Scope, group: &ValidatedGroup) -> Result<(), Error> {
    let caches = &scope.caches;
    orphans(scope, group, &caches.deployments).await?;
    orphans(scope, group, &caches.disruption_budgets).await?;
    orphans(scope, group, &caches.config_maps).await?;
    orphans(scope, group, &caches.role_bindings).await?;
    orphans(scope, group, &caches.roles).await?;
    orphans(scope, group, &caches.service_accounts).await
}

async fn orphans<C>(scope: &Scope, group: &ValidatedGroup, cache: &Store<C>) -> Result<(), Error>
where
    C: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    C: Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let kept = super::build::labels::child_name(&group.name);
    let orphans: BTreeSet<String> = cache
        .state_filter(|child| {
            let mut owners = child.owner_references().iter();
            owners.any(|owner| owner.uid == group.owner.uid) && child.name_any() != kept
        })
        .iter()
        .map(|child| child.name_any())
        .collect();
    let api: Api<C> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    for name in orphans {
        tracing::info!(
            group = group.name,
            namespace = group.namespace,
            name,
            "delete orphan"
        );
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(source) => {
                return Err(Error::Write {
                    kind: kind_of::<C>(),
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}

/// The object went away between two calls, which is never an error here.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// For tests of the comparison with real objects.
#[cfg(test)]
pub fn desired_json<K: Resource + Serialize>(object: K) -> serde_json::Value {
    serde_json::to_value(with_hash(object).0).unwrap_or_default()
}
