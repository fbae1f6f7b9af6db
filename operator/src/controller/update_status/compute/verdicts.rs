//! Each condition of a group. In: what a status is computed from. Out: whether it holds, why, and what to do.
//! Pure; a message stays the same as long as nothing changes.

mod kafka;

use std::time::Duration;

use crds::KafkaConsumerGroupStatus;
use crds::spec::DesiredState;
use crds::status::{PausedReason, StalledPartition, condition};

use super::super::conditions::{self, Truth, Verdict};
use super::super::workers;
use super::counts::WorkerCounts;
use super::inputs::Inputs;
use crate::controller::names::child_name;
use crate::group::scaling::{self, Limit};
use crate::group::validate::NOT_COMPILED;
use crate::group::wording::count;
use crate::kafka::model::KafkaView;
use crate::kafka::model::{GroupFacts, KafkaProblem};

pub(in super::super) use self::kafka::CLUSTER_CHANGED;
pub(super) use self::kafka::{lag_known, reachable};

/// Reason while others are members of the consumer group.
pub(in super::super) const GROUP_SHARED: &str = "GroupShared";

/// Reason while an offset reset holds the group at 0 workers.
pub(in super::super) const OFFSET_RESET: &str = "OffsetReset";

/// Whether all partitions are assigned, according to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assigned {
    All,
    /// Not all, or the group is rebalancing: state, assigned and total.
    Not(String),
    Unknown,
}

pub(super) fn assigned(group: Option<&GroupFacts>, total: Option<i32>) -> Assigned {
    let (Some(group), Some(total)) = (group, total) else {
        return Assigned::Unknown;
    };
    match group.assigned_partitions {
        Some(assigned) if group.state == "Stable" && assigned >= total => Assigned::All,
        Some(assigned) => Assigned::Not(format!(
            "the group is {}; {assigned} of {} assigned",
            group.state,
            count(total, "partition")
        )),
        None => Assigned::Not(format!("the group is {}", group.state)),
    }
}

pub(super) fn stopped(inputs: &Inputs<'_>) -> bool {
    inputs.spec.desired_state == DesiredState::Stopped
}

/// What was known of a group remains this long while the compiler has not judged its programs. A restarted
/// operator compiles 1,000 programs within two minutes.
pub(super) const KEPT: Duration = Duration::from_secs(300);

/// The compiler has not judged a program of this generation yet, so what was known of the generation remains
/// for a while: a restarted operator compiles everything again.
pub(super) fn not_judged_yet(inputs: &Inputs<'_>) -> bool {
    let pending = inputs.acceptance.is_err_and(|it| it.reason == NOT_COMPILED) && !never_judged(inputs);
    pending && inputs.generation.is_some() && inputs.old.observed_generation == inputs.generation
}

/// The compiler does not judge the programs, so nothing is known of them.
fn never_judged(inputs: &Inputs<'_>) -> bool {
    inputs.unjudged_for.is_some_and(|waited| waited >= KEPT)
}

pub(super) fn accepted(inputs: &Inputs<'_>) -> Verdict {
    if let Some(kept) =
        conditions::kept(&inputs.old.conditions, condition::ACCEPTED).filter(|_| not_judged_yet(inputs))
    {
        return kept;
    }
    match inputs.acceptance {
        Ok(None) => Verdict::new(
            Truth::True,
            "Accepted",
            "the spec and everything it references are valid",
        ),
        Ok(Some(warning)) => Verdict::new(Truth::True, warning.reason, warning.message.clone()),
        Err(rejection) if rejection.reason == NOT_COMPILED && never_judged(inputs) => {
            Verdict::new(Truth::Unknown, rejection.reason, rejection.message.clone())
        }
        Err(rejection) => Verdict::new(Truth::False, rejection.reason, rejection.message.clone()),
    }
}

pub(super) fn available(inputs: &Inputs<'_>, workers: &WorkerCounts) -> Verdict {
    let no = |reason: &str, message: String| Verdict::new(Truth::False, reason, message);
    let WorkerCounts {
        wanted,
        existing,
        ready,
        updated,
        ..
    } = *workers;
    if inputs.deployment.is_none() {
        return no("NotCreated", "no workers have been created yet".into());
    }
    if stopped(inputs) && wanted == 0 {
        let draining = inputs.pods.len();
        return if existing == 0 && draining == 0 {
            Verdict::new(Truth::True, "Stopped", "no workers run, as desiredState requests")
        } else {
            no("Stopping", format!("{} left to drain", count(draining, "worker")))
        };
    }
    if let Some(reset) = inputs.hold.filter(|_| wanted == 0) {
        let draining = existing.max(i32::try_from(inputs.pods.len()).unwrap_or(i32::MAX));
        let mut message = scaling::held(reset);
        if draining > 0 {
            message.push_str(&format!("; {} left to drain", count(draining, "worker")));
        }
        return no(OFFSET_RESET, message);
    }
    if workers.observed && ready >= wanted && updated >= wanted && existing == wanted {
        return match wanted {
            0 => {
                let reason = inputs.decision.map(|decision| &decision.reason);
                let before = inputs.old.scaling.as_ref().and_then(|old| old.reason.as_ref());
                no("NoWorkers", reason.or(before).cloned().unwrap_or_default())
            }
            _ => Verdict::new(
                Truth::True,
                "AllWorkersReady",
                format!("{wanted} of {} ready", count(wanted, "worker")),
            ),
        };
    }
    if let Some(refused) = &workers.refused {
        return no(
            "PodCreationFailed",
            format!("the API server refuses worker pods: {refused}"),
        );
    }
    let living = inputs.pods.iter().filter(|pod| !pod.terminating && !pod.ready);
    // The smallest name, not the first found: the message must not change while nothing changes.
    let failing = living
        .filter_map(|pod| pod.problem.as_ref().map(|problem| (&pod.name, problem)))
        .min_by_key(|(name, problem)| (problem.reason, name.as_str()));
    if let Some((name, problem)) = failing {
        return no(
            problem.reason,
            format!(
                "pod {name}: {}",
                conditions::without_volatile_parts(&problem.message)
            ),
        );
    }
    if inputs.deployment.and_then(|it| it.spec.as_ref()?.paused) == Some(true) {
        return no(
            "DeploymentPaused",
            format!(
                "Deployment {name} is paused, so no change reaches the workers; resume it: kubectl rollout resume deployment/{name}",
                name = child_name(inputs.name)
            ),
        );
    }
    if let Some(refuses) = inputs.shared.and_then(|shared| shared.refuses.as_ref()) {
        return no("GroupRefusesWorkers", refuses.clone());
    }
    no("Progressing", workers.progress())
}

pub(super) fn consuming(
    inputs: &Inputs<'_>,
    kafka_known: bool,
    assigned: &Assigned,
    workers: &WorkerCounts,
    stuck: Option<&(i32, Vec<StalledPartition>)>,
) -> Verdict {
    match inputs.spec.desired_state {
        DesiredState::Stopped => {
            return Verdict::new(
                Truth::False,
                "Stopped",
                "desiredState is Stopped; committed offsets are kept",
            );
        }
        _ if inputs.hold.is_some() => {
            let message = inputs.hold.map(scaling::held).unwrap_or_default();
            return Verdict::new(Truth::False, OFFSET_RESET, message);
        }
        _ if inputs.shared.is_some() => {
            let message = inputs.shared.map(|shared| shared.message.clone());
            return Verdict::new(Truth::False, GROUP_SHARED, message.unwrap_or_default());
        }
        DesiredState::Paused => {
            return Verdict::new(
                Truth::False,
                "Paused",
                "desiredState is Paused; workers keep their partitions and fetch no records",
            );
        }
        DesiredState::Running => {}
    }
    // Partitions of a topic that was deleted stay assigned for a while.
    let topics = inputs.kafka.known().map(|facts| &facts.topics);
    if let Some((topic, _)) = topics.and_then(|topics| topics.iter().find(|(_, count)| count.is_none())) {
        let message = format!("topic {topic} does not exist; see condition Accepted");
        return Verdict::new(Truth::False, "TopicMissing", message);
    }
    let present = |name: &str| inputs.pods.iter().any(|pod| pod.name == name);
    if let Some(problem) = workers::worker_problem(inputs.workers(), present, inputs.now) {
        return Verdict::new(Truth::False, problem.reason, problem.message);
    }
    if let Some((number @ 1.., shown)) = stuck {
        let first = shown.first().map_or(String::new(), |first| {
            let offset = first.offset.map_or(String::new(), |offset| format!("@{offset}"));
            let (topic, partition, since) = (&first.topic, first.partition, first.since);
            format!(", {topic}-{partition}{offset} since {since}")
        });
        let message = format!(
            "{} without progress although there is work to do{first}; see status.stalledPartitions and the logs of the workers",
            count(*number, "partition")
        );
        return Verdict::new(Truth::False, "PartitionsStalled", message);
    }
    match assigned {
        Assigned::All if workers.ready == 0 => Verdict::new(
            Truth::False,
            "NoWorkerReady",
            "no worker is ready; see condition WorkersAvailable",
        ),
        Assigned::All => Verdict::new(Truth::True, "Consuming", "every partition is being consumed"),
        _ if workers.ready > 0 && inputs.recently_healthy => Verdict::new(
            Truth::True,
            "Consuming",
            "every partition was being consumed a moment ago",
        ),
        Assigned::Not(how) => Verdict::new(Truth::False, "PartitionsNotOwned", how.clone()),
        Assigned::Unknown if kafka_known => Verdict::new(
            Truth::Unknown,
            "GroupUnknown",
            "the broker does not report the partition assignment",
        ),
        Assigned::Unknown => Verdict::new(
            Truth::Unknown,
            "KafkaNotRead",
            "Kafka could not be queried; see condition KafkaReachable",
        ),
    }
}

pub(super) fn stalled(
    inputs: &Inputs<'_>,
    accepted: &Verdict,
    reachable: &Verdict,
    available: &Verdict,
    consuming: &Verdict,
) -> Verdict {
    let yes = |verdict: &Verdict| Verdict::new(Truth::True, &verdict.reason, verdict.message.clone());
    if !accepted.is_true() && accepted.reason != NOT_COMPILED {
        return yes(accepted);
    }
    if let Some(failure) = inputs.failure.filter(|failure| failure.needs_action) {
        return Verdict::new(Truth::True, &failure.reason, failure.message.clone());
    }
    if stopped(inputs) {
        return Verdict::new(Truth::False, "Stopped", "desiredState is Stopped");
    }
    // An unreachable cluster recovers without action; refused logins and wrong settings do not.
    if matches!(inputs.kafka, KafkaView::Failed(problem) if !matches!(problem, KafkaProblem::Unreachable(_)))
    {
        return yes(reachable);
    }
    if !available.is_true()
        && !matches!(
            available.reason.as_str(),
            "Progressing" | "NotCreated" | "NoWorkers" | OFFSET_RESET
        )
    {
        return yes(available);
    }
    if consuming.reason == GROUP_SHARED
        || PausedReason::named(&consuming.reason).is_some_and(PausedReason::needs_action)
    {
        return yes(consuming);
    }
    Verdict::new(Truth::False, "NotStalled", "no action needed")
}

pub(super) fn ready(
    inputs: &Inputs<'_>,
    in_order: &[&Verdict; 4],
    assigned: &Assigned,
    tolerant: bool,
) -> Verdict {
    let [accepted, reachable, available, consuming] = in_order;
    let no = |verdict: &Verdict| Verdict::new(Truth::False, &verdict.reason, verdict.message.clone());
    if !accepted.is_true() {
        return (*accepted).clone();
    }
    if let Some(failure) = inputs.failure {
        return Verdict::new(Truth::False, &failure.reason, failure.message.clone());
    }
    if stopped(inputs) {
        // kstatus, and with it flux and helm --wait, waits for Ready.
        return if available.is_true() {
            Verdict::new(Truth::True, "Stopped", available.message.clone())
        } else {
            no(available)
        };
    }
    if inputs.hold.is_some() {
        return no(consuming);
    }
    // A single request without an answer is no outage.
    let unreachable = matches!(inputs.kafka, KafkaView::Failed(KafkaProblem::Unreachable(_)));
    let tolerated = unreachable && tolerant;
    if !reachable.is_true() && !tolerated {
        return no(reachable);
    }
    if !available.is_true() {
        return no(available);
    }
    if consuming.truth == Truth::False
        && !matches!(consuming.reason.as_str(), "Paused" | "PartitionsNotOwned")
    {
        return no(consuming);
    }
    match assigned {
        Assigned::All => {}
        // Nothing was observed, so the condition stays as it was.
        _ if tolerant && unreachable => return kept_ready(inputs.old),
        _ if tolerant => {
            return Verdict::new(
                Truth::True,
                "Rebalancing",
                "the group is rebalancing: partitions move between workers",
            );
        }
        Assigned::Not(how) => return Verdict::new(Truth::False, "PartitionsNotOwned", how.clone()),
        Assigned::Unknown => {
            return Verdict::new(
                Truth::False,
                "GroupUnknown",
                "the broker does not report the partition assignment",
            );
        }
    }
    if consuming.reason == "Paused" {
        return Verdict::new(Truth::True, "Paused", consuming.message.clone());
    }
    Verdict::new(
        Truth::True,
        "AllPartitionsConsumed",
        "every partition is being consumed",
    )
}

fn kept_ready(old: &KafkaConsumerGroupStatus) -> Verdict {
    let before = conditions::find(&old.conditions, condition::READY);
    before.map_or_else(
        || Verdict::new(Truth::True, "AllPartitionsConsumed", ""),
        |before| Verdict::new(Truth::True, &before.reason, before.message.clone()),
    )
}

pub(super) fn reconciling(
    inputs: &Inputs<'_>,
    accepted: &Verdict,
    available: &Verdict,
    assigned: &Assigned,
    ready: &Verdict,
    stalled: &Verdict,
) -> Verdict {
    if stalled.is_true() || !accepted.is_true() {
        return Verdict::new(Truth::False, "Stalled", "see condition Stalled");
    }
    if !inputs.withheld.is_empty() {
        let message = format!(
            "the workers keep their configuration until the start position of {} is committed, which requires Kafka; see condition KafkaReachable",
            inputs.withheld.join(", ")
        );
        return Verdict::new(Truth::True, "WaitingForKafka", message);
    }
    if !available.is_true() && available.reason != "NoWorkers" {
        return Verdict::new(Truth::True, &available.reason, available.message.clone());
    }
    let joining = matches!(assigned, Assigned::Not(_)) && !ready.is_true() && !stopped(inputs);
    if joining && ready.reason == "PartitionsNotOwned" {
        return Verdict::new(Truth::True, "Joining", ready.message.clone());
    }
    if let Some(image) = inputs.waiting_image {
        let message = format!(
            "the operator's default image is {image} now; the workers change to it when other groups have (--max-concurrent-rollouts); to decide yourself, set spec.worker.image"
        );
        return Verdict::new(Truth::True, "WaitingForRollout", message);
    }
    Verdict::new(Truth::False, "UpToDate", "the running workers match the spec")
}

pub(super) fn limited(inputs: &Inputs<'_>) -> Verdict {
    let Some(decision) = inputs.decision else {
        // Also while running workers keep their configuration until Kafka answers.
        let undecided = not_judged_yet(inputs) || inputs.acceptance.is_ok();
        if let Some(kept) =
            conditions::kept(&inputs.old.conditions, condition::SCALING_LIMITED).filter(|_| undecided)
        {
            return kept;
        }
        return Verdict::new(
            Truth::Unknown,
            "NotDecided",
            "the spec is not accepted; see condition Accepted",
        );
    };
    let truth = match decision.limited_by {
        Limit::None | Limit::MinReplicas => Truth::False,
        Limit::Partitions | Limit::MaxReplicas => Truth::True,
        Limit::Unknown => Truth::Unknown,
    };
    let reason = match decision.limited_by {
        Limit::None => "NotLimited",
        limit => limit.as_str(),
    };
    Verdict::new(truth, reason, decision.reason.clone())
}
