//! Warnings about an accepted group. In: the spec and the Kafka facts. Out: at most one warning, which
//! contains all messages. Pure; a warning never keeps workers from running.

use crds::spec::{KafkaConsumerGroupSpec, ScalingMode, writer_without_json};

use crate::group::observed::Observed;
use crate::group::rejection::Finding;
use crate::group::topics;

/// The reason of the first warning and the messages of all: they share one condition.
pub(super) fn warning(spec: &KafkaConsumerGroupSpec, observed: &Observed) -> Option<Finding> {
    let warnings = replicas_ignored(spec, observed)
        .into_iter()
        .chain(missing_outputs(spec, observed))
        .chain(credentials_in_clear(spec))
        .chain(values_not_json(spec));
    warnings.reduce(|first, next| Finding {
        message: format!("{}; {}", first.message, next.message),
        ..first
    })
}

/// Outside of mode Manual the operator writes spec.replicas itself, so another number of another client is a
/// request to scale.
fn replicas_ignored(spec: &KafkaConsumerGroupSpec, observed: &Observed) -> Option<Finding> {
    let current = observed.current_replicas()?;
    let requested = spec.replicas.filter(|requested| *requested != current)?;
    let client = observed.replicas_set_by.as_ref()?;
    (spec.scaling.mode != ScalingMode::Manual).then(|| {
        Finding::new(
            "ReplicasIgnored",
            format!(
                "spec.replicas is {requested}, set by {client}, and has no effect, because spec.scaling.mode is PartitionCount; set the mode to Manual to scale by hand, or remove spec.replicas"
            ),
        )
    })
}

/// A missing output stops only the records for it, until the topic exists; workers run meanwhile.
fn missing_outputs(spec: &KafkaConsumerGroupSpec, observed: &Observed) -> Vec<Finding> {
    let missing = |topic: &String| {
        let facts = observed.kafka.known();
        facts.is_some_and(|facts| facts.missing_outputs.contains(topic))
    };
    let dead_letter = topics::unprovisioned_dead_letter(spec).filter(|topic| missing(topic)).map(|topic| {
        Finding::new(
            "DeadLetterTopicMissing",
            format!(
                "dead letter topic {topic} does not exist, so a partition waits at its first record that cannot be processed; create the topic, or let the operator create it: spec.errorHandling.deadLetter: {{topic: {topic}, provision: {{}}}}"
            ),
        )
    });
    let writers = topics::writer_topics(spec).filter(|(_, topic)| missing(topic)).map(|(writer, topic)| {
        Finding::new(
            "WriterTopicMissing",
            format!("topic {topic} of writer {writer} does not exist, so the writer waits; create the topic or correct spec.writers[{writer}].kafka.topic"),
        )
    });
    dead_letter.into_iter().chain(writers).collect()
}

fn credentials_in_clear(spec: &KafkaConsumerGroupSpec) -> Option<Finding> {
    let exposed = spec.kafka.sasl.is_some() && spec.kafka.tls.is_none();
    exposed.then(|| {
        Finding::new(
            "CredentialsInClear",
            "spec.kafka.sasl is used without spec.kafka.tls, so logins and records cross the network unencrypted; set spec.kafka.tls: {}",
        )
    })
}

/// Values that are JSON although nobody checks it are written, so this is no error.
fn values_not_json(spec: &KafkaConsumerGroupSpec) -> Option<Finding> {
    let writer = writer_without_json(&spec.decode, &spec.transforms, &spec.writers)?;
    Some(Finding::new(
        "ValuesNotDecoded",
        format!(
            "writer {} accepts only JSON, but values are not decoded as JSON, so each value that is not JSON fails only when it is written; set spec.decode: {{value: {{type: Json}}}}",
            writer.name
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{facts, observed, secured_group};
    use crate::kafka::model::KafkaView;

    /// The warning about a group that writes to `clean` and `orders.dlq` while the topics `missing` do not
    /// exist.
    fn warning_for(missing: &[&str], edit: impl FnOnce(&mut KafkaConsumerGroupSpec)) -> Option<Finding> {
        let (mut spec, mut observed) = (secured_group().spec, observed());
        let json = serde_json::json!({"deadLetter": {"topic": "orders.dlq"}});
        spec.error_handling = serde_json::from_value(json).unwrap();
        let writer = serde_json::json!({"name": "out", "type": "Kafka", "kafka": {"topic": "clean"}});
        spec.writers.push(serde_json::from_value(writer).unwrap());
        edit(&mut spec);
        let mut facts = facts(&[("orders", Some(6))]);
        facts.missing_outputs = missing.iter().map(|topic| topic.to_string()).collect();
        observed.kafka = KafkaView::Known(facts);
        warning(&spec, &observed)
    }

    #[test]
    fn a_login_without_tls_causes_a_warning() {
        let warning = warning_for(&[], |spec| spec.kafka.tls = None).unwrap();
        assert_eq!(warning.reason, "CredentialsInClear");
    }

    #[test]
    fn a_writer_of_json_without_decoded_values_causes_a_warning() {
        let warning = warning_for(&[], |spec| {
            spec.transforms.clear();
            spec.decode = Default::default();
        });
        let warning = warning.unwrap();
        assert_eq!(warning.reason, "ValuesNotDecoded");
        assert!(
            warning.message.contains("spec.decode: {value: {type: Json}}"),
            "{}",
            warning.message
        );
    }

    #[test]
    fn a_missing_output_topic_is_named_with_what_to_do() {
        assert_eq!(warning_for(&[], |_| {}), None);
        let both = warning_for(&["clean", "orders.dlq"], |_| {}).unwrap();
        assert_eq!(both.reason, "DeadLetterTopicMissing");
        for part in [
            "dead letter topic orders.dlq does not exist",
            "create the topic",
            "spec.errorHandling.deadLetter: {topic: orders.dlq, provision: {}}",
            "topic clean of writer out",
            "spec.writers[out].kafka.topic",
        ] {
            assert!(both.message.contains(part), "{} lacks {part}", both.message);
        }
        assert_eq!(
            warning_for(&["clean"], |_| {}).unwrap().reason,
            "WriterTopicMissing"
        );
    }

    #[test]
    fn scaling_outside_of_mode_manual_is_answered() {
        let deployment =
            serde_json::json!({"metadata": {}, "spec": {"replicas": 6, "selector": {}, "template": {}}});
        let deployment = std::sync::Arc::new(serde_json::from_value(deployment).unwrap());
        let warning_for = |replicas: i32, client: Option<&str>, mode: ScalingMode| {
            let (mut spec, mut observed) = (secured_group().spec, observed());
            (spec.replicas, spec.scaling.mode) = (Some(replicas), mode);
            observed.deployment = Some(std::sync::Arc::clone(&deployment));
            observed.replicas_set_by = client.map(String::from);
            warning(&spec, &observed)
        };
        let auto = ScalingMode::PartitionCount;
        let client = Some("kubectl");
        let ignored = warning_for(3, client, auto).unwrap();
        assert_eq!(ignored.reason, "ReplicasIgnored");
        assert!(
            ignored.message.contains("spec.replicas is 3, set by kubectl,"),
            "{}",
            ignored.message
        );
        // The number in use, or one that the operator wrote itself.
        assert_eq!(warning_for(6, client, auto), None);
        assert_eq!(warning_for(4, None, auto), None);
        assert_eq!(warning_for(3, client, ScalingMode::Manual), None);
    }

    #[test]
    fn a_dead_letter_topic_that_the_operator_creates_is_not_reported_missing() {
        let provisioned = warning_for(&["orders.dlq"], |spec| {
            let dead_letter = spec.error_handling.dead_letter.as_mut().unwrap();
            dead_letter.provision = Some(Default::default());
        });
        assert_eq!(provisioned, None);
    }

    #[test]
    fn one_warning_does_not_hide_another() {
        let both = warning_for(&["orders.dlq"], |spec| spec.kafka.tls = None).unwrap();
        assert_eq!(both.reason, "DeadLetterTopicMissing");
        assert!(both.message.contains("spec.kafka.tls: {}"), "{}", both.message);
    }

    #[test]
    fn without_kafka_facts_no_topic_is_reported_missing() {
        let (mut spec, mut observed) = (secured_group().spec, observed());
        spec.error_handling =
            serde_json::from_value(serde_json::json!({"deadLetter": {"topic": "orders.dlq"}})).unwrap();
        observed.kafka = KafkaView::NotAsked;
        assert_eq!(warning(&spec, &observed), None);
    }
}
