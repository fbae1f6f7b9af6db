//! Topics that were deleted and created again while their partitions are assigned. The worker never uses an
//! offset of the deleted topic for the new one: it drops the work in flight, and starts the partitions again
//! or parks them, as `consumer.onTopicRecreated` says.

use std::time::{Duration, Instant};

use crds::spec::OnTopicRecreated;
use rdkafka::{
    consumer::Consumer,
    error::KafkaError,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{PollLoop, assigned::AssignedPartition, error::PollError, rewind::RETRY_AFTER};
use crate::{
    record::topic_id::TopicId,
    transaction::{Cause, TransactionFailure},
};

/// Not `Beginning`: for that, librdkafka 2.12 takes the first offset of the deleted topic if it knows it.
const FIRST: KafkaOffset = KafkaOffset::Offset(0);

/// Time limit for finding the offsets that belong to the start time.
const TIMES_BUDGET: Duration = Duration::from_secs(5);

impl PollLoop {
    /// Takes what the client has noticed, and starts partitions of recreated topics again.
    pub(super) fn serve_recreated_topics(&mut self) -> Result<(), PollError> {
        let stuck = self.callbacks.topic_ids.take_stuck();
        if let Some(run) = &mut self.bounded {
            // Recreated while this worker runs; of a topic without an id in the plan nothing else is known.
            for (topic, _) in self.callbacks.topic_ids.take_recreated() {
                let is_planned = run.bounds.identified_topics().any(|planned| *planned == *topic);
                if run.bounds.has_topic(&topic) && !is_planned {
                    run.recreated(&topic);
                }
            }
            return Ok(());
        }
        if let Some(topic) = stuck.filter(|_| self.config.on_topic_recreated == OnTopicRecreated::Restart) {
            return Err(PollError::TopicRecreated(topic));
        }
        for (topic, deleted) in self.callbacks.topic_ids.take_recreated() {
            self.topic_recreated(&topic, Some(deleted));
        }
        // With transactions, the partitions start again after the abort.
        let waiting = !self.recreated.pending.is_empty() && self.transactions.is_none();
        if waiting && self.stopping.is_none() && Instant::now() >= self.recreated.retry_at {
            self.restart_recreated();
        }
        Ok(())
    }

    /// Drops the work in flight of the topic's partitions that belong to a deleted topic. `deleted` is its id
    /// if the client was reading it when it was deleted.
    pub(super) fn topic_recreated(&mut self, topic: &str, deleted: Option<TopicId>) {
        if let Some(run) = &mut self.bounded {
            return run.recreated(topic);
        }
        let present = self.callbacks.topic_ids.of(topic);
        let is_old = |entry: &AssignedPartition| {
            let reads = *entry.partition.topic == *topic && entry.is_read();
            reads
                && match entry.topic_id() {
                    Some(id) => Some(id) != present.as_ref(),
                    // The position was found in the deleted topic, and nothing was read from there.
                    None => deleted.is_some(),
                }
        };
        if deleted.is_some() {
            // Brokers remove the committed offsets of a deleted topic, and with them the markers.
            let of_topic = |entry: &&mut AssignedPartition| *entry.partition.topic == *topic;
            self.assigned
                .iter_mut()
                .filter(of_topic)
                .for_each(AssignedPartition::commit_marker_again);
        }
        let (mut known, mut partitions, mut dropped) = (None, 0, 0);
        for entry in self.assigned.iter_mut().filter(|entry| is_old(entry)) {
            known = known.or_else(|| entry.topic_id().cloned());
            partitions += 1;
            dropped += entry.in_flight();
            if self.transactions.is_none() {
                entry.discard();
            }
        }
        if partitions == 0 {
            return;
        }
        let deleted = known.or(deleted);
        let (deleted_id, id) = (
            deleted.as_ref().map(TopicId::as_str),
            present.as_ref().map(TopicId::as_str),
        );
        tracing::warn!(
            topic,
            deleted_id,
            id,
            partitions,
            dropped,
            "the topic was deleted and created again: offsets of the deleted topic are not used, and its \
             records in flight are dropped"
        );
        self.shared.metrics.topic_recreated();
        self.recreated.pending.insert(topic.to_owned(), deleted);
        self.recreated.retry_at = Instant::now();
        if self.transactions.is_some() && !self.is_rewinding() {
            let message = format!("topic {topic:?} was deleted and created again");
            self.abort_transaction(TransactionFailure::new(Cause::Moved, message));
        }
    }

    fn restart_recreated(&mut self) {
        let pending: Vec<String> = self.recreated.pending.keys().cloned().collect();
        let waits = |entry: &AssignedPartition| {
            entry.is_draining() && pending.iter().any(|topic| *entry.partition.topic == **topic)
        };
        match self.restart_partitions(waits) {
            Ok(entries) => {
                self.replace(entries);
                self.recreated.clear();
                self.run_housekeeping();
            }
            Err(error) => {
                self.errors.note(&format!(
                    "cannot start the partitions of a recreated topic: {error}; retrying"
                ));
                self.recreated.retry_at = Instant::now() + RETRY_AFTER;
            }
        }
    }

    /// Where partitions of a recreated topic start: at their first record, because all of its records were
    /// written after the group was created, or at the start time.
    pub(super) fn start_offsets(&self, partitions: &[(String, i32)]) -> Result<Vec<KafkaOffset>, KafkaError> {
        let Some(time) = self.config.start_time.filter(|_| !partitions.is_empty()) else {
            return Ok(vec![FIRST; partitions.len()]);
        };
        let mut times = TopicPartitionList::new();
        for (topic, partition) in partitions {
            times.add_partition_offset(topic, *partition, KafkaOffset::Offset(time))?;
        }
        let found = self.client.consumer().offsets_for_times(times, TIMES_BUDGET)?;
        let offset = |(topic, partition): &(String, i32)| {
            let Some(element) = found.find_partition(topic, *partition) else {
                return Ok(FIRST);
            };
            element.error()?;
            Ok(match element.offset() {
                offset @ KafkaOffset::Offset(_) => offset,
                // No record at or after that time.
                _ => KafkaOffset::End,
            })
        };
        partitions.iter().map(offset).collect()
    }
}
