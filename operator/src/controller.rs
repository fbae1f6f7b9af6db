//! The Kubernetes controller. In: a client, the watched namespaces, a Kafka client pool. Out: workers as the
//! resources specify, and a status of each group. `reconcile` lists the stages in order; each stage is a
//! module.

pub mod apply;
pub mod board;
pub mod build;
pub mod caches;
pub mod claims;
pub mod dead_letter_places;
pub mod dead_workers;
pub mod dereference;
pub mod diff;
pub mod error;
pub mod known_members;
pub mod leases;
pub mod members;
pub mod memory;
pub mod names;
mod optional_watch;
pub mod outcome;
pub mod pods;
pub mod provision;
pub mod replays;
pub mod replicas;
pub mod resets;
pub mod rollouts;
pub mod scope;
pub mod terminations;
pub mod update_status;
pub mod validated;
pub mod watches;
pub mod worker_reports;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use crds::spec::StartPositionType;
use crds::status::condition::READY;
use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::controller::{Action, Error as QueueError};
use kube::runtime::{Config, applier, watcher};
use kube::{Resource, ResourceExt};

use crate::group::id::id_of;
use crate::group::observed::Observed;
use crate::group::rejection::Rejection;
use crate::group::scaling::{self, Start};
use crate::group::validate::{NOT_COMPILED, ValidatedGroup, sources, validate};
use apply::ApplyError;
use caches::{GroupRef, Guarded};
use dereference::DereferenceError;
use error::{RECONCILE_TIMEOUT, ReconcileError};
use memory::GroupMemory;
use outcome::ReconcileOutcome;
use pods::PodFacts;
use scope::Scope;
use update_status::compute::inputs::{Failure, Inputs};
use update_status::compute::{Computed, compute};
use watches::ReconcileRequests;

/// Watch events arrive in bursts (a rollout changes Deployment and pods together); one reconcile handles all
/// of them.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Time until the next reconcile of a group for which only events count.
const QUIET_REQUEUE: Duration = Duration::from_secs(300);

/// Time until the next reconcile while a condition may end with time alone.
const UNDECIDED: Duration = Duration::from_secs(5);

/// Time until the next check whether the other operator that serves a group still does.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Reconciles one group, stage by stage.
async fn reconcile(
    scope: &Scope,
    group: &KafkaConsumerGroup,
    memory: &mut GroupMemory,
) -> Result<Action, ReconcileError> {
    let context = &scope.context;
    scope.caches.ready().await.map_err(DereferenceError::from)?;
    if let Some(other) = claims::served_by_another(scope, group, memory).await? {
        claims::step_back(scope, group, other, memory).await; // (client)
        return Ok(Action::requeue(context.refresh.min(TAKEOVER)));
    }
    scope.resets.ready().await;
    let hold = scope.resets.hold_of(group);
    let stopped = apply::stop(scope, group, hold.is_some(), memory).await; // (client)
    let mut observed = dereference::dereference(scope, group, memory).await?; // (client)
    let removal_due = dead_workers::remove(scope, group, &observed, memory).await; // (client)
    let others = members::others_of(scope, group, &observed, memory); // (pure)
    let sources = sources(group, &observed);
    let namespace = group.namespace().unwrap_or_default();
    context.programs.prepare(&namespace, sources).await; // (process)
    let mut verdict = validate(group, &observed, &context.programs, &context.defaults); // (pure)
    let deployment = observed.deployment.clone();
    let valid = verdict.as_mut().ok();
    let waiting_image = valid.and_then(|valid| context.rollouts.hold(valid, deployment.as_deref())); // (pure)
    let mut outcome = match &verdict {
        Ok(valid) if stopped.is_ok() => {
            let others = others.present;
            reconcile_accepted(scope, valid, &mut observed, memory, others, hold.as_deref()).await
        }
        _ => ReconcileOutcome::untouched(stopped),
    };
    (outcome.waiting_image, outcome.shared, outcome.hold) = (waiting_image, others.shared, hold);
    let waits_for_compiler = verdict
        .as_ref()
        .is_err_and(|rejection| rejection.reason == NOT_COMPILED);
    memory.unjudged_since = memory
        .unjudged_since
        .or_else(|| Some(Instant::now()))
        .filter(|_| waits_for_compiler);
    if matches!(outcome.applied, Err(ApplyError::Gone)) {
        return Ok(Action::await_change());
    }
    outcome.reports = scope.read_reports(group, &observed.pods); // (client, in the background)
    let computed = compute_status(
        &context.installation,
        group,
        &verdict,
        &observed,
        &outcome,
        memory,
    ); // (pure)
    if computed.healthy {
        memory.healthy_at = Some(Instant::now());
    }
    context.metrics.observe(group, &computed.status, &observed.kafka);
    let quiet = !waits_for_compiler && is_quiet(group, &observed, &outcome, &computed, memory);
    let mut events = update_status::events::provisioned(&outcome.provisioned.provisioned);
    events.extend(update_status::events::not_positioned(
        &outcome.provisioned.skipped,
    ));
    events.extend(update_status::events::restored(&std::mem::take(
        &mut memory.restored,
    )));
    let converging = computed.converging;
    update_status::update_status(scope, group, computed, events, memory).await?; // (client)
    outcome.applied.map_err(ReconcileError::Apply)?;
    memory.failures = 0;
    let generation = group.metadata.generation.unwrap_or_default();
    let next = if quiet {
        QUIET_REQUEUE
    } else {
        memory.next_requeue(generation, converging, context.refresh, Instant::now())
    };
    // Both end with time alone: a member without a pod counts as another's after a moment, and a child counts
    // as contested until it was left unchanged.
    let undecided = memory.members.is_undecided() || memory.contested(Instant::now()).is_some();
    let next = if undecided { next.min(UNDECIDED) } else { next };
    let next = match observed.pods.is_empty() {
        true => next,
        false => next.min(worker_reports::INTERVAL),
    };
    Ok(Action::requeue(removal_due.map_or(next, |due| next.min(due))))
}

/// Nothing about the group depends on time: nothing has failed that could be tried again, it has no workers,
/// which report to the status without an event, and its status is what it was. Changes in Kafka and in the
/// cluster request a reconcile.
fn is_quiet(
    group: &KafkaConsumerGroup,
    observed: &Observed,
    outcome: &ReconcileOutcome,
    computed: &Computed,
    memory: &GroupMemory,
) -> bool {
    let Some(old) = &group.status else { return false };
    // The watch may deliver an older status than the one that was written last.
    let written = memory.written.as_ref().map_or(old, |(written, _)| written);
    !computed.converging
        && outcome.applied.is_ok()
        && outcome.provisioned.problem.is_none()
        && observed.kafka.known().is_some()
        && observed.pods.is_empty()
        && old.workers.is_empty()
        && *old == computed.status
        && *written == computed.status
        && !memory.recently_healthy(Instant::now())
        && memory.contested(Instant::now()).is_none()
}

/// The stages of an accepted group.
async fn reconcile_accepted(
    scope: &Scope,
    valid: &ValidatedGroup,
    observed: &mut Observed,
    memory: &mut GroupMemory,
    others: bool,
    hold: Option<&str>,
) -> ReconcileOutcome {
    let provisioned = provision::provision(scope, valid, observed, memory, others).await; // (client)
    let earliest = valid.spec.consumer.start_position.kind == StartPositionType::Earliest;
    let started = observed.started.has_all(&valid.spec, observed.kafka.known());
    let running = observed.current_replicas().is_some_and(|replicas| replicas > 0);
    if !started && !earliest && running && !provisioned.drain && hold.is_none() {
        // Workers would read an added topic from elsewhere, so they keep their configuration until Kafka
        // answers.
        let facts = observed.kafka.known();
        return ReconcileOutcome {
            provisioned,
            withheld: observed.started.missing(&valid.spec, facts),
            ..ReconcileOutcome::untouched(Ok(()))
        };
    }
    let facts = scaling::ScalingFacts {
        partitions: observed.partitions(&valid.spec),
        current: observed.current_replicas(),
        start: match (earliest || started, provisioned.drain) {
            (true, _) => Start::Ready,
            (false, true) => Start::Draining,
            (false, false) => Start::Waiting,
        },
        hold,
    };
    let decision = scaling::decide(&valid.spec, facts); // (pure)
    let ours = observed.replicas_set_by.is_none();
    let mirrored = replicas::to_remember(&valid.spec, &decision, ours);
    let prepared = build::build(valid, &decision, &observed.started, mirrored); // (pure)
    let mut applied = apply::apply(scope, valid, prepared, observed, memory)
        .await
        .map(Some); // (client)
    if applied.is_ok() {
        let mirrored = replicas::mirror(scope, valid, &decision, ours, memory);
        applied = mirrored.await.and(applied); // (client)
    }
    ReconcileOutcome {
        provisioned,
        decision: Some(decision),
        applied,
        waiting_image: None,
        withheld: Vec::new(),
        shared: None,
        hold: None,
        reports: None,
    }
}

/// Computes the status from everything that the reconcile observed and did.
fn compute_status(
    installation: &str,
    group: &KafkaConsumerGroup,
    verdict: &Result<ValidatedGroup, Rejection>,
    observed: &Observed,
    outcome: &ReconcileOutcome,
    memory: &mut GroupMemory,
) -> Computed {
    let old = group.status.clone().unwrap_or_default();
    let now = Instant::now();
    // After a restart of the operator the status is the only memory.
    let was_ready = update_status::conditions::is_true(&old.conditions, READY)
        && update_status::conditions::reason(&old.conditions, READY) != Some("Stopped");
    if memory.healthy_at.is_none() && memory.written.is_none() && was_ready {
        memory.healthy_at = Some(now);
    }
    let not_applied = outcome.applied.as_ref().err().map(|error| Failure {
        reason: error.reason().into(),
        message: error.to_string(),
        needs_action: error.needs_action(),
    });
    let not_provisioned = outcome.provisioned.problem.as_ref().map(|problem| Failure {
        reason: problem.reason.into(),
        message: problem.message.clone(),
        needs_action: problem.reason != "KafkaUnreachable",
    });
    let contested = memory.contested(now).map(|what| Failure {
        reason: "ChildContested".into(),
        message: format!("another client changes what the operator manages, again and again: {what}; stop that client from writing it"),
        needs_action: true,
    });
    let applied = outcome.applied.as_ref().ok().and_then(Option::as_ref);
    let pods: Vec<PodFacts> = observed.pods.iter().map(|pod| PodFacts::of(pod)).collect();
    compute(&Inputs {
        operator: Some(installation.to_string()),
        name: &group.name_any(),
        generation: group.metadata.generation,
        spec: &group.spec,
        group_id: id_of(group),
        image: verdict.as_ref().ok().map(|valid| valid.image.as_str()),
        acceptance: verdict.as_ref().map(|valid| valid.warning.as_ref()),
        kafka: &observed.kafka,
        shared: outcome.shared.as_ref(),
        hold: outcome.hold.as_deref(),
        waiting_image: outcome.waiting_image.as_deref(),
        withheld: &outcome.withheld,
        unjudged_for: memory.unjudged_since.map(|since| now.duration_since(since)),
        decision: outcome.decision.as_ref(),
        deployment: applied
            .map(|applied| &applied.deployment)
            .or(observed.deployment.as_deref()),
        pods: &pods,
        reports: outcome.reports.as_ref(),
        failure: not_applied
            .as_ref()
            .or(not_provisioned.as_ref())
            .or(contested.as_ref()),
        old: &old,
        recently_healthy: memory.recently_healthy(now),
        now: jiff::Timestamp::now(),
    })
}

/// Runs until `stop` resolves, then finishes the running reconciles.
pub fn run(
    scope: Arc<Scope>,
    requests: ReconcileRequests,
    stop: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<(GroupRef, Action), QueueError<ReconcileError, watcher::Error>>> {
    let store = scope.caches.groups.clone();
    let config = Config::default().debounce(DEBOUNCE);
    applier(
        reconcile_isolated,
        error_policy,
        scope,
        store,
        requests.take_until(stop.boxed()),
        config,
    )
}

type Reconciling = Pin<Box<dyn Future<Output = Result<Action, ReconcileError>> + Send>>;

/// Runs each reconcile in a separate task: groups do not wait for each other, and a panic affects only its
/// own group.
fn reconcile_isolated(guarded: Arc<Guarded>, scope: Arc<Scope>) -> Reconciling {
    let task = async move {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        if guarded.meta().deletion_timestamp.is_some() {
            // Kubernetes deletes the children by their owner references; there is nothing to clean up.
            return Ok(Action::await_change());
        }
        let measure = scope.context.metrics.reconcile();
        let memory = scope.memory(&namespace, &name);
        let mut memory = memory.lock().await;
        let done = match &guarded.0 {
            Ok(group) => {
                let reconcile = reconcile(&scope, group, &mut memory);
                tokio::time::timeout(RECONCILE_TIMEOUT, reconcile)
                    .await
                    .unwrap_or(Err(ReconcileError::Timeout))
            }
            Err(invalid) => {
                let problem = &invalid.error;
                update_status::reject_unreadable(&scope, &namespace, &name, problem, &mut memory)
                    .await
                    .map(|()| Action::requeue(scope.context.refresh))
                    .map_err(ReconcileError::Status)
            }
        };
        measure.done(done.as_ref().err().map(ReconcileError::kind));
        if scope
            .caches
            .groups
            .get(&GroupRef::new(&name).within(&namespace))
            .is_none()
        {
            // Deleted meanwhile, so this reconcile has remembered a group that was already forgotten.
            scope.forget(&namespace, &name);
        }
        done
    };
    Box::pin(tokio::spawn(task).map(|joined| joined.map_err(ReconcileError::Task)?))
}

fn error_policy(guarded: Arc<Guarded>, error: &ReconcileError, scope: Arc<Scope>) -> Action {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let memory = scope.memory(&namespace, &name);
    // Locked only by an offset reset: a group is not reconciled twice at the same time.
    let wait = memory
        .try_lock()
        .map_or(Duration::from_secs(5), |mut memory| memory.backoff());
    tracing::warn!(namespace, name, %error, wait_seconds = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}
