//! Creates missing topics and adds partitions to topics that have too few. In: an open client for reads, the
//! properties of a short-lived admin client for changes. Out: the action per topic. Never shrinks, deletes or
//! reconfigures a topic.

use std::time::{Duration, Instant};

use crds::client_config::Properties;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{Cluster, explain, refusal};
use super::model::{KafkaProblem, ProvisionAction, Provisioned, WantedTopic};

/// Blocks; must run on a blocking thread of a tokio runtime.
pub(super) fn provision(
    cluster: &Cluster,
    properties: &Properties,
    topics: &[WantedTopic],
    connect: Duration,
    timeout: Duration,
) -> Result<Vec<Provisioned>, KafkaProblem> {
    let mut done = Vec::with_capacity(topics.len());
    let mut admin = None;
    for topic in topics {
        let existing = cluster.partitions(&topic.name, Instant::now() + connect)?;
        let action = match existing {
            Some(partitions) if partitions >= topic.partitions => ProvisionAction::Unchanged,
            Some(from) => grow(admin_client(&mut admin, properties)?, topic, timeout)?.unwrap_or(
                ProvisionAction::Grown {
                    from,
                    to: topic.partitions,
                },
            ),
            None => create(admin_client(&mut admin, properties)?, topic, timeout)?
                .unwrap_or(ProvisionAction::Created),
        };
        done.push(Provisioned {
            topic: topic.name.clone(),
            action,
        });
    }
    Ok(done)
}

/// Opened at the first change and closed at the end of the call: the rdkafka crate never reads the log queue
/// of an admin client, so the queue of a long-lived one would grow without bound while brokers are down.
fn admin_client<'a>(
    admin: &'a mut Option<AdminClient<DefaultClientContext>>,
    properties: &Properties,
) -> Result<&'a AdminClient<DefaultClientContext>, KafkaProblem> {
    if let Some(admin) = admin {
        return Ok(admin);
    }
    let mut config = ClientConfig::new();
    for (key, value) in properties {
        config.set(key, value);
    }
    config.set_log_level(RDKafkaLogLevel::Critical);
    let opened: AdminClient<DefaultClientContext> = config
        .create()
        .map_err(|error| KafkaProblem::InvalidConfiguration(explain(&error)))?;
    Ok(admin.insert(opened))
}

fn create(
    admin: &AdminClient<DefaultClientContext>,
    topic: &WantedTopic,
    timeout: Duration,
) -> Result<Option<ProvisionAction>, KafkaProblem> {
    // -1: the broker's default.
    let replication = TopicReplication::Fixed(topic.replication_factor.unwrap_or(-1));
    let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    let answer = tokio::runtime::Handle::current().block_on(admin.create_topics([&new], &options(timeout)));
    verdict(answer, "create", &topic.name, Code::TopicAlreadyExists)
}

fn grow(
    admin: &AdminClient<DefaultClientContext>,
    topic: &WantedTopic,
    timeout: Duration,
) -> Result<Option<ProvisionAction>, KafkaProblem> {
    let count = usize::try_from(topic.partitions).unwrap_or_default();
    let new = NewPartitions::new(&topic.name, count);
    let answer =
        tokio::runtime::Handle::current().block_on(admin.create_partitions([&new], &options(timeout)));
    // InvalidPartitions: another client has added the partitions meanwhile.
    verdict(answer, "add partitions to", &topic.name, Code::InvalidPartitions)
}

fn options(timeout: Duration) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(timeout))
        .operation_timeout(Some(timeout))
}

/// None: done as requested. Some(Unchanged): another client was first; the code `raced` means that.
fn verdict(
    answer: Result<Vec<TopicResult>, KafkaError>,
    verb: &str,
    topic: &str,
    raced: Code,
) -> Result<Option<ProvisionAction>, KafkaProblem> {
    let code = match answer {
        Err(error) => error.rdkafka_error_code().unwrap_or(Code::Fail),
        Ok(results) => match results.into_iter().next() {
            Some(Ok(_)) => return Ok(None),
            Some(Err((_, code))) => code,
            None => Code::Fail,
        },
    };
    if code == raced {
        return Ok(Some(ProvisionAction::Unchanged));
    }
    let message = format!("{verb} topic \"{topic}\": {code}");
    Err(refusal(code, &message).unwrap_or(match code {
        Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::NotController => KafkaProblem::Unreachable(message),
        _ => KafkaProblem::ProvisionRefused(message),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_is_no_error_and_refusals_are_distinguished() {
        let answer = |code| Ok(vec![Err(("orders".to_string(), code))]);
        let verdict = |code| verdict(answer(code), "create", "orders", Code::TopicAlreadyExists);
        assert_eq!(
            verdict(Code::TopicAlreadyExists),
            Ok(Some(ProvisionAction::Unchanged))
        );
        let reason = |code| verdict(code).unwrap_err().reason();
        assert_eq!(reason(Code::TopicAuthorizationFailed), "AuthorizationFailed");
        assert_eq!(reason(Code::InvalidReplicationFactor), "ProvisionRefused");
        assert_eq!(reason(Code::OperationTimedOut), "KafkaUnreachable");
        let message = verdict(Code::InvalidReplicationFactor).unwrap_err().to_string();
        assert!(message.contains("create topic \"orders\""), "{message}");
    }
}
