//! Commits: the loop commits finished offsets once per interval, without waiting for the answer. It commits
//! once more, and waits, before it releases partitions. It never commits past an unfinished record.

use std::time::{Duration, Instant};

use rdkafka::{
    error::RDKafkaErrorCode,
    topic_partition_list::{Offset as KafkaOffset, TopicPartitionList},
};

use super::{
    PollLoop,
    assigned::{AssignedPartition, Position},
    commit_schedule::COMMIT_RETRY,
};
use crate::{kafka::ffi, record::TopicPartition, seeded_bugs::seeded_bug};

/// How long a commit may take before the loop releases the partition without it. The next owner then reads
/// the records again.
const COMMIT_BUDGET: Duration = Duration::from_secs(5);

/// How a commit ended.
enum CommitOutcome {
    /// Nothing is left to retry: committed, or failed with an error that a retry within the budget does not
    /// fix.
    Done,
    /// Refused, and worth a retry: the group rebalances, or the metadata was too long.
    Refused,
}

impl PollLoop {
    /// Commits what is finished, once per interval, without waiting for the answer.
    pub(super) fn serve_commits(&mut self) {
        if self.transactions.is_some() {
            return self.serve_transaction();
        }
        while let Some(outcome) = self.client.committed(Duration::ZERO) {
            self.commits.running = false;
            self.take_committed(outcome);
        }
        // With AtMostOnce, records wait for the commit. After a refusal, the next attempt waits a moment.
        // At the end of a bounded run, nothing else is left to do.
        let urgent =
            self.assigned.iter().any(AssignedPartition::waits_for_commit) || self.waits_for_last_commit();
        if self
            .commits
            .take_due(Instant::now(), self.config.commit_interval, urgent)
        {
            self.start_commit(|_| true);
        }
    }

    /// Starts a commit of the selected partitions. Returns false when no commit is running after the call,
    /// for example because there is nothing to commit.
    fn start_commit(&mut self, select: impl Fn(&AssignedPartition) -> bool) -> bool {
        let mut offsets = TopicPartitionList::new();
        let mut positions = Vec::new();
        for (index, entry) in self
            .assigned
            .iter()
            .enumerate()
            .filter(|(_, entry)| select(entry))
        {
            let Some(position) = entry.uncommitted() else {
                continue;
            };
            add(&mut offsets, &entry.partition, &position);
            positions.push((index, position));
        }
        if positions.is_empty() || seeded_bug("commit-nothing") {
            return false;
        }
        // If the group is empty at that moment, the coordinator accepts a commit without a member id as one
        // of a standalone consumer. Meanwhile, other members may have read further from here.
        if self.client.membership().is_none() {
            return false;
        }
        match self.client.commit(&offsets) {
            Ok(()) => {
                self.commits.running = true;
                for (index, position) in positions {
                    self.assigned[index].committing(position);
                }
            }
            Err(error) => self.errors.note(&format!("commit: {error}")),
        }
        self.commits.running
    }

    fn take_committed(&mut self, answer: ffi::Committed) -> CommitOutcome {
        let mut outcome = CommitOutcome::Done;
        self.shared.metrics.committed(answer.error.map(word));
        self.commits.refused = answer.error.is_some();
        if answer.partitions.is_empty() {
            for entry in &mut self.assigned {
                entry.commit_answered(None);
            }
        }
        let mut too_long: Option<usize> = None;
        for (topic, partition, offset, error) in answer.partitions {
            let error = error.or(answer.error);
            let of_partition = |entry: &&mut AssignedPartition| {
                *entry.partition.topic == *topic && entry.partition.partition == partition
            };
            if let Some(entry) = self.assigned.iter_mut().find(of_partition) {
                if error == Some(RDKafkaErrorCode::OffsetMetadataTooLarge) {
                    // The shortest counts: the brokers refuse each of these lengths.
                    too_long = too_long.into_iter().chain(entry.committing_metadata()).min();
                }
                let confirmed = entry.commit_answered(error.is_none().then_some(offset));
                if let Some(offset) = confirmed {
                    for named in &self.shared.writers {
                        named.writer.committed(&entry.partition, entry.task_epoch, offset);
                    }
                }
            }
            self.commits.refused |= error.is_some();
            match error {
                None => {}
                // The group is between two generations. The offsets stay finished: either the loop commits
                // them later, or the next owner reads the records again.
                Some(
                    error @ (RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::StaleMemberEpoch),
                ) => {
                    outcome = CommitOutcome::Refused;
                    tracing::debug!(topic, partition, offset, %error, "not committed yet");
                }
                // The next attempt carries less metadata.
                Some(error @ RDKafkaErrorCode::OffsetMetadataTooLarge) => {
                    outcome = CommitOutcome::Refused;
                    tracing::debug!(topic, partition, offset, %error, "not committed yet");
                }
                Some(
                    error @ (RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::FencedMemberEpoch
                    | RDKafkaErrorCode::NoOffset),
                ) => {
                    tracing::debug!(topic, partition, offset, %error, "not committed");
                }
                Some(error) => self
                    .errors
                    .note(&format!("commit of {topic}-{partition} at {offset}: {error}")),
            }
        }
        if let Some(refused) = too_long {
            self.shrink_metadata(refused);
        }
        outcome
    }

    /// The brokers refuse metadata of this length: later commits carry less.
    pub(super) fn shrink_metadata(&mut self, refused: usize) {
        self.metadata_limit.shrink(refused);
        let metadata_limit = self.metadata_limit;
        self.assigned
            .iter_mut()
            .for_each(|entry| entry.limit_metadata(metadata_limit));
        tracing::warn!(
            refused,
            %metadata_limit,
            "the brokers' offset.metadata.max.bytes is small: commits list fewer out-of-order completions"
        );
    }

    /// Commits and waits for the answer, within a budget. While the group rebalances, the coordinator refuses
    /// commits for moments. Stopping at the first refusal would repeat records needlessly.
    pub(super) fn commit_and_wait(&mut self, select: impl Fn(&AssignedPartition) -> bool) {
        let deadline = Instant::now() + COMMIT_BUDGET;
        // The answer to a commit that is already running arrives first, on the same queue.
        if self.commits.running && self.await_commit(deadline).is_none() {
            return;
        }
        while self.start_commit(&select) {
            match self.await_commit(deadline) {
                Some(CommitOutcome::Refused) if Instant::now() < deadline => std::thread::sleep(COMMIT_RETRY),
                _ => return,
            }
        }
    }

    fn await_commit(&mut self, deadline: Instant) -> Option<CommitOutcome> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.client.committed(left) {
            Some(outcome) => {
                self.commits.running = false;
                Some(self.take_committed(outcome))
            }
            None => {
                self.errors.note(
                    "commit: no answer from the group coordinator; finished records may be processed again",
                );
                None
            }
        }
    }
}

/// Adds the position of a partition to the list of offsets to commit.
pub(super) fn add(offsets: &mut TopicPartitionList, partition: &TopicPartition, position: &Position) {
    let mut element = offsets.add_partition(&partition.topic, partition.partition);
    // Fails only for invalid offsets; these come from the broker.
    let _ = element.set_offset(KafkaOffset::Offset(position.offset));
    if !position.metadata.is_empty() {
        element.set_metadata(&position.metadata);
    }
}

/// The error as a metric label: one label for each error worth distinguishing, `Other` for the rest.
fn word(error: RDKafkaErrorCode) -> &'static str {
    match error {
        RDKafkaErrorCode::IllegalGeneration => "IllegalGeneration",
        RDKafkaErrorCode::RebalanceInProgress => "RebalanceInProgress",
        RDKafkaErrorCode::UnknownMemberId => "UnknownMemberId",
        RDKafkaErrorCode::NoOffset => "NoOffset",
        RDKafkaErrorCode::StaleMemberEpoch => "StaleMemberEpoch",
        RDKafkaErrorCode::FencedMemberEpoch => "FencedMemberEpoch",
        RDKafkaErrorCode::FencedInstanceId => "FencedInstanceId",
        RDKafkaErrorCode::CoordinatorNotAvailable
        | RDKafkaErrorCode::CoordinatorLoadInProgress
        | RDKafkaErrorCode::NotCoordinator
        | RDKafkaErrorCode::WaitingForCoordinator => "CoordinatorUnavailable",
        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => "TimedOut",
        RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown => "BrokersUnavailable",
        RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
            "NotAuthorized"
        }
        RDKafkaErrorCode::UnknownTopicOrPartition => "UnknownTopicOrPartition",
        RDKafkaErrorCode::OffsetMetadataTooLarge => "MetadataTooLarge",
        _ => "Other",
    }
}
