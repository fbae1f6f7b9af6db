//! Reconciles KafkaOffsetResets. In: a reset, its group, the group's positions in Kafka. Out: committed offsets,
//! and a status with the plan and what became of it. The plan is stored before anything is committed, so that an
//! operator that is killed commits the same plan again and never makes another one. Stops no worker itself: the
//! phase of a reset holds its group ([`crate::group::reset_order::hold`]).

pub mod next_step;
pub mod report;
pub mod workers;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::{KafkaOffsetReset, KafkaOffsetResetStatus};
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::controller::apply::error::{in_words, is_not_found};
use crate::controller::dereference::{DereferenceError, kafka_credentials};
use crate::controller::resets::{GuardedReset, ResetRef};
use crate::controller::scope::Scope;
use crate::group::id::id_of;
use crate::group::offset_reset::{changes, record_offsets, set_record_times};
use crate::group::reset_order::{first_before, phase};
use crate::kafka::model::GroupKey;
use crate::operations::queue::{self, Backoff, Interrupted, Operation, bounded};
use crate::operations::stored::{self, GroupState, ReadError, StoredGroup};
use crate::operations::{expiry, status, too_large};
use crate::sync::lock;
use next_step::{Question, Situation, Step};

/// The times of records are read for this long.
const TIMES: Duration = Duration::from_secs(5);
/// Time until the next look at a reset whose group another operator serves, or none yet.
const SERVED_ELSEWHERE: Duration = Duration::from_secs(10);
const UNSERVED: Duration = Duration::from_secs(1);

/// Why a reconcile failed. It is retried with growing pauses.
#[derive(Debug, Error)]
pub enum ResetError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write the status: {}", in_words(.0))]
    Status(Box<kube::Error>),
    #[error("cannot delete the reset, whose ttlSecondsAfterFinished is over: {}", in_words(.0))]
    Delete(Box<kube::Error>),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What the reconciles of one scope share.
struct OffsetResets {
    scope: Arc<Scope>,
    memories: Mutex<HashMap<ResetRef, ResetMemory>>,
}

/// What is remembered of a reset. Losing it costs time only.
#[derive(Clone, Debug, Default)]
struct ResetMemory {
    /// Another reset may get the name of one that was deleted.
    uid: Option<String>,
    /// Since when something else than the workers of the group is in the way.
    obstructed_since: Option<Instant>,
    /// Attempts in a row that failed or had no answer.
    failures: Backoff,
}

impl ResetMemory {
    /// Forgets what belongs to another reset.
    fn is_of(&mut self, uid: Option<String>) {
        if self.uid != uid {
            *self = Self {
                uid,
                ..Self::default()
            };
        }
    }
}

/// Reconciles the resets of a scope until `stop` resolves, then finishes the running reconciles.
pub async fn run(
    scope: Arc<Scope>,
    requests: UnboundedReceiver<ResetRef>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let store = scope.resets.store.clone();
    let resets = Arc::new(OffsetResets {
        scope,
        memories: Mutex::default(),
    });
    queue::run(resets, store, requests, stop).await;
}

impl Operation for OffsetResets {
    type Object = GuardedReset;
    type Error = ResetError;
    const KIND: &'static str = "offset reset";

    async fn reconcile(&self, key: &ResetRef, guarded: &GuardedReset) -> Result<Action, ResetError> {
        self.next(key, guarded).await
    }

    fn backoff(&self, key: &ResetRef) -> Duration {
        self.remember(key, |memory| memory.failures.pause())
    }
}

impl OffsetResets {
    async fn next(&self, key: &ResetRef, guarded: &GuardedReset) -> Result<Action, ResetError> {
        let cached = match &guarded.0 {
            Ok(reset) => reset,
            Err(invalid) => {
                tracing::warn!(reset = %key, problem = %invalid.error, "the stored reset does not fit its schema");
                return Ok(Action::await_change());
            }
        };
        if cached.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        self.remember(key, |memory| memory.is_of(cached.uid()));
        self.scope.caches.ready().await.map_err(DereferenceError::from)?;
        if phase(cached).is_final() {
            lock(&self.memories).remove(key);
            return self.expire(cached).await; // (client)
        }
        // The cache may be behind: a stored plan must never be made again, and a group that was stopped just
        // before the reset was created is stopped.
        let api = self.api(cached);
        let stored = stored::object(&self.scope, &api, &cached.name_any(), "the reset").await?; // (client)
        let Some(reset) = stored.filter(|reset| reset.metadata.deletion_timestamp.is_none()) else {
            return Ok(Action::await_change());
        };
        if phase(&reset).is_final() {
            return self.expire(&reset).await; // (client)
        }
        let namespace = reset.namespace().unwrap_or_default();
        let group = stored::group(&self.scope, &namespace, &reset.spec.group_ref.name).await?; // (client)
        if let Some(group) = &group
            && group.operator.as_ref() != Some(&self.scope.context.installation)
        {
            let again = group.operator.as_ref().map_or(UNSERVED, |_| SERVED_ELSEWHERE);
            return Ok(Action::requeue(again));
        }
        let situation = self.situation(key, &reset, group.as_ref()); // (pure)
        let step = match situation.question() {
            Ok(question) => self.ask(&situation, question).await?, // (client)
            Err(step) => step,
        };
        self.carry_out(key, &reset, group.as_ref(), step).await // (client)
    }

    fn situation<'a>(
        &self,
        key: &ResetRef,
        reset: &'a KafkaOffsetReset,
        group: Option<&'a StoredGroup>,
    ) -> Situation<'a> {
        let (namespace, name) = (reset.namespace().unwrap_or_default(), &reset.spec.group_ref.name);
        let siblings = self.scope.resets.of(&namespace, name);
        let siblings = siblings.iter().filter_map(|sibling| sibling.0.as_ref().ok());
        let started = reset
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let known_for = started.map_or(Duration::ZERO, |started| {
            Duration::try_from(Timestamp::now().duration_since(started.0)).unwrap_or_default()
        });
        let obstructed_since = self.remember(key, |memory| memory.obstructed_since);
        Situation {
            reset,
            group: GroupState::of(group),
            before: first_before(reset, siblings),
            known_for,
            workers: workers::workers(&self.scope, &namespace, name),
            obstructed_for: obstructed_since.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// Asks Kafka.
    async fn ask(&self, situation: &Situation<'_>, question: Question<'_>) -> Result<Step, ResetError> {
        let kafka = &self.scope.context.kafka;
        let (Question::Positions(group, _) | Question::Commit(group)) = &question;
        let credentials = match kafka_credentials(&self.scope, group).await? {
            Ok(credentials) => credentials,
            Err(missing) => return Ok(situation.appears(missing)),
        };
        match question {
            Question::Positions(group, query) => {
                let answer = kafka.reset_positions(&group.spec.kafka, &credentials, &query);
                let mut step = situation.after_positions(group, bounded(answer).await);
                if let Step::Show(plan) | Step::Store(plan) = &mut step {
                    let records = record_offsets(plan);
                    let times = kafka.record_times(&group.spec.kafka, &credentials, &records);
                    // Only shown, so a plan without them is good enough.
                    if let Ok(Ok(times)) = tokio::time::timeout(TIMES, times).await {
                        set_record_times(plan, &times);
                    }
                }
                Ok(step)
            }
            Question::Commit(group) => {
                let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
                // Alone: a reconcile of the group may be committing start positions.
                let memory = self.scope.memory(&namespace, &name);
                let _alone = memory.lock().await;
                let stored = situation.reset.status.as_ref();
                let offsets = changes(stored.map_or(&[], |status| &status.partitions));
                let id = id_of(group);
                let planned = stored.and_then(|status| status.planned_for.as_ref());
                let cluster = planned.and_then(|planned| planned.cluster_id.as_deref());
                let answer = kafka.commit_reset(&group.spec.kafka, &credentials, &id, &offsets, cluster);
                let answer = bounded(answer).await;
                kafka.invalidate(&GroupKey::new(&namespace, &name));
                Ok(situation.after_commit(answer))
            }
        }
    }

    /// Writes the status if it changed, and commits a plan as soon as it is stored.
    async fn carry_out(
        &self,
        key: &ResetRef,
        reset: &KafkaOffsetReset,
        group: Option<&StoredGroup>,
        step: Step,
    ) -> Result<Action, ResetError> {
        let parsed = group.and_then(|group| group.parsed.as_ref().ok());
        let mut step = step;
        let mut new = report::status(reset, parsed, &step, Timestamp::now());
        if reset.status.as_ref() != Some(&new) {
            let mut written = self.write(reset, &new).await;
            if let (Err(error), Step::Store(plan) | Step::Show(plan)) = (&written, &step)
                && let Some(refused) = too_large::refused(plan.partitions.len(), "reset", error)
            {
                step = Step::Fail(refused);
                new = report::status(reset, parsed, &step, Timestamp::now());
                written = self.write(reset, &new).await;
            }
            match written {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => return Ok(Action::await_change()),
                Err(error) => return Err(ResetError::Status(Box::new(error))),
            }
            self.publish(reset, group, report::events(reset, &new, &step))
                .await;
        }
        Ok(self.remember(key, |memory| match &step {
            Step::Wait(waiting) => {
                let since = memory.obstructed_since.unwrap_or_else(Instant::now);
                memory.obstructed_since = waiting.obstructed.then_some(since);
                match waiting.again {
                    Some(again) => {
                        memory.failures.end();
                        Action::requeue(again)
                    }
                    None => Action::requeue(memory.failures.pause()),
                }
            }
            // The write requests the next reconcile, too.
            Step::Store(_) => Action::requeue(Duration::ZERO),
            Step::Fail(_) | Step::Show(_) | Step::Succeed => {
                *memory = ResetMemory::default();
                Action::await_change()
            }
        }))
    }

    fn api(&self, reset: &KafkaOffsetReset) -> Api<KafkaOffsetReset> {
        let namespace = reset.namespace().unwrap_or_default();
        Api::namespaced(self.scope.context.client.clone(), &namespace)
    }

    async fn write(
        &self,
        reset: &KafkaOffsetReset,
        status: &KafkaOffsetResetStatus,
    ) -> Result<KafkaOffsetReset, kube::Error> {
        status::write(&self.scope, &self.api(reset), reset, status).await
    }

    /// Deletes it when its time to live is over.
    async fn expire(&self, reset: &KafkaOffsetReset) -> Result<Action, ResetError> {
        let ended = reset
            .status
            .as_ref()
            .and_then(|status| status.completion_time.as_ref());
        let ttl = reset.spec.ttl_seconds_after_finished;
        let expired = expiry::expire(&self.api(reset), reset, ttl, ended).await;
        expired.map_err(|error| ResetError::Delete(Box::new(error)))
    }

    async fn publish(&self, reset: &KafkaOffsetReset, group: Option<&StoredGroup>, events: report::Events) {
        let (namespace, name) = (reset.namespace().unwrap_or_default(), reset.name_any());
        if let Some(event) = events.reset {
            tracing::info!(
                namespace,
                name,
                reason = event.reason,
                note = event.note,
                "offset reset"
            );
            self.scope.publish(&event, &reset.object_ref(&())).await;
        }
        if let (Some(event), Some(group)) = (events.group, group) {
            self.scope.publish(&event, &group.reference).await;
        }
        if let Some(outcome) = events.outcome {
            self.scope.context.metrics.offset_reset_ended(outcome);
        }
    }

    fn remember<T>(&self, key: &ResetRef, with: impl FnOnce(&mut ResetMemory) -> T) -> T {
        with(lock(&self.memories).entry(key.clone()).or_default())
    }
}
