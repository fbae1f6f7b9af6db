//! What a group needs in Kafka before workers run: topics with `provision`, and committed start positions.
//! In: a validated group and the facts. Out: the facts afterwards, what was created, and what failed. Never
//! deletes or shrinks anything; never changes a group that has members.

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
use crate::kafka::model::{
    GroupKey, KafkaFacts, KafkaProblem, KafkaView, ProvisionAction, Provisioned, WantedTopic,
};

/// A topic creation waits for a Kafka controller that may be busy; other requests of the client time out
/// after a few seconds each.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The facts do not include the dead letter topic, so it is checked again after this time.
const DEAD_LETTER_RECHECK: Duration = Duration::from_secs(300);

/// The result.
#[derive(Clone, Debug, Default)]
pub struct ProvisionOutcome {
    pub provisioned: Vec<Provisioned>,
    /// The step that failed.
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
            // Earliest works without committed positions: workers start there by default.
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
        // The lag was read before the partitions existed.
        facts.lag = None;
        provisioned.push(done);
        scope
            .context
            .kafka
            .invalidate(&GroupKey::new(&group.namespace, &group.name));
    }
    let Some(dead_letter) = dead_letter else {
        return Ok(());
    };
    let key = hash(format!("{dead_letter:?}").as_bytes());
    if let Some((done, at)) = &memory.provisioned
        && *done == key
        && at.elapsed() < DEAD_LETTER_RECHECK
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
    bounded(kafka.provision(&group.spec.kafka, &group.credentials, wanted)).await
}

/// True if start positions need no further commit, now or later.
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
    // The group already has members: partitions without an offset start where their consumer decides.
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
    let committed = bounded(commit).await?;
    tracing::info!(
        group = group.name,
        namespace = group.namespace,
        committed,
        "committed the start positions"
    );
    Ok(true)
}

async fn bounded<T>(work: impl Future<Output = Result<T, KafkaProblem>>) -> Result<T, KafkaProblem> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(KafkaProblem::Unreachable(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}
