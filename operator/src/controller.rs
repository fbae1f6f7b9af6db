//! The Kubernetes controller. In: a client, the watched namespaces, a Kafka client pool. Out: groups that are as their
//! resources say, and statuses that say how they are. `reconcile` is the table of contents; each stage is a module.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod diff;
pub mod memory;
pub mod names;
pub mod pods;
pub mod provision;
pub mod update_status;
pub mod watches;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use crds::spec::StartPositionType;
use crds::worker_config::group_id;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::controller::{Action, Error as QueueError};
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::runtime::{Config, applier, watcher};
use kube::{Client, Resource, ResourceExt};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::group::scaling;
use crate::group::validate::{self, Programs, Rejection, ValidatedGroup, WorkerDefaults};
use crate::kafka::KafkaClients;
use crate::telemetry::Metrics;
use build::{Applied, Resources};
use dereference::Observed;
use memory::Memory;
use pods::PodFacts;
use update_status::compute::{Computed, Failure, Inputs, compute};
use watches::{Caches, GroupRef, Guarded, ReferenceIndex, Wakes};

/// Reconciles that talk to the API server at the same time: enough for thousands of groups, little enough that the
/// server's priority queues do not notice.
const TURNS: usize = 16;
/// Groups that wait for Kafka at the same time. Each may hold a thread of tokio's blocking pool (512) for seconds when
/// its brokers are away, and the rest of the pool must stay free for the others.
const KAFKA_TURNS: usize = 256;
/// Events come in bursts (a rollout changes Deployment and pods together); one look is enough for all of them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// One look at one group. Kafka alone may take 10 s for facts and 20 s for each of three changes; what takes longer than
/// all of it hangs, and would keep its turn at the API server for ever.
const LONGEST_LOOK: Duration = Duration::from_secs(120);

/// What all scopes share.
pub struct Context {
    pub client: Client,
    pub kafka: KafkaClients,
    pub metrics: Arc<Metrics>,
    pub defaults: WorkerDefaults,
    /// Time between two looks at Kafka.
    pub refresh: Duration,
    programs: Programs,
    recorder: Recorder,
    turns: Semaphore,
    kafka_turns: Semaphore,
}

impl Context {
    pub fn new(
        client: Client,
        kafka: KafkaClients,
        metrics: Arc<Metrics>,
        defaults: WorkerDefaults,
        refresh: Duration,
        identity: String,
    ) -> Self {
        let controller = crds::names::OPERATOR_MANAGER.to_string();
        let reporter = Reporter {
            controller,
            instance: Some(identity),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let (turns, kafka_turns) = (Semaphore::new(TURNS), Semaphore::new(KAFKA_TURNS));
        let programs = Programs::default();
        Self {
            client,
            kafka,
            metrics,
            defaults,
            refresh,
            programs,
            recorder,
            turns,
            kafka_turns,
        }
    }
}

/// One namespace, or all of them: its watches and what is remembered of its groups.
pub struct Scope {
    pub context: Arc<Context>,
    pub caches: Caches,
    pub index: Arc<ReferenceIndex>,
    memories: Arc<Memories>,
}

type Memories = Mutex<HashMap<(String, String), Arc<tokio::sync::Mutex<Memory>>>>;

impl Scope {
    /// Starts the watches of a namespace, or of all.
    pub fn start(context: Arc<Context>, namespace: Option<&str>) -> (Arc<Self>, Wakes) {
        let index = Arc::new(ReferenceIndex::default());
        let memories = Arc::new(Memories::default());
        let forget = {
            let (context, index, memories) = (context.clone(), index.clone(), memories.clone());
            move |group: &GroupRef| {
                let namespace = group.namespace.clone().unwrap_or_default();
                index.update(&namespace, &group.name, Default::default());
                context.metrics.forget(&namespace, &group.name);
                let mut memories = memories.lock().unwrap_or_else(PoisonError::into_inner);
                memories.remove(&(namespace, group.name.clone()));
            }
        };
        let (caches, wakes) = watches::watch(&context.client, namespace, &index, forget);
        (
            Arc::new(Self {
                context,
                caches,
                index,
                memories,
            }),
            wakes,
        )
    }

    /// Waits for a turn at the API server.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.context.turns.acquire().await.ok()
    }

    /// Waits for a turn at Kafka.
    pub async fn kafka_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.context.kafka_turns.acquire().await.ok()
    }

    /// Publishes an Event; a lost one is no reason to fail.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.context.recorder.publish(event, about).await {
            tracing::warn!(reason = event.reason, %error, "event not published");
        }
    }

    fn memory(&self, namespace: &str, name: &str) -> Arc<tokio::sync::Mutex<Memory>> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories
            .entry((namespace.to_string(), name.to_string()))
            .or_default()
            .clone()
    }
}

/// Which stage failed. What a user can act on is in the status too.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Dereference(#[from] dereference::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Status(#[from] update_status::Error),
    #[error("the reconcile did not end within {} s", LONGEST_LOOK.as_secs())]
    Timeout,
    #[error("the reconcile ended by a panic: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Label of `kcg_reconcile_errors_total`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dereference(_) => "dereference",
            Self::Apply(error) => error.reason(),
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Task(_) => "panic",
        }
    }
}

/// Looks at one group: the table of contents.
async fn reconcile(scope: &Scope, group: &KafkaConsumerGroup, memory: &mut Memory) -> Result<Action, Error> {
    let context = &scope.context;
    let mut observed = dereference::dereference(scope, group, memory).await?; // (client)
    let verdict = validate::validate(group, &observed, &context.programs, &context.defaults); // (pure)
    let outcome = match &verdict {
        Ok(valid) => carry_out(scope, valid, &mut observed, memory).await,
        Err(_) => Outcome::untouched(apply::stop_rejected(scope, group, &observed).await), // (client)
    };
    if matches!(outcome.applied, Err(apply::Error::Gone)) {
        return Ok(Action::await_change());
    }
    let computed = tell(group, &verdict, &observed, &outcome, memory); // (pure)
    if computed.healthy {
        memory.healthy_at = Some(Instant::now());
    }
    context.metrics.observe(group, &computed.status, &observed.kafka);
    let events = update_status::events::provisioned(&outcome.provisioned.provisioned);
    update_status::update_status(scope, group, computed.status, events, memory).await?; // (client)
    outcome.applied.map_err(Error::Apply)?;
    memory.failures = 0;
    let generation = group.metadata.generation.unwrap_or_default();
    let next = memory.next_look(generation, computed.converging, context.refresh, Instant::now());
    Ok(Action::requeue(next))
}

/// What was done for an accepted group.
async fn carry_out(
    scope: &Scope,
    valid: &ValidatedGroup,
    observed: &mut Observed,
    memory: &mut Memory,
) -> Outcome {
    let provisioned = provision::provision(scope, valid, observed, memory).await; // (client)
    let earliest = valid.spec.consumer.start_position.kind == StartPositionType::Earliest;
    let facts = scaling::Facts {
        partitions: observed.partitions(&valid.spec),
        current: observed.current_replicas(),
        may_start: earliest || observed.positions_settled,
    };
    let decision = scaling::decide(&valid.spec, facts); // (pure)
    let prepared = build::build(valid, &decision, observed.positions_settled); // (pure)
    let mut applied = apply::apply(scope, valid, prepared, observed, memory)
        .await
        .map(Some); // (client)
    if applied.is_ok() {
        let seeded = apply::seed_replicas(scope, &valid.namespace, &valid.name, &valid.spec, &decision);
        applied = seeded.await.and(applied); // (client)
    }
    Outcome {
        provisioned,
        decision: Some(decision),
        applied,
    }
}

/// What a reconcile did.
struct Outcome {
    provisioned: provision::Outcome,
    decision: Option<scaling::Decision>,
    applied: Result<Option<Resources<Applied>>, apply::Error>,
}

impl Outcome {
    fn untouched(stopped: Result<(), apply::Error>) -> Self {
        Self {
            provisioned: provision::Outcome::default(),
            decision: None,
            applied: stopped.map(|()| None),
        }
    }
}

/// The status that follows from all of it.
fn tell(
    group: &KafkaConsumerGroup,
    verdict: &Result<ValidatedGroup, Rejection>,
    observed: &Observed,
    outcome: &Outcome,
    memory: &mut Memory,
) -> Computed {
    let old = group.status.clone().unwrap_or_default();
    let now = Instant::now();
    // After a restart the status is all there is to remember by.
    let was_ready = update_status::conditions::is_true(&old.conditions, crds::status::condition::READY);
    if memory.healthy_at.is_none() && memory.written.is_none() && was_ready {
        memory.healthy_at = Some(now);
    }
    let not_applied = outcome.applied.as_ref().err().map(|error| Failure {
        reason: error.reason().into(),
        message: error.to_string(),
        needs_human: error.needs_human(),
    });
    let not_provisioned = outcome.provisioned.problem.as_ref().map(|problem| Failure {
        reason: problem.reason.into(),
        message: problem.message.clone(),
        needs_human: problem.reason != "KafkaUnreachable",
    });
    let applied = outcome.applied.as_ref().ok().and_then(Option::as_ref);
    let pods: Vec<PodFacts> = observed.pods.iter().map(|pod| PodFacts::of(pod)).collect();
    compute(&Inputs {
        name: &group.name_any(),
        generation: group.metadata.generation,
        spec: &group.spec,
        group_id: group_id(
            &group.namespace().unwrap_or_default(),
            &group.name_any(),
            &group.spec,
        ),
        image: verdict.as_ref().ok().map(|valid| valid.image.as_str()),
        acceptance: verdict.as_ref().map(|valid| valid.warning.as_ref()),
        kafka: &observed.kafka,
        decision: outcome.decision.as_ref(),
        deployment: applied
            .map(|applied| &applied.deployment)
            .or(observed.deployment.as_deref()),
        pods: &pods,
        failure: not_applied.as_ref().or(not_provisioned.as_ref()),
        old: &old,
        settling: memory.settling(now),
        now: jiff::Timestamp::now(),
    })
}

/// Runs until `stop` resolves; reconciles that have begun are finished.
pub fn run(
    scope: Arc<Scope>,
    wakes: Wakes,
    stop: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<(GroupRef, Action), QueueError<Error, watcher::Error>>> {
    let store = scope.caches.groups.clone();
    let config = Config::default().debounce(DEBOUNCE);
    applier(
        enter,
        error_policy,
        scope,
        store,
        wakes.take_until(stop.boxed()),
        config,
    )
}

type Reconciling = Pin<Box<dyn Future<Output = Result<Action, Error>> + Send>>;

/// A task of its own for each reconcile: groups do not wait for each other, and a panic stays where it is.
fn enter(guarded: Arc<Guarded>, scope: Arc<Scope>) -> Reconciling {
    let task = async move {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        if guarded.meta().deletion_timestamp.is_some() {
            // Children go by their owner references; there is nothing to clean.
            return Ok(Action::await_change());
        }
        let measure = scope.context.metrics.reconcile();
        let memory = scope.memory(&namespace, &name);
        let mut memory = memory.lock().await;
        let done = match &guarded.0 {
            Ok(group) => {
                let look = reconcile(&scope, group, &mut memory);
                tokio::time::timeout(LONGEST_LOOK, look)
                    .await
                    .unwrap_or(Err(Error::Timeout))
            }
            Err(invalid) => update_status::reject_unreadable(&scope, &namespace, &name, &invalid.error)
                .await
                .map(|()| Action::requeue(scope.context.refresh))
                .map_err(Error::Status),
        };
        measure.done(done.as_ref().err().map(Error::kind));
        done
    };
    Box::pin(tokio::spawn(task).map(|joined| joined.map_err(Error::Task)?))
}

fn error_policy(guarded: Arc<Guarded>, error: &Error, scope: Arc<Scope>) -> Action {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let memory = scope.memory(&namespace, &name);
    // Never held here: a group is not reconciled twice at a time.
    let wait = memory
        .try_lock()
        .map_or(Duration::from_secs(5), |mut memory| memory.backoff());
    tracing::warn!(namespace, name, %error, wait_seconds = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}
