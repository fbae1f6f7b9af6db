//! Computes the status of a group. In: everything that was observed, decided and applied, and the old status. Out: the
//! new one. Pure: the same input gives the same status, to the byte, or a quiet cluster would see writes.

use crds::KafkaConsumerGroupStatus;
use crds::spec::{DesiredState, KafkaConsumerGroupSpec};
use crds::status::{LagStatus, PartitionsStatus, ScalingStatus, TopicStatus, condition};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use super::conditions::{self, Truth, Verdict, whole_seconds};
use super::workers;
use crate::controller::build::labels::selector_text;
use crate::controller::dereference::KafkaView;
use crate::controller::pods::PodFacts;
use crate::controller::validate::Rejection;
use crate::kafka::{GroupFacts, KafkaFacts, KafkaProblem};
use crate::scaling::{Decision, Limit};

/// Something that was to be done and could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    /// Waiting does not help.
    pub needs_human: bool,
}

/// What a status is computed from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    pub name: &'a str,
    pub generation: Option<i64>,
    pub spec: &'a KafkaConsumerGroupSpec,
    pub group_id: String,
    pub image: Option<&'a str>,
    /// Err: not accepted. Ok(Some): accepted with a warning.
    pub acceptance: Result<Option<&'a Rejection>, &'a Rejection>,
    pub kafka: &'a KafkaView,
    pub decision: Option<&'a Decision>,
    /// As the API server returned it last.
    pub deployment: Option<&'a Deployment>,
    pub pods: &'a [PodFacts],
    pub failure: Option<&'a Failure>,
    pub old: &'a KafkaConsumerGroupStatus,
    /// The group was seen well a moment ago.
    pub settling: bool,
    pub now: Timestamp,
}

/// The new status, and what the caller remembers of it.
#[derive(Clone, Debug)]
pub struct Computed {
    pub status: KafkaConsumerGroupStatus,
    /// Brokers answered and every partition had an owner.
    pub healthy: bool,
    /// Something is still on its way and worth looking at again soon.
    pub converging: bool,
}

pub fn compute(inputs: &Inputs<'_>) -> Computed {
    let now = whole_seconds(inputs.now);
    let facts = match inputs.kafka {
        KafkaView::Known(facts) => Some(facts),
        _ => None,
    };
    let group = facts.and_then(|facts| facts.group.as_ref());
    let topics = topics(inputs, facts);
    let total = topics
        .iter()
        .try_fold(0, |sum, topic| Some(sum + topic.partitions?));
    let workers = Workers::of(inputs);

    let accepted = accepted(inputs);
    let reachable = reachable(inputs);
    let available = available(inputs, &workers);
    let owned = owned(group, total);
    let consuming = consuming(inputs, facts.is_some(), &owned);
    let stalled = stalled(inputs, &accepted, &reachable, &available, &consuming);
    let settles = inputs.settling && conditions::is_true(&inputs.old.conditions, condition::READY);
    let ready = ready(
        inputs,
        &[&accepted, &reachable, &available, &consuming],
        &owned,
        settles,
    );
    let reconciling = reconciling(inputs, &available, &owned, &ready, &stalled);
    let converging = reconciling.is_true() || (!ready.is_true() && !stalled.is_true() && !stopped(inputs));
    let verdicts = vec![
        (condition::READY, ready),
        (condition::ACCEPTED, accepted),
        (condition::KAFKA_REACHABLE, reachable),
        (condition::LAG_KNOWN, lag_known(facts)),
        (condition::WORKERS_AVAILABLE, available),
        (condition::CONSUMING, consuming),
        (condition::SCALING_LIMITED, limited(inputs.decision)),
        (condition::RECONCILING, reconciling),
        (condition::STALLED, stalled),
    ];
    let status = KafkaConsumerGroupStatus {
        observed_generation: inputs.generation,
        conditions: conditions::merge(&inputs.old.conditions, verdicts, inputs.generation, now),
        group_id: Some(inputs.group_id.clone()),
        group_state: group.map(|group| group.state.clone()),
        selector: Some(selector_text(inputs.name)),
        replicas: Some(workers.wanted),
        ready_replicas: Some(workers.ready),
        updated_replicas: Some(workers.updated),
        worker_image: inputs
            .image
            .map(String::from)
            .or_else(|| inputs.old.worker_image.clone()),
        partitions: total.map(|total| PartitionsStatus {
            total,
            assigned: group.and_then(|group| group.assigned_partitions),
        }),
        topics,
        lag: lag(inputs.old, facts, now),
        scaling: inputs
            .decision
            .map(scaling_status)
            .or_else(|| inputs.old.scaling.clone()),
        workers: inputs.old.workers.clone(),
    };
    Computed {
        status,
        healthy: matches!(owned, Owned::All),
        converging,
    }
}

/// The status of a resource that does not parse.
pub fn unreadable(
    old: &KafkaConsumerGroupStatus,
    generation: Option<i64>,
    rejection: &Rejection,
    now: Timestamp,
) -> KafkaConsumerGroupStatus {
    let no = |reason: &str| Verdict::new(Truth::False, reason, rejection.message.clone());
    let mut kept: Vec<_> = old.conditions.clone();
    let verdicts = vec![
        (condition::READY, no(rejection.reason)),
        (condition::ACCEPTED, no(rejection.reason)),
        (
            condition::RECONCILING,
            Verdict::new(Truth::False, rejection.reason, ""),
        ),
        (
            condition::STALLED,
            Verdict::new(Truth::True, rejection.reason, rejection.message.clone()),
        ),
    ];
    let merged = conditions::merge(&old.conditions, verdicts, generation, whole_seconds(now));
    kept.retain(|condition| merged.iter().all(|new| new.type_ != condition.type_));
    KafkaConsumerGroupStatus {
        observed_generation: generation,
        conditions: merged.into_iter().chain(kept).collect(),
        ..old.clone()
    }
}

/// Numbers of the Deployment, once it has seen the spec that we mean.
struct Workers {
    wanted: i32,
    existing: i32,
    ready: i32,
    updated: i32,
    /// The Deployment's own trouble with making pods.
    refused: Option<String>,
    observed: bool,
}

impl Workers {
    fn of(inputs: &Inputs<'_>) -> Self {
        let spec = inputs.deployment.and_then(|deployment| deployment.spec.as_ref());
        let status = inputs
            .deployment
            .and_then(|deployment| deployment.status.clone())
            .unwrap_or_default();
        let generation = inputs
            .deployment
            .and_then(|deployment| deployment.metadata.generation);
        let failure = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        Self {
            wanted: spec.and_then(|spec| spec.replicas).unwrap_or(0),
            existing: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            refused: failure.map(|condition| condition.message.unwrap_or_default()),
            observed: generation.is_some() && status.observed_generation >= generation,
        }
    }
}

/// The broker's view of who owns the partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    All,
    /// Not all, or not settled: state, owned and total.
    Not(String),
    Unknown,
}

fn owned(group: Option<&GroupFacts>, total: Option<i32>) -> Owned {
    let (Some(group), Some(total)) = (group, total) else {
        return Owned::Unknown;
    };
    match group.assigned_partitions {
        Some(assigned) if group.state == "Stable" && assigned >= total => Owned::All,
        Some(assigned) => Owned::Not(format!(
            "the group is {}; {assigned} of {total} partitions have an owner",
            group.state
        )),
        None => Owned::Not(format!("the group is {}", group.state)),
    }
}

fn stopped(inputs: &Inputs<'_>) -> bool {
    inputs.spec.desired_state == DesiredState::Stopped
}

fn accepted(inputs: &Inputs<'_>) -> Verdict {
    match inputs.acceptance {
        Ok(None) => Verdict::new(
            Truth::True,
            "Accepted",
            "the spec and all it refers to can be used",
        ),
        Ok(Some(warning)) => Verdict::new(Truth::True, warning.reason, warning.message.clone()),
        Err(rejection) => Verdict::new(Truth::False, rejection.reason, rejection.message.clone()),
    }
}

fn reachable(inputs: &Inputs<'_>) -> Verdict {
    match inputs.kafka {
        KafkaView::Known(_) => Verdict::new(Truth::True, "BrokersAnswer", "the brokers answer"),
        KafkaView::Failed(problem) => Verdict::new(Truth::False, problem.reason(), problem.to_string()),
        KafkaView::NotAsked => Verdict::new(
            Truth::Unknown,
            "NotAsked",
            "the spec is not usable yet; see condition Accepted",
        ),
    }
}

fn lag_known(facts: Option<&KafkaFacts>) -> Verdict {
    match facts {
        Some(facts) if facts.lag.is_some() => Verdict::new(
            Truth::True,
            "LagRead",
            "committed offsets and ends of all partitions are known",
        ),
        Some(_) => Verdict::new(
            Truth::False,
            "LagUnknown",
            "not all committed offsets and ends could be read; unknown is not counted as 0",
        ),
        None => Verdict::new(
            Truth::False,
            "KafkaNotRead",
            "Kafka could not be asked; see condition KafkaReachable",
        ),
    }
}

fn available(inputs: &Inputs<'_>, workers: &Workers) -> Verdict {
    let no = |reason: &str, message: String| Verdict::new(Truth::False, reason, message);
    let Workers {
        wanted,
        existing,
        ready,
        updated,
        ..
    } = *workers;
    if inputs.deployment.is_none() {
        return no("NotCreated", "no workers were created yet".into());
    }
    if stopped(inputs) && wanted == 0 {
        let leaving = inputs.pods.len();
        return match existing == 0 && leaving == 0 {
            true => Verdict::new(Truth::True, "Stopped", "no workers, as asked for"),
            false => no(
                "Stopping",
                format!("{leaving} workers finish what they have begun"),
            ),
        };
    }
    if workers.observed && ready >= wanted && updated >= wanted && existing == wanted {
        return match wanted {
            0 => no(
                "NoWorkers",
                inputs
                    .decision
                    .map_or(String::new(), |decision| decision.reason.clone()),
            ),
            _ => Verdict::new(
                Truth::True,
                "AllWorkersReady",
                format!("{wanted} of {wanted} workers are ready"),
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
    // The smallest name, not the first found: the message must not change while nothing does.
    let in_trouble = living
        .filter_map(|pod| pod.problem.as_ref().map(|problem| (&pod.name, problem)))
        .min_by_key(|(name, problem)| (problem.reason, name.as_str()));
    if let Some((name, problem)) = in_trouble {
        return no(problem.reason, format!("pod {name}: {}", problem.message));
    }
    no(
        "Progressing",
        format!("{ready} of {wanted} workers are ready, {updated} run the latest configuration"),
    )
}

fn consuming(inputs: &Inputs<'_>, kafka_known: bool, owned: &Owned) -> Verdict {
    match inputs.spec.desired_state {
        DesiredState::Stopped => {
            return Verdict::new(Truth::False, "Stopped", "desiredState is Stopped; offsets stay");
        }
        DesiredState::Paused => {
            return Verdict::new(
                Truth::False,
                "Paused",
                "desiredState is Paused; workers keep their partitions and read nothing",
            );
        }
        DesiredState::Running => {}
    }
    let present = |name: &str| inputs.pods.iter().any(|pod| pod.name == name);
    if let Some(complaint) = workers::complaint(&inputs.old.workers, present, inputs.now) {
        return Verdict::new(Truth::False, complaint.reason, complaint.message);
    }
    match owned {
        Owned::All => Verdict::new(
            Truth::True,
            "Consuming",
            "every partition has an owner that reads it",
        ),
        _ if inputs.settling => {
            Verdict::new(Truth::True, "Consuming", "partitions are moving between workers")
        }
        Owned::Not(how) => Verdict::new(Truth::False, "PartitionsNotOwned", how.clone()),
        Owned::Unknown if kafka_known => Verdict::new(
            Truth::Unknown,
            "GroupUnknown",
            "the broker does not tell who owns the partitions",
        ),
        Owned::Unknown => Verdict::new(
            Truth::Unknown,
            "KafkaNotRead",
            "Kafka could not be asked; see condition KafkaReachable",
        ),
    }
}

fn stalled(
    inputs: &Inputs<'_>,
    accepted: &Verdict,
    reachable: &Verdict,
    available: &Verdict,
    consuming: &Verdict,
) -> Verdict {
    let yes = |verdict: &Verdict| Verdict::new(Truth::True, &verdict.reason, verdict.message.clone());
    if stopped(inputs) {
        return Verdict::new(Truth::False, "Stopped", "nothing is wanted");
    }
    if !accepted.is_true() {
        return yes(accepted);
    }
    if let Some(failure) = inputs.failure.filter(|failure| failure.needs_human) {
        return Verdict::new(Truth::True, &failure.reason, failure.message.clone());
    }
    // An unreachable cluster comes back by itself; refused logins and wrong settings do not.
    if matches!(inputs.kafka, KafkaView::Failed(problem) if !matches!(problem, KafkaProblem::Unreachable(_)))
    {
        return yes(reachable);
    }
    if !available.is_true()
        && !matches!(
            available.reason.as_str(),
            "Progressing" | "NotCreated" | "NoWorkers"
        )
    {
        return yes(available);
    }
    if consuming.reason == "RecordFailed" {
        return yes(consuming);
    }
    Verdict::new(Truth::False, "NotStalled", "nothing waits for a human")
}

fn ready(inputs: &Inputs<'_>, in_order: &[&Verdict; 4], owned: &Owned, settles: bool) -> Verdict {
    let [accepted, reachable, available, consuming] = in_order;
    let no = |verdict: &Verdict| Verdict::new(Truth::False, &verdict.reason, verdict.message.clone());
    if !accepted.is_true() {
        return no(accepted);
    }
    if let Some(failure) = inputs.failure {
        return Verdict::new(Truth::False, &failure.reason, failure.message.clone());
    }
    if stopped(inputs) {
        return if available.is_true() {
            no(consuming)
        } else {
            no(available)
        };
    }
    // One unanswered question is not an outage.
    let unanswered = matches!(inputs.kafka, KafkaView::Failed(KafkaProblem::Unreachable(_)));
    if !reachable.is_true() && !(unanswered && settles) {
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
    match owned {
        Owned::All => {}
        _ if settles => {
            return Verdict::new(
                Truth::True,
                "Rebalancing",
                "partitions are moving between workers",
            );
        }
        Owned::Not(how) => return Verdict::new(Truth::False, "PartitionsNotOwned", how.clone()),
        Owned::Unknown => {
            return Verdict::new(
                Truth::False,
                "GroupUnknown",
                "the broker does not tell who owns the partitions",
            );
        }
    }
    if consuming.reason == "Paused" {
        return Verdict::new(Truth::True, "Paused", consuming.message.clone());
    }
    Verdict::new(
        Truth::True,
        "AllPartitionsConsumed",
        "every partition has an owner that reads it",
    )
}

fn reconciling(
    inputs: &Inputs<'_>,
    available: &Verdict,
    owned: &Owned,
    ready: &Verdict,
    stalled: &Verdict,
) -> Verdict {
    if stalled.is_true() || inputs.acceptance.is_err() {
        return Verdict::new(Truth::False, "Stalled", "see condition Stalled");
    }
    if !available.is_true() && available.reason != "NoWorkers" {
        return Verdict::new(Truth::True, &available.reason, available.message.clone());
    }
    let joining = matches!(owned, Owned::Not(_)) && !ready.is_true() && !stopped(inputs);
    if joining && ready.reason == "PartitionsNotOwned" {
        return Verdict::new(Truth::True, "Joining", ready.message.clone());
    }
    Verdict::new(Truth::False, "Settled", "what is asked for is what runs")
}

fn limited(decision: Option<&Decision>) -> Verdict {
    let Some(decision) = decision else {
        return Verdict::new(
            Truth::Unknown,
            "NotDecided",
            "the spec is not usable yet; see condition Accepted",
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

fn scaling_status(decision: &Decision) -> ScalingStatus {
    ScalingStatus {
        recommended_replicas: decision.recommended,
        limited_by: Some(decision.limited_by.as_str().into()),
        reason: Some(decision.reason.clone()),
    }
}

/// What is known now, else what was known last: a count does not get wrong because a broker is away.
fn topics(inputs: &Inputs<'_>, facts: Option<&KafkaFacts>) -> Vec<TopicStatus> {
    let topics = inputs.spec.topics.iter().map(|topic| {
        let before = inputs.old.topics.iter().find(|before| before.name == topic.name);
        let partitions = match facts.and_then(|facts| facts.topics.get(&topic.name)) {
            Some(partitions) => *partitions,
            None => before.and_then(|before| before.partitions),
        };
        TopicStatus {
            name: topic.name.clone(),
            partitions,
        }
    });
    topics.collect()
}

/// Keeps its time while the numbers stay, so that an idle group is not written.
fn lag(old: &KafkaConsumerGroupStatus, facts: Option<&KafkaFacts>, now: Timestamp) -> Option<LagStatus> {
    let lag = facts?.lag.as_ref()?;
    let as_of = match &old.lag {
        Some(before)
            if (before.total, before.max, &before.max_partition)
                == (lag.total, lag.max, &lag.max_partition) =>
        {
            before.as_of
        }
        _ => now,
    };
    Some(LagStatus {
        total: lag.total,
        max: lag.max,
        max_partition: lag.max_partition.clone(),
        as_of,
    })
}

#[cfg(test)]
mod tests;
