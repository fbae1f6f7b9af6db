//! The state of a bounded run: when to look at what the group has committed, and why the plan no longer fits. Does
//! not know the poll loop. Pure: time comes in as a value.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::error::RDKafkaErrorCode;

use super::bounds::{Bounds, GoneTopics};
use crate::record::TopicPartition;

/// Time between two looks at what the group has committed: soon enough for a user, and cheap for the coordinator.
const CHECK: Duration = Duration::from_secs(2);

/// The state of a bounded run.
pub struct BoundedRun {
    pub bounds: Arc<Bounds>,
    checked: Instant,
    /// At the last turn, this worker had finished its own partitions.
    was_finished: bool,
    /// The whole plan is committed.
    pub done: bool,
    /// Why the plan no longer fits.
    outdated: Option<String>,
    gone: GoneTopics,
    /// Kafka has denied that a topic or a partition exists.
    suspects_gone: bool,
    /// Topics that were found since then.
    found: BTreeSet<String>,
}

impl BoundedRun {
    pub fn new(bounds: Arc<Bounds>, now: Instant) -> Self {
        Self {
            bounds,
            checked: now,
            was_finished: false,
            done: false,
            outdated: None,
            gone: GoneTopics::default(),
            suspects_gone: false,
            found: BTreeSet::new(),
        }
    }

    /// The offsets of the plan belong to another topic than the present one of this name.
    pub fn recreated(&mut self, topic: &str) {
        self.outdated.get_or_insert_with(|| {
            format!(
                "topic {topic:?} was deleted and created again after the run was planned, so its offsets do not \
                 fit any more"
            )
        });
    }

    /// Why the plan no longer fits, if it does not.
    pub fn take_outdated(&mut self) -> Option<String> {
        self.outdated.take()
    }

    /// The next topic to ask Kafka about.
    pub fn next_topic<'a>(&mut self, unfinished: &[&'a TopicPartition]) -> Option<&'a str> {
        self.gone.next(unfinished)
    }

    /// Kafka has denied that a topic or a partition exists: every unfinished topic has to be looked at.
    pub fn suspect_gone(&mut self) {
        self.suspects_gone = true;
        self.found.clear();
    }

    /// Takes the answer. Returns true if the topic is gone for good. One topic that exists says nothing of the
    /// others, so the suspicion stays until all `unfinished` ones were found.
    pub fn topic_is_gone(
        &mut self,
        topic: &str,
        exists: bool,
        unfinished: &[&TopicPartition],
        now: Instant,
    ) -> bool {
        if exists {
            self.found.insert(topic.to_owned());
            let found = |partition: &&TopicPartition| self.found.contains(&*partition.topic);
            if unfinished.iter().all(found) {
                self.suspects_gone = false;
            }
        } else {
            self.suspect_gone();
        }
        self.gone.answered(topic, exists, now)
    }

    /// True when it is time to look at what the group has committed.
    pub fn is_due(&mut self, finished: bool, has_partitions: bool, now: Instant) -> bool {
        let first = finished && has_partitions && !self.was_finished;
        self.was_finished = finished;
        let elapsed = now.duration_since(self.checked) >= CHECK;
        let due = first || elapsed && (finished || self.suspects_gone);
        if due {
            self.checked = now;
        }
        due
    }
}

/// True if Kafka says that what it was asked about does not exist.
pub fn denies_existence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_looked_at_when_the_own_partitions_are_finished_and_then_once_per_interval() {
        let start = Instant::now();
        let mut run = BoundedRun::new(Arc::default(), start);
        assert!(
            !run.is_due(false, true, start + CHECK),
            "its own work is not finished"
        );
        assert!(run.is_due(true, true, start + CHECK), "at once");
        assert!(!run.is_due(true, true, start + CHECK));
        assert!(run.is_due(true, true, start + CHECK * 2));
        assert!(
            !run.is_due(false, true, start + CHECK * 3),
            "it has got another partition"
        );
        assert!(run.is_due(true, true, start + CHECK * 3));
    }

    #[test]
    fn a_worker_without_partitions_does_not_ask_all_the_time() {
        let start = Instant::now();
        let mut run = BoundedRun::new(Arc::default(), start);
        assert!(!run.is_due(true, false, start));
        assert!(run.is_due(true, false, start + CHECK));
        assert!(!run.is_due(true, false, start + CHECK));
    }

    #[test]
    fn a_worker_whose_topic_may_be_gone_looks_also_before_it_is_finished() {
        let start = Instant::now();
        let mut run = BoundedRun::new(Arc::default(), start);
        run.suspect_gone();
        assert!(!run.is_due(false, true, start));
        assert!(run.is_due(false, true, start + CHECK));
        let [orders, returns] = ["orders", "returns"].map(|topic| TopicPartition::new(topic, 0));
        let unfinished = [&orders, &returns];
        assert!(!run.topic_is_gone("orders", true, &unfinished, start));
        assert!(run.suspects_gone, "the other topic may be the one that is gone");
        assert!(!run.topic_is_gone("returns", false, &unfinished, start));
        assert!(!run.topic_is_gone("orders", true, &unfinished, start));
        assert!(run.suspects_gone);
        assert!(!run.topic_is_gone("returns", true, &unfinished, start));
        assert!(!run.suspects_gone);
        run.recreated("orders");
        let why = run.take_outdated().unwrap();
        assert!(why.contains("\"orders\" was deleted and created again"), "{why}");
        assert_eq!(run.take_outdated(), None);
    }
}
