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
use crate::group::observed::{Observed, StartedTopics, query};
use crate::group::rejection::Finding;
use crate::group::topics::{self, WantedTopics};
use crate::group::validate::ValidatedGroup;
use crate::kafka::model::{
    GroupKey, KafkaFacts, KafkaProblem, KafkaView, ProvisionAction, Provisioned, StartOutcome, WantedTopic,
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
    /// Workers must stop, so that the start position of an added topic can be committed.
    pub drain: bool,
    /// Topics that start at their first record instead, because others are members of the consumer group.
    pub skipped: Vec<String>,
    /// The step that failed.
    pub problem: Option<Finding>,
}

/// `others`: others than the workers are members of the consumer group, perhaps for other topics.
pub async fn provision(
    scope: &Scope,
    group: &ValidatedGroup,
    observed: &mut Observed,
    memory: &mut GroupMemory,
    others: bool,
) -> ProvisionOutcome {
    let mut outcome = ProvisionOutcome::default();
    let KafkaView::Known(facts) = &mut observed.kafka else {
        return outcome;
    };
    if let Err(problem) = create_topics(scope, group, facts, memory, &mut outcome.provisioned).await {
        outcome.problem = Some(explain("topics cannot be created or grown", &problem));
    }
    if observed.started.has_all(&group.spec, Some(facts)) {
        return outcome;
    }
    let earliest = group.spec.consumer.start_position.kind == StartPositionType::Earliest;
    let started = StartedTopics::all(&group.spec, facts);
    match commit_start_positions(scope, group, facts).await {
        Ok(None) => {}
        Ok(Some(StartOutcome::Committed(_))) => observed.started = started,
        // Earliest works without committed positions: workers start there by default.
        Ok(Some(StartOutcome::Occupied(_))) if earliest => observed.started = started,
        // Others stay members when the workers have stopped.
        Ok(Some(StartOutcome::Occupied(topics))) if others => {
            outcome.skipped = topics;
            observed.started = started;
        }
        Ok(Some(StartOutcome::Occupied(topics))) => {
            tracing::info!(
                group = group.name,
                namespace = group.namespace,
                ?topics,
                "topics join the group"
            );
            outcome.drain = true;
        }
        Err(problem) if earliest => {
            tracing::debug!(group = group.name, %problem, "start positions are not committed yet");
        }
        Err(problem) => {
            outcome.problem = Some(explain("start positions cannot be committed", &problem));
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

/// None while a topic does not exist.
async fn commit_start_positions(
    scope: &Scope,
    group: &ValidatedGroup,
    facts: &KafkaFacts,
) -> Result<Option<StartOutcome>, KafkaProblem> {
    let exists = |topic: &String| facts.topics.get(topic).copied().flatten().is_some();
    if !group.spec.topics.iter().all(|topic| exists(&topic.name)) {
        return Ok(None);
    }
    let query = query(&group.namespace, &group.name, &group.spec);
    let start = &group.spec.consumer.start_position;
    let kafka = &scope.context.kafka;
    let commit = kafka.commit_start_positions(&group.spec.kafka, &group.credentials, &query, start);
    let outcome = bounded(commit).await?;
    if let StartOutcome::Committed(committed @ 1..) = outcome {
        tracing::info!(
            group = group.name,
            namespace = group.namespace,
            committed,
            "committed the start positions"
        );
    }
    Ok(Some(outcome))
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
