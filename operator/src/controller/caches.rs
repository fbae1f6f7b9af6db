//! Read-only views of everything that the operator watches, for the stages of a reconcile and for other
//! readers. In: what the watches deliver. Out: objects by name. Secrets and ConfigMaps are metadata only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crds::KafkaConsumerGroup;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::OnceCell;

use super::terminations::DeletedPods;

/// A resource that may fail to parse: one malformed object must not stop the watch.
pub type Guarded = DeserializeGuard<KafkaConsumerGroup>;
/// The key of a group in the queue.
pub type GroupRef = ObjectRef<Guarded>;

/// Whether a cache was filled once. For readers that must not wait: of all tasks that wait for a store at the
/// same time, kube wakes only the one that has asked last.
#[derive(Clone, Debug, Default)]
pub struct Filled(Arc<AtomicBool>);

impl Filled {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The caches of one scope.
#[derive(Clone)]
pub struct Caches {
    pub groups: Store<Guarded>,
    pub groups_filled: Filled,
    pub deployments: Store<Deployment>,
    pub pods: Store<Pod>,
    pub secrets: Store<PartialObjectMeta<Secret>>,
    pub config_maps: Store<PartialObjectMeta<ConfigMap>>,
    pub service_accounts: Store<PartialObjectMeta<ServiceAccount>>,
    pub roles: Store<PartialObjectMeta<Role>>,
    pub role_bindings: Store<PartialObjectMeta<RoleBinding>>,
    pub disruption_budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
    pub deleted_pods: Arc<DeletedPods>,
    /// Set once all caches are filled. Only one task waits for the caches, and the others wait for it: see
    /// [`Filled`].
    pub waited: Arc<OnceCell<()>>,
}

impl Caches {
    /// Waits until every cache is filled; before that, a missing object means nothing.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.waited.get_or_try_init(|| self.filled()).await.copied()
    }

    async fn filled(&self) -> Result<(), WriterDropped> {
        self.groups.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.service_accounts.wait_until_ready().await?;
        self.roles.wait_until_ready().await?;
        self.role_bindings.wait_until_ready().await?;
        self.disruption_budgets.wait_until_ready().await
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store;
    use kube::runtime::watcher::Event;

    use super::*;

    #[tokio::test]
    async fn all_tasks_that_wait_continue_when_the_caches_are_filled() {
        let (groups, mut groups_writer) = store();
        let (deployments, mut deployments_writer) = store();
        let (pods, mut pods_writer) = store();
        let (secrets, mut secrets_writer) = store();
        let (config_maps, mut maps_writer) = store();
        let (service_accounts, mut accounts_writer) = store();
        let (roles, mut roles_writer) = store();
        let (role_bindings, mut bindings_writer) = store();
        let (disruption_budgets, mut budgets_writer) = store();
        let caches = Caches {
            groups,
            groups_filled: Filled::default(),
            deployments,
            pods,
            secrets,
            config_maps,
            service_accounts,
            roles,
            role_bindings,
            disruption_budgets,
            deleted_pods: Arc::default(),
            waited: Arc::default(),
        };
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let caches = caches.clone();
                tokio::spawn(async move { caches.ready().await })
            })
            .collect();
        tokio::task::yield_now().await;
        groups_writer.apply_watcher_event(&Event::InitDone);
        deployments_writer.apply_watcher_event(&Event::InitDone);
        pods_writer.apply_watcher_event(&Event::InitDone);
        secrets_writer.apply_watcher_event(&Event::InitDone);
        maps_writer.apply_watcher_event(&Event::InitDone);
        accounts_writer.apply_watcher_event(&Event::InitDone);
        roles_writer.apply_watcher_event(&Event::InitDone);
        bindings_writer.apply_watcher_event(&Event::InitDone);
        budgets_writer.apply_watcher_event(&Event::InitDone);
        for task in waiting {
            let ready = tokio::time::timeout(std::time::Duration::from_secs(30), task).await;
            assert!(ready.unwrap().unwrap().is_ok());
        }
    }
}
