//! Reads everything that a reconcile needs: referenced Secrets and ConfigMaps, children, pods, Kafka facts.
//! In: the resource. Out: [`Observed`]. Writes nothing; a missing object or an unreachable Kafka is part of
//! the result, not an error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::KafkaConsumerGroup;
use crds::client_config::KafkaCredentials;
use crds::spec::KafkaConsumerGroupSpec;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::apply::error::in_words;
use super::memory::{GroupMemory, Versioned};
use super::names::{STARTED_TOPICS_ANNOTATION, child_name, selector};
use super::pods::has_ended;
use super::replicas;
use super::scope::Scope;
use crate::group::observed::{Observed, StartedTopics, query};
use crate::group::references::{ObjectKind, ReferencedData, References, volume_sources};
use crate::group::rejection::Rejection;
use crate::kafka::model::{GroupKey, KafkaView};

/// Facts are reused for this long while a group converges, and somewhat longer otherwise: one watch event is
/// often followed by others, and whatever changes in Kafka requests a reconcile by itself.
const FRESH_CONVERGING: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(3);

/// Why the observation failed.
#[derive(Debug, Error)]
pub enum DereferenceError {
    #[error("the watch caches could not be filled: {0}")]
    Caches(#[from] kube::runtime::reflector::store::WriterDropped),
    #[error("cannot read {kind} {name}: {error}", kind = kind.as_str(), error = in_words(source))]
    Content {
        kind: ObjectKind,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("cannot read who has set spec.replicas: {}", in_words(.0))]
    Replicas(Box<kube::Error>),
}

pub async fn dereference(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &mut GroupMemory,
) -> Result<Observed, DereferenceError> {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    scope.caches.ready().await?;
    let slot = scope.api_slot().await;
    let references = References::of(&group.spec);
    let mut watched = references.objects();
    watched.extend(
        volume_sources(&group.spec)
            .into_iter()
            .map(|source| (source.kind, source.name)),
    );
    scope.index.update(&namespace, &name, watched);
    let data = read_data(scope, &namespace, references.objects(), memory).await?;
    let deployment = newest_deployment(scope, group, memory);
    drop(slot);
    let wanted = selector(&name);
    let pods = scope.caches.pods.state_filter(|pod| {
        !has_ended(pod)
            && pod.namespace().as_deref() == Some(namespace.as_str())
            && wanted
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    });
    let started = deployment
        .as_ref()
        .and_then(|deployment| deployment.annotations().get(STARTED_TOPICS_ANNOTATION))
        .map(|topics| StartedTopics::parse(topics))
        .unwrap_or_default();
    let credentials = references.credentials(&group.spec, &namespace, &data);
    let kafka = match &credentials {
        Ok(credentials) => ask_kafka(scope, &namespace, &name, &group.spec, credentials, memory).await,
        Err(_) => KafkaView::NotAsked,
    };
    let set_by = replicas::set_by_another(scope, group, deployment.as_deref(), memory);
    let replicas_set_by = set_by.await.map_err(DereferenceError::Replicas)?;
    let missing_volumes = volume_sources(&group.spec)
        .into_iter()
        .filter(|source| match source.kind {
            ObjectKind::Secret => version(&scope.caches.secrets, &namespace, &source.name).is_none(),
            ObjectKind::ConfigMap => version(&scope.caches.config_maps, &namespace, &source.name).is_none(),
        })
        .collect();
    Ok(Observed {
        replicas_set_by,
        missing_volumes,
        references,
        data,
        credentials,
        kafka,
        deployment,
        pods,
        started,
    })
}

/// What a Kafka client needs for the group, read now: for those who have no memory of it.
pub async fn kafka_credentials(
    scope: &Scope,
    group: &KafkaConsumerGroup,
) -> Result<Result<KafkaCredentials, Rejection>, DereferenceError> {
    let namespace = group.namespace().unwrap_or_default();
    let references = References::of(&group.spec);
    let named = references.of_kafka();
    let named = named.map(|reference| (reference.kind, reference.name.clone()));
    let mut memory = GroupMemory::default();
    let data = read_data(scope, &namespace, named.collect(), &mut memory).await?;
    Ok(references.credentials(&group.spec, &namespace, &data))
}

async fn ask_kafka(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    credentials: &KafkaCredentials,
    memory: &GroupMemory,
) -> KafkaView {
    let max_age = if memory.converging.is_some() {
        FRESH_CONVERGING
    } else {
        FRESH
    };
    let (key, query) = (GroupKey::new(namespace, name), query(namespace, name, spec));
    let kafka = &scope.context.kafka;
    match kafka.facts(&key, &spec.kafka, credentials, &query, max_age).await {
        Ok(facts) => KafkaView::Known(facts),
        Err(problem) => KafkaView::Failed(problem),
    }
}

/// The cache may not contain our own last write yet; the higher generation is the newer one. A Deployment
/// that was deleted manually still shows the previous number of workers.
pub(super) fn newest_deployment(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &GroupMemory,
) -> Option<Arc<Deployment>> {
    let key = ObjectRef::new(&child_name(&group.name_any())).within(&group.namespace().unwrap_or_default());
    let applied = memory.deployment.clone().filter(|applied| {
        let mut owners = applied.owner_references().iter();
        owners.any(|owner| Some(&owner.uid) == group.metadata.uid.as_ref())
    });
    match (scope.caches.deployments.get(&key), applied) {
        (Some(watched), Some(applied))
            if applied.uid() == watched.uid()
                && applied.metadata.generation > watched.metadata.generation =>
        {
            Some(applied)
        }
        (Some(watched), _) => Some(watched),
        (None, applied) => applied,
    }
}

async fn read_data(
    scope: &Scope,
    namespace: &str,
    named: BTreeSet<(ObjectKind, String)>,
    memory: &mut GroupMemory,
) -> Result<ReferencedData, DereferenceError> {
    memory.data.retain(|object, _| named.contains(object));
    let mut found = ReferencedData::new();
    for (kind, object) in named {
        let version = match kind {
            ObjectKind::Secret => version(&scope.caches.secrets, namespace, &object),
            ObjectKind::ConfigMap => version(&scope.caches.config_maps, namespace, &object),
        };
        let key = (kind, object);
        let data = match (version, memory.data.get(&key)) {
            (None, _) => None,
            (Some(version), Some((read, data))) if *read == version => Some(data.clone()),
            _ => read(&scope.context.client, namespace, kind, &key.1)
                .await?
                .map(|(version, data)| {
                    memory.data.insert(key.clone(), (version, data.clone()));
                    data
                }),
        };
        found.insert(key, data);
    }
    Ok(found)
}

fn version<K>(
    store: &kube::runtime::reflector::Store<kube::core::PartialObjectMeta<K>>,
    namespace: &str,
    name: &str,
) -> Option<String>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .get(&ObjectRef::new(name).within(namespace))?
        .metadata
        .resource_version
        .clone()
}

/// Reads an object now; None: it does not exist.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    kind: ObjectKind,
    name: &str,
) -> Result<Option<Versioned>, DereferenceError> {
    let failed = |source| DereferenceError::Content {
        kind,
        name: name.into(),
        source: Box::new(source),
    };
    Ok(match kind {
        ObjectKind::Secret => {
            let secret: Option<Secret> = get(client, namespace, name).await.map_err(failed)?;
            secret.map(|secret| {
                let data = secret.data.unwrap_or_default();
                let data = data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
                (secret.metadata.resource_version.unwrap_or_default(), data)
            })
        }
        ObjectKind::ConfigMap => {
            let map: Option<ConfigMap> = get(client, namespace, name).await.map_err(failed)?;
            map.map(|map| {
                let text = map.data.unwrap_or_default();
                let binary = map.binary_data.unwrap_or_default();
                let data = text
                    .into_iter()
                    .map(|(key, text)| (key, text.into_bytes()))
                    .chain(binary.into_iter().map(|(key, bytes)| (key, bytes.0)))
                    .collect();
                (map.metadata.resource_version.unwrap_or_default(), data)
            })
        }
    })
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    Api::<K>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
}
