//! Topics of a spec. In: the spec and what brokers know of its input topics. Out: what to create or grow, for the
//! controller and for local mode alike, and what workers write to. Pure; asks for nothing that has no `provision`.

use std::collections::{BTreeMap, BTreeSet};

use crds::spec::{KafkaConsumerGroupSpec, OnExhausted};

use crate::kafka::model::WantedTopic;

/// See [`wanted`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedTopics {
    /// Input topics that are missing or have too few partitions.
    pub inputs: Vec<WantedTopic>,
    /// The dead letter topic, whether it exists or not: it is not among the facts.
    pub dead_letter: Option<WantedTopic>,
}

impl WantedTopics {
    /// Inputs first: a dead letter topic is of no use without them.
    pub fn all(self) -> Vec<WantedTopic> {
        self.inputs.into_iter().chain(self.dead_letter).collect()
    }
}

/// What to create or grow. `known` has the partitions of each input topic, None for one that does not exist; nothing is
/// done about a topic that brokers have not told of.
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
        })
    });
    WantedTopics {
        inputs: inputs.collect(),
        dead_letter: dead_letter(spec, known),
    }
}

/// As many partitions as the largest input has or is about to have, so that a dead letter keeps its partition.
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
    })
}

/// Topics that workers write to and that nobody creates for them: they must exist.
pub fn expected_outputs(spec: &KafkaConsumerGroupSpec) -> Vec<String> {
    let outputs: BTreeSet<&String> = unprovisioned_dead_letter(spec)
        .into_iter()
        .chain(writer_topics(spec).map(|(_, topic)| topic))
        .collect();
    outputs.into_iter().cloned().collect()
}

/// The dead letter topic, if it is used and the operator is not asked to create it.
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

    /// Names and partitions of what is wanted.
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
    fn a_topic_that_nobody_asked_to_provision_is_left_alone() {
        assert_eq!(wanted(&spec(""), &known(None)), WantedTopics::default());
    }

    #[test]
    fn nothing_is_done_about_topics_that_brokers_have_not_told_of() {
        assert_eq!(wanted(&spec(SIX), &BTreeMap::new()), WantedTopics::default());
    }

    #[test]
    fn the_dead_letter_topic_follows_the_largest_input_as_it_will_be() {
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
    fn outputs_that_nobody_creates_are_expected_each_once() {
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
        // Not used, so nobody misses it.
        assert_eq!(
            with(stdout, "onExhausted: Stop, deadLetter: {topic: orders.dlq}"),
            Vec::<String>::new()
        );
    }
}
