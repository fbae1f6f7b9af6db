//! Asks Kafka and the API server what the next step of a replay depends on, and starts its workers. In: a replay with
//! its group. Out: the step. What is decided is decided in [`super::next_step`].

use std::time::{Duration, Instant};

use crds::KafkaConsumerGroup;
use crds::client_config::KafkaCredentials;
use crds::replay::ReplayPhase;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::configuration::{configuration, fits_config_map, narrowed};
use super::next_step::{LEAVES_WITHIN, Look, Next, Question, Situation, Step, group_id, phase, stored};
use super::workers::{self, Created};
use super::{ReplayError, Replays};
use crate::controller::build::replay::{ReplayWorkers, config_map, job};
use crate::controller::dereference::kafka_credentials;
use crate::controller::replays::ReplayRef;
use crate::controller::validated::validated;
use crate::group::rejection::Rejection;
use crate::group::replay::{Answers, Queries, record_offsets, set_record_times, start_offsets};
use crate::kafka::model::{KafkaProblem, ResetPositions, ResetQuery};
use crate::operations::queue::bounded;

/// The times of records are read for this long.
const TIMES: Duration = Duration::from_secs(5);
/// Time until the next look at children of an earlier replay.
const LEFTOVER: Duration = Duration::from_secs(1);
/// Time until the next look at what the API server refuses to create.
const REFUSED: Duration = Duration::from_secs(10);

impl Replays {
    /// Asks Kafka and the API server.
    pub(super) async fn ask(
        &self,
        key: &ReplayRef,
        situation: &Situation<'_>,
        question: Question<'_>,
    ) -> Result<Step, ReplayError> {
        let (Question::Plan(group, _) | Question::Progress(group, _)) = &question;
        let credentials = match kafka_credentials(&self.scope, group).await? {
            Ok(credentials) => credentials,
            Err(missing) => return Ok(situation.appears(missing)),
        };
        match question {
            Question::Plan(group, queries) => self.plan(situation, group, &credentials, &queries).await,
            Question::Progress(group, query) => {
                let look = self.look(situation, group, &credentials, &query).await?;
                let positions = look.as_ref().ok().map(|look| look.positions.clone());
                match situation.after_look(group, look) {
                    Next::Step(step) => Ok(step),
                    Next::Launch => {
                        self.launch(situation, group, &credentials, positions.unwrap_or_default())
                            .await
                    }
                    Next::Settle(step) => {
                        self.done(key);
                        if situation.done_for >= LEAVES_WITHIN {
                            workers::stop(&self.scope, situation.replay).await?;
                        }
                        Ok(step)
                    }
                    Next::Finish => {
                        self.done(key);
                        let id = group_id(situation.replay, group);
                        let kafka = &self.scope.context.kafka;
                        let deleted = kafka.delete_group(&group.spec.kafka, &credentials, &id);
                        Ok(situation.after_delete(&id, bounded(deleted).await))
                    }
                }
            }
        }
    }

    async fn plan(
        &self,
        situation: &Situation<'_>,
        group: &KafkaConsumerGroup,
        credentials: &KafkaCredentials,
        queries: &Queries,
    ) -> Result<Step, ReplayError> {
        let valid = match validated(&self.scope, group).await? {
            Ok(valid) => valid,
            Err(why) => return Ok(situation.not_accepted(group, why)),
        };
        let valid = match narrowed(situation.replay, &valid) {
            Ok(valid) => valid,
            Err(why) => return Ok(Step::Fail(why)),
        };
        let answers = bounded(self.answers(group, credentials, queries)).await;
        let mut step = situation.after_answers(group, &valid, answers);
        if let Step::Show(plan) | Step::Store(plan) = &mut step {
            let records = record_offsets(plan);
            let kafka = &self.scope.context.kafka;
            let times = kafka.record_times(&group.spec.kafka, credentials, &records);
            // Only shown, so a plan without them is good enough.
            if let Ok(Ok(times)) = tokio::time::timeout(TIMES, times).await {
                set_record_times(plan, &times);
            }
        }
        Ok(step)
    }

    async fn answers(
        &self,
        group: &KafkaConsumerGroup,
        credentials: &KafkaCredentials,
        queries: &Queries,
    ) -> Result<Answers, KafkaProblem> {
        let kafka = &self.scope.context.kafka;
        let ask =
            async |query: &ResetQuery| kafka.reset_positions(&group.spec.kafka, credentials, query).await;
        let from = ask(&queries.from).await?;
        let to = match &queries.to {
            Some(query) => Some(ask(query).await?),
            None => None,
        };
        Ok(Answers { from, to })
    }

    /// The state of the Job, then of the consumer group, then of the pods. Members whose pods are gone are taken out of the group,
    /// so that their partitions are assigned to others now.
    async fn look(
        &self,
        situation: &Situation<'_>,
        group: &KafkaConsumerGroup,
        credentials: &KafkaCredentials,
        query: &ResetQuery,
    ) -> Result<Result<Look, KafkaProblem>, ReplayError> {
        let replay = situation.replay;
        let kafka = &self.scope.context.kafka;
        // Before the offsets: what the workers have committed before they ended is then among them.
        let job = workers::job(&self.scope, replay).await?;
        let positions = kafka.reset_positions(&group.spec.kafka, credentials, query);
        let positions = match bounded(positions).await {
            Ok(positions) => positions,
            Err(problem) => return Ok(Err(problem)),
        };
        let pods = match job {
            workers::Job::Missing if phase(replay) == ReplayPhase::Planned => Vec::new(),
            _ => workers::pods(&self.scope, replay).await?,
        };
        let dead = workers::dead(&positions.members, &replay.name_any(), &pods);
        if !dead.is_empty() {
            let (id, protocol) = (&query.group_id, query.protocol);
            let removed = kafka.remove_members(&group.spec.kafka, credentials, id, protocol, &dead);
            match removed.await {
                Ok(removed) => tracing::info!(
                    replay = replay.name_any(),
                    members = removed.len(),
                    "took the members of ended workers out of the consumer group"
                ),
                // Their session ends by itself.
                Err(problem) => {
                    tracing::warn!(replay = replay.name_any(), %problem, "ended workers stay in the consumer group")
                }
            }
        }
        let now = Timestamp::now();
        Ok(Ok(Look {
            alive: pods.iter().filter(|pod| workers::is_alive(pod, now)).count(),
            ends: [workers::ends(&pods), workers::stuck(&pods, now)].concat(),
            positions,
            job,
        }))
    }

    /// Commits the start offsets, and creates the workers.
    async fn launch(
        &self,
        situation: &Situation<'_>,
        group: &KafkaConsumerGroup,
        credentials: &KafkaCredentials,
        positions: ResetPositions,
    ) -> Result<Step, ReplayError> {
        let replay = situation.replay;
        let status = replay.status.as_ref();
        let valid = match validated(&self.scope, group).await? {
            Ok(valid) => valid,
            Err(why) => return Ok(situation.not_accepted(group, why)),
        };
        let valid = match narrowed(replay, &valid) {
            Ok(valid) => valid,
            Err(why) => return Ok(Step::Fail(why)),
        };
        let partitions = stored(replay);
        let id = group_id(replay, group);
        let workers = status.and_then(|status| status.workers).unwrap_or(1).max(1);
        let config = configuration(replay, &valid, partitions, workers, &id);
        // The group may have changed since the plan was made.
        if let Err(too_large) = fits_config_map(&config) {
            return Ok(Step::Fail(too_large));
        }
        let start = start_offsets(partitions, &positions.partitions);
        let planned = status.and_then(|status| status.planned_for.as_ref());
        let cluster = planned.and_then(|planned| planned.cluster_id.as_deref());
        let kafka = &self.scope.context.kafka;
        let committed = kafka.commit_reset(&group.spec.kafka, credentials, &id, &start, cluster);
        if let Some(step) = situation.after_commit(bounded(committed).await) {
            return Ok(step);
        }
        let of_replay = ReplayWorkers {
            name: replay.name_any(),
            owner: replay.controller_owner_ref(&()).unwrap_or_default(),
            config,
            workers,
        };
        let (map, job) = (config_map(&valid, &of_replay), job(&valid, &of_replay));
        let name = job.name_any();
        let fail = |reason, message: String| Ok(Step::Fail(Rejection::new(reason, message)));
        match workers::create(&self.scope, replay, &map, &job).await? {
            Created::Done => Ok(situation.launched(workers)),
            Created::Leftover(kind) => {
                let message = format!(
                    "{kind} {name} is of an earlier start, or of a deleted KafkaReplay of this name; waiting until Kubernetes has deleted it"
                );
                Ok(situation.wait("WaitingForDeletion", message, Some(LEFTOVER)))
            }
            Created::Foreign(kind) => fail(
                "NameConflict",
                format!(
                    "{kind} {name} exists and does not belong to this KafkaReplay; delete it, or create the replay with another name"
                ),
            ),
            Created::Invalid("Job", message) => fail(
                "JobInvalid",
                format!("{message}; correct spec.worker of the group, and create the replay again"),
            ),
            Created::Invalid(_, message) => fail(
                "ConfigMapInvalid",
                format!("{message}; correct what it names, and create the replay again"),
            ),
            Created::Refused(message) => Ok(situation.wait("JobRefused", message, Some(REFUSED))),
        }
    }

    /// Everything is processed, or the workers have ended.
    fn done(&self, key: &ReplayRef) {
        self.remember(key, |memory| {
            memory.done_since.get_or_insert_with(Instant::now);
        });
    }
}
