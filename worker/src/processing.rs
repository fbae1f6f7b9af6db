//! The task of one partition under one assignment: sends chunks through the pipeline and the results to
//! lanes, and reports finished records. The task ends when its input ends and everything is finished, or,
//! when the partition drains, after the parts in flight.

pub mod batch_part;
pub mod claim;
pub mod context;
pub mod delivery;
pub mod lane;
pub mod messages;
pub mod retry_queue;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    ops::Range,
    sync::{Arc, Weak, mpsc as std_mpsc},
    time::Duration,
};

use crds::spec::DeliveryGuarantee;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::{
    offsets::Sequence,
    pipeline::time_limit::Piece,
    processing::{
        batch_part::BatchPart,
        context::PartitionContext,
        lane::Lane,
        messages::{DispatchedChunk, TaskEvent},
    },
    record::{TopicPartition, batch::Batch},
};

/// Time between two checks whether a piece of a chunk is finished.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// One partition's task.
pub(crate) struct PartitionTask {
    pub context: Arc<PartitionContext>,
    pub input: mpsc::UnboundedReceiver<DispatchedChunk>,
}

/// Reports the end of the task, however it ends: by itself, aborted, or by a panic in a writer.
struct EndGuard {
    events: std_mpsc::Sender<TaskEvent>,
    partition: TopicPartition,
    task_epoch: u64,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // If the poll loop has ended already, the event is not needed.
        let _ = self.events.send(TaskEvent::Ended {
            partition: self.partition.clone(),
            task_epoch: self.task_epoch,
        });
    }
}

impl PartitionTask {
    /// Works until the partition drains, or until the input ends and everything is finished.
    pub async fn run(mut self) {
        let _guard = EndGuard {
            events: self.context.events.clone(),
            partition: self.context.partition.clone(),
            task_epoch: self.context.task_epoch,
        };
        let mut claimed = None;
        let mut lanes = Lanes::new(self.context.clone());
        let mut draining = self.context.draining.clone();
        loop {
            let chunk = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                // While the input is open, a lane ends only by a panic.
                Some(ended) = lanes.tasks.join_next() => {
                    propagate_panic(ended);
                    break;
                }
                chunk = self.input.recv() => match chunk {
                    Some(chunk) => chunk,
                    None => break,
                },
            };
            // Not before the first record: only then the topic id is certain.
            if claimed.is_none() {
                claimed = claim::claim(&self.context, chunk.chunk.topic_id.as_ref()).await;
            }
            let Some(claimed) = &mut claimed else { break };
            let process = async {
                for chunk in claimed.unfinished(chunk) {
                    lanes.process(chunk).await;
                }
            };
            // Draining lanes start nothing, so the task does not wait for running transforms: they may never
            // return.
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                () = process => {}
            }
        }
        lanes.finish().await;
    }
}

/// The lanes that have had work so far.
struct Lanes {
    context: Arc<PartitionContext>,
    inputs: Vec<Option<mpsc::UnboundedSender<BatchPart>>>,
    /// Aborted when dropped.
    tasks: JoinSet<()>,
}

impl Lanes {
    fn new(context: Arc<PartitionContext>) -> Self {
        Self {
            inputs: vec![None; context.shared.concurrency.max(1)],
            context,
            tasks: JoinSet::new(),
        }
    }

    /// Runs the pipeline on a chunk and sends the result to the lanes. Records that had to run one by one are
    /// finished before anything behind them runs. So a worker that ends because of abandoned threads has
    /// finished the records those threads ran; and while a record waits, or nothing can be written, no
    /// further threads are abandoned.
    async fn process(&mut self, DispatchedChunk { chunk, first }: DispatchedChunk) {
        let context = self.context.clone();
        let shared = &context.shared;
        shared.metrics.batch(chunk.len());
        let mut chunk_run = shared.pipeline.start(Arc::new(chunk));
        while let Some(piece) = shared
            .pipeline
            .next_piece(&mut chunk_run, &context.problems)
            .await
        {
            let Piece {
                batch,
                records,
                abandoned,
            } = piece;
            let batch = self.send_to_lanes(batch, first, records.as_ref());
            // With AtMostOnce the records behind it are committed. They would be lost if the worker had to
            // end before it runs them.
            if records.is_some() && shared.guarantee != DeliveryGuarantee::AtMostOnce {
                self.finished(&batch).await;
            }
            shared.pipeline.count_abandoned(&abandoned);
        }
    }

    /// Sends the given records of a batch, or all, to their lanes. The batch lives until all of them are
    /// finished.
    fn send_to_lanes(&mut self, batch: Batch, first: Sequence, records: Option<&Range<u32>>) -> Weak<Batch> {
        let shared = self.context.shared.clone();
        let part = BatchPart::new(batch, first, shared.writers.len());
        let batch = Arc::downgrade(part.batch());
        for (lane, mut part) in part.split_by_lane(shared.ordering, shared.concurrency) {
            let part = match records {
                None => Some(part),
                Some(records) => part.take(|source| records.contains(&source)),
            };
            if let Some(part) = part {
                self.send(lane, part);
            }
        }
        batch
    }

    /// Waits until a batch is finished and no problem pauses the partition: the retry of a failed record that
    /// waits makes another batch.
    async fn finished(&mut self, batch: &Weak<Batch>) {
        while batch.strong_count() > 0 || self.context.problems.oldest().paused_reason.is_some() {
            tokio::select! {
                // While the input is open, a lane ends only by a panic, or because the partition drains.
                Some(ended) = self.tasks.join_next() => propagate_panic(ended),
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    fn send(&mut self, lane: usize, part: BatchPart) {
        let Self {
            context,
            inputs,
            tasks,
        } = self;
        let input = inputs[lane].get_or_insert_with(|| {
            let (input, receiver) = mpsc::unbounded_channel();
            tasks.spawn(Lane::new(context.clone(), receiver).run());
            input
        });
        // A lane that has ended receives nothing. The records stay unfinished and are never committed.
        let _ = input.send(part);
    }

    /// Waits until all lanes have finished their parts, or, when the partition drains, the parts in flight.
    async fn finish(mut self) {
        self.inputs.clear();
        while let Some(ended) = self.tasks.join_next().await {
            propagate_panic(ended);
        }
    }
}

/// A panic in a lane ends its partition's task and so the worker. The records are read again.
fn propagate_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
