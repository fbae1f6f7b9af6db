//! Reconciles KafkaReplays. In: a replay, its group, Kafka, the Job of the replay. Out: a plan in the status, the
//! start offsets of the replay's consumer group, its Job, and its progress. The plan is stored before anything is
//! started, and what the consumer group has committed is never set back, so an operator that is killed continues.
//! Never writes the group or its offsets.

mod ask;
pub mod cleanup;
pub mod configuration;
pub mod next_step;
pub mod progress;
pub mod rate;
pub mod report;
pub mod workers;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::{KafkaReplay, KafkaReplayStatus};
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use thiserror::Error;

use crate::controller::apply::error::{in_words, is_not_found};
use crate::controller::dereference::DereferenceError;
use crate::controller::replays::{Changes, GuardedReplay, ReplayRef};
use crate::controller::scope::Scope;
use crate::operations::queue::{self, Backoff, Interrupted, Operation};
use crate::operations::stored::{self, GroupState, ReadError, StoredGroup};
use crate::operations::{expiry, status, too_large};
use crate::sync::lock;
use next_step::{Situation, Step, phase};
use rate::Rate;

/// Time until the next look at a replay whose group another operator serves, or none yet.
const SERVED_ELSEWHERE: Duration = Duration::from_secs(10);
const UNSERVED: Duration = Duration::from_secs(1);
/// Why a reconcile failed. It is retried with growing pauses.
#[derive(Debug, Error)]
pub enum ReplayError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot {verb} {kind} {name}: {}", in_words(source))]
    Child {
        verb: &'static str,
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("cannot write the status: {}", in_words(.0))]
    Status(Box<kube::Error>),
    #[error("cannot delete the replay, whose ttlSecondsAfterFinished is over: {}", in_words(.0))]
    Delete(Box<kube::Error>),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl ReplayError {
    fn child(verb: &'static str, kind: &'static str, name: &str, source: kube::Error) -> Self {
        Self::Child {
            verb,
            kind,
            name: name.into(),
            source: Box::new(source),
        }
    }
}

/// What the reconciles of one scope share.
struct Replays {
    scope: Arc<Scope>,
    memories: Mutex<HashMap<ReplayRef, ReplayMemory>>,
}

/// What is remembered of a replay. Losing it costs time only, and the rate is unknown for a moment.
#[derive(Clone, Debug, Default)]
struct ReplayMemory {
    /// Another replay may get the name of one that was deleted.
    uid: Option<String>,
    rate: Rate,
    /// Since when everything is processed, or the workers have ended.
    done_since: Option<Instant>,
    failures: Backoff,
}

impl ReplayMemory {
    /// Forgets what belongs to another replay.
    fn is_of(&mut self, uid: Option<String>) {
        if self.uid != uid {
            *self = Self {
                uid,
                ..Self::default()
            };
        }
    }
}

/// Reconciles the replays of a scope until `stop` resolves, then finishes the running reconciles.
pub async fn run(scope: Arc<Scope>, changes: Changes, stop: impl Future<Output = ()> + Send + 'static) {
    let Changes {
        replays: requests,
        mut deleted,
    } = changes;
    let store = scope.replays.clone();
    let cleaning = scope.clone();
    let replays = Arc::new(Replays {
        scope,
        memories: Mutex::default(),
    });
    let of_deleted = replays.clone();
    let clean = async move {
        while let Some(replay) = deleted.recv().await {
            lock(&of_deleted.memories)
                .remove(&ReplayRef::new(&replay.name_any()).within(&replay.namespace().unwrap_or_default()));
            if cleanup::may_have_group(&replay) {
                cleanup::start(cleaning.clone(), &replay);
            }
        }
    };
    tokio::select! {
        () = queue::run(replays, store, requests, stop) => {}
        // It ends with its watch, which never ends.
        () = clean => {}
    }
}

impl Operation for Replays {
    type Object = GuardedReplay;
    type Error = ReplayError;
    const KIND: &'static str = "replay";

    async fn reconcile(&self, key: &ReplayRef, guarded: &GuardedReplay) -> Result<Action, ReplayError> {
        self.next(key, guarded).await
    }

    fn backoff(&self, key: &ReplayRef) -> Duration {
        self.remember(key, |memory| memory.failures.pause())
    }
}

impl Replays {
    async fn next(&self, key: &ReplayRef, guarded: &GuardedReplay) -> Result<Action, ReplayError> {
        let cached = match &guarded.0 {
            Ok(replay) => replay,
            Err(invalid) => {
                tracing::warn!(replay = %key, problem = %invalid.error, "the stored replay does not fit its schema");
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
        // The cache may be behind, and has no plans: a stored plan must never be made again.
        let (api, name) = (self.api(cached), cached.name_any());
        let stored = stored::object(&self.scope, &api, &name, "the replay").await?; // (client)
        let Some(replay) = stored.filter(|replay| replay.metadata.deletion_timestamp.is_none()) else {
            return Ok(Action::await_change());
        };
        if phase(&replay).is_final() {
            return self.expire(&replay).await; // (client)
        }
        let namespace = replay.namespace().unwrap_or_default();
        let group = stored::group(&self.scope, &namespace, &replay.spec.group_ref.name).await?; // (client)
        if let Some(group) = &group
            && group.operator.as_ref() != Some(&self.scope.context.installation)
        {
            let again = group.operator.as_ref().map_or(UNSERVED, |_| SERVED_ELSEWHERE);
            return Ok(Action::requeue(again));
        }
        let situation = self.situation(key, &replay, group.as_ref()); // (pure)
        let step = match situation.question() {
            Ok(question) => self.ask(key, &situation, question).await?, // (client)
            Err(step) if situation.has_lost_group(&step) => {
                let is_complete = situation.is_stored_as_done()
                    || workers::job(&self.scope, &replay).await? == workers::Job::Complete; // (client)
                match is_complete {
                    true => {
                        workers::stop(&self.scope, &replay).await?; // (client)
                        Step::Succeed(Some(progress::unconfirmed(&replay)))
                    }
                    false => step,
                }
            }
            Err(step) => step,
        };
        self.carry_out(key, &replay, group.as_ref(), step).await // (client)
    }

    fn situation<'a>(
        &self,
        key: &ReplayRef,
        replay: &'a KafkaReplay,
        group: Option<&'a StoredGroup>,
    ) -> Situation<'a> {
        let started = replay
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let known_for = started.map_or(Duration::ZERO, |started| {
            Duration::try_from(Timestamp::now().duration_since(started.0)).unwrap_or_default()
        });
        let done_since = self.remember(key, |memory| memory.done_since);
        Situation {
            replay,
            group: GroupState::of(group),
            known_for,
            done_for: done_since.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// Writes the status if it changed.
    async fn carry_out(
        &self,
        key: &ReplayRef,
        replay: &KafkaReplay,
        group: Option<&StoredGroup>,
        step: Step,
    ) -> Result<Action, ReplayError> {
        let mut step = step;
        if matches!(step, Step::Fail(_)) && !next_step::stored(replay).is_empty() {
            // Before the status says that it has ended.
            workers::stop(&self.scope, replay).await?;
        }
        let rate = self.remember(key, |memory| {
            if let Some(processed) = report::processed(&step) {
                memory.rate.add(Instant::now(), processed);
            }
            memory.rate.clone()
        });
        let parsed = group.and_then(|group| group.parsed.as_ref().ok());
        let mut new = report::status(replay, parsed, &step, &rate, Timestamp::now());
        if replay.status.as_ref() != Some(&new) {
            let mut written = self.write(replay, &new).await;
            if let (Err(error), Step::Store(plan) | Step::Show(plan)) = (&written, &step)
                && let Some(refused) = too_large::refused(plan.partitions.len(), "replay", error)
            {
                step = Step::Fail(refused);
                new = report::status(replay, parsed, &step, &rate, Timestamp::now());
                written = self.write(replay, &new).await;
            }
            match written {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {
                    // What was committed for the workers after its deletion was reported is found only here.
                    if cleanup::may_have_group(replay) {
                        cleanup::start(self.scope.clone(), replay);
                    }
                    return Ok(Action::await_change());
                }
                Err(error) => return Err(ReplayError::Status(Box::new(error))),
            }
            self.publish(replay, group, report::events(replay, &new, &step))
                .await;
            if matches!(step, Step::Fail(_)) && cleanup::may_have_group(replay) {
                cleanup::start(self.scope.clone(), replay);
            }
        }
        Ok(self.remember(key, |memory| match &step {
            Step::Wait(waiting) => match waiting.again {
                Some(again) => {
                    memory.failures.end();
                    Action::requeue(again)
                }
                None => Action::requeue(memory.failures.pause()),
            },
            Step::Store(_) => Action::requeue(Duration::ZERO),
            Step::Run(running) => {
                memory.failures.end();
                Action::requeue(running.again)
            }
            // The write requests the reconcile that deletes it later.
            Step::Fail(_) | Step::Show(_) | Step::Succeed(_) => Action::await_change(),
        }))
    }

    fn api(&self, replay: &KafkaReplay) -> Api<KafkaReplay> {
        let namespace = replay.namespace().unwrap_or_default();
        Api::namespaced(self.scope.context.client.clone(), &namespace)
    }

    async fn write(&self, replay: &KafkaReplay, new: &KafkaReplayStatus) -> Result<KafkaReplay, kube::Error> {
        status::write(&self.scope, &self.api(replay), replay, new).await
    }

    /// Deletes it when its time to live is over.
    async fn expire(&self, replay: &KafkaReplay) -> Result<Action, ReplayError> {
        let ended = replay
            .status
            .as_ref()
            .and_then(|status| status.completion_time.as_ref());
        let ttl = replay.spec.ttl_seconds_after_finished;
        let expired = expiry::expire(&self.api(replay), replay, ttl, ended).await;
        expired.map_err(|error| ReplayError::Delete(Box::new(error)))
    }

    async fn publish(&self, replay: &KafkaReplay, group: Option<&StoredGroup>, events: report::Events) {
        let (namespace, name) = (replay.namespace().unwrap_or_default(), replay.name_any());
        if let Some(event) = events.replay {
            tracing::info!(
                namespace,
                name,
                reason = event.reason,
                note = event.note,
                "replay"
            );
            self.scope.publish(&event, &replay.object_ref(&())).await;
        }
        if let (Some(event), Some(group)) = (events.group, group) {
            self.scope.publish(&event, &group.reference).await;
        }
        if let Some(outcome) = events.outcome {
            self.scope.context.metrics.replay_ended(outcome);
        }
    }

    fn remember<T>(&self, key: &ReplayRef, with: impl FnOnce(&mut ReplayMemory) -> T) -> T {
        with(lock(&self.memories).entry(key.clone()).or_default())
    }
}
