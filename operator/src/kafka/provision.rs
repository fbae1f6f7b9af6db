//! Creates missing topics and adds partitions to topics that have too few. In: a cluster and the wanted
//! topics. Out: the action per topic. Never shrinks, deletes or reconfigures a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};

use super::cluster::Cluster;
use super::limits;
use super::missing::{Missing, answer_of};
use super::model::{KafkaProblem, ProvisionAction, Provisioned, WantedTopic};
use super::protocol::Request;
use super::protocol::error_code::ErrorCode;
use super::protocol::metadata::Metadata;
use super::protocol::topics::{CreatePartitions, CreateTopics, NewTopic, TopicResult};
use super::topics;

/// Timeout of a topic creation, which writes to the disks of several brokers; the controller waits 20 s for
/// it. The broker gets a second less, so that its own words arrive.
const PROVISION: Duration = Duration::from_secs(15);
const PROVISION_AT_BROKER_MILLISECONDS: i32 = 14_000;

/// The controller may move while it is asked.
const ATTEMPTS: u32 = 3;
/// A request is not repeated if it took longer: then the broker may still be at work.
const QUICK: Duration = Duration::from_secs(3);

/// Longest string that the protocol takes.
const LONGEST_VALUE: usize = 32_767;

pub(super) async fn provision(
    cluster: &Cluster,
    wanted: &[WantedTopic],
) -> Result<Vec<Provisioned>, KafkaProblem> {
    let names: BTreeSet<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let existing = topics::topics(cluster, &names).await?;
    let mut done = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let found = answer_of(&existing, &topic.name).map_err(Missing::problem)?;
        let count = found.map(|topic| topic.partitions());
        let (action, note) = match count {
            Some(partitions) if partitions >= topic.partitions => (ProvisionAction::Unchanged, None),
            Some(from) => (grow(cluster, topic, from).await?, None),
            None => create(cluster, topic).await?,
        };
        done.push(Provisioned {
            topic: topic.name.clone(),
            action,
            note,
        });
    }
    Ok(done)
}

/// Also returns what was left out: a broker's policy may refuse the limits that the operator adds.
async fn create(
    cluster: &Cluster,
    topic: &WantedTopic,
) -> Result<(ProvisionAction, Option<String>), KafkaProblem> {
    let too_long = |value: &String| value.len() > LONGEST_VALUE;
    if let Some((key, _)) = topic.config.iter().find(|(_, value)| too_long(value)) {
        return Err(KafkaProblem::ProvisionRefused(format!(
            "create topic \"{}\": the value of {key} is longer than {LONGEST_VALUE} bytes",
            topic.name
        )));
    }
    // What the user sets counts.
    let mut added = match topic.accepts.is_empty() {
        true => Default::default(),
        false => limits::of(cluster, &topic.accepts).await,
    };
    added.retain(|name, _| !topic.config.contains_key(name));
    with_or_without(&added, &topic.config, |config| {
        create_with(cluster, topic, config).boxed()
    })
    .await
}

/// Creates a topic with the user's configuration and `added`, or without `added` if that is refused.
async fn with_or_without<'a>(
    added: &BTreeMap<String, String>,
    users: &BTreeMap<String, String>,
    create: impl Fn(BTreeMap<String, String>) -> BoxFuture<'a, Result<ProvisionAction, KafkaProblem>>,
) -> Result<(ProvisionAction, Option<String>), KafkaProblem> {
    let mut config = users.clone();
    config.extend(added.clone());
    match create(config).await {
        Err(KafkaProblem::ProvisionRefused(refused)) if !added.is_empty() => {
            Ok((create(users.clone()).await?, Some(without(added, &refused))))
        }
        other => Ok((other?, None)),
    }
}

fn without(added: &BTreeMap<String, String>, refused: &str) -> String {
    let added: Vec<String> = added
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "without {}, which the brokers refuse ({refused}), so that the topic may refuse the largest dead letters; allow it, or set another value in provision.config",
        added.join(" and ")
    )
}

async fn create_with(
    cluster: &Cluster,
    topic: &WantedTopic,
    config: BTreeMap<String, String>,
) -> Result<ProvisionAction, KafkaProblem> {
    let request = CreateTopics {
        topics: vec![NewTopic {
            name: topic.name.clone(),
            partitions: topic.partitions,
            // -1: the broker's default.
            replication_factor: i16::try_from(topic.replication_factor.unwrap_or(-1)).unwrap_or(i16::MAX),
            configs: config.into_iter().collect(),
        }],
        timeout_milliseconds: PROVISION_AT_BROKER_MILLISECONDS,
    };
    let result = at_controller(cluster, &request).await?;
    let created = verdict(result, "create", &topic.name, ErrorCode::TOPIC_ALREADY_EXISTS)?;
    Ok(created.unwrap_or(ProvisionAction::Created))
}

async fn grow(cluster: &Cluster, topic: &WantedTopic, from: i32) -> Result<ProvisionAction, KafkaProblem> {
    let request = CreatePartitions {
        topics: vec![(topic.name.clone(), topic.partitions)],
        timeout_milliseconds: PROVISION_AT_BROKER_MILLISECONDS,
    };
    let result = at_controller(cluster, &request).await?;
    // InvalidPartitions: another client has added the partitions meanwhile.
    let grown = verdict(
        result,
        "add partitions to",
        &topic.name,
        ErrorCode::INVALID_PARTITIONS,
    )?;
    Ok(grown.unwrap_or(ProvisionAction::Grown {
        from,
        to: topic.partitions,
    }))
}

/// Asks the broker that Metadata names as the controller. With KRaft any broker forwards the request.
async fn at_controller<R>(cluster: &Cluster, request: &R) -> Result<Option<TopicResult>, KafkaProblem>
where
    R: Request<Answer = Vec<TopicResult>>,
{
    let mut attempt = 1;
    loop {
        let brokers = Metadata { topics: Vec::new() };
        let answer = cluster.any(&brokers).await?;
        cluster.learn(&answer);
        let started = Instant::now();
        let results = cluster.node(answer.controller, request, PROVISION).await;
        let retry = match &results {
            Ok(results) => results
                .iter()
                .any(|result| result.error == ErrorCode::NOT_CONTROLLER),
            Err(_) => true,
        };
        if retry && attempt < ATTEMPTS && started.elapsed() < QUICK {
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
            continue;
        }
        let results = results.map_err(|error| Missing::of_call(error).problem())?;
        return Ok(results.into_iter().next());
    }
}

/// None: done as requested. Some(Unchanged): another client was first; the code `raced` means that.
fn verdict(
    result: Option<TopicResult>,
    verb: &str,
    topic: &str,
    raced: ErrorCode,
) -> Result<Option<ProvisionAction>, KafkaProblem> {
    let Some(result) = result else {
        let message = format!("{verb} topic \"{topic}\": the broker has not answered for the topic");
        return Err(KafkaProblem::Unreachable(message));
    };
    if result.error.is_ok() {
        return Ok(None);
    }
    if result.error == raced {
        return Ok(Some(ProvisionAction::Unchanged));
    }
    let mut message = format!("{verb} topic \"{topic}\": {}", result.error);
    if let Some(words) = result.message.filter(|words| !words.is_empty()) {
        message = format!("{message}: {}", words.trim_end_matches('.'));
    }
    Err(match result.error {
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            KafkaProblem::AuthorizationFailed(message)
        }
        ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_CONTROLLER | ErrorCode::THROTTLING_QUOTA_EXCEEDED => {
            KafkaProblem::Unreachable(message)
        }
        _ => KafkaProblem::ProvisionRefused(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_REPLICATION_FACTOR: ErrorCode = ErrorCode(38);

    #[tokio::test]
    async fn limits_that_a_policy_refuses_are_left_out_and_named() {
        let entries = |names: &[&str]| -> BTreeMap<String, String> {
            names
                .iter()
                .map(|name| (name.to_string(), "1".to_string()))
                .collect()
        };
        let refuses = |refused: &'static str| {
            move |config: BTreeMap<String, String>| {
                let created = match config.contains_key(refused) {
                    true => Err(KafkaProblem::ProvisionRefused("POLICY_VIOLATION".into())),
                    false => Ok(ProvisionAction::Created),
                };
                std::future::ready(created).boxed()
            }
        };
        let (added, users) = (entries(&["max.message.bytes"]), entries(&["retention.ms"]));
        let created = with_or_without(&added, &users, refuses("max.message.bytes")).await;
        let (action, note) = created.unwrap();
        assert_eq!(action, ProvisionAction::Created);
        let note = note.unwrap();
        for part in [
            "without max.message.bytes=1",
            "POLICY_VIOLATION",
            "provision.config",
        ] {
            assert!(note.contains(part), "{note}");
        }
        let created = with_or_without(&added, &users, refuses("nothing")).await;
        assert_eq!(created, Ok((ProvisionAction::Created, None)));
        // The user's own configuration is never left out.
        let created = with_or_without(&added, &users, refuses("retention.ms")).await;
        assert_eq!(created.unwrap_err().reason(), "ProvisionRefused");
    }

    #[test]
    fn a_lost_race_is_no_error_and_refusals_are_distinguished() {
        let verdict = |error| {
            let result = TopicResult {
                topic: "orders".into(),
                error,
                message: Some("In the broker's words.".into()),
            };
            verdict(Some(result), "create", "orders", ErrorCode::TOPIC_ALREADY_EXISTS)
        };
        assert_eq!(
            verdict(ErrorCode::TOPIC_ALREADY_EXISTS),
            Ok(Some(ProvisionAction::Unchanged))
        );
        let reason = |code| verdict(code).unwrap_err().reason();
        assert_eq!(
            reason(ErrorCode::TOPIC_AUTHORIZATION_FAILED),
            "AuthorizationFailed"
        );
        assert_eq!(reason(INVALID_REPLICATION_FACTOR), "ProvisionRefused");
        assert_eq!(reason(ErrorCode::REQUEST_TIMED_OUT), "KafkaUnreachable");
        let message = verdict(INVALID_REPLICATION_FACTOR).unwrap_err().to_string();
        assert!(message.contains("create topic \"orders\""), "{message}");
        assert!(message.contains("In the broker's words"), "{message}");
    }
}
