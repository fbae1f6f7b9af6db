//! Conditions about Kafka: whether the brokers answer, and whether the lag is known. Pure.

use crds::status::condition;

use crate::controller::update_status::compute::inputs::Inputs;
use crate::controller::update_status::conditions::{self, Truth, Verdict};
use crate::kafka::model::{KafkaFacts, KafkaView};

/// Reason while the addresses lead to another cluster than before.
pub const CLUSTER_CHANGED: &str = "ClusterChanged";

pub fn reachable(inputs: &Inputs<'_>) -> Verdict {
    match inputs.kafka {
        KafkaView::Known(facts) => cluster_changed(inputs, facts)
            .unwrap_or_else(|| Verdict::new(Truth::True, "BrokersAnswer", "the brokers respond")),
        KafkaView::Failed(problem) => Verdict::new(
            Truth::False,
            problem.reason(),
            conditions::without_volatile_parts(&problem.to_string()),
        ),
        KafkaView::NotAsked => Verdict::new(
            Truth::Unknown,
            "NotAsked",
            "the spec is not accepted; see condition Accepted",
        ),
    }
}

/// The same addresses lead to another cluster than before. Nothing says whether that is meant, so it is shown
/// until the user changes the spec, or the condition has another reason. The Event remains.
fn cluster_changed(inputs: &Inputs<'_>, facts: &KafkaFacts) -> Option<Verdict> {
    if inputs.generation.is_none() || inputs.old.observed_generation != inputs.generation {
        return None;
    }
    let was = conditions::kept(&inputs.old.conditions, condition::KAFKA_REACHABLE)
        .filter(|was| was.reason == CLUSTER_CHANGED);
    match (&inputs.old.cluster_id, &facts.cluster_id) {
        (Some(before), Some(now)) if before != now => Some(Verdict::new(
            Truth::True,
            CLUSTER_CHANGED,
            format!(
                "{} led to the cluster with id {before} and leads to another one now, with id {now}, which has its own topics and committed offsets; if that is not meant, check DNS, port forwarding and load balancers in front of the brokers, and whether the cluster lost its disks; if it is, nothing is to do, and any change of the spec ends this message",
                inputs.spec.kafka.bootstrap_servers.join(", ")
            ),
        )),
        _ => was,
    }
}

pub fn lag_known(facts: Option<&KafkaFacts>) -> Verdict {
    match facts {
        Some(facts) if facts.lag.is_some() => Verdict::new(
            Truth::True,
            "LagRead",
            "committed offsets and end offsets of all partitions are known",
        ),
        Some(_) => Verdict::new(
            Truth::False,
            "LagUnknown",
            "not all committed offsets and end offsets could be read; unknown lag is not counted as 0",
        ),
        None => Verdict::new(
            Truth::False,
            "KafkaNotRead",
            "Kafka could not be queried; see condition KafkaReachable",
        ),
    }
}
