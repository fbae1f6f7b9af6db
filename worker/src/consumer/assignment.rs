//! The assigned partitions as the poll loop keeps them: tracker, in-flight bytes, task. No rdkafka calls here.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc as std_mpsc},
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::{
    offsets::{Sequence, Tracker},
    partition::{PartitionTask, Report, Shared, Work},
    progress::Progress,
    record::{Chunk, Offset, TopicPartition},
    snapshot::{OldestRecord, PartitionSnapshot, PausedReason},
    telemetry::PartitionMetrics,
};

/// A chunk on its way.
struct Flight {
    end: Sequence,
    bytes: usize,
    since: Timestamp,
}

/// One assigned partition.
pub(super) struct Assigned {
    pub partition: TopicPartition,
    pub epoch: u64,
    pub tracker: Tracker,
    /// Committed by us in this epoch.
    pub committed: Option<Offset>,
    /// Paused in librdkafka.
    pub held: bool,
    /// The task is told to finish.
    pub draining: bool,
    /// The task has ended.
    pub ended: bool,
    pub progress: Progress,
    pub metrics: PartitionMetrics,
    filling: Chunk,
    flights: VecDeque<Flight>,
    input: mpsc::UnboundedSender<Work>,
    drain: watch::Sender<bool>,
    task: AbortHandle,
}

impl Assigned {
    /// Starts the partition's task on the current runtime.
    pub fn start(
        partition: TopicPartition,
        epoch: u64,
        shared: &Arc<Shared>,
        runtime: &tokio::runtime::Handle,
        reports: &std_mpsc::Sender<Report>,
    ) -> Self {
        let (input, receiver) = mpsc::unbounded_channel();
        let (drain, draining) = watch::channel(false);
        let progress = Progress::default();
        let task = PartitionTask {
            shared: shared.clone(),
            partition: partition.clone(),
            epoch,
            input: receiver,
            draining,
            progress: progress.clone(),
            reports: reports.clone(),
        };
        Self {
            metrics: shared.metrics.partition(&partition),
            filling: Chunk::new(partition.clone(), epoch),
            partition,
            epoch,
            tracker: Tracker::default(),
            committed: None,
            held: false,
            draining: false,
            ended: false,
            progress,
            flights: VecDeque::new(),
            input,
            drain,
            task: runtime.spawn(task.run()).abort_handle(),
        }
    }

    /// The chunk that the next records go into.
    pub fn filling(&mut self) -> &mut Chunk {
        &mut self.filling
    }

    /// Hands the filled chunk to the task.
    pub fn dispatch(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let chunk = std::mem::replace(&mut self.filling, Chunk::new(self.partition.clone(), self.epoch));
        let range = self.tracker.deliver(chunk.records().map(|record| record.offset));
        self.metrics.received(chunk.len(), chunk.bytes());
        self.flights.push_back(Flight {
            end: range.end,
            bytes: chunk.bytes(),
            since: Timestamp::now(),
        });
        // A task that has ended takes nothing; its records stay unfinished and are never committed.
        let _ = self.input.send(Work {
            chunk,
            first: range.start,
        });
    }

    /// Records are finished.
    pub fn complete(&mut self, finished: std::ops::Range<Sequence>) {
        self.tracker.complete(finished);
        let first = self.tracker.oldest_sequence();
        while self.flights.front().is_some_and(|flight| flight.end <= first) {
            self.flights.pop_front();
        }
    }

    /// Tells the task to finish what it has begun and to start nothing.
    pub fn drain(&mut self) {
        self.draining = true;
        self.drain.send_replace(true);
    }

    /// Ends the task at once; what it has begun is not finished.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Bytes read and not finished.
    pub fn bytes_in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }

    /// The offset to commit, if there is a new one.
    pub fn uncommitted(&self) -> Option<Offset> {
        self.tracker
            .committable()
            .filter(|offset| self.committed != Some(*offset))
    }

    /// What status shows. `end` is the end of the partition, where known.
    pub fn snapshot(&self, paused: bool, end: Option<Offset>) -> PartitionSnapshot {
        let trouble = self.progress.trouble();
        let watermark = self.tracker.committable();
        let oldest = self
            .tracker
            .oldest()
            .zip(self.flights.front())
            .map(|(offset, flight)| OldestRecord {
                offset,
                since: flight.since,
                attempts: trouble.attempts,
                last_error: trouble.last_error.clone(),
            });
        let lag = end
            .zip(watermark)
            .map(|(end, watermark)| (end - watermark).max(0));
        self.metrics.state(lag, self.tracker.unfinished());
        PartitionSnapshot {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            epoch: self.epoch,
            committed: self.committed,
            watermark,
            lag,
            in_flight: self.tracker.unfinished() as u64,
            oldest,
            paused_reason: trouble.held.or(paused.then_some(PausedReason::Paused)),
            stalled_since: None,
        }
    }
}
