//! The ids of the topics that the consumer reads. In: log lines of librdkafka. Out: the present id of a topic,
//! and which topics were deleted and created again while the consumer read them.
//!
//! librdkafka 2.12 knows the ids and has no call for them. It logs a changed id when it learns of it, before
//! it fetches by the new id. Brokers answer a fetch by id (Kafka 3.1 or newer) only with records of that very
//! topic. So whoever reads the log after a fetch and before the records of the fetch knows for each record
//! which topic it belongs to.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use crate::{record::topic_id::TopicId, sync};

/// The context of librdkafka's debug log that has the lines (property `debug`).
pub(crate) const DEBUG_CONTEXT: &str = "metadata";

/// librdkafka's text for "no id yet".
const ZERO: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The ids that one consumer knows.
#[derive(Default)]
pub(crate) struct TopicIds(Mutex<Known>);

#[derive(Default)]
struct Known {
    cluster: Option<String>,
    /// The id of each topic as librdkafka shows it, and what it means in this cluster.
    ids: HashMap<String, (String, Option<TopicId>)>,
    /// Topics that were deleted and created again, with the id of the deleted one.
    recreated: Vec<(String, String)>,
    /// The highest leader epoch of each partition, by topic.
    epochs: HashMap<String, HashMap<i32, i32>>,
    /// Topics that were created again while librdkafka knew the deleted one.
    is_recreated: HashSet<String>,
    /// A topic that was created again and whose leaders librdkafka ignores.
    stuck: Option<String>,
}

impl Known {
    fn leader(&mut self, topic: &str, partition: i32, epoch: i32) {
        let epochs = self.epochs.entry(topic.to_owned()).or_default();
        let highest = epochs.entry(partition).or_insert(epoch);
        if epoch >= *highest {
            *highest = epoch;
        } else if self.is_recreated.contains(topic) {
            // A broker that is behind may report an old epoch too, but not of a topic that was created again.
            self.stuck.get_or_insert_with(|| topic.to_owned());
        }
    }
}

impl TopicIds {
    /// The consumer knows its cluster. Before that, no topic has an id.
    pub fn set_cluster(&self, id: String) {
        sync::lock(&self.0).cluster = Some(id);
    }

    /// True once the consumer knows its cluster.
    pub fn knows_cluster(&self) -> bool {
        sync::lock(&self.0).cluster.is_some()
    }

    /// True if a topic with this id is in another cluster.
    pub fn is_elsewhere(&self, id: &TopicId) -> bool {
        let known = sync::lock(&self.0);
        let here = known
            .cluster
            .as_ref()
            .and_then(|cluster| TopicId::new(ZERO, cluster));
        here.is_some_and(|here| !here.shares_cluster(id))
    }

    /// Takes a line of librdkafka's log.
    pub fn read(&self, line: &str) {
        if let Some((topic, from, to)) = parse(line) {
            let mut known = sync::lock(&self.0);
            if from != ZERO {
                known.recreated.push((topic.to_owned(), from.to_owned()));
                known.is_recreated.insert(topic.to_owned());
            }
            known.ids.insert(topic.to_owned(), (to.to_owned(), None));
        } else if let Some((topic, partition, epoch)) = parse_epoch(line) {
            sync::lock(&self.0).leader(topic, partition, epoch);
        }
    }

    /// A topic that was deleted and created again and whose leaders librdkafka 2.12 ignores: it keeps the
    /// highest leader epoch of a partition, also when the topic is another one. Only a new client helps.
    pub fn take_stuck(&self) -> Option<String> {
        sync::lock(&self.0).stuck.take()
    }

    /// The id of a topic. None before librdkafka knows it, and with brokers that have no topic ids.
    pub fn of(&self, topic: &str) -> Option<TopicId> {
        let mut known = sync::lock(&self.0);
        let Known { cluster, ids, .. } = &mut *known;
        let (text, id) = ids.get_mut(topic)?;
        if id.is_none() {
            *id = TopicId::new(text, cluster.as_ref()?);
        }
        id.clone()
    }

    /// Topics whose id has changed since the last call, each with the id of the deleted topic.
    pub fn take_recreated(&self) -> Vec<(String, TopicId)> {
        let mut known = sync::lock(&self.0);
        if known.recreated.is_empty() {
            return Vec::new();
        }
        let Known {
            cluster, recreated, ..
        } = &mut *known;
        let Some(cluster) = cluster else { return Vec::new() };
        let of_cluster = |(topic, id): (String, String)| Some((topic, TopicId::new(&id, cluster)?));
        std::mem::take(recreated)
            .into_iter()
            .filter_map(of_cluster)
            .collect()
    }
}

/// Topic, partition and leader epoch in a line such as `Topic orders [3] Leader 1 Epoch 7`.
fn parse_epoch(line: &str) -> Option<(&str, i32, i32)> {
    let (place, epoch) = line.rsplit_once(" Epoch ")?;
    let (place, _) = place.rsplit_once("] Leader ")?;
    let (topic, partition) = place.rsplit_once(" [")?;
    let (_, topic) = topic.rsplit_once("Topic ")?;
    Some((topic, partition.parse().ok()?, epoch.trim_end().parse().ok()?))
}

/// Topic, the id before, and the id now.
fn parse(line: &str) -> Option<(&str, &str, &str)> {
    let (start, ids) = line.split_once(" changed id from ")?;
    let (_, topic) = start.rsplit_once("Topic ")?;
    let (from, to) = ids.split_once(" to ")?;
    Some((topic, from, to.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "ZD6bC7i9QUO1dWlbyS9QNg";
    const SECOND: &str = "pSwp9nH/SBuNVFtWXg+ZcA";

    fn line(topic: &str, from: &str, to: &str) -> String {
        format!("[thrd:main]: Topic {topic} changed id from {from} to {to}")
    }

    #[test]
    fn the_first_id_of_a_topic_is_no_change() {
        let ids = TopicIds::default();
        ids.read(&line("orders", ZERO, FIRST));
        assert_eq!(ids.of("orders"), None, "the cluster is not known");
        ids.set_cluster("here".into());
        assert_eq!(ids.of("orders"), TopicId::new(FIRST, "here"));
        assert_eq!(ids.of("returns"), None);
        assert!(ids.take_recreated().is_empty());
    }

    #[test]
    fn a_changed_id_is_reported_once() {
        let ids = TopicIds::default();
        ids.set_cluster("here".into());
        ids.read(&line("orders", ZERO, FIRST));
        assert_eq!(ids.of("orders"), TopicId::new(FIRST, "here"));
        ids.read(&line("orders", FIRST, SECOND));
        assert_eq!(ids.of("orders"), TopicId::new(SECOND, "here"));
        let deleted = TopicId::new(FIRST, "here").unwrap();
        assert_eq!(ids.take_recreated(), [("orders".to_string(), deleted)]);
        assert!(ids.take_recreated().is_empty());
    }

    #[test]
    fn a_topic_of_another_cluster_is_recognized() {
        let ids = TopicIds::default();
        let elsewhere = TopicId::new(FIRST, "there").unwrap();
        assert!(!ids.is_elsewhere(&elsewhere), "the cluster is not known");
        ids.set_cluster("here".into());
        assert!(ids.is_elsewhere(&elsewhere));
        assert!(!ids.is_elsewhere(&TopicId::new(SECOND, "here").unwrap()));
    }

    #[test]
    fn a_leader_epoch_that_goes_back_in_a_recreated_topic_is_reported() {
        let ids = TopicIds::default();
        let leader = |topic: &str, epoch: i32| {
            ids.read(&format!("[thrd:main]: Topic {topic} [3] Leader 1 Epoch {epoch}"));
            ids.take_stuck()
        };
        ids.read(&line("orders", ZERO, FIRST));
        assert_eq!(leader("orders", 5), None);
        assert_eq!(leader("orders", 4), None, "a broker that is behind");
        ids.read(&line("orders", FIRST, SECOND));
        assert_eq!(leader("returns", 7), None);
        assert_eq!(leader("returns", 0), None, "not recreated");
        assert_eq!(leader("orders", 0).as_deref(), Some("orders"));
        ids.read(&line("empty", FIRST, SECOND));
        assert_eq!(leader("empty", 0), None, "the first epoch of this partition");
    }

    #[test]
    fn other_lines_mean_nothing() {
        let ids = TopicIds::default();
        ids.set_cluster("here".into());
        for other in [
            "[thrd:main]: Topic orders partition 0 Leader 1 Epoch 0",
            "Topic orders changed id from nothing to something",
            "changed id from ",
            "",
        ] {
            ids.read(other);
        }
        assert_eq!(ids.of("orders"), None);
    }
}
