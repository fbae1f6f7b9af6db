//! Reads partitions again from their committed offsets after a transaction was aborted, because the abort
//! removed what they had written.

use std::time::{Duration, Instant};

use crds::spec::OnTopicRecreated;
use rdkafka::{
    consumer::Consumer,
    error::KafkaError,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::{AssignedPartition, Position, Start},
    bounds::Bound,
    rebalance::COMMITTED_BUDGET,
    transaction_driver::TransactionState,
};
use crate::{
    offsets::commit_metadata,
    record::{Offset, TopicPartition, topic_id::TopicId},
    seeded_bugs::seeded_bug,
    transaction::Command,
};

/// Time limit for a seek. librdkafka's own threads answer.
pub(super) const SEEK_BUDGET: Duration = Duration::from_secs(5);

/// Time between two attempts while the coordinator does not answer.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a partition starts again.
struct Restart {
    partition: TopicPartition,
    committed: Option<Position>,
    /// The topic as it is now.
    present: Option<TopicId>,
    /// The committed offset belonged to a deleted topic, with this id if known.
    deleted: Option<Option<TopicId>>,
    /// In a bounded run.
    bound: Option<Bound>,
}

impl PollLoop {
    /// Starts all partitions again, or retries later.
    pub(super) fn rewind(&mut self) {
        let retry_at = match self.restart_partitions(|_| true) {
            Ok(entries) => {
                // Also those that were assigned since the abort.
                self.replace(entries);
                self.recreated.clear();
                None
            }
            Err(error) => {
                self.errors.note(&format!(
                    "cannot read again from the committed offsets: {error}; retrying"
                ));
                Some(Instant::now() + RETRY_AFTER)
            }
        };
        let Some(transactions) = &mut self.transactions else {
            return;
        };
        match retry_at {
            Some(at) => transactions.state = TransactionState::Rewinding(at),
            None => {
                transactions.opened();
                transactions.command(Command::Open);
            }
        }
        self.run_housekeeping();
    }

    /// Puts each entry in place of the earlier one of its partition.
    pub(super) fn replace(&mut self, entries: Vec<AssignedPartition>) {
        for entry in entries {
            self.assigned.retain(|old| {
                let replaced = old.partition == entry.partition;
                if replaced {
                    old.abort();
                }
                !replaced
            });
            self.assigned.push(entry);
        }
    }

    /// Starts the selected partitions again from their committed offsets, except those being revoked. Offsets
    /// of a deleted topic do not count for the one that was created again under its name.
    pub(super) fn restart_partitions(
        &mut self,
        select: impl Fn(&AssignedPartition) -> bool,
    ) -> Result<Vec<AssignedPartition>, KafkaError> {
        let leaving = |entry: &&AssignedPartition| {
            let revocation = self.revocation.as_ref();
            revocation.is_some_and(|revocation| revocation.contains(&entry.partition))
        };
        let mut staying = TopicPartitionList::new();
        let staying_entries = self
            .assigned
            .iter()
            .filter(|entry| !leaving(entry) && select(entry));
        for entry in staying_entries {
            staying.add_partition(&entry.partition.topic, entry.partition.partition);
        }
        if staying.count() == 0 || self.stopping.is_some() {
            return Ok(Vec::new());
        }
        let consumer = self.client.consumer();
        let committed = consumer.committed_offsets(staying, COMMITTED_BUDGET)?;
        let mut starts = Vec::new();
        let mut of_new_topics = Vec::new();
        let mut targets = TopicPartitionList::new();
        let bounds = self.bounded.as_ref().map(|run| run.bounds.clone());
        for element in committed.elements() {
            element.error()?;
            let (topic, number) = (element.topic(), element.partition());
            let present = self.callbacks.topic_ids.of(topic);
            // A parked partition stays parked, also if its marker is not committed yet.
            let still_parked = || {
                let same = |entry: &&AssignedPartition| {
                    *entry.partition.topic == *topic && entry.partition.partition == number
                };
                let entry = self.assigned.iter().find(same)?;
                entry.waits_for_decision().then(|| entry.topic_id().cloned())
            };
            let deleted = self
                .recreated
                .deleted(topic, present.as_ref(), element.metadata())
                .or_else(still_parked);
            let bound = bounds
                .as_ref()
                .and_then(|bounds| bounds.of(&TopicPartition::new(topic, number)));
            if deleted.is_some()
                && let Some(run) = &mut self.bounded
            {
                run.recreated(topic);
                return Ok(Vec::new());
            }
            let id = commit_metadata::topic_id(element.metadata());
            let elsewhere = id.is_some_and(|id| self.callbacks.topic_ids.is_elsewhere(&id));
            let committed = match element.offset() {
                // In a bounded run, a commit of another cluster does not count, as at the first start.
                KafkaOffset::Offset(offset) if deleted.is_none() && !(elsewhere && bound.is_some()) => {
                    // What was mirrored from another cluster lists offsets of that cluster.
                    let metadata = if elsewhere { "" } else { element.metadata() }.to_owned();
                    let start = bound.map_or(offset, |bound| bound.start(Some(offset)));
                    targets.add_partition_offset(topic, number, KafkaOffset::Offset(start))?;
                    Some(Position { offset, metadata })
                }
                _ if deleted.is_some() => {
                    of_new_topics.push((topic.to_owned(), number));
                    None
                }
                // Nothing was ever committed: start at the beginning, as at the first start
                // (client_config.rs).
                _ => {
                    let start = bound.map_or(KafkaOffset::Beginning, |bound| KafkaOffset::Offset(bound.from));
                    targets.add_partition_offset(topic, number, start)?;
                    None
                }
            };
            starts.push(Restart {
                partition: TopicPartition::new(topic, number),
                committed,
                present,
                deleted,
                bound,
            });
        }
        let offsets = self.start_offsets(&of_new_topics)?;
        for ((topic, number), offset) in of_new_topics.iter().zip(offsets) {
            targets.add_partition_offset(topic, *number, offset)?;
        }
        if !seeded_bug("no-rewind-after-abort") {
            let reached = consumer.seek_partitions(targets, SEEK_BUDGET)?;
            for element in reached.elements() {
                element.error()?;
            }
        }
        // What the log says of the positions before the seek does not concern the partitions that start now.
        self.client.serve_logs();
        for start in &starts {
            self.callbacks.out_of_range.forget(&start.partition);
        }
        if let Some(gate) = &self.shared.gate {
            gate.next_round();
        }
        Ok(starts
            .into_iter()
            .filter_map(|restart| self.restart_partition(restart))
            .collect())
    }

    /// Starts a new task for the partition.
    fn restart_partition(&mut self, restart: Restart) -> Option<AssignedPartition> {
        let Restart {
            partition,
            committed,
            present,
            deleted,
            bound,
        } = restart;
        if deleted.is_some()
            && let Some(transactions) = &mut self.transactions
        {
            // What is known of the records of the deleted topic says nothing about the new ones.
            transactions
                .rejected_records
                .forget_below(&partition, Offset::MAX);
            transactions.one_at_a_time.remove(&partition);
        }
        let stop = self.config.on_topic_recreated == OnTopicRecreated::Stop;
        let parked = deleted.as_ref().filter(|_| stop).map(|_| {
            format!(
                "topic {:?} was deleted and created again, and consumer.onTopicRecreated is Stop: nothing of \
                 the new topic is read; set Restart to read it from its start, or stop the group, set its \
                 offsets of this topic, and start it again",
                partition.topic
            )
        });
        if let Some(message) = &parked {
            tracing::warn!(%partition, "{message}");
        }
        let old = self.assigned.iter().find(|entry| entry.partition == partition)?;
        let finished = committed.as_ref().map(|position| {
            commit_metadata::decode(position.offset, &position.metadata).unwrap_or_else(|unreadable| {
                tracing::warn!(%partition, offset = position.offset, "{unreadable}");
                Vec::new()
            })
        });
        let one_at_a_time = self
            .transactions
            .as_ref()
            .is_some_and(|transactions| transactions.one_at_a_time.contains(&partition));
        let start = Start {
            assignment_epoch: old.assignment_epoch,
            bound: bound.map(|bound| {
                let start = bound.start(committed.as_ref().map(|position| position.offset));
                (bound, Some(start))
            }),
            fetch_paused: old.fetch_paused,
            task_epoch: self.next_task_epoch,
            finished: finished.unwrap_or_default(),
            topic_id: match &parked {
                Some(_) => deleted.flatten().or(present),
                None => present,
            },
            parked,
            partition,
            committed,
            one_at_a_time,
        };
        self.next_task_epoch += 1;
        let mut entry = AssignedPartition::start(start, &self.shared, &self.runtime, &self.event_sender);
        entry.limit_metadata(self.metadata_limit);
        Some(entry)
    }
}
