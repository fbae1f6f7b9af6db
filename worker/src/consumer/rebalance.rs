//! Assign and revoke. A revocation takes as long as the work in flight of its partitions needs, up to a
//! budget, while the loop continues with everything else. Only then the loop unassigns them in librdkafka.

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use crds::spec::Ordering;
use rdkafka::{
    consumer::Consumer,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::{AssignedPartition, Position, Start},
    bounds::Bound,
    error::PollError,
    revocation::{Revocation, describe, list},
};
use crate::{
    health::snapshot::Phase,
    kafka::callbacks::RebalanceEvent,
    offsets::commit_metadata,
    record::{Offset, TopicPartition, topic_id::TopicId},
    seeded_bugs::seeded_bug,
    transaction::{Cause, TransactionFailure},
};

/// How long revoked partitions may take to finish their work in flight. It is below librdkafka's default
/// session timeout of 45 s, with time left for the commit, and short enough that the other members do not
/// wait long.
const REVOKE_BUDGET: Duration = Duration::from_secs(10);

/// Time limit for fetching committed offsets. The coordinator answers in milliseconds, or within a few
/// seconds during a failover. Without an answer, records are only repeated.
pub(super) const COMMITTED_BUDGET: Duration = Duration::from_secs(5);

/// The same where only topic ids are needed: without them, the worker recognizes fewer recreated topics.
const TOPIC_ID_BUDGET: Duration = Duration::from_secs(1);

/// What the last commit of an earlier owner says about a partition.
#[derive(Default)]
struct Earlier {
    /// Finished ranges above the committed offset.
    finished: Vec<Range<Offset>>,
    topic_id: Option<TopicId>,
    committed: Option<Position>,
}

impl PollLoop {
    /// Takes the next events, unless a revocation is still draining.
    pub(super) fn serve_rebalance(&mut self) -> Result<(), PollError> {
        if let Some(revocation) = &self.revocation {
            let leaving = |entry: &AssignedPartition| revocation.contains(&entry.partition);
            let busy = self
                .assigned
                .iter()
                .any(|entry| leaving(entry) && !entry.has_ended());
            if busy && Instant::now() < revocation.deadline {
                return Ok(());
            }
            self.finish_revocation(true)?;
        }
        while self.revocation.is_none() {
            match self.callbacks.next_event() {
                Some(RebalanceEvent::Assign(partitions)) => self.assign(&partitions),
                Some(RebalanceEvent::Revoke { partitions, lost }) => self.revoke(partitions, lost)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: &[(String, i32)]) {
        self.shared.metrics.rebalanced("assigned");
        tracing::info!(partitions = describe(partitions), "assigned");
        let list = list(partitions);
        // Also when the loop will read nothing: a record must never arrive in the client's own queue.
        for (topic, partition) in partitions {
            self.client.forward(topic, *partition);
        }
        // librdkafka keeps partitions paused that were paused when this worker last owned them.
        if let Err(error) = self.client.consumer().resume(&list) {
            self.errors.note(&format!("resume: {error}"));
        }
        let mut unknown = None;
        let (mut targets, mut outside) = (list.clone(), TopicPartitionList::new());
        if self.stopping.is_none() {
            let mut earlier = self.by_earlier_owners(&list).unwrap_or_else(|error| {
                unknown = Some(error);
                HashMap::new()
            });
            for (topic, partition) in partitions {
                let partition = TopicPartition::new(topic.as_str(), *partition);
                self.assigned.retain(|entry| entry.partition != partition);
                let earlier = earlier.remove(&partition).unwrap_or_default();
                let bound = match &mut self.bounded {
                    None => None,
                    Some(run) => {
                        let Some(bound) = run.bounds.of(&partition) else {
                            outside.add_partition(topic, partition.partition);
                            continue;
                        };
                        if !run.bounds.fits(topic, earlier.topic_id.as_ref()) {
                            run.recreated(topic);
                        }
                        let start = unknown.is_none().then(|| start(bound, &earlier));
                        if let Some(start) = start {
                            // Fails only for partitions that are not in the list.
                            let _ = targets.set_partition_offset(
                                topic,
                                partition.partition,
                                KafkaOffset::Offset(start),
                            );
                        }
                        Some((bound, start))
                    }
                };
                let Earlier {
                    finished,
                    topic_id,
                    committed,
                } = earlier;
                let start = Start {
                    task_epoch: self.next_task_epoch,
                    assignment_epoch: self.next_task_epoch,
                    finished,
                    topic_id,
                    parked: None,
                    partition,
                    // What the broker has matters only for knowing when a bounded run ends.
                    committed: committed.filter(|_| bound.is_some()),
                    bound,
                    fetch_paused: false,
                    one_at_a_time: false,
                };
                self.next_task_epoch += 1;
                let mut entry =
                    AssignedPartition::start(start, &self.shared, &self.runtime, &self.event_sender);
                entry.limit_metadata(self.metadata_limit);
                self.assigned.push(entry);
            }
        }
        // Partitions start at their committed offsets: librdkafka fetches them, except in a bounded run.
        if let Err(error) = self.client.consumer().incremental_assign(&targets) {
            self.errors.note(&format!("assign: {error}"));
        }
        if outside.count() > 0
            && let Err(error) = self.client.consumer().pause(&outside)
        {
            self.errors.note(&format!("pause: {error}"));
        }
        match unknown {
            // The loop starts the partitions again after the abort, once it knows what is finished.
            Some(message) if self.transactions.is_some() && !self.is_rewinding() => {
                self.abort_transaction(TransactionFailure::new(Cause::Moved, message));
            }
            Some(message) => self.errors.note(&message),
            None => {}
        }
        if self.stopping.is_none() {
            self.phase = Phase::Consuming;
        }
        self.run_housekeeping();
    }

    /// What earlier owners have written into the metadata of their commits. In partition order, commits list
    /// out-of-order completions only with transactions.
    fn by_earlier_owners(
        &mut self,
        list: &TopicPartitionList,
    ) -> Result<HashMap<TopicPartition, Earlier>, String> {
        let mut earlier = HashMap::new();
        if list.count() == 0 {
            return Ok(earlier);
        }
        // A bounded run needs the offsets themselves.
        let in_order = self.shared.ordering == Ordering::PerPartition
            && self.transactions.is_none()
            && self.bounded.is_none();
        let budget = if in_order {
            TOPIC_ID_BUDGET
        } else {
            COMMITTED_BUDGET
        };
        let committed = match self.client.consumer().committed_offsets(list.clone(), budget) {
            Err(error) if in_order => {
                // Only a topic that was deleted and created again is recognized later then.
                tracing::debug!(%error, "cannot read the topic ids of the committed offsets");
                return Ok(earlier);
            }
            answer => answer,
        };
        let committed = committed.map_err(|error| {
            let repeated = if self.transactions.is_none() {
                "; the records will be processed again"
            } else {
                ""
            };
            format!("cannot read the out-of-order completions from the committed metadata: {error}{repeated}")
        })?;
        for element in committed.elements() {
            let partition = TopicPartition::new(element.topic(), element.partition());
            if let Err(error) = element.error() {
                let message = format!("cannot read the committed offset of {partition}: {error}");
                if self.transactions.is_some() || self.bounded.is_some() {
                    // Without the offset, finished records would be taken for new ones.
                    return Err(message);
                }
                // The client reads the offset itself. At most, records are repeated.
                tracing::debug!("{message}");
                continue;
            }
            let KafkaOffset::Offset(offset) = element.offset() else {
                continue;
            };
            let topic_id = commit_metadata::topic_id(element.metadata());
            if topic_id
                .as_ref()
                .is_some_and(|id| self.callbacks.topic_ids.is_elsewhere(id))
            {
                // The offset was mirrored from another cluster. What the metadata lists has other offsets here.
                continue;
            }
            match commit_metadata::decode(offset, element.metadata()) {
                Ok(ranges) => {
                    earlier.insert(
                        partition,
                        Earlier {
                            finished: ranges,
                            topic_id,
                            committed: Some(Position {
                                offset,
                                metadata: element.metadata().to_owned(),
                            }),
                        },
                    );
                }
                Err(unreadable) => {
                    tracing::warn!(%partition, offset, "{unreadable}");
                    if self.bounded.is_none() {
                        continue;
                    }
                    let metadata = element.metadata().to_owned();
                    earlier.insert(
                        partition,
                        Earlier {
                            topic_id,
                            committed: Some(Position { offset, metadata }),
                            ..Earlier::default()
                        },
                    );
                }
            }
        }
        Ok(earlier)
    }

    fn revoke(&mut self, partitions: Vec<(String, i32)>, lost: bool) -> Result<(), PollError> {
        self.shared
            .metrics
            .rebalanced(if lost { "lost" } else { "revoked" });
        tracing::info!(partitions = describe(&partitions), lost, "revoked");
        let revocation = Revocation {
            partitions,
            deadline: Instant::now() + REVOKE_BUDGET,
        };
        for entry in self
            .assigned
            .iter_mut()
            .filter(|entry| revocation.contains(&entry.partition))
        {
            entry.drain();
            if lost {
                entry.abort();
            }
            if seeded_bug("no-drain-on-revoke") {
                entry.pretend_finished();
            }
        }
        self.revocation = Some(revocation);
        if lost {
            // Another member may already have continued from the last commit of this worker: a commit now
            // would be wrong or refused.
            self.finish_revocation(false)?;
        }
        Ok(())
    }

    fn finish_revocation(&mut self, commit: bool) -> Result<(), PollError> {
        let Some(revocation) = &self.revocation else {
            return Ok(());
        };
        let unfinished = self
            .assigned
            .iter()
            .filter(|entry| revocation.contains(&entry.partition) && !entry.has_ended())
            .inspect(|entry| entry.abort())
            .count();
        if commit && unfinished > 0 {
            tracing::warn!(
                partitions = unfinished,
                "revoked partitions did not finish their work in flight in time; their next owner repeats it"
            );
        }
        // While this call waits, transactions must know which partitions are being revoked.
        self.end_transaction(commit && unfinished == 0)?;
        let Some(revocation) = self.revocation.take() else {
            return Ok(());
        };
        // The session may have been lost while the partitions drained.
        let commit = commit && !self.client.consumer().assignment_lost();
        if commit && self.transactions.is_none() {
            self.commit_and_wait(|entry| revocation.contains(&entry.partition));
        }
        self.assigned.retain(|entry| {
            let revoked = revocation.contains(&entry.partition);
            if revoked {
                self.shared.metrics.forget(&entry.partition);
            }
            !revoked
        });
        let consumer = self.client.consumer();
        if let Err(error) = consumer.incremental_unassign(&list(&revocation.partitions)) {
            self.errors.note(&format!("unassign: {error}"));
        }
        self.run_housekeeping();
        Ok(())
    }

    /// Answers the remaining rebalances at the end, when everything is drained and committed.
    pub(super) fn answer_open_rebalances(&mut self) -> Result<(), PollError> {
        self.finish_revocation(false)?;
        self.answer_events();
        Ok(())
    }

    /// Releases all partitions without a commit. librdkafka waits for an answer to every rebalance, so
    /// closing would hang without one.
    pub(super) fn release_uncommitted(&mut self) {
        for entry in &self.assigned {
            entry.abort();
        }
        if let Some(revocation) = self.revocation.take()
            && let Err(error) = self
                .client
                .consumer()
                .incremental_unassign(&list(&revocation.partitions))
        {
            tracing::debug!(%error, "unassign without a commit");
        }
        self.answer_events();
    }

    fn answer_events(&self) {
        while let Some(event) = self.callbacks.next_event() {
            let consumer = self.client.consumer();
            let answered = match &event {
                RebalanceEvent::Assign(partitions) => consumer.incremental_assign(&list(partitions)),
                RebalanceEvent::Revoke { partitions, .. } => consumer.incremental_unassign(&list(partitions)),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, ?event, "rebalance while closing");
            }
        }
    }
}

/// Where a partition of a bounded run starts.
fn start(bound: Bound, earlier: &Earlier) -> Offset {
    bound.start(earlier.committed.as_ref().map(|position| position.offset))
}
