//! Reads everything a reconcile needs: Secrets and ConfigMaps that the spec names, children, pods, Kafka facts. In: the
//! resource. Out: [`Observed`]. Writes nothing; what is not there or does not answer is part of the answer, not an error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use crds::spec::KafkaConsumerGroupSpec;
use crds::worker_config::group_id;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::Scope;
use super::memory::{Memory, Versioned};
use super::names::{START_POSITIONS_ANNOTATION, child_name, selector};
use crate::group::references::{Contents, Kind, credentials, references};
use crate::group::topics::expected_outputs;
use crate::kafka::{FactsQuery, KafkaFacts, KafkaProblem};

/// Longest wait for Kafka in one reconcile. A healthy cluster answers in milliseconds; longer than this and the group
/// is better served by a status that says so.
pub const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
/// Facts this fresh are used again: one event often brings others, and partitions do not grow twice a second.
const FRESH: Duration = Duration::from_secs(1);

/// Why nothing could be observed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("the watches have not delivered yet: {0}")]
    Caches(#[from] kube::runtime::reflector::store::WriterDropped),
    #[error("cannot read {kind} {name}: {source}", kind = kind.as_str())]
    Content {
        kind: Kind,
        name: String,
        source: Box<kube::Error>,
    },
}

/// What Kafka said.
#[derive(Clone, Debug, PartialEq)]
pub enum KafkaView {
    /// It was not asked, because the credentials are not there.
    NotAsked,
    Failed(KafkaProblem),
    Known(KafkaFacts),
}

impl KafkaView {
    /// The facts, if there are any.
    pub fn known(&self) -> Option<&KafkaFacts> {
        match self {
            Self::Known(facts) => Some(facts),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Observed {
    pub contents: Contents,
    pub kafka: KafkaView,
    pub deployment: Option<Arc<Deployment>>,
    pub pods: Vec<Arc<Pod>>,
    /// The start positions of this group were dealt with, now or earlier.
    pub positions_settled: bool,
}

impl Observed {
    /// Partitions of all input topics, if all are known.
    pub fn partitions(&self, spec: &KafkaConsumerGroupSpec) -> Option<i32> {
        let facts = self.kafka.known()?;
        spec.topics.iter().try_fold(0, |sum, topic| {
            Some(sum + facts.topics.get(&topic.name).copied()??)
        })
    }

    /// Workers asked for by the last decision.
    pub fn current_replicas(&self) -> Option<i32> {
        self.deployment.as_ref()?.spec.as_ref()?.replicas
    }
}

pub async fn dereference(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &mut Memory,
) -> Result<Observed, Error> {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    scope.caches.ready().await?;
    let turn = scope.turn().await;
    let contents = read_contents(scope, &namespace, &name, &group.spec, memory).await?;
    let deployment = newest_deployment(scope, group, memory);
    drop(turn);
    let wanted = selector(&name);
    let pods = scope.caches.pods.state_filter(|pod| {
        pod.namespace().as_deref() == Some(namespace.as_str())
            && wanted
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    });
    let positions_settled = deployment
        .as_ref()
        .is_some_and(|deployment| deployment.annotations().contains_key(START_POSITIONS_ANNOTATION));
    let kafka = ask_kafka(scope, &namespace, &name, &group.spec, &contents, memory).await;
    Ok(Observed {
        contents,
        kafka,
        deployment,
        pods,
        positions_settled,
    })
}

/// What to ask Kafka about a group.
pub fn query(namespace: &str, name: &str, spec: &KafkaConsumerGroupSpec) -> FactsQuery {
    FactsQuery {
        group_id: group_id(namespace, name, spec),
        topics: spec.topics.iter().map(|topic| topic.name.clone()).collect(),
        outputs: expected_outputs(spec),
        isolation: spec.consumer.isolation_level,
    }
}

async fn ask_kafka(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    contents: &Contents,
    memory: &mut Memory,
) -> KafkaView {
    let Ok(credentials) = credentials(spec, namespace, contents) else {
        return KafkaView::NotAsked;
    };
    let query = query(namespace, name, spec);
    if let Some((asked, at, facts)) = &memory.facts
        && *asked == query
        && at.elapsed() < FRESH
    {
        return KafkaView::Known(facts.clone());
    }
    memory.facts = None;
    let _turn = scope.kafka_turn().await;
    let answer = scope.context.kafka.facts(&spec.kafka, &credentials, &query);
    match tokio::time::timeout(KAFKA_TIMEOUT, answer).await {
        Ok(Ok(facts)) => {
            memory.facts = Some((query, Instant::now(), facts.clone()));
            KafkaView::Known(facts)
        }
        Ok(Err(problem)) => KafkaView::Failed(problem),
        Err(_) => KafkaView::Failed(KafkaProblem::Unreachable(format!(
            "no answer within {} s",
            KAFKA_TIMEOUT.as_secs()
        ))),
    }
}

/// The watch may not have seen our own last write yet; the higher generation is the newer one. What was deleted by
/// hand still tells how many workers there were.
fn newest_deployment(scope: &Scope, group: &KafkaConsumerGroup, memory: &Memory) -> Option<Arc<Deployment>> {
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

async fn read_contents(
    scope: &Scope,
    namespace: &str,
    name: &str,
    spec: &KafkaConsumerGroupSpec,
    memory: &mut Memory,
) -> Result<Contents, Error> {
    let named: BTreeSet<(Kind, String)> = references(spec)
        .into_iter()
        .map(|reference| (reference.kind, reference.name))
        .collect();
    scope.index.update(namespace, name, named.clone());
    memory.contents.retain(|object, _| named.contains(object));
    let mut contents = Contents::new();
    for (kind, object) in named {
        let version = match kind {
            Kind::Secret => version(&scope.caches.secrets, namespace, &object),
            Kind::ConfigMap => version(&scope.caches.config_maps, namespace, &object),
        };
        let key = (kind, object);
        let data = match (version, memory.contents.get(&key)) {
            (None, _) => None,
            (Some(version), Some((read, data))) if *read == version => Some(data.clone()),
            _ => read(scope, namespace, kind, &key.1)
                .await?
                .map(|(version, data)| {
                    memory.contents.insert(key.clone(), (version, data.clone()));
                    data
                }),
        };
        contents.insert(key, data);
    }
    Ok(contents)
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

async fn read(scope: &Scope, namespace: &str, kind: Kind, name: &str) -> Result<Option<Versioned>, Error> {
    let failed = |source| Error::Content {
        kind,
        name: name.into(),
        source: Box::new(source),
    };
    Ok(match kind {
        Kind::Secret => {
            let secret: Option<Secret> = get(scope, namespace, name).await.map_err(failed)?;
            secret.map(|secret| {
                let data = secret.data.unwrap_or_default();
                let data = data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
                (secret.metadata.resource_version.unwrap_or_default(), data)
            })
        }
        Kind::ConfigMap => {
            let map: Option<ConfigMap> = get(scope, namespace, name).await.map_err(failed)?;
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

async fn get<K>(scope: &Scope, namespace: &str, name: &str) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    Api::<K>::namespaced(scope.context.client.clone(), namespace)
        .get_opt(name)
        .await
}
