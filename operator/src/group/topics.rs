//! Topics of a spec. In: the spec and the partition counts of its input topics. Out: topics to create or to
//! expand, for the controller and for local mode, and topics that workers write to. Pure; requests no topic
//! without `provision`.

use std::collections::{BTreeMap, BTreeSet};

use crds::spec::{KafkaConsumerGroupSpec, OnExhausted};

use crate::kafka::model::WantedTopic;

/// Topics to create or to expand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedTopics {
    /// Input topics that are missing or have too few partitions.
    pub inputs: Vec<WantedTopic>,
    /// The dead letter topic, whether it exists or not: the facts do not include it.
    pub dead_letter: Option<WantedTopic>,
}

impl WantedTopics {
    /// All topics, inputs first: a dead letter topic is useless without them.
    pub fn all(self) -> Vec<WantedTopic> {
        self.inputs.into_iter().chain(self.dead_letter).collect()
    }
}

/// The topics to create or to expand. `known` has the partition count of each input topic, None for one that
/// does not exist. A topic without an entry in `known` is left out.
pub fn wanted(spec: &KafkaConsumerGroupSpec, known: &BTreeMap<String, Option<i32>>) -> WantedTopics {
    let inputs = spec.topics.iter().filter_map(|topic| {
        let provision = topic.provision.as_ref()?;
        let enough = known
            .get(&topic.name)?
            .is_some_and(|partitions| partitions >= provision.partitions);
        (!enough).then(|| WantedTopic {
            name: topic.name.clone(),
            partitions: provision.partitions,
            replication_factor: provision.replication_factor,
            config: provision.config.clone(),
            accepts: Vec::new(),
        })
    });
    WantedTopics {
        inputs: inputs.collect(),
        dead_letter: dead_letter(spec, known),
    }
}

/// It gets as many partitions as the largest input has or will have, so that a dead letter keeps its
/// partition.
fn dead_letter(spec: &KafkaConsumerGroupSpec, known: &BTreeMap<String, Option<i32>>) -> Option<WantedTopic> {
    let dead_letter = spec.error_handling.dead_letter.as_ref()?;
    let provision = dead_letter.provision.as_ref()?;
    let inputs = spec.topics.iter().filter_map(|topic| {
        let has = *known.get(&topic.name)?;
        has.max(topic.provision.as_ref().map(|provision| provision.partitions))
    });
    Some(WantedTopic {
        name: dead_letter.topic.clone(),
        partitions: inputs.max()?,
        replication_factor: provision.replication_factor,
        config: provision.config.clone(),
        accepts: spec.topics.iter().map(|topic| topic.name.clone()).collect(),
    })
}

/// Topics that workers write to and that the operator does not create: they must exist.
pub fn expected_outputs(spec: &KafkaConsumerGroupSpec) -> Vec<String> {
    let outputs: BTreeSet<&String> = unprovisioned_dead_letter(spec)
        .into_iter()
        .chain(writer_topics(spec).map(|(_, topic)| topic))
        .collect();
    outputs.into_iter().cloned().collect()
}

/// The dead letter topic, if it is used and has no `provision`.
pub fn unprovisioned_dead_letter(spec: &KafkaConsumerGroupSpec) -> Option<&String> {
    let dead_letter = spec.error_handling.dead_letter.as_ref()?;
    let used = spec.error_handling.policy() == OnExhausted::DeadLetter;
    (used && dead_letter.provision.is_none()).then_some(&dead_letter.topic)
}

/// Names and topics of the Kafka writers.
pub fn writer_topics(spec: &KafkaConsumerGroupSpec) -> impl Iterator<Item = (&String, &String)> {
    let writers = spec.writers.iter();
    writers.filter_map(|writer| Some((&writer.name, &writer.kafka.as_ref()?.topic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(provision: &str) -> KafkaConsumerGroupSpec {
        let text = format!(
            "{{topics: [{{name: orders{provision}}}], kafka: {{bootstrapServers: ['k:1']}}, writers: [{{name: out, type: Stdout}}], \
             errorHandling: {{deadLetter: {{topic: orders.dlq, provision: {{replicationFactor: 3}}}}}}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    const SIX: &str = ", provision: {partitions: 6}";

    fn known(partitions: Option<i32>) -> BTreeMap<String, Option<i32>> {
        [("orders".to_string(), partitions)].into()
    }

    /// Names and partition counts of the wanted topics.
    fn asked(spec: &KafkaConsumerGroupSpec, known: &BTreeMap<String, Option<i32>>) -> Vec<(String, i32)> {
        let all = wanted(spec, known).all();
        all.into_iter().map(|it| (it.name, it.partitions)).collect()
    }

    fn topics(expected: &[(&str, i32)]) -> Vec<(String, i32)> {
        expected
            .iter()
            .map(|(name, partitions)| (name.to_string(), *partitions))
            .collect()
    }

    #[test]
    fn only_missing_and_small_input_topics_are_wanted() {
        let spec = spec(SIX);
        let inputs = |partitions| wanted(&spec, &known(partitions)).inputs;
        assert_eq!(inputs(None)[0].partitions, 6);
        assert_eq!(inputs(Some(3))[0].partitions, 6);
        assert_eq!(inputs(Some(6)), []);
        assert_eq!(inputs(Some(9)), []);
    }

    #[test]
    fn a_topic_without_provision_is_not_wanted() {
        assert_eq!(wanted(&spec(""), &known(None)), WantedTopics::default());
    }

    #[test]
    fn topics_that_the_brokers_have_not_reported_are_not_wanted() {
        assert_eq!(wanted(&spec(SIX), &BTreeMap::new()), WantedTopics::default());
    }

    #[test]
    fn the_dead_letter_topic_has_the_future_partition_count_of_the_largest_input() {
        assert_eq!(asked(&spec(""), &known(Some(9))), topics(&[("orders.dlq", 9)]));
        assert_eq!(
            asked(&spec(SIX), &known(None)),
            topics(&[("orders", 6), ("orders.dlq", 6)])
        );
        assert_eq!(asked(&spec(SIX), &known(Some(9))), topics(&[("orders.dlq", 9)]));
        let dead_letter = wanted(&spec(""), &known(Some(9))).dead_letter.unwrap();
        assert_eq!(dead_letter.replication_factor, Some(3));
    }

    #[test]
    fn outputs_without_provision_are_expected_each_once() {
        let with = |writers: &str, dead_letter: &str| -> Vec<String> {
            let text = format!(
                "{{topics: [{{name: orders}}], kafka: {{bootstrapServers: ['k:1']}}, writers: [{writers}], \
                 errorHandling: {{{dead_letter}}}}}"
            );
            expected_outputs(&serde_yaml::from_str(&text).unwrap())
        };
        let (stdout, kafka) = (
            "{name: out, type: Stdout}",
            "{name: a, type: Kafka, kafka: {topic: clean}}, {name: b, type: Kafka, kafka: {topic: clean}}",
        );
        assert_eq!(with(stdout, ""), Vec::<String>::new());
        assert_eq!(
            with(kafka, "deadLetter: {topic: orders.dlq}"),
            ["clean", "orders.dlq"]
        );
        assert_eq!(
            with(kafka, "deadLetter: {topic: orders.dlq, provision: {}}"),
            ["clean"]
        );
        // Unused, so it is not expected.
        assert_eq!(
            with(stdout, "onExhausted: Stop, deadLetter: {topic: orders.dlq}"),
            Vec::<String>::new()
        );
    }
}
