//! `ExactlyOnce`: before its first record, the task claims its partition from the writer, which stores
//! finished offsets. In: chunks as they were read. Out: the unfinished records; the finished ones are
//! reported at once. With other guarantees, and with writers that store no offsets, this module changes
//! nothing.

use std::sync::Arc;

use crds::spec::DeliveryGuarantee;
use tokio::time::Instant;

use crate::retry;
use crate::{
    health::snapshot::PausedReason,
    offsets::FinishedSet,
    processing::{
        context::PartitionContext,
        messages::{DispatchedChunk, FinishedRecords, TaskEvent},
    },
    record::{Offset, topic_id::TopicId},
    retry::UNAVAILABLE_AFTER,
    writer::WriteError,
};

/// Kafka's committed offset follows the database within the commit interval, and at most this many records
/// lie between the first unfinished record and the last one read. If a worker has to skip more, the group's
/// offsets were reset, or the topic was deleted and created again.
const PLAUSIBLE: Offset = 1_000_000;

/// A claimed partition, and the records that were finished in it at the time of the claim.
pub(crate) struct ClaimedPartition {
    context: Arc<PartitionContext>,
    finished: FinishedSet,
    skipped: u64,
    first_skipped: Offset,
}

/// Claims the partition for records of this topic, and retries indefinitely. None when the partition drains
/// before.
pub(crate) async fn claim(
    context: &Arc<PartitionContext>,
    topic_id: Option<&TopicId>,
) -> Option<ClaimedPartition> {
    let topic_id = topic_id.map(TopicId::as_str);
    let shared = &context.shared;
    let mut claimed = ClaimedPartition {
        context: context.clone(),
        finished: FinishedSet::default(),
        skipped: 0,
        first_skipped: 0,
    };
    let exactly_once = shared.guarantee == DeliveryGuarantee::ExactlyOnce;
    // With ExactlyOnce there is one writer.
    let Some(named) = shared.writers.first().filter(|_| exactly_once) else {
        return Some(claimed);
    };
    let mut draining = context.draining.clone();
    let reporter = context.problems.at(-1);
    let (started, mut failures) = (Instant::now(), 0_u32);
    loop {
        let result = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return None,
            result = named.writer.claim(&context.partition, context.task_epoch, topic_id) => result,
        };
        let error = match result {
            Ok(finished) => {
                claimed.finished = finished;
                return Some(claimed);
            }
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        let systemic = matches!(error, WriteError::Systemic(_));
        let message = format!("writer {}: {error}", named.name);
        if retry::is_logged(failures) {
            let (writer, partition) = (&named.name, &context.partition);
            tracing::warn!(%writer, %partition, attempt = failures, "claim failed: {message}; retrying");
        }
        shared.metrics.write_failed(&named.name, error.class());
        shared.metrics.retried(&named.name);
        reporter.failing(failures, &message);
        if systemic || started.elapsed() >= UNAVAILABLE_AFTER {
            reporter.pause(PausedReason::WriterUnavailable);
        }
        let wait = shared.retry.outage_backoff(failures, systemic);
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return None,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl ClaimedPartition {
    /// Removes the finished records and reports them. Returns the unfinished records as runs of consecutive
    /// records.
    pub fn unfinished(&mut self, dispatched: DispatchedChunk) -> Vec<DispatchedChunk> {
        let offsets = || dispatched.chunk.offsets();
        let Some((first, last)) = offsets().next().zip(offsets().last()) else {
            return Vec::new();
        };
        if first >= self.finished.end() {
            self.log_skipped();
            return vec![dispatched];
        }
        let all = 0..dispatched.chunk.len() as u32;
        let is_finished = |index: &u32| {
            let record = dispatched.chunk.record(*index as usize);
            self.finished.contains(record.offset)
        };
        let (finished, unfinished): (Vec<u32>, Vec<u32>) = all.partition(is_finished);
        if finished.is_empty() {
            return vec![dispatched];
        }
        self.skip(
            dispatched.chunk.record(finished[0] as usize).offset,
            finished.len(),
        );
        let event = TaskEvent::Finished {
            partition: self.context.partition.clone(),
            task_epoch: self.context.task_epoch,
            transaction: 0,
            finished: FinishedRecords::Some(dispatched.first, finished),
            dead_lettered: 0,
            skipped: 0,
        };
        // The poll loop outlives its tasks unless it has failed. Then no offset is committed any more.
        let _ = self.context.events.send(event);
        if last >= self.finished.end() {
            self.log_skipped();
        }
        unfinished
            .chunk_by(|left, right| left + 1 == *right)
            .map(|run| {
                let indices: Vec<usize> = run.iter().map(|index| *index as usize).collect();
                DispatchedChunk {
                    chunk: dispatched.chunk.select(&indices),
                    first: dispatched.first + u64::from(run[0]),
                }
            })
            .collect()
    }

    fn skip(&mut self, first: Offset, records: usize) {
        if self.skipped == 0 {
            self.first_skipped = first;
            let (partition, up_to) = (&self.context.partition, self.finished.end());
            if up_to - first > PLAUSIBLE {
                tracing::warn!(
                    %partition, from = first, up_to,
                    "skipping very many records that the writer says are finished; if the topic was deleted \
                     and created again, or the group's offsets were reset on purpose, stop the group and delete \
                     the partition's row in the table of offsets"
                );
            } else {
                tracing::info!(
                    %partition, from = first, up_to,
                    "skipping records that the writer says are finished"
                );
            }
        }
        self.skipped += records as u64;
    }

    fn log_skipped(&mut self) {
        if self.skipped > 0 {
            tracing::info!(
                partition = %self.context.partition, records = self.skipped, from = self.first_skipped,
                up_to = self.finished.end(), "skipped the records that the writer says are finished"
            );
            self.skipped = 0;
        }
    }
}

impl Drop for ClaimedPartition {
    fn drop(&mut self) {
        self.log_skipped();
    }
}
