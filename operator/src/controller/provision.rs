//! What a group needs in Kafka before workers run: topics that the spec asks for, and committed start positions. In: a
//! validated group and the facts. Out: the facts as they are afterwards, what was created, and what did not work. Never
//! deletes or shrinks anything; touches no group that has members.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use crds::spec::StartPositionType;

use super::Scope;
use super::build::labels::hash;
use super::dereference::{KafkaView, Observed, query};
use super::memory::Memory;
use super::update_status::conditions::steady;
use super::validate::{Rejection, ValidatedGroup};
use crate::kafka::{KafkaFacts, KafkaProblem, ProvisionAction, Provisioned, WantedTopic};

/// Creating topics waits for a controller that may be busy; the client's own requests give up after a few seconds each.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The dead letter topic is not among the facts, so it is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub provisioned: Vec<Provisioned>,
    /// Something that was asked for could not be done.
    pub problem: Option<Rejection>,
}

pub async fn provision(
    scope: &Scope,
    group: &ValidatedGroup,
    observed: &mut Observed,
    memory: &mut Memory,
) -> Outcome {
    let mut outcome = Outcome::default();
    let KafkaView::Known(facts) = &mut observed.kafka else {
        return outcome;
    };
    if let Err(problem) = create_topics(scope, group, facts, memory, &mut outcome.provisioned).await {
        outcome.problem = Some(explain("topics cannot be created or grown", &problem));
    }
    if !observed.positions_settled {
        match settle_positions(scope, group, facts).await {
            Ok(settled) => observed.positions_settled = settled,
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

fn explain(what: &str, problem: &KafkaProblem) -> Rejection {
    Rejection::new(problem.reason(), steady(&format!("{what}: {problem}")))
}

async fn create_topics(
    scope: &Scope,
    group: &ValidatedGroup,
    facts: &mut KafkaFacts,
    memory: &mut Memory,
    provisioned: &mut Vec<Provisioned>,
) -> Result<(), KafkaProblem> {
    let mut wanted = wanted_inputs(group, &facts.topics);
    for done in call(scope, group, &wanted).await? {
        let partitions = match done.action {
            ProvisionAction::Grown { to, .. } => Some(to),
            ProvisionAction::Created => wanted
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
    wanted = wanted_dead_letters(group, &facts.topics).into_iter().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let key = hash(format!("{wanted:?}").as_bytes());
    if let Some((done, at)) = &memory.provisioned
        && *done == key
        && at.elapsed() < LOOK_AGAIN
    {
        return Ok(());
    }
    provisioned.extend(
        call(scope, group, &wanted)
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
async fn settle_positions(
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

/// Input topics that are missing or have too few partitions.
fn wanted_inputs(group: &ValidatedGroup, known: &BTreeMap<String, Option<i32>>) -> Vec<WantedTopic> {
    let topics = group.spec.topics.iter().filter_map(|topic| {
        let provision = topic.provision.as_ref()?;
        let enough = known
            .get(&topic.name)?
            .is_some_and(|partitions| partitions >= provision.partitions);
        (!enough).then(|| WantedTopic {
            name: topic.name.clone(),
            partitions: provision.partitions,
            replication_factor: provision.replication_factor,
            config: provision.config.clone(),
        })
    });
    topics.collect()
}

/// The dead letter topic has as many partitions as the largest input, so that a dead letter keeps its partition.
fn wanted_dead_letters(group: &ValidatedGroup, known: &BTreeMap<String, Option<i32>>) -> Option<WantedTopic> {
    let dead_letter = group.spec.error_handling.dead_letter.as_ref()?;
    let provision = dead_letter.provision.as_ref()?;
    let inputs = group.spec.topics.iter();
    let partitions = inputs
        .filter_map(|topic| known.get(&topic.name).copied().flatten())
        .max()?;
    Some(WantedTopic {
        name: dead_letter.topic.clone(),
        partitions,
        replication_factor: provision.replication_factor,
        config: provision.config.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;
    use serde_json::json;

    fn group(provision: serde_json::Value) -> ValidatedGroup {
        let mut group = validated();
        group.spec.topics[0].provision = serde_json::from_value(provision).unwrap();
        group.spec.error_handling = serde_json::from_value(
            json!({"deadLetter": {"topic": "orders.dlq", "provision": {"replicationFactor": 3}}}),
        )
        .unwrap();
        group
    }

    fn known(partitions: Option<i32>) -> BTreeMap<String, Option<i32>> {
        [("orders".to_string(), partitions)].into()
    }

    #[test]
    fn only_missing_and_small_topics_are_wanted() {
        let group = group(json!({"partitions": 6}));
        assert_eq!(wanted_inputs(&group, &known(None))[0].partitions, 6);
        assert_eq!(wanted_inputs(&group, &known(Some(3))).len(), 1);
        assert!(wanted_inputs(&group, &known(Some(6))).is_empty());
        assert!(wanted_inputs(&group, &known(Some(9))).is_empty());
    }

    #[test]
    fn a_topic_that_nobody_asked_to_provision_is_left_alone() {
        assert!(wanted_inputs(&group(json!(null)), &known(None)).is_empty());
    }

    #[test]
    fn the_dead_letter_topic_follows_the_largest_input() {
        let wanted = wanted_dead_letters(&group(json!(null)), &known(Some(9))).unwrap();
        assert_eq!((wanted.name.as_str(), wanted.partitions), ("orders.dlq", 9));
        assert_eq!(wanted.replication_factor, Some(3));
        assert_eq!(wanted_dead_letters(&group(json!(null)), &known(None)), None);
    }
}
