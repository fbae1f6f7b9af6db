//! Reads partitions again from their committed offsets after a transaction was aborted, because the abort
//! removed what they had written.

use std::time::{Duration, Instant};

use rdkafka::{
    consumer::Consumer,
    error::KafkaError,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::{AssignedPartition, Position, Start},
    rebalance::COMMITTED_BUDGET,
    transaction_driver::TransactionState,
};
use crate::{
    offsets::commit_metadata, record::TopicPartition, seeded_bugs::seeded_bug, transaction::Command,
};

/// Time limit for a seek. librdkafka's own threads answer.
pub(super) const SEEK_BUDGET: Duration = Duration::from_secs(5);

/// Time between two attempts while the coordinator does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl PollLoop {
    /// Starts all partitions again, or retries later.
    pub(super) fn rewind(&mut self) {
        let retry_at = match self.restart_partitions() {
            Ok(entries) => {
                for entry in entries {
                    // Also replaces those that were assigned since the abort.
                    self.assigned.retain(|old| {
                        let replaced = old.partition == entry.partition;
                        if replaced {
                            old.abort();
                        }
                        !replaced
                    });
                    self.assigned.push(entry);
                }
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

    /// Starts all partitions again from their committed offsets, except those being revoked.
    fn restart_partitions(&mut self) -> Result<Vec<AssignedPartition>, KafkaError> {
        let leaving = |entry: &&AssignedPartition| {
            let revocation = self.revocation.as_ref();
            revocation.is_some_and(|revocation| revocation.contains(&entry.partition))
        };
        let mut staying = TopicPartitionList::new();
        for entry in self.assigned.iter().filter(|entry| !leaving(entry)) {
            staying.add_partition(&entry.partition.topic, entry.partition.partition);
        }
        if staying.count() == 0 || self.stopping.is_some() {
            return Ok(Vec::new());
        }
        let consumer = self.client.consumer();
        let committed = consumer.committed_offsets(staying, COMMITTED_BUDGET)?;
        let mut starts = Vec::new();
        let mut targets = TopicPartitionList::new();
        for element in committed.elements() {
            element.error()?;
            let partition = TopicPartition::new(element.topic(), element.partition());
            let (target, position) = match element.offset() {
                KafkaOffset::Offset(offset) => {
                    let metadata = element.metadata().to_owned();
                    (KafkaOffset::Offset(offset), Some(Position { offset, metadata }))
                }
                // Nothing was ever committed: start at the beginning, as at the first start
                // (client_config.rs).
                _ => (KafkaOffset::Beginning, None),
            };
            targets.add_partition_offset(element.topic(), element.partition(), target)?;
            starts.push((partition, position));
        }
        if !seeded_bug("no-rewind-after-abort") {
            let reached = consumer.seek_partitions(targets, SEEK_BUDGET)?;
            for element in reached.elements() {
                element.error()?;
            }
        }
        if let Some(gate) = &self.shared.gate {
            gate.next_round();
        }
        Ok(starts
            .into_iter()
            .filter_map(|(partition, committed)| self.restart_partition(partition, committed))
            .collect())
    }

    /// Starts a new task for the partition, from `committed`.
    fn restart_partition(
        &mut self,
        partition: TopicPartition,
        committed: Option<Position>,
    ) -> Option<AssignedPartition> {
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
            fetch_paused: old.fetch_paused,
            task_epoch: self.next_task_epoch,
            finished: finished.unwrap_or_default(),
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
