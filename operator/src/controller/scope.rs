//! What the stages of a reconcile share. In: clients, defaults, a namespace. Out: [`Context`], one per
//! process, and [`Scope`], one per watched namespace: caches, limits on concurrency, what is remembered of
//! each group. Decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crds::KafkaConsumerGroup;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::caches::{Caches, GroupRef};
use super::leases::Leases;
use super::memory::GroupMemory;
use super::replays::{self, GuardedReplay};
use super::resets::{ResetRef, Resets};
use super::rollouts::Rollouts;
use super::watches::{self, ReconcileRequests, ReferenceIndex};
use super::worker_reports::{ReadReports, Target, WorkerReports};
use crate::compiler::Programs;
use crate::group::validate::{ReportMode, WorkerDefaults};
use crate::kafka::KafkaClients;
use crate::kafka::model::GroupKey;
use crate::sync::lock;
use crate::telemetry::Metrics;

/// Reconciles that access the API server concurrently: enough for thousands of groups, few enough not to
/// affect the priority queues of the API server.
const MAX_CONCURRENT_RECONCILES: usize = 16;
/// What all scopes share; one per process.
pub struct Context {
    pub client: Client,
    pub kafka: KafkaClients,
    pub metrics: Arc<Metrics>,
    pub defaults: WorkerDefaults,
    /// Time between two reads from Kafka.
    pub refresh: Duration,
    /// This installation in `status.operator`: namespace and name of its lease.
    pub installation: String,
    pub(super) leases: Leases,
    pub(super) rollouts: Rollouts,
    pub(super) programs: Arc<Programs>,
    /// What workers report.
    pub(super) reports: Arc<WorkerReports>,
    recorder: Recorder,
    slots: Semaphore,
}

impl Context {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, with everything that a process has one of"
    )]
    pub fn new(
        client: Client,
        kafka: KafkaClients,
        metrics: Arc<Metrics>,
        defaults: WorkerDefaults,
        refresh: Duration,
        identity: String,
        installation: String,
        rollouts: Rollouts,
    ) -> Self {
        let controller = crds::names::OPERATOR_MANAGER.to_string();
        let reporter = Reporter {
            controller,
            instance: Some(identity),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let slots = Semaphore::new(MAX_CONCURRENT_RECONCILES);
        let programs = Arc::new(Programs::of_this_program());
        Self {
            client,
            kafka,
            metrics,
            defaults,
            refresh,
            installation,
            leases: Leases::default(),
            rollouts,
            programs,
            reports: Arc::default(),
            recorder,
            slots,
        }
    }
}

/// One namespace, or all of them: its watches and the memory of its groups.
pub struct Scope {
    pub context: Arc<Context>,
    pub caches: Caches,
    pub resets: Resets,
    pub replays: Store<GuardedReplay>,
    pub index: Arc<ReferenceIndex>,
    memories: Arc<Memories>,
}

/// What to reconcile in a scope.
pub struct Requests {
    pub groups: ReconcileRequests,
    pub resets: UnboundedReceiver<ResetRef>,
    pub replays: replays::Changes,
}

type Memories = Mutex<HashMap<(String, String), Arc<tokio::sync::Mutex<GroupMemory>>>>;

impl Scope {
    /// Starts the watches of one namespace, or of all.
    pub fn start(context: Arc<Context>, namespace: Option<&str>) -> (Arc<Self>, Requests) {
        let index = Arc::new(ReferenceIndex::default());
        let memories = Arc::new(Memories::default());
        let forget = {
            let (context, index, memories) = (context.clone(), index.clone(), memories.clone());
            move |group: &GroupRef| {
                let namespace = group.namespace.clone().unwrap_or_default();
                forget(&context, &index, &memories, &namespace, &group.name);
            }
        };
        let (caches, watched) = watches::watch(&context.client, namespace, &index, forget);
        let kafka = changes(context.kafka.changes(), namespace);
        let reports = changes(context.reports.changes(), namespace);
        let (resets, changed) = Resets::start(watches::api(&context.client, namespace));
        let (replays, of_replays) = replays::start(watches::api(&context.client, namespace));
        let holds = changes(changed.groups, namespace);
        let groups = stream::select_all([watched, kafka, reports, holds]).boxed();
        let requests = Requests {
            groups,
            resets: changed.resets,
            replays: of_replays,
        };
        let scope = Self {
            context,
            caches,
            resets,
            replays,
            index,
            memories,
        };
        (Arc::new(scope), requests)
    }

    /// Waits for a slot at the API server.
    pub async fn api_slot(&self) -> Option<SemaphorePermit<'_>> {
        self.context.slots.acquire().await.ok()
    }

    /// The last reports of the workers of a group; reads them again if it is time. None: workers write their
    /// reports themselves.
    pub(super) fn read_reports(&self, group: &KafkaConsumerGroup, pods: &[Arc<Pod>]) -> Option<ReadReports> {
        if self.context.defaults.reports == ReportMode::Push {
            return None;
        }
        let key = GroupKey::new(&group.namespace().unwrap_or_default(), &group.name_any());
        let targets = pods.iter().map(|pod| Target::of(pod)).collect();
        let old = group.status.as_ref().map(|status| status.workers.as_slice());
        Some(self.context.reports.of(&key, targets, old.unwrap_or_default()))
    }

    /// Publishes an Event. A failure is logged and ignored.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.context.recorder.publish(event, about).await {
            tracing::warn!(reason = event.reason, %error, "cannot publish the Event");
        }
    }

    /// Drops everything that is remembered of a deleted group.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        forget(&self.context, &self.index, &self.memories, namespace, name);
    }

    /// The memory of one group. Whoever holds its lock is alone: the group is not reconciled meanwhile.
    pub fn memory(&self, namespace: &str, name: &str) -> Arc<tokio::sync::Mutex<GroupMemory>> {
        let mut memories = lock(&self.memories);
        memories
            .entry((namespace.to_string(), name.to_string()))
            .or_default()
            .clone()
    }
}

fn forget(context: &Context, index: &ReferenceIndex, memories: &Memories, namespace: &str, name: &str) {
    index.update(namespace, name, Default::default());
    context.metrics.forget(namespace, name);
    let key = GroupKey::new(namespace, name);
    context.kafka.forget(&key);
    context.rollouts.done(&key);
    context.reports.forget(&key);
    lock(memories).remove(&(namespace.to_string(), name.to_string()));
}

/// Groups of this scope whose Kafka facts, or whose workers' reports, have changed.
fn changes(changes: UnboundedReceiver<GroupKey>, namespace: Option<&str>) -> ReconcileRequests {
    let namespace = namespace.map(String::from);
    let changes = stream::unfold(changes, async |mut changes| {
        Some((changes.recv().await?, changes))
    });
    changes
        .filter_map(move |group| {
            let ours = namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == group.namespace);
            let request = ours.then(|| Ok(GroupRef::new(&group.name).within(&group.namespace)));
            std::future::ready(request)
        })
        .boxed()
}
