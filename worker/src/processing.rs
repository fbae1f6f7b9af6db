//! The work of one partition under one assignment: chunks in, through the pipeline, dealt out to lanes; completions out.
//! Ends when told to drain, after what its lanes have begun, or with its input.

pub mod batch_part;
pub mod claim;
pub mod context;
pub mod delivery;
pub mod lane;
pub mod messages;
pub mod retry_queue;

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

/// Between two looks whether a piece of a chunk is finished.
const LOOK: Duration = Duration::from_millis(20);

/// One partition's task.
pub(crate) struct PartitionTask {
    pub context: Arc<PartitionContext>,
    pub input: mpsc::UnboundedReceiver<DispatchedChunk>,
}

/// Says that the task has ended however it ends: by itself, aborted, or by a panic in a writer.
struct EndGuard {
    events: std_mpsc::Sender<TaskEvent>,
    partition: TopicPartition,
    epoch: u64,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // The poll loop may be gone already; then nobody needs to know.
        let _ = self.events.send(TaskEvent::Ended {
            partition: self.partition.clone(),
            epoch: self.epoch,
        });
    }
}

impl PartitionTask {
    /// Works until drained, or until its input ends and everything is finished.
    pub async fn run(mut self) {
        let _guard = EndGuard {
            events: self.context.events.clone(),
            partition: self.context.partition.clone(),
            epoch: self.context.epoch,
        };
        let Some(mut claimed) = claim::claim(&self.context).await else {
            return;
        };
        let mut lanes = Lanes::new(self.context.clone());
        let mut draining = self.context.draining.clone();
        loop {
            let work = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                // Lanes end before this only by a panic.
                Some(ended) = lanes.tasks.join_next() => {
                    look_at(ended);
                    break;
                }
                work = self.input.recv() => match work {
                    Some(work) => work,
                    None => break,
                },
            };
            let pass = async {
                for work in claimed.unfinished(work) {
                    lanes.pass(work).await;
                }
            };
            // Lanes that drain begin nothing, so what transforms still make of it is not waited for: it may take for ever.
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                () = pass => {}
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

    /// TimedPipeline a chunk and deals it out. What had to be run one by one is finished before anything behind it is run. So a worker
    /// that ends because of the threads left alone has finished what they ran; and while a record is waited for, or nothing
    /// can be written, no more of them are added.
    async fn pass(&mut self, DispatchedChunk { chunk, first }: DispatchedChunk) {
        let context = self.context.clone();
        let shared = &context.shared;
        shared.metrics.batch(chunk.len());
        let mut passing = shared.runs.begin(Arc::new(chunk));
        while let Some(piece) = shared.runs.next(&mut passing, &context.problems).await {
            let Piece {
                batch,
                records,
                abandoned,
            } = piece;
            let batch = self.deal(batch, first, records.as_ref());
            // With AtMostOnce what is behind it is committed, and would be lost if the worker had to stop before it is run.
            if records.is_some() && shared.guarantee != DeliveryGuarantee::AtMostOnce {
                self.finished(&batch).await;
            }
            shared.runs.count(&abandoned);
        }
    }

    /// Deals out these records of a batch, or all. The batch lives for as long as any of them is not finished.
    fn deal(&mut self, batch: Batch, first: Sequence, records: Option<&Range<u32>>) -> Weak<Batch> {
        let shared = self.context.shared.clone();
        let part = BatchPart::new(batch, first, shared.writers.len());
        let batch = Arc::downgrade(part.batch());
        for (lane, mut part) in part.deal(shared.ordering, shared.concurrency) {
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

    /// Waits until a batch is finished. And until nothing holds the partition: of a record that has failed and waits, another
    /// batch is made when it is tried again.
    async fn finished(&mut self, batch: &Weak<Batch>) {
        while batch.strong_count() > 0 || self.context.problems.oldest().paused_reason.is_some() {
            tokio::select! {
                // Lanes end before this only by a panic, or because they drain.
                Some(ended) = self.tasks.join_next() => look_at(ended),
                () = tokio::time::sleep(LOOK) => {}
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
        // A lane that has ended takes nothing; its records stay unfinished and are never committed.
        let _ = input.send(part);
    }

    /// Lets all lanes finish what they have, or what they have begun when draining.
    async fn finish(mut self) {
        self.inputs.clear();
        while let Some(ended) = self.tasks.join_next().await {
            look_at(ended);
        }
    }
}

/// A lane that panicked takes its partition with it, and so the worker: its records are read again.
fn look_at(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
