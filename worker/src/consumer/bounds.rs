//! The part of the log that a bounded run processes. In: `until` of the configuration, what is committed, what
//! Kafka says of the topics. Out: the bounds of each partition, what is left, and why the plan no longer fits.
//! Pure. Does not check the plan: the settings have done that.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crds::worker_config::Until;

use crate::record::{Offset, TopicPartition, topic_id::TopicId};

/// How long Kafka has to deny that a topic exists. A broker that has just started may do so for a moment.
const GONE: Duration = Duration::from_secs(30);

/// The offsets of one partition: those from `from` on and below `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub from: Offset,
    pub to: Offset,
}

impl Bound {
    /// Where reading starts, from the committed offset of the group.
    pub fn start(self, committed: Option<Offset>) -> Offset {
        committed.map_or(self.from, |committed| committed.max(self.from))
    }

    /// True if nothing is left to process, from the committed offset of the group.
    pub fn is_finished(self, committed: Option<Offset>) -> bool {
        self.start(committed) >= self.to
    }
}

/// The partitions of a bounded run, and the topics that their offsets belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    partitions: BTreeMap<TopicPartition, Bound>,
    /// Topics with an id in the plan.
    topic_ids: HashMap<String, String>,
}

impl Bounds {
    pub fn new(until: &Until) -> Self {
        let mut bounds = Self::default();
        for planned in &until.partitions {
            let partition = TopicPartition::new(planned.topic.as_str(), planned.partition);
            let (from, to) = (planned.from, planned.to);
            bounds.partitions.insert(partition, Bound { from, to });
            if let Some(id) = &planned.topic_id {
                bounds.topic_ids.insert(planned.topic.clone(), id.clone());
            }
        }
        bounds
    }

    /// The bounds of a partition. None: it is not part of the run.
    pub fn of(&self, partition: &TopicPartition) -> Option<Bound> {
        self.partitions.get(partition).copied()
    }

    /// True if the run has a partition of this topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.partitions.keys().any(|partition| *partition.topic == *topic)
    }

    /// The topics with an id in the plan.
    pub fn identified_topics(&self) -> impl Iterator<Item = &str> {
        self.topic_ids.keys().map(String::as_str)
    }

    /// False if the topic is another one than that of the plan. An id that is not known decides nothing.
    pub fn fits(&self, topic: &str, present: Option<&TopicId>) -> bool {
        match (self.topic_ids.get(topic), present) {
            (Some(planned), Some(present)) => present.topic() == planned,
            _ => true,
        }
    }

    /// The partitions of the run that the committed offsets do not cover.
    pub fn unfinished(&self, committed: &HashMap<TopicPartition, Offset>) -> Vec<&TopicPartition> {
        let left = self
            .partitions
            .iter()
            .filter(|(partition, bound)| !bound.is_finished(committed.get(*partition).copied()));
        left.map(|(partition, _)| partition).collect()
    }

    /// The partitions that have something to process.
    pub fn with_records(&self) -> impl Iterator<Item = &TopicPartition> {
        let filled = self
            .partitions
            .iter()
            .filter(|(_, bound)| !bound.is_finished(None));
        filled.map(|(partition, _)| partition)
    }
}

/// Topics of which Kafka says that they do not exist, and since when.
#[derive(Debug, Default)]
pub struct GoneTopics {
    since: HashMap<String, Instant>,
    /// How many topics were looked at.
    looked: usize,
}

impl GoneTopics {
    /// The next topic to ask Kafka about, of those with unfinished partitions. One at a time, in turn, because the
    /// poll thread waits for the answer.
    pub fn next<'a>(&mut self, unfinished: &[&'a TopicPartition]) -> Option<&'a str> {
        let mut topics: Vec<&str> = unfinished.iter().map(|partition| &*partition.topic).collect();
        topics.dedup();
        let next = topics.get(self.looked % topics.len().max(1)).copied();
        self.looked += 1;
        next
    }

    /// Takes the answer. Returns true if the topic is gone for good.
    pub fn answered(&mut self, topic: &str, exists: bool, now: Instant) -> bool {
        if exists {
            self.since.remove(topic);
            return false;
        }
        let since = *self.since.entry(topic.to_owned()).or_insert(now);
        now.duration_since(since) >= GONE
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "ZD6b-7i9QUO1dW_byS9QNg";

    fn bounds() -> Bounds {
        let until = json!({"partitions": [
            {"topic": "orders", "topicId": ID, "partition": 0, "from": 5, "to": 9},
            {"topic": "orders", "topicId": ID, "partition": 2, "from": 7, "to": 7},
            {"topic": "returns", "partition": 0, "from": 0, "to": 1},
        ]});
        Bounds::new(&serde_json::from_value(until).unwrap())
    }

    fn partition(topic: &str, index: i32) -> TopicPartition {
        TopicPartition::new(topic, index)
    }

    #[test]
    fn a_partition_starts_at_its_committed_offset_and_never_below_its_first() {
        let bound = Bound { from: 5, to: 9 };
        assert_eq!(
            [None, Some(3), Some(5), Some(8), Some(11)].map(|at| bound.start(at)),
            [5, 5, 5, 8, 11]
        );
        assert!(!bound.is_finished(None) && !bound.is_finished(Some(8)));
        assert!(bound.is_finished(Some(9)) && bound.is_finished(Some(11)));
    }

    #[test]
    fn a_run_is_finished_when_every_partition_is_and_an_empty_one_always_is() {
        let bounds = bounds();
        let (orders, returns) = (partition("orders", 0), partition("returns", 0));
        assert_eq!(bounds.unfinished(&HashMap::new()), [&orders, &returns]);
        let mut committed = HashMap::from([(orders.clone(), 9), (partition("orders", 1), 99)]);
        assert_eq!(bounds.unfinished(&committed), [&returns]);
        committed.insert(returns.clone(), 1);
        assert!(bounds.unfinished(&committed).is_empty());
        assert_eq!(bounds.of(&partition("orders", 1)), None);
        assert_eq!(bounds.with_records().collect::<Vec<_>>(), [&orders, &returns]);
    }

    #[test]
    fn only_a_known_other_id_shows_that_the_plan_is_for_another_topic() {
        let bounds = bounds();
        let same = TopicId::new(ID, "here").unwrap();
        let other = TopicId::new("pSwp9nH_SBuNVFtWXg-ZcA", "here").unwrap();
        assert!(bounds.fits("orders", Some(&same)) && bounds.fits("orders", None));
        assert!(!bounds.fits("orders", Some(&other)));
        assert!(bounds.fits("returns", Some(&other)), "the plan has no id of it");
        assert!(bounds.has_topic("returns") && !bounds.has_topic("payments"));
    }

    #[test]
    fn a_topic_is_gone_once_kafka_has_denied_it_for_a_while_without_a_break() {
        let start = Instant::now();
        let mut gone = GoneTopics::default();
        assert!(!gone.answered("orders", false, start));
        assert!(!gone.answered("orders", false, start + GONE / 2));
        assert!(!gone.answered("orders", true, start + GONE));
        assert!(!gone.answered("orders", false, start + GONE));
        assert!(!gone.answered("returns", false, start + GONE * 2));
        assert!(gone.answered("orders", false, start + GONE * 2));
    }

    #[test]
    fn topics_are_looked_at_in_turn() {
        let partitions = [partition("a", 0), partition("a", 1), partition("b", 0)];
        let unfinished: Vec<&TopicPartition> = partitions.iter().collect();
        let mut gone = GoneTopics::default();
        let turns: Vec<_> = (0..3).map(|_| gone.next(&unfinished)).collect();
        assert_eq!(turns, [Some("a"), Some("b"), Some("a")]);
        assert_eq!(gone.next(&[]), None);
    }
}
