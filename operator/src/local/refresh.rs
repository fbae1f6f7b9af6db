//! What local mode does in Kafka for one group, as a reconcile of the operator does. In: a validated group. Out:
//! the facts, and notices about what was done: topics created, start positions committed.

use std::time::Duration;

use crds::spec::StartPositionType;

use crate::group::observed::StartedTopics;
use crate::group::topics;
use crate::group::validate::ValidatedGroup;
use crate::kafka::KafkaClients;
use crate::kafka::model::{FactsQuery, GroupKey, KafkaFacts, KafkaProblem, ProvisionAction, StartOutcome};

/// Facts that another question has just brought are not read again.
const FRESH: Duration = Duration::from_millis(500);

/// What has happened in Kafka: the reason, as Events of the operator have it, and the text for the user.
pub struct Notice {
    pub reason: &'static str,
    pub text: String,
}

/// The result of a read from Kafka.
pub struct KafkaRefresh {
    pub outcome: Result<KafkaFacts, KafkaProblem>,
    /// The topics whose start positions are committed now, or need no commit.
    pub started: Option<StartedTopics>,
    pub notices: Vec<Notice>,
}

/// Provisions topics, commits start positions and reads facts, as a reconcile of the operator does.
pub async fn refresh(
    clients: KafkaClients,
    valid: ValidatedGroup,
    query: FactsQuery,
    has_started: bool,
    others: bool,
    provision: bool,
) -> KafkaRefresh {
    let key = GroupKey::new(&valid.namespace, &valid.name);
    let read = async |max_age| {
        clients
            .facts(&key, &valid.spec.kafka, &valid.credentials, &query, max_age)
            .await
    };
    let mut refresh = KafkaRefresh {
        outcome: read(FRESH).await,
        started: None,
        notices: Vec::new(),
    };
    let Ok(facts) = &refresh.outcome else {
        return refresh;
    };
    let mut provisioned = valid.spec.topics.iter().filter_map(|topic| {
        let provision = topic.provision.as_ref()?;
        Some(
            facts
                .topics
                .get(&topic.name)
                .copied()
                .flatten()
                .is_some_and(|has| has >= provision.partitions),
        )
    });
    let complete = provisioned.all(|enough| enough);
    // At the start for all topics, including dead letter topics; later only if an input topic is missing or
    // too small.
    if provision && (!has_started || !complete) {
        let wanted = topics::wanted(&valid.spec, &facts.topics).all();
        match clients
            .provision(&valid.spec.kafka, &valid.credentials, &wanted)
            .await
        {
            Ok(done) => {
                refresh.notices = done
                    .iter()
                    .filter_map(|done| match done.action {
                        ProvisionAction::Created => {
                            let note = done.note.iter().map(|note| format!(" {note}"));
                            let note: String = note.collect();
                            Some(Notice {
                                reason: "TopicCreated",
                                text: format!("{}: topic {} created{note}", valid.name, done.topic),
                            })
                        }
                        ProvisionAction::Grown { from, to } => Some(Notice {
                            reason: "TopicGrown",
                            text: format!(
                                "{}: topic {} was expanded from {from} to {to} partitions",
                                valid.name, done.topic
                            ),
                        }),
                        ProvisionAction::Unchanged => None,
                    })
                    .collect();
                if !refresh.notices.is_empty() {
                    clients.invalidate(&key);
                    refresh.outcome = read(Duration::ZERO).await;
                }
            }
            Err(problem) => {
                refresh.outcome = Err(problem);
                return refresh;
            }
        }
    }
    let Ok(facts) = &refresh.outcome else {
        return refresh;
    };
    if has_started || !facts.topics.values().all(Option::is_some) {
        return refresh;
    }
    let started = Some(StartedTopics::all(&valid.spec, facts));
    if !provision {
        // The embedded broker was empty when the group started: all start positions are equal.
        refresh.started = started;
        return refresh;
    }
    let start = &valid.spec.consumer.start_position;
    let earliest = start.kind == StartPositionType::Earliest;
    let committed = clients.commit_start_positions(&valid.spec.kafka, &valid.credentials, &query, start);
    match committed.await {
        Ok(StartOutcome::Committed(_)) => refresh.started = started,
        Ok(StartOutcome::Occupied(_)) if earliest => refresh.started = started,
        Ok(StartOutcome::Occupied(topics)) if others => {
            refresh.notices.push(Notice {
                reason: "StartPositionIgnored",
                text: format!(
                    "{}: consumer.startPosition does not apply to {}: the consumer group has other members",
                    valid.name,
                    topics.join(", ")
                ),
            });
            refresh.started = started;
        }
        // Until the workers have left the group.
        Ok(StartOutcome::Occupied(_)) => {}
        Err(problem) if earliest => {
            tracing::debug!(
                "start positions of {} are not committed yet: {problem}",
                valid.name
            );
        }
        Err(problem) => refresh.outcome = Err(problem),
    }
    refresh
}
