//! The watches of one namespace, or of all. In: a client. Out: caches, and a stream of the groups that an
//! event concerns. Watches metadata only, except for objects that the status is computed from. A change of a
//! status, the operator's or the workers', requests no reconcile.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::RwLock;

use crds::KafkaConsumerGroup;
use crds::names::{API_GROUP, GROUP_LABEL, WORKER_APP};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::sync::Arc;

use super::caches::{Caches, Filled, GroupRef, Guarded};
use super::names::group_label;
use super::pods::PodFacts;
use super::terminations::{DeletedPods, Termination};
use crate::group::references::ObjectKind;
use crate::sync;

/// Groups to reconcile.
pub type ReconcileRequests = BoxStream<'static, Result<GroupRef, watcher::Error>>;

/// Which groups reference which Secret or ConfigMap, existing or not.
#[derive(Debug, Default)]
pub struct ReferenceIndex(RwLock<Index>);

#[derive(Debug, Default)]
struct Index {
    users: HashMap<(ObjectKind, String, String), BTreeSet<String>>,
    uses: HashMap<(String, String), BTreeSet<(ObjectKind, String)>>,
}

impl ReferenceIndex {
    /// Replaces the references of `group`.
    pub fn update(&self, namespace: &str, group: &str, named: BTreeSet<(ObjectKind, String)>) {
        let key = (namespace.to_string(), group.to_string());
        let mut index = sync::write(&self.0);
        if index.uses.get(&key) == Some(&named) {
            return;
        }
        for (kind, name) in index.uses.remove(&key).unwrap_or_default() {
            let object = (kind, namespace.to_string(), name);
            if let Some(users) = index.users.get_mut(&object) {
                users.remove(group);
                if users.is_empty() {
                    index.users.remove(&object);
                }
            }
        }
        for (kind, name) in &named {
            let object = (*kind, namespace.to_string(), name.clone());
            index.users.entry(object).or_default().insert(group.to_string());
        }
        if !named.is_empty() {
            index.uses.insert(key, named);
        }
    }

    /// Groups that reference this object.
    pub fn users(&self, kind: ObjectKind, namespace: &str, name: &str) -> Vec<GroupRef> {
        let index = sync::read(&self.0);
        let users = index.users.get(&(kind, namespace.to_string(), name.to_string()));
        users
            .into_iter()
            .flatten()
            .map(|group| GroupRef::new(group).within(namespace))
            .collect()
    }
}

/// Starts all watches of a scope. Calls `deleted` with each group that no longer exists.
pub fn watch(
    client: &Client,
    namespace: Option<&str>,
    index: &Arc<ReferenceIndex>,
    deleted: impl Fn(&GroupRef) + Send + 'static,
) -> (Caches, ReconcileRequests) {
    let groups_filled = Filled::default();
    let (groups, groups_requests) = watch_groups(api(client, namespace), groups_filled.clone(), deleted);
    let (deployments, deployments_requests) = watch_children(api::<Deployment>(client, namespace));
    let (service_accounts, accounts_requests) = watch_children(api(client, namespace));
    let (roles, roles_requests) = watch_children(api(client, namespace));
    let (role_bindings, bindings_requests) = watch_children(api(client, namespace));
    let (disruption_budgets, budgets_requests) = watch_children(api(client, namespace));
    let (secrets, secrets_requests) = watch_named(api(client, namespace), ObjectKind::Secret, index.clone());
    let (config_maps, maps_requests) =
        watch_named(api(client, namespace), ObjectKind::ConfigMap, index.clone());
    let deleted_pods = Arc::new(DeletedPods::default());
    let (pods, pods_requests) = watch_pods(api(client, namespace), groups.clone(), deleted_pods.clone());
    let requests = stream::select_all([
        groups_requests,
        deployments_requests,
        accounts_requests,
        roles_requests,
        bindings_requests,
        budgets_requests,
        secrets_requests,
        maps_requests,
        pods_requests,
    ]);
    let caches = Caches {
        groups,
        groups_filled,
        deployments,
        pods,
        secrets,
        config_maps,
        service_accounts,
        roles,
        role_bindings,
        disruption_budgets,
        deleted_pods,
        waited: Arc::default(),
    };
    (caches, requests.boxed())
}

/// The API of a kind in one namespace, or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch_groups(
    api: Api<Guarded>,
    filled: Filled,
    deleted: impl Fn(&GroupRef) + Send + 'static,
) -> (Store<Guarded>, ReconcileRequests) {
    let (store, writer) = reflector::store();
    let present = store.clone();
    let mut known: BTreeSet<(Option<String>, String)> = BTreeSet::new();
    let requests = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(drop_bookkeeping)
        .reflect(writer)
        .inspect_ok(move |event| match event {
            watcher::Event::Apply(group) | watcher::Event::InitApply(group) => {
                known.insert((group.namespace(), group.name_any()));
            }
            watcher::Event::Delete(group) => {
                known.remove(&(group.namespace(), group.name_any()));
                deleted(&GroupRef::from_obj(group));
            }
            watcher::Event::Init => {}
            // Deletions during an interruption of the watch are visible only here.
            watcher::Event::InitDone => {
                filled.set();
                known.retain(|(namespace, name)| {
                    let mut group = GroupRef::new(name);
                    group.namespace = namespace.clone();
                    let kept = present.get(&group).is_some();
                    if !kept {
                        deleted(&group);
                    }
                    kept
                });
            }
        })
        .applied_objects()
        .predicate_filter(spec_or_metadata, Default::default())
        .map_ok(|group| GroupRef::from_obj(&group));
    (store, requests.boxed())
}

/// Watches only the groups, as long as the stream is polled: for an operator that stands by.
pub fn watch_groups_only(
    client: &Client,
    namespace: Option<&str>,
) -> (
    Store<Guarded>,
    Filled,
    BoxStream<'static, Result<(), watcher::Error>>,
) {
    let (store, writer) = reflector::store();
    let filled = Filled::default();
    let done = filled.clone();
    let events = watcher(api::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(drop_bookkeeping)
        .reflect(writer)
        .map_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                done.set();
            }
        });
    (store, filled, events.boxed())
}

/// Changes when a user changes something; not when a status is written.
fn spec_or_metadata(group: &Guarded) -> Option<u64> {
    let meta = group.meta();
    let mut hasher = DefaultHasher::new();
    (
        &meta.uid,
        meta.generation,
        &meta.annotations,
        &meta.labels,
        meta.deletion_timestamp.is_some(),
    )
        .hash(&mut hasher);
    Some(hasher.finish())
}

/// Children have our label and an owner reference.
fn watch_children<K>(api: Api<K>) -> (Store<K>, ReconcileRequests)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    let (store, writer) = reflector::store();
    let requests = observe(
        api,
        watcher::Config::default().labels(GROUP_LABEL),
        writer,
        drop_bookkeeping,
    )
    .map_ok(|child| stream::iter(owner(&child).map(Ok)))
    .try_flatten();
    (store, requests.boxed())
}

/// Objects that groups reference by name, and ConfigMaps that they own.
fn watch_named<K>(
    api: Api<PartialObjectMeta<K>>,
    kind: ObjectKind,
    index: Arc<ReferenceIndex>,
) -> (Store<PartialObjectMeta<K>>, ReconcileRequests)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let drop_most = |object: &mut PartialObjectMeta<K>| {
        drop_bookkeeping(object);
        object.metadata.annotations = None;
        object.metadata.labels = None;
    };
    let requests = observe(api, watcher::Config::default(), writer, drop_most)
        .map_ok(move |object| {
            let namespace = object.namespace().unwrap_or_default();
            let mut groups = index.users(kind, &namespace, &object.name_any());
            groups.extend(owner(&object));
            stream::iter(groups.into_iter().map(Ok))
        })
        .try_flatten();
    (store, requests.boxed())
}

/// Pods show why workers are missing, and which have ended; only a change of those facts requests a reconcile
/// of the group. A container that ended and restarted between two updates looks as before, except for the
/// time of its last end.
fn watch_pods(
    api: Api<Pod>,
    groups: Store<Guarded>,
    deleted_pods: Arc<DeletedPods>,
) -> (Store<Pod>, ReconcileRequests) {
    let (store, writer) = reflector::store();
    let drop_spec = |pod: &mut Pod| {
        drop_bookkeeping(pod);
        pod.spec = None;
    };
    let config = watcher::Config::default().labels(&format!("app.kubernetes.io/name={WORKER_APP}"));
    let requests = observe(api, config, writer, drop_spec)
        .inspect_ok(move |pod| deleted_pods.note(pod))
        .predicate_filter(notable, Default::default())
        .map_ok(move |pod| {
            let label = pod.labels().get(GROUP_LABEL).cloned().unwrap_or_default();
            let namespace = pod.namespace();
            let mine = groups
                .find(|group| group.namespace() == namespace && group_label(&group.name_any()) == label);
            stream::iter(mine.map(|group| Ok(GroupRef::from_obj(&*group))))
        })
        .try_flatten();
    (store, requests.boxed())
}

fn notable(pod: &Pod) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (PodFacts::of(pod), Termination::of(pod)).hash(&mut hasher);
    Some(hasher.finish())
}

fn observe<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    trim: impl FnMut(&mut K) + Send + 'static,
) -> impl futures::Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    watcher(api, config)
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .touched_objects()
}

/// managedFields make up half of an object and are not used.
fn drop_bookkeeping<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// The group that owns `child`.
pub fn owner<K: Resource>(child: &K) -> Option<GroupRef> {
    let owners = child.meta().owner_references.as_ref()?;
    let group = owners.iter().find(|owner| {
        owner.kind == KafkaConsumerGroup::kind(&()) && owner.api_version.split('/').next() == Some(API_GROUP)
    })?;
    Some(GroupRef::new(&group.name).within(child.meta().namespace.as_deref()?))
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;

    use super::*;
    use crate::fixtures::{group, validated};

    #[test]
    fn the_index_follows_the_references_of_groups() {
        let index = ReferenceIndex::default();
        let secret = |name: &str| (ObjectKind::Secret, name.to_string());
        index.update("shop", "orders", [secret("a"), secret("b")].into());
        index.update("shop", "returns", [secret("b")].into());
        assert_eq!(index.users(ObjectKind::Secret, "shop", "b").len(), 2);
        assert_eq!(index.users(ObjectKind::Secret, "other", "b").len(), 0);
        assert_eq!(index.users(ObjectKind::ConfigMap, "shop", "b").len(), 0);
        index.update("shop", "orders", [secret("a")].into());
        assert_eq!(index.users(ObjectKind::Secret, "shop", "b")[0].name, "returns");
        index.update("shop", "returns", BTreeSet::new());
        assert!(index.users(ObjectKind::Secret, "shop", "b").is_empty());
    }

    #[test]
    fn a_spec_change_requests_a_reconcile_and_a_status_write_does_not() {
        let guarded = |edit: fn(&mut KafkaConsumerGroup)| {
            let mut group = group();
            edit(&mut group);
            DeserializeGuard(Ok(group))
        };
        let before = spec_or_metadata(&guarded(|_| {}));
        let status = guarded(|group| {
            group.status = Some(Default::default());
            group.metadata.resource_version = Some("99".into());
        });
        assert_eq!(before, spec_or_metadata(&status));
        assert_ne!(
            before,
            spec_or_metadata(&guarded(|group| group.metadata.generation = Some(9)))
        );
    }

    #[test]
    fn a_container_that_ended_and_restarted_between_two_updates_requests_a_reconcile() {
        let pod = |finished: Option<&str>| {
            let last = finished.map(|at| serde_json::json!({"exitCode": 137, "finishedAt": at}));
            let pod = serde_json::json!({
                "metadata": {"name": "orders-worker-abc"},
                "status": {"containerStatuses": [{
                    "name": "worker", "image": "", "imageID": "", "ready": true, "restartCount": 1,
                    "state": {"running": {"startedAt": "2026-11-30T02:00:01Z"}},
                    "lastState": {"terminated": last},
                }]},
            });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        let (never, once, twice) = (
            pod(None),
            pod(Some("2026-11-30T02:00:00Z")),
            pod(Some("2026-11-30T02:00:09Z")),
        );
        assert_eq!(PodFacts::of(&never), PodFacts::of(&twice));
        assert_ne!(notable(&never), notable(&once));
        assert_ne!(notable(&once), notable(&twice));
        assert_eq!(notable(&once), notable(&once.clone()));
    }

    #[test]
    fn children_lead_to_their_owner() {
        let child = super::super::build::rbac::service_account(&validated());
        let owner = owner(&child).unwrap();
        assert_eq!(
            (owner.name.as_str(), owner.namespace.as_deref()),
            ("orders", Some("shop"))
        );
    }
}
