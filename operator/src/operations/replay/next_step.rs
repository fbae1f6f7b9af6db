//! What happens next to a replay. In: the replay with its stored plan, its group, what Kafka and the API server
//! answered. Out: a [`Step`]. Pure.

use std::time::Duration;

use crds::replay::{ReplayPartition, ReplayPhase};
use crds::{KafkaConsumerGroup, KafkaReplay};
use kube::ResourceExt;

use super::configuration::{configuration, fits_config_map};
use super::progress::{Running, SOON, ending, failure, interval, offsets_left, running, with_positions};
use super::workers::{Job, PodEnd};
use crate::controller::update_status::conditions::without_volatile_parts;
use crate::group::id::id_of;
use crate::group::rejection::Rejection;
use crate::group::replay::{self, Answers, Plan, Queries, group_id_of};
use crate::group::validate::{NOT_COMPILED, ValidatedGroup};
use crate::kafka::model::{Deleted, KafkaProblem, ResetOutcome, ResetPositions, ResetQuery};
use crate::operations::planned_for::difference;
use crate::operations::stored::GroupState;
use crate::operations::too_large::{self, Planned};

/// What may be applied together with a replay (its group, a Secret, a topic with provision) may appear this much
/// later.
pub const APPEARS_WITHIN: Duration = Duration::from_secs(30);
/// After the end, the workers have this long to leave the consumer group. The session timeout of one that was
/// killed is 45 s by default.
pub const LEAVES_WITHIN: Duration = Duration::from_secs(120);
/// After the workers have ended, Kafka has this long to show their last offsets.
pub const COMMITTED_WITHIN: Duration = Duration::from_secs(30);
/// Bytes that are added to each partition of the plan later: its position, and the time of a record.
const ADDED: usize = 88;

/// Why a replay fails whose plan is for another group.
const GROUP_CHANGED: &str = "GroupChanged";

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Shows why, and looks again later.
    Wait(Waiting),
    /// Ends it.
    Fail(Rejection),
    /// Ends a dry run.
    Show(Plan),
    /// Stores the plan. The workers are started afterwards.
    Store(Plan),
    /// The workers run.
    Run(Running),
    /// Ends a replay that is done, with what else to know.
    Succeed(Option<String>),
}

/// Why a replay waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
    /// When to look again. None: with growing pauses, because nothing answers.
    pub again: Option<Duration>,
}

/// What has to be asked before the next step is known.
#[derive(Debug)]
pub enum Question<'a> {
    /// Where the bounds are in the log, for a plan.
    Plan(&'a KafkaConsumerGroup, Queries),
    /// How far the stored plan is.
    Progress(&'a KafkaConsumerGroup, ResetQuery),
}

/// What was seen of a stored plan.
#[derive(Clone, Debug)]
pub struct Look {
    pub positions: ResetPositions,
    pub job: Job,
    /// Workers that have ended or cannot start.
    pub ends: Vec<PodEnd>,
    /// Pods that have not ended.
    pub alive: usize,
}

/// What follows from a [`Look`].
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Step(Step),
    /// Commit the start offsets and create the workers.
    Launch,
    /// Workers are left that end by themselves, or their last offsets are not visible yet. Stop them if that takes
    /// too long.
    Settle(Step),
    /// Delete the consumer group: everything is processed, and no worker is left. One that started afterwards
    /// would begin at the start again.
    Finish,
}

/// A replay and what surrounds it.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// As the API server has it now.
    pub replay: &'a KafkaReplay,
    pub group: GroupState<'a>,
    /// Since the operator has seen the replay first.
    pub known_for: Duration,
    /// Since everything is processed, or the workers have ended.
    pub done_for: Duration,
}

/// The phase of a replay; Pending before the operator has seen it.
pub fn phase(replay: &KafkaReplay) -> ReplayPhase {
    let phase = replay.status.as_ref().and_then(|status| status.phase);
    phase.unwrap_or(ReplayPhase::Pending)
}

/// The stored plan. Empty before there is one.
pub fn stored(replay: &KafkaReplay) -> &[ReplayPartition] {
    let status = replay.status.as_ref();
    status.map_or(&[], |status| &status.partitions)
}

/// The consumer group of a replay: the stored one, so that a change of the group does not change it.
pub fn group_id(replay: &KafkaReplay, group: &KafkaConsumerGroup) -> String {
    let stored = replay.status.as_ref().and_then(|status| status.group_id.clone());
    let uid = replay.uid().unwrap_or_default();
    stored.unwrap_or_else(|| group_id_of(&id_of(group), &replay.name_any(), &uid))
}

impl<'a> Situation<'a> {
    /// What to ask, or the next step if that is known without it.
    pub fn question(&self) -> Result<Question<'a>, Step> {
        let group = self.group()?;
        let id = group_id(self.replay, group);
        if self.has_plan() {
            let planned = self.replay.status.as_ref();
            let planned = planned.and_then(|status| status.planned_for.as_ref());
            if let Some(why) = planned.and_then(|planned| difference(planned, group)) {
                return Err(self.other_group(&why));
            }
            let query = replay::progress_query(stored(self.replay), &id, &group.spec);
            return Ok(Question::Progress(group, query));
        }
        let queries = replay::queries(&self.replay.spec, &id, &group.spec).map_err(Step::Fail)?;
        Ok(Question::Plan(group, queries))
    }

    /// Whether the stored status says that everything is processed.
    pub fn is_stored_as_done(&self) -> bool {
        self.has_plan() && stored(self.replay).iter().all(ReplayPartition::is_finished)
    }

    /// Whether the plan is for another group than there is now.
    pub fn has_lost_group(&self, step: &Step) -> bool {
        self.has_plan() && matches!(step, Step::Fail(why) if why.reason == GROUP_CHANGED)
    }

    fn has_plan(&self) -> bool {
        let is_planned = matches!(phase(self.replay), ReplayPhase::Planned | ReplayPhase::Running);
        is_planned && !stored(self.replay).is_empty()
    }

    fn group(&self) -> Result<&'a KafkaConsumerGroup, Step> {
        let name = &self.replay.spec.group_ref.name;
        match self.group {
            GroupState::Present(group) => Ok(group),
            GroupState::Missing if self.has_plan() => {
                Err(self.other_group(&format!("KafkaConsumerGroup {name} was deleted")))
            }
            GroupState::Missing => Err(self.appears(Rejection::new(
                "GroupNotFound",
                format!(
                    "there is no KafkaConsumerGroup {name} in this namespace; correct groupRef.name, or create the group, and create the replay again"
                ),
            ))),
            GroupState::Unreadable(problem) => {
                let message = format!(
                    "the stored KafkaConsumerGroup {name} does not fit its schema: {problem}; correct it with kubectl edit kcg {name}"
                );
                // Its workers have their configuration, so nothing is lost by waiting.
                match self.has_plan() {
                    true => Err(self.wait("GroupUnreadable", message, None)),
                    false => Err(Step::Fail(Rejection::new("GroupUnreadable", message))),
                }
            }
        }
    }

    /// The stored plan is for another group, or another cluster.
    fn other_group(&self, why: &str) -> Step {
        Step::Fail(Rejection::new(
            GROUP_CHANGED,
            format!("{why} since the plan was made; create the replay again, if it is still wanted"),
        ))
    }

    /// What is missing may have been applied together with the replay. One that has a plan waits: its records may be
    /// half processed.
    pub fn appears(&self, missing: Rejection) -> Step {
        match self.known_for < APPEARS_WITHIN || self.has_plan() {
            true => self.wait(missing.reason, missing.message, Some(SOON)),
            false => Step::Fail(missing),
        }
    }

    /// The group could not run now.
    pub fn not_accepted(&self, group: &KafkaConsumerGroup, why: Rejection) -> Step {
        if why.reason == NOT_COMPILED {
            return self.wait(NOT_COMPILED, why.message, Some(SOON));
        }
        self.appears(Rejection::new(
            "GroupNotAccepted",
            format!(
                "workers of KafkaConsumerGroup {} cannot be started: {}",
                group.name_any(),
                why.message
            ),
        ))
    }

    /// The next step after the questions for a plan. `valid`: the group, as its workers would be started.
    pub fn after_answers(
        &self,
        group: &KafkaConsumerGroup,
        valid: &ValidatedGroup,
        answers: Result<Answers, KafkaProblem>,
    ) -> Step {
        let answers = match answers {
            Ok(answers) => answers,
            Err(problem) => return self.problem(&problem),
        };
        let plan = match replay::plan(&self.replay.spec, &group.spec, &answers) {
            Ok(plan) => plan,
            Err(missing) if missing.reason == "TopicMissing" => return self.appears(missing),
            Err(refused) => return Step::Fail(refused),
        };
        let planned = Planned {
            partitions: &plan.partitions,
            added: ADDED,
            verb: "replay",
        };
        let config = configuration(self.replay, valid, &plan.partitions, plan.workers, "");
        let fits = too_large::fits(self.replay, &planned).and_then(|()| fits_config_map(&config));
        match fits {
            Err(too_large) => Step::Fail(too_large),
            Ok(()) if self.replay.spec.dry_run => Step::Show(plan),
            Ok(()) => Step::Store(plan),
        }
    }

    /// What follows from the state of the workers and of their consumer group.
    pub fn after_look(&self, group: &KafkaConsumerGroup, look: Result<Look, KafkaProblem>) -> Next {
        let look = match look {
            Ok(look) => look,
            Err(problem) => return Next::Step(self.problem(&problem)),
        };
        let partitions = with_positions(stored(self.replay), &look.positions);
        let is_done = partitions.iter().all(ReplayPartition::is_finished);
        if !is_done && let Some(step) = self.outdated(&partitions, &look.positions) {
            return Next::Step(step);
        }
        match look.job {
            Job::Active(_) if is_done => Next::Settle(Step::Run(ending(partitions))),
            ref job if is_done && look.alive > 0 && *job != Job::Complete => {
                Next::Settle(Step::Run(ending(partitions)))
            }
            // The status must say it first: with the consumer group the offsets are gone, and whoever knows neither
            // starts from the beginning.
            _ if is_done && !self.is_stored_as_done() => Next::Step(Step::Run(ending(partitions))),
            _ if is_done => Next::Finish,
            // The offsets of a transaction are visible a moment after it is committed.
            Job::Complete if self.done_for < COMMITTED_WITHIN => Next::Settle(Step::Run(Running {
                message: "the workers have ended; waiting for their last offsets".into(),
                again: SOON,
                partitions,
            })),
            Job::Complete => Next::Step(Step::Fail(offsets_left(&partitions))),
            Job::Missing => Next::Launch,
            Job::Failed(message) => Next::Step(Step::Fail(failure(group, &message, &look.ends))),
            Job::Foreign(name) => Next::Step(Step::Fail(Rejection::new(
                "NameConflict",
                format!(
                    "Job {name} exists and does not belong to this KafkaReplay; delete it, or create the replay with another name"
                ),
            ))),
            Job::Leftover(name) => Next::Step(self.wait(
                "WaitingForDeletion",
                format!("Job {name} is being deleted, or belongs to a deleted KafkaReplay of this name; waiting until Kubernetes has deleted it"),
                Some(SOON),
            )),
            Job::Active(workers) => Next::Step(Step::Run(Running {
                message: running(workers, &partitions, &look.ends),
                again: interval(partitions.len()),
                partitions,
            })),
        }
    }

    /// Why the stored plan does not fit what Kafka has now.
    fn outdated(&self, partitions: &[ReplayPartition], now: &ResetPositions) -> Option<Step> {
        let planned = self.replay.status.as_ref()?.planned_for.as_ref();
        let planned = planned.and_then(|planned| planned.cluster_id.as_ref());
        if let (Some(planned), Some(now)) = (planned, &now.cluster_id)
            && planned != now
        {
            return Some(self.other_group(&format!(
                "the addresses of the group lead to another Kafka cluster, with id {now},"
            )));
        }
        // What is processed needs its topic no more.
        let mut left = partitions.iter().filter(|partition| !partition.is_finished());
        let gone = left.find(|partition| {
            let id = now.topic_ids.get(&partition.topic);
            let is_other = id.is_some() && partition.topic_id.is_some() && id != partition.topic_id.as_ref();
            let is_missing = now.topics.get(&partition.topic) == Some(&None);
            is_other || is_missing
        })?;
        Some(Step::Fail(Rejection::new(
            "PlanOutdated",
            format!(
                "topic {} was deleted, or created again, since the plan was made; create the replay again, if it is still wanted",
                gone.topic
            ),
        )))
    }

    /// Why the workers are not created yet. None: they are to be created.
    pub fn after_commit(&self, answer: Result<ResetOutcome, KafkaProblem>) -> Option<Step> {
        let waits = |message: String| Some(self.wait("CommittingStart", message, Some(SOON)));
        match answer {
            Ok(ResetOutcome::Committed) => None,
            Ok(ResetOutcome::OtherCluster(now)) => Some(self.other_group(&format!(
                "the addresses of the group lead to another Kafka cluster, with id {now},"
            ))),
            Ok(ResetOutcome::Members(_)) => {
                waits("waiting for earlier workers of the replay to leave".into())
            }
            Ok(ResetOutcome::Partly(partly)) => waits(without_volatile_parts(&partly.to_string())),
            Err(problem) => Some(self.problem(&problem)),
        }
    }

    /// The workers are created.
    pub fn launched(&self, workers: i32) -> Step {
        let partitions = stored(self.replay).to_vec();
        Step::Run(Running {
            message: running(workers, &partitions, &[]),
            again: SOON,
            partitions,
        })
    }

    /// The next step after an attempt to delete the consumer group of a replay that is done.
    pub fn after_delete(&self, group_id: &str, answer: Result<Deleted, KafkaProblem>) -> Step {
        let stays = |why: String| {
            Step::Succeed(Some(format!(
                "the consumer group {group_id} stays until its offsets expire ({why})"
            )))
        };
        match answer {
            Ok(Deleted::Gone) => Step::Succeed(None),
            Ok(Deleted::HasMembers) if self.done_for < LEAVES_WITHIN => self.wait(
                "WaitingForMembers",
                "everything is processed; waiting for the workers to leave the consumer group".into(),
                Some(SOON),
            ),
            Ok(Deleted::HasMembers) => stays("it still has members".into()),
            Err(problem @ KafkaProblem::Unreachable(_)) if self.done_for < LEAVES_WITHIN => {
                self.problem(&problem)
            }
            Err(KafkaProblem::AuthorizationFailed(message)) => {
                stays(format!("{message}; grant the user the ACL Delete on it"))
            }
            Err(problem) => stays(without_volatile_parts(&problem.to_string())),
        }
    }

    /// Kafka did not answer, or refused.
    fn problem(&self, problem: &KafkaProblem) -> Step {
        let message = without_volatile_parts(&problem.to_string());
        match problem {
            KafkaProblem::Unreachable(_) | KafkaProblem::TransactionOpen(_) => {
                self.wait(problem.reason(), message, None)
            }
            // The workers that run may still be able to work, and whoever corrects it need not start again.
            _ if self.has_plan() => self.wait(problem.reason(), message, None),
            _ => Step::Fail(Rejection::new(problem.reason(), message)),
        }
    }

    /// Waits in the phase that the replay has.
    pub fn wait(&self, reason: &'static str, message: String, again: Option<Duration>) -> Step {
        Step::Wait(Waiting {
            reason,
            message,
            again,
        })
    }
}

#[cfg(test)]
mod tests;
