//! `ExactlyOnce`: before its first record, a partition is claimed from the writer, which knows what is finished. In: chunks
//! as they were read. Out: what of them is still to be done; the rest is reported as finished at once. For other guarantees,
//! and for writers that keep no offsets, nothing happens here.

use std::sync::Arc;

use crds::spec::DeliveryGuarantee;
use tokio::time::Instant;

use crate::{
    health::snapshot::PausedReason,
    offsets::FinishedSet,
    processing::{
        context::PartitionContext,
        messages::{DispatchedChunk, FinishedRecords, TaskEvent},
    },
    record::Offset,
    retry::UNAVAILABLE_AFTER,
    writer::WriteError,
};

/// Kafka's committed offset follows the database within the commit interval, and no more than this many records lie between
/// the first unfinished one and the last that is read. Who must skip more has reset the group's offsets, or deleted the
/// topic and created it again.
const PLAUSIBLE: Offset = 1_000_000;

/// A partition that is ours, and what was finished in it when it became ours.
pub(crate) struct ClaimedPartition {
    context: Arc<PartitionContext>,
    finished: FinishedSet,
    skipped: u64,
    first_skipped: Offset,
}

/// Claims the partition, for as long as it takes. None when told to drain before.
pub(crate) async fn claim(context: &Arc<PartitionContext>) -> Option<ClaimedPartition> {
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
            result = named.writer.claim(&context.partition, context.epoch) => result,
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
        if failures.is_power_of_two() {
            let (writer, partition) = (&named.name, &context.partition);
            tracing::warn!(%writer, %partition, attempt = failures, "not claimed: {message}; trying again");
        }
        shared.metrics.write_failed(&named.name, error.class());
        shared.metrics.retried(&named.name);
        reporter.failing(failures, &message);
        if systemic || started.elapsed() >= UNAVAILABLE_AFTER {
            reporter.hold(PausedReason::WriterUnavailable);
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
    /// Takes the records out that are finished, and reports them. What is left are runs of neighbours.
    pub fn unfinished(&mut self, work: DispatchedChunk) -> Vec<DispatchedChunk> {
        let offsets = || work.chunk.offsets();
        let Some((first, last)) = offsets().next().zip(offsets().last()) else {
            return Vec::new();
        };
        if first >= self.finished.end() {
            self.say_skipped();
            return vec![work];
        }
        let all = 0..work.chunk.len() as u32;
        let is_finished = |index: &u32| {
            let record = work.chunk.record(*index as usize);
            self.finished.contains(record.offset)
        };
        let (done, open): (Vec<u32>, Vec<u32>) = all.partition(is_finished);
        if done.is_empty() {
            return vec![work];
        }
        self.skip(work.chunk.record(done[0] as usize).offset, done.len());
        let event = TaskEvent::Finished {
            partition: self.context.partition.clone(),
            epoch: self.context.epoch,
            transaction: 0,
            finished: FinishedRecords::Some(work.first, done),
            dead_lettered: 0,
            skipped: 0,
        };
        // The poll loop outlives its tasks except when it has failed; then nothing is committed any more anyway.
        let _ = self.context.events.send(event);
        if last >= self.finished.end() {
            self.say_skipped();
        }
        open.chunk_by(|left, right| left + 1 == *right)
            .map(|run| {
                let indices: Vec<usize> = run.iter().map(|index| *index as usize).collect();
                DispatchedChunk {
                    chunk: work.chunk.select(&indices),
                    first: work.first + u64::from(run[0]),
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
                    "the writer says that very many records from here on are finished, and they are skipped; if the topic was \
                     deleted and created again, or the group's offsets were reset on purpose, stop the group and delete the \
                     partition's row in the table of offsets"
                );
            } else {
                tracing::info!(%partition, from = first, up_to, "skipping records that the writer says are finished");
            }
        }
        self.skipped += records as u64;
    }

    fn say_skipped(&mut self) {
        if self.skipped > 0 {
            tracing::info!(
                partition = %self.context.partition, records = self.skipped, from = self.first_skipped,
                up_to = self.finished.end(), "skipped what the writer says is finished"
            );
            self.skipped = 0;
        }
    }
}

impl Drop for ClaimedPartition {
    fn drop(&mut self) {
        self.say_skipped();
    }
}
