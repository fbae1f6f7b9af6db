//! What a group needs in Kafka before workers run: topics that the spec asks for, and committed start positions. In: a
//! validated group and the facts. Out: the facts as they are afterwards, what was created, and what did not work. Never
//! deletes or shrinks anything; touches no group that has members.

use std::future::Future;
use std::time::{Duration, Instant};

use crds::spec::StartPositionType;

use super::memory::GroupMemory;
use super::scope::Scope;
use super::update_status::conditions::without_volatile_parts;
use crate::digest::hash;
use crate::group::observed::{Observed, query};
use crate::group::rejection::Finding;
use crate::group::topics::{self, WantedTopics};
use crate::group::validate::ValidatedGroup;
use crate::kafka::model::{KafkaFacts, KafkaProblem, KafkaView, ProvisionAction, Provisioned, WantedTopic};

/// Creating topics waits for a controller that may be busy; the client's own requests give up after a few seconds each.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The dead letter topic is not among the facts, so it is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct ProvisionOutcome {
    pub provisioned: Vec<Provisioned>,
    /// Something that was asked for could not be done.
    pub problem: Option<Finding>,
}

pub async fn provision(
    scope: &Scope,
    group: &ValidatedGroup,
    observed: &mut Observed,
    memory: &mut GroupMemory,
) -> ProvisionOutcome {
    let mut outcome = ProvisionOutcome::default();
    let KafkaView::Known(facts) = &mut observed.kafka else {
        return outcome;
    };
    if let Err(problem) = create_topics(scope, group, facts, memory, &mut outcome.provisioned).await {
        outcome.problem = Some(explain("topics cannot be created or grown", &problem));
    }
    if !observed.start_positions_committed {
        match commit_start_positions_once(scope, group, facts).await {
            Ok(committed) => observed.start_positions_committed = committed,
            // Without them Earliest works too: it is where workers start by themselves.
            Err(problem) if group.spec.consumer.start_position.kind == StartPositionType::Earliest => {
                tracing::debug!(group = group.name, %problem, "start positions are not committed yet");
            }
            Err(problem) => {
                outcome.problem = Some(explain("start positions cannot be committed", &problem));
            }
        }
    }
    outcome
}

fn explain(what: &str, problem: &KafkaProblem) -> Finding {
    Finding::new(
        problem.reason(),
        without_volatile_parts(&format!("{what}: {problem}")),
    )
}

async fn create_topics(
    scope: &Scope,
    group: &ValidatedGroup,
    facts: &mut KafkaFacts,
    memory: &mut GroupMemory,
    provisioned: &mut Vec<Provisioned>,
) -> Result<(), KafkaProblem> {
    let WantedTopics { inputs, dead_letter } = topics::wanted(&group.spec, &facts.topics);
    for done in call(scope, group, &inputs).await? {
        let partitions = match done.action {
            ProvisionAction::Grown { to, .. } => Some(to),
            ProvisionAction::Created => inputs
                .iter()
                .find(|wanted| wanted.name == done.topic)
                .map(|wanted| wanted.partitions),
            ProvisionAction::Unchanged => continue,
        };
        facts.topics.insert(done.topic.clone(), partitions);
        // It was read before the partitions existed.
        facts.lag = None;
        provisioned.push(done);
        memory.facts = None;
    }
    let Some(dead_letter) = dead_letter else {
        return Ok(());
    };
    let key = hash(format!("{dead_letter:?}").as_bytes());
    if let Some((done, at)) = &memory.provisioned
        && *done == key
        && at.elapsed() < LOOK_AGAIN
    {
        return Ok(());
    }
    provisioned.extend(
        call(scope, group, &[dead_letter])
            .await?
            .into_iter()
            .filter(|it| it.action != ProvisionAction::Unchanged),
    );
    memory.provisioned = Some((key, Instant::now()));
    Ok(())
}

async fn call(
    scope: &Scope,
    group: &ValidatedGroup,
    wanted: &[WantedTopic],
) -> Result<Vec<Provisioned>, KafkaProblem> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let kafka = &scope.context.kafka;
    bounded(
        scope,
        kafka.provision(&group.spec.kafka, &group.credentials, wanted),
    )
    .await
}

/// True when nothing is left to do about start positions, now or ever.
async fn commit_start_positions_once(
    scope: &Scope,
    group: &ValidatedGroup,
    facts: &KafkaFacts,
) -> Result<bool, KafkaProblem> {
    if group
        .spec
        .topics
        .iter()
        .any(|topic| facts.topics.get(&topic.name).copied().flatten().is_none())
    {
        return Ok(false);
    }
    // Somebody consumes already: what has no offset by now starts where its consumer decides.
    if facts
        .group
        .as_ref()
        .is_some_and(|group| !group.members.is_empty())
    {
        return Ok(true);
    }
    let query = query(&group.namespace, &group.name, &group.spec);
    let start = &group.spec.consumer.start_position;
    let kafka = &scope.context.kafka;
    let commit = kafka.commit_start_positions(&group.spec.kafka, &group.credentials, &query, start);
    let committed = bounded(scope, commit).await?;
    tracing::info!(
        group = group.name,
        namespace = group.namespace,
        committed,
        "start positions are committed"
    );
    Ok(true)
}

async fn bounded<T>(
    scope: &Scope,
    work: impl Future<Output = Result<T, KafkaProblem>>,
) -> Result<T, KafkaProblem> {
    let _turn = scope.kafka_turn().await;
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(KafkaProblem::Unreachable(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}
