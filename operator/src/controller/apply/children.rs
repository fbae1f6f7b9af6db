//! One child of a group: read only if the cache and the memory do not show that it matches, written only if
//! it differs, never taken over from another owner.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crds::KafkaConsumerGroup;
use crds::names::OPERATOR_MANAGER;

use super::super::diff::{contains, differences, fingerprint};
use super::super::memory::{GroupMemory, VerifiedChild};
use super::super::scope::Scope;
use super::error::ApplyError;
use crate::controller::names::APPLIED_HASH_ANNOTATION;
use crate::digest::hash;
use crate::group::validate::ValidatedGroup;

pub(super) struct Children<'a> {
    pub scope: &'a Scope,
    pub group: &'a ValidatedGroup,
    pub memory: &'a mut GroupMemory,
    /// The API server has confirmed in this reconcile that the group exists.
    pub owner_exists: bool,
}

impl Children<'_> {
    /// Ensures that the cluster holds `desired`, and returns the live object.
    pub async fn ensure<K, C>(&mut self, desired: K, cache: &Store<C>) -> Result<K, ApplyError>
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
            && let Some(known) = self.memory.verified.get(kind)
            && known.desired == hash
            && Some(&known.resource_version) == cached.meta().resource_version.as_ref()
        {
            return Ok(C::object(&cached).unwrap_or(desired));
        }
        let api: Api<K> = Api::namespaced(self.scope.context.client.clone(), &self.group.namespace);
        let read = api.get_opt(&name).await;
        let live = read.map_err(|source| ApplyError::Read {
            kind,
            name: name.clone(),
            source: Box::new(source),
        })?;
        let missing = live.is_none();
        let mut restored = None;
        if let Some(live) = live {
            self.belongs(&live, kind)?;
            let json = serde_json::to_value(&live).unwrap_or_default();
            let print = fingerprint(&json);
            let verified = self
                .memory
                .verified
                .get(kind)
                .is_some_and(|known| known.desired == hash && known.fingerprint == print);
            let wanted = serde_json::to_value(&desired).unwrap_or_default();
            if verified || contains(&json, &wanted) {
                self.remember(kind, hash, &live, print);
                return Ok(live);
            }
            // This process applied or saw exactly this before, so another client has changed it.
            if self
                .memory
                .verified
                .get(kind)
                .is_some_and(|known| known.desired == hash)
            {
                if self.memory.is_left(kind, Instant::now()) {
                    return Ok(live);
                }
                let change = changed_by(&live, &json, &wanted);
                restored = Some(format!("{kind} {name} was changed by {change}"));
            }
        } else if self.memory.verified.contains_key(kind) {
            restored = Some(format!(
                "{kind} {name} was deleted by another client and is created again"
            ));
        }
        // Deleting a group deletes its children, and the watches deliver the deletions in any order.
        if missing {
            self.owner_exists().await?;
        }
        tracing::info!(
            group = self.group.name,
            namespace = self.group.namespace,
            kind,
            name,
            "apply child"
        );
        let parameters = PatchParams::apply(OPERATOR_MANAGER).force();
        let applied = api
            .patch(&name, &parameters, &Patch::Apply(&desired))
            .await
            .map_err(|source| ApplyError::Write {
                kind,
                name,
                source: Box::new(source),
            })?;
        let print = fingerprint(&serde_json::to_value(&applied).unwrap_or_default());
        self.remember(kind, hash, &applied, print);
        // Only now is it true: the API server may refuse the patch.
        if let Some(what) = restored {
            self.memory.restored(kind, what, Instant::now());
        }
        Ok(applied)
    }

    async fn owner_exists(&mut self) -> Result<(), ApplyError> {
        if self.owner_exists {
            return Ok(());
        }
        let (kind, name) = ("KafkaConsumerGroup", self.group.name.clone());
        let api: Api<KafkaConsumerGroup> =
            Api::namespaced(self.scope.context.client.clone(), &self.group.namespace);
        match api.get_metadata_opt(&name).await {
            Ok(Some(owner)) if owner.metadata.uid.as_ref() == Some(&self.group.owner.uid) => {
                self.owner_exists = true;
                Ok(())
            }
            Ok(_) => Err(ApplyError::Gone),
            Err(source) => Err(ApplyError::Read {
                kind,
                name,
                source: Box::new(source),
            }),
        }
    }

    fn remember<K: Resource>(&mut self, kind: &'static str, desired: String, live: &K, fingerprint: String) {
        let resource_version = live.meta().resource_version.clone().unwrap_or_default();
        self.memory.verified.insert(
            kind,
            VerifiedChild {
                desired,
                resource_version,
                fingerprint,
            },
        );
    }

    /// Ok if the child is ours, or was orphaned by an earlier group of this name (deleted with
    /// `--cascade=orphan`) and is adopted.
    fn belongs<K: Resource>(&self, live: &K, kind: &'static str) -> Result<(), ApplyError> {
        let name = live.name_any();
        let owners = live.meta().owner_references.clone().unwrap_or_default();
        let Some(controller) = owners.iter().find(|owner| owner.controller == Some(true)) else {
            let managed = live.labels().get("app.kubernetes.io/managed-by");
            let ours = managed.is_some_and(|manager| manager == OPERATOR_MANAGER);
            return if ours {
                Ok(())
            } else {
                Err(ApplyError::Conflict { kind, name })
            };
        };
        if controller.uid == self.group.owner.uid {
            Ok(())
        } else if controller.kind == self.group.owner.kind && controller.name == self.group.owner.name {
            Err(ApplyError::Leftover { kind, name })
        } else {
            Err(ApplyError::Conflict { kind, name })
        }
    }
}

/// Who changed a child, and which fields: "kubectl-edit (spec.replicas)".
fn changed_by<K: Resource>(live: &K, json: &Value, wanted: &Value) -> String {
    let fields = differences(json, wanted);
    let entries = live.meta().managed_fields.clone().unwrap_or_default();
    let others = entries.into_iter().filter(|entry| {
        entry.manager.as_deref() != Some(OPERATOR_MANAGER) && entry.subresource.as_deref() != Some("status")
    });
    // Of several, the last one that wrote.
    let last = others.max_by_key(|entry| entry.time.clone().map(|time| time.0));
    let manager = last.and_then(|entry| entry.manager);
    format!(
        "{} ({}) and is restored",
        manager.as_deref().unwrap_or("an unknown client"),
        if fields.is_empty() {
            "a removed field".into()
        } else {
            fields.join(", ")
        }
    )
}

/// The object with its own hash as an annotation.
pub(super) fn with_hash<K: Resource + Serialize>(mut desired: K) -> (K, String) {
    let hash = hash(serde_json::to_string(&desired).unwrap_or_default().as_bytes());
    desired
        .annotations_mut()
        .insert(APPLIED_HASH_ANNOTATION.into(), hash.clone());
    (desired, hash)
}

pub(super) fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}

/// What a cache holds of a `K`: the whole object, or only its metadata.
pub(super) trait Cached<K>: Resource<DynamicType = ()> + Clone + 'static {
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
