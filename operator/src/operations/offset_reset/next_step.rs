//! What happens next to a reset. In: the reset with its stored plan, its group and workers, what Kafka answered.
//! Out: a [`Step`]. Pure.

use std::time::Duration;

use crds::offset_reset::{PlannedPartition, ResetPhase};
use crds::spec::DesiredState;
use crds::status::condition::ACCEPTED;
use crds::{KafkaConsumerGroup, KafkaOffsetReset, KafkaOffsetResetStatus};
use kube::ResourceExt;

use crate::controller::update_status::conditions::{find, without_volatile_parts};
use crate::group::id::id_of;
use crate::group::members::names;
use crate::group::offset_reset::{self, Plan};
use crate::group::rejection::Rejection;
use crate::group::reset_order::phase;
use crate::group::wording::count;
use crate::kafka::model::{KafkaProblem, MemberFacts, ResetOutcome, ResetPositions, ResetQuery};
use crate::operations::planned_for;
use crate::operations::stored::GroupState;
use crate::operations::too_large::{self, Planned};

/// What may be applied together with a reset (its group, a Secret, a topic with provision) may appear this much
/// later.
pub const APPEARS_WITHIN: Duration = Duration::from_secs(30);
/// After the workers are gone, other members of the group have this long to leave. The session timeout of a
/// member that has died is 45 s by default.
pub const LEAVES_WITHIN: Duration = Duration::from_secs(120);
/// Time between two looks at the members of a group, which no watch reports.
const OFTEN: Duration = Duration::from_secs(2);
/// While nothing is expected to happen soon; whatever it is requests a reconcile.
const SELDOM: Duration = Duration::from_secs(30);
/// A failure in phase Resetting says so.
const MAY_BE_SET: &str =
    "offsets of some partitions may be set: compare status.partitions with the committed offsets";

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Shows why, and looks again later.
    Wait(Waiting),
    /// Ends it. Nothing was changed, or the message says what was.
    Fail(Rejection),
    /// Ends a dry run.
    Show(Plan),
    /// Stores the plan, and commits it afterwards.
    Store(Plan),
    /// Ends a reset whose stored plan is committed.
    Succeed,
}

/// Why a reset waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub phase: ResetPhase,
    pub reason: &'static str,
    pub message: String,
    /// When to look again. None: with growing pauses, because nothing answers.
    pub again: Option<Duration>,
    /// Something else than the workers of the group is in the way. It is given a limited time.
    pub obstructed: bool,
}

/// A reset and what surrounds it.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// As the API server has it now.
    pub reset: &'a KafkaOffsetReset,
    pub group: GroupState<'a>,
    /// Another reset of the group that is first.
    pub before: Option<String>,
    /// Since the operator has seen the reset first.
    pub known_for: Duration,
    pub workers: Workers,
    /// How long something else than the workers has been in the way.
    pub obstructed_for: Duration,
}

/// The workers of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// That the Deployment is to have.
    pub wanted: i32,
    /// Pods that have not ended.
    pub left: usize,
}

/// What has to be asked before the next step is known.
#[derive(Debug)]
pub enum Question<'a> {
    /// Where the group is, for a plan.
    Positions(&'a KafkaConsumerGroup, ResetQuery),
    /// Nothing: the stored plan is to be committed.
    Commit(&'a KafkaConsumerGroup),
}

/// Bytes of the time of a record, which is added to each partition of the plan later.
const RECORD_TIME: usize = 48;

/// What the plan needs in the resource.
fn stored_as(plan: &Plan) -> Planned<'_, PlannedPartition> {
    Planned {
        partitions: &plan.partitions,
        added: RECORD_TIME,
        verb: "reset",
    }
}

/// Why the stored plan must not be committed for this group.
fn difference(status: &KafkaOffsetResetStatus, group: &KafkaConsumerGroup) -> Option<String> {
    let id = id_of(group);
    if let Some(before) = status.group_id.as_ref().filter(|before| **before != id) {
        return Some(format!(
            "KafkaConsumerGroup {} has another consumer group id now: {id} instead of {before}",
            group.name_any()
        ));
    }
    planned_for::difference(status.planned_for.as_ref()?, group)
}

fn fail(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Fail(Rejection::new(reason, message))
}

impl<'a> Situation<'a> {
    /// What to ask Kafka, or the next step if that is known without it.
    pub fn question(&self) -> Result<Question<'a>, Step> {
        let group = self.group()?;
        let spec = &self.reset.spec;
        let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
        if let Some(status) = &self.reset.status
            && phase(self.reset) == ResetPhase::Resetting
            && !status.partitions.is_empty()
        {
            return match difference(status, group) {
                Some(why) => Err(self.other_group(&why)),
                None => Ok(Question::Commit(group)),
            };
        }
        if !spec.dry_run {
            if let Some(first) = &self.before {
                let message = format!(
                    "KafkaOffsetReset {first} of the same group is first; to cancel it: kubectl delete kor {first} -n {namespace}"
                );
                return Err(self.wait("WaitingForReset", message, Some(SELDOM)));
            }
            if !spec.stop_group && group.spec.desired_state != DesiredState::Stopped {
                return Err(fail(
                    "GroupNotStopped",
                    format!(
                        "the workers of KafkaConsumerGroup {name} run, and Kafka sets offsets only for a group without members; set stopGroup: true here, so that the operator stops them meanwhile, or stop the group first: kubectl patch kcg {name} -n {namespace} --type merge -p '{{\"spec\":{{\"desiredState\":\"Stopped\"}}}}'; then create the reset again"
                    ),
                ));
            }
            if self.is_unseen(group) {
                let message = format!(
                    "the operator has not checked the current spec of KafkaConsumerGroup {name} yet, and stops its workers only if it can start them again"
                );
                return Err(self.wait("WaitingForGroup", message, Some(OFTEN)));
            }
            if let Some(why) = self.not_accepted(group) {
                return Err(fail(
                    "GroupNotAccepted",
                    format!(
                        "the operator does not accept the spec of KafkaConsumerGroup {name} and could not start its workers again: {why}"
                    ),
                ));
            }
        }
        let query = offset_reset::query(spec, &id_of(group), &group.spec).map_err(Step::Fail)?;
        Ok(Question::Positions(group, query))
    }

    fn group(&self) -> Result<&'a KafkaConsumerGroup, Step> {
        let name = &self.reset.spec.group_ref.name;
        match self.group {
            GroupState::Present(group) => Ok(group),
            GroupState::Missing if phase(self.reset) == ResetPhase::Resetting => {
                Err(self.other_group(&format!("KafkaConsumerGroup {name} was deleted")))
            }
            GroupState::Missing => Err(self.appears(Rejection::new(
                "GroupNotFound",
                format!(
                    "there is no KafkaConsumerGroup {name} in this namespace; correct groupRef.name, or create the group"
                ),
            ))),
            GroupState::Unreadable(problem) => Err(self.fail(
                "GroupUnreadable",
                &format!(
                    "the stored KafkaConsumerGroup {name} does not fit its schema: {problem}; correct it with kubectl edit kcg {name}"
                ),
            )),
        }
    }

    /// The stored plan is for another group, or another cluster.
    fn other_group(&self, why: &str) -> Step {
        self.fail(
            "GroupChanged",
            &format!("{why} since the plan was made; create the reset again, if it is still wanted"),
        )
    }

    /// Ends it. In phase Resetting, an attempt to commit may have come before.
    fn fail(&self, reason: &'static str, message: &str) -> Step {
        let changed = match phase(self.reset) {
            ResetPhase::Resetting => MAY_BE_SET,
            _ => "nothing was changed",
        };
        fail(reason, format!("{message}; {changed}"))
    }

    /// What is missing may have been applied together with the reset.
    pub fn appears(&self, missing: Rejection) -> Step {
        let may_be_late = self.known_for < APPEARS_WITHIN || phase(self.reset) == ResetPhase::Resetting;
        match may_be_late {
            true => self.wait(missing.reason, missing.message, Some(OFTEN)),
            false => Step::Fail(missing),
        }
    }

    /// Whether the spec of a group that is to be stopped for the reset has not been checked.
    fn is_unseen(&self, group: &KafkaConsumerGroup) -> bool {
        let observed = group
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        self.is_to_stop(group) && observed != group.metadata.generation
    }

    /// Why the operator could not start the workers of a group again that it has to stop for the reset.
    fn not_accepted(&self, group: &KafkaConsumerGroup) -> Option<String> {
        let accepted = find(&group.status.as_ref()?.conditions, ACCEPTED)?;
        let is_refused = self.is_to_stop(group) && accepted.status == "False";
        is_refused.then(|| accepted.message.clone())
    }

    fn is_to_stop(&self, group: &KafkaConsumerGroup) -> bool {
        group.spec.desired_state != DesiredState::Stopped && phase(self.reset) == ResetPhase::Pending
    }

    /// The next step after the question for positions.
    pub fn after_positions(
        &self,
        group: &KafkaConsumerGroup,
        answer: Result<ResetPositions, KafkaProblem>,
    ) -> Step {
        let positions = match answer {
            Ok(positions) => positions,
            Err(problem) => return self.problem(&problem),
        };
        let plan = match offset_reset::plan(&self.reset.spec, &group.spec, &positions) {
            Ok(plan) => plan,
            Err(missing) if missing.reason == "TopicMissing" => return self.appears(missing),
            Err(refused) => return Step::Fail(refused),
        };
        // Before the group is stopped for it.
        if let Err(too_large) = too_large::fits(self.reset, &stored_as(&plan)) {
            return Step::Fail(too_large);
        }
        if self.reset.spec.dry_run {
            return Step::Show(plan);
        }
        let runs = group.spec.desired_state != DesiredState::Stopped;
        if runs && phase(self.reset) != ResetPhase::Stopping {
            // The phase holds the group; what its workers commit until they are gone counts.
            return self.stopping("the workers of the group stop".into(), false);
        }
        if self.workers.wanted > 0 || !positions.members.is_empty() {
            return self.occupied(&positions.members, ResetPhase::Stopping);
        }
        Step::Store(plan)
    }

    /// The next step after an attempt to commit the stored plan.
    pub fn after_commit(&self, answer: Result<ResetOutcome, KafkaProblem>) -> Step {
        match answer {
            Ok(ResetOutcome::Committed) => Step::Succeed,
            Ok(ResetOutcome::OtherCluster(now)) => self.other_group(&format!(
                "the addresses of the group lead to another Kafka cluster, with id {now},"
            )),
            Ok(ResetOutcome::Members(members)) => self.occupied(&members, ResetPhase::Resetting),
            Ok(ResetOutcome::Partly(partly)) if self.obstructed_for >= LEAVES_WITHIN => fail(
                "PartlyCommitted",
                format!("{partly}; create another reset for the remaining partitions"),
            ),
            Ok(ResetOutcome::Partly(partly)) => Step::Wait(Waiting {
                phase: ResetPhase::Resetting,
                reason: "PartlyCommitted",
                message: without_volatile_parts(&partly.to_string()),
                again: Some(OFTEN),
                obstructed: true,
            }),
            Err(problem) => self.problem(&problem),
        }
    }

    /// The group has members, or will.
    fn occupied(&self, members: &[MemberFacts], phase: ResetPhase) -> Step {
        let waits = |message: String, obstructed| {
            Step::Wait(Waiting {
                phase,
                reason: "WaitingForMembers",
                message,
                again: Some(OFTEN),
                obstructed,
            })
        };
        if self.workers.left > 0 {
            return waits(
                format!(
                    "{} left to drain, and Kafka sets offsets only for a group without members",
                    count(i64::try_from(self.workers.left).unwrap_or(i64::MAX), "worker")
                ),
                false,
            );
        }
        if members.is_empty() {
            return waits("the workers of the group stop".into(), false);
        }
        let shown = names(&members.iter().collect::<Vec<_>>());
        if self.obstructed_for >= LEAVES_WITHIN {
            return self.fail(
                "GroupNotEmpty",
                &format!(
                    "other members stay in the consumer group, and Kafka sets offsets only for a group without members: {shown}; stop them, then create the reset again"
                ),
            );
        }
        waits(
            format!(
                "no worker is left, but the consumer group has other members, which must leave within {} s: {shown}",
                LEAVES_WITHIN.as_secs()
            ),
            true,
        )
    }

    /// Kafka did not answer, or refused.
    fn problem(&self, problem: &KafkaProblem) -> Step {
        let message = without_volatile_parts(&problem.to_string());
        match problem {
            KafkaProblem::Unreachable(_) => self.wait(problem.reason(), message, None),
            KafkaProblem::TransactionOpen(_) => self.wait(problem.reason(), message, Some(OFTEN)),
            _ => self.fail(problem.reason(), &message),
        }
    }

    fn stopping(&self, message: String, obstructed: bool) -> Step {
        Step::Wait(Waiting {
            phase: ResetPhase::Stopping,
            reason: "WaitingForMembers",
            message,
            again: Some(OFTEN),
            obstructed,
        })
    }

    /// Waits in the phase that the reset has.
    fn wait(&self, reason: &'static str, message: String, again: Option<Duration>) -> Step {
        Step::Wait(Waiting {
            phase: phase(self.reset),
            reason,
            message,
            again,
            obstructed: false,
        })
    }
}

#[cfg(test)]
mod tests;
