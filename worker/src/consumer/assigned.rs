//! The assigned partitions as the poll loop keeps them: tracker, in-flight bytes, task. No rdkafka calls here.

mod commit_position;
mod position;
mod read_cursor;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use crds::spec::{DeliveryGuarantee, Ordering};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

pub(super) use self::position::Position;
use self::{
    position::MAX_DISPATCHED,
    read_cursor::{ReadCursor, Verdict},
};
use super::dispatch::Dispatcher;
use crate::{
    health::{
        problems::{Problem, Problems},
        snapshot::{OldestRecord, PartitionSnapshot, PausedReason},
    },
    offsets::{Sequence, Tracker, commit_metadata::MetadataLimit},
    processing::{
        PartitionTask,
        context::{PartitionContext, WorkerContext},
        messages::{DispatchedChunk, FinishedRecords, TaskEvent},
    },
    record::{Chunk, Offset, TopicPartition},
    seeded_bugs::seeded_bug,
    telemetry::PartitionMetrics,
};

/// With work in flight, a chunk that is not full waits this much longer than `linger` for more: the lanes are busy, and
/// full chunks cost less. Not without end, because what is in flight may be a single record that waits for a retry.
const BUSY_LINGER: Duration = Duration::from_millis(100);

/// Records that may lie between the first unfinished one and the last that is read, when later ones may be finished first.
/// Bounds the memory of the tracker, and what a restart repeats when the commit's metadata cannot tell all.
const MAX_SPAN: usize = 64 * 1024;

/// A chunk on its way.
struct Flight {
    first: Sequence,
    /// Records not finished.
    open: usize,
    bytes: usize,
    since: Timestamp,
}

/// Finished records, by what became of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Counters {
    pub done: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
}

impl Counters {
    pub fn add(&mut self, more: Counters) {
        self.done += more.done;
        self.dead_lettered += more.dead_lettered;
        self.skipped += more.skipped;
    }
}

/// How a partition is begun.
pub(super) struct Start {
    pub partition: TopicPartition,
    /// Unique; what completes under another one is discarded.
    pub task_epoch: u64,
    /// Stays the same when the partition is read again after an abort.
    pub assignment_epoch: u64,
    /// Ranges of offsets above the committed one that need no work any more.
    pub finished: Vec<Range<Offset>>,
    /// What is committed, where the partition is read again from there.
    pub committed: Option<Position>,
    /// It is paused in librdkafka.
    pub fetch_paused: bool,
    /// One record after the other.
    pub one_at_a_time: bool,
}

/// One assigned partition.
pub(super) struct AssignedPartition {
    pub partition: TopicPartition,
    pub task_epoch: u64,
    pub assignment_epoch: u64,
    pub tracker: Tracker,
    /// Committed by us in this epoch.
    committed: Option<Position>,
    /// In the commit that is on its way.
    committing: Option<Position>,
    /// Paused in librdkafka.
    pub fetch_paused: bool,
    /// The task is told to finish.
    pub draining: bool,
    /// The task has ended.
    pub ended: bool,
    /// Its transaction was aborted: what it has finished does not count.
    discarded: bool,
    pub problems: Problems,
    pub metrics: PartitionMetrics,
    /// Finished records that nobody has been told of yet.
    pub uncounted: Counters,
    /// Finished records above the committed offset are told in the commit.
    ahead: bool,
    /// See [`Start::one_at_a_time`].
    one_at_a_time: bool,
    /// For the metadata of commits.
    metadata_limit: MetadataLimit,
    /// Records of a chunk at most, if `batch.maxRecords` is not less.
    max_chunk: usize,
    filling: Chunk,
    /// Since when the chunk is being filled.
    filling_since: Option<Instant>,
    /// Where it is being read.
    cursor: ReadCursor,
    flights: VecDeque<Flight>,
    dispatcher: Dispatcher,
    drain: watch::Sender<bool>,
    task: AbortHandle,
}

impl AssignedPartition {
    /// Starts the partition's task on the current runtime.
    pub fn start(
        start: Start,
        shared: &Arc<WorkerContext>,
        runtime: &tokio::runtime::Handle,
        events: &std_mpsc::Sender<TaskEvent>,
    ) -> Self {
        let Start {
            partition,
            task_epoch: epoch,
            assignment_epoch,
            finished,
            committed,
            fetch_paused,
            one_at_a_time,
        } = start;
        let (input, receiver) = mpsc::unbounded_channel();
        let (drain, draining) = watch::channel(false);
        let problems = Problems::default();
        let context = PartitionContext {
            shared: shared.clone(),
            partition: partition.clone(),
            epoch,
            round: shared.gate.as_ref().map_or(0, |gate| gate.round()),
            problems: problems.clone(),
            events: events.clone(),
            draining,
        };
        let task = PartitionTask {
            context: Arc::new(context),
            input: receiver,
        };
        let mut tracker = Tracker::default();
        if let Some(position) = &committed {
            tracker.deliver_end(position.offset);
        }
        let dispatcher = match shared.guarantee {
            DeliveryGuarantee::AtMostOnce if !seeded_bug("at-most-once-commits-later") => {
                Dispatcher::committed_first(input)
            }
            _ if one_at_a_time => Dispatcher::metered(0, input),
            _ if shared.gate.is_some() => Dispatcher::metered(MAX_DISPATCHED, input),
            _ => Dispatcher::at_once(input),
        };
        Self {
            metrics: shared.metrics.partition(&partition),
            uncounted: Counters::default(),
            filling: Chunk::new(partition.clone(), epoch),
            filling_since: None,
            cursor: ReadCursor::new(finished),
            partition,
            task_epoch: epoch,
            assignment_epoch,
            tracker,
            committed,
            committing: None,
            fetch_paused,
            draining: false,
            ended: false,
            discarded: false,
            problems,
            // In partition order nothing is finished ahead, but for a writer that refuses one record of several and
            // `onExhausted: Stop`: repeating those is fine, unless exactly once is promised.
            ahead: shared.ordering != Ordering::PerPartition || shared.gate.is_some(),
            one_at_a_time,
            metadata_limit: MetadataLimit::default(),
            max_chunk: if one_at_a_time { 1 } else { usize::MAX },
            flights: VecDeque::new(),
            dispatcher,
            drain,
            task: runtime.spawn(task.run()).abort_handle(),
        }
    }

    /// The chunk that the record at `offset` goes into; None if an earlier owner has finished it, or if it was read before.
    pub fn chunk_for(&mut self, offset: Offset, timestamp: i64) -> Option<&mut Chunk> {
        let first = self.filling.is_empty() && self.tracker.committable().is_none();
        match self.cursor.advance(&self.partition, offset, timestamp) {
            Verdict::Ignored => return None,
            Verdict::New if !(first && seeded_bug("skip-first-record-after-assign")) => {}
            Verdict::New | Verdict::Finished => {
                // It takes its place in the order of the deliveries.
                self.dispatch();
                self.tracker.deliver_finished(offset);
                return None;
            }
        }
        if self.filling_since.is_none() {
            self.filling_since = Some(Instant::now());
        }
        Some(&mut self.filling)
    }

    /// Reads on from this offset: librdkafka's position is not to be trusted any more.
    pub fn seek_to(&mut self, offset: Offset) {
        self.cursor.seek_to(offset);
    }

    /// Where to seek, until it is done.
    pub fn pending_seek(&self) -> Option<Offset> {
        self.cursor.pending_seek()
    }

    /// The consumer reads from there now.
    pub fn seek_done(&mut self) {
        self.cursor.seek_done();
    }

    /// True when the chunk that is being filled must be handed on.
    pub fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        self.filling.len() >= max_records.min(self.max_chunk) || self.filling.bytes() >= max_bytes
    }

    /// True when everything that was read is finished.
    pub fn is_idle(&self) -> bool {
        !self.draining && self.in_flight() == 0
    }

    /// Everything below `position` was read. Counts only while idle: what is in flight must not be passed.
    pub fn read_up_to(&mut self, position: Offset) {
        if self.is_idle() && self.cursor.pending_seek().is_none() {
            self.tracker.deliver_end(position);
        }
    }

    /// Hands the filled chunk on when it has waited long enough; a full one is handed on by whoever fills it.
    pub fn dispatch_if_due(&mut self, linger: Duration) {
        let Some(since) = self.filling_since else { return };
        let waited = since.elapsed();
        if waited >= linger && (self.flights.len() < 2 || waited >= linger + BUSY_LINGER) {
            self.dispatch();
        }
    }

    /// Hands the filled chunk on.
    pub fn dispatch(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        self.filling_since = None;
        let next = self.filling.empty_like();
        let chunk = std::mem::replace(&mut self.filling, next);
        let (len, bytes) = (chunk.len(), chunk.bytes());
        let end = chunk.record(len - 1).offset + 1;
        let range = self.tracker.deliver(chunk.offsets());
        if seeded_bug("commit-before-write") {
            self.tracker.complete(range.clone());
        }
        self.metrics.received(len, bytes);
        self.flights.push_back(Flight {
            first: range.start,
            open: len,
            bytes,
            since: Timestamp::now(),
        });
        let first = range.start;
        self.dispatcher.dispatch(end, DispatchedChunk { chunk, first });
        self.dispatcher.dispatch_ready(self.tracker.oldest_sequence());
    }

    /// Records are finished.
    pub fn complete(&mut self, finished: &FinishedRecords) {
        for run in finished.runs() {
            // All of one report are of one chunk.
            let after = self.flights.partition_point(|flight| flight.first <= run.start);
            if let Some(flight) = after.checked_sub(1).and_then(|at| self.flights.get_mut(at)) {
                flight.open = flight.open.saturating_sub((run.end - run.start) as usize);
            }
            self.tracker.complete(run);
        }
        self.flights.retain(|flight| flight.open > 0);
        self.dispatcher.dispatch_ready(self.tracker.oldest_sequence());
    }

    /// Counts finished records.
    pub fn count(&self, counters: Counters) {
        self.metrics.done(counters.done as usize);
    }

    /// Tells the task to finish what it has begun and to start nothing. What was not handed on is read again by the next
    /// owner.
    pub fn drain(&mut self) {
        self.draining = true;
        if !self.dispatcher.finish() {
            self.drain.send_replace(true);
        }
    }

    /// A bug on purpose: ends the task, and calls everything finished.
    pub fn pretend_finished(&mut self) {
        self.abort();
        self.tracker.complete(0..Sequence::MAX);
    }

    /// Ends the task at once; what it has begun is not finished.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// The transaction is aborted: ends the task, and nothing of what it has finished is ever committed.
    pub fn discard(&mut self) {
        self.discarded = true;
        self.drain();
        self.abort();
    }

    /// Records read and not finished.
    pub fn in_flight(&self) -> usize {
        self.tracker.unfinished() + self.filling.len()
    }

    /// Bytes read and not finished.
    pub fn bytes_in_flight(&self) -> usize {
        self.filling.bytes() + self.flights.iter().map(|flight| flight.bytes).sum::<usize>()
    }

    /// True when work has run so far ahead of an unfinished record that reading on makes no sense. With hysteresis:
    /// pausing throws the prefetched records away.
    pub fn is_far_ahead(&self) -> bool {
        let limit = if self.fetch_paused { MAX_SPAN / 2 } else { MAX_SPAN };
        self.tracker.span() > limit
    }

    /// What status shows, and the error that belongs to its reason, also while no record is in flight. `end` is the end of
    /// the partition, where known; `outage` what keeps transactions from being committed.
    pub fn snapshot(
        &self,
        paused: bool,
        end: Option<Offset>,
        outage: Option<&Problem>,
    ) -> (PartitionSnapshot, Option<String>) {
        let (at, problem) = match (self.problems.most_severe(), outage) {
            (Some((_, own)), Some(outage)) if outage.paused_reason > own.paused_reason => {
                (None, outage.clone())
            }
            (Some((offset, own)), _) => (Some(offset), own),
            (None, outage) => (None, outage.cloned().unwrap_or_default()),
        };
        let watermark = self.tracker.committable();
        let oldest = self
            .tracker
            .oldest()
            .zip(self.flights.front())
            .map(|(offset, flight)| OldestRecord {
                offset,
                since: flight.since,
                attempts: problem.attempts,
                last_error: problem.last_error.clone(),
                // A trouble has the offset of the first record of its work, so one from here on down is of this record too.
                error_offset: at.filter(|at| *at > offset),
            });
        let lag = end
            .zip(watermark)
            .map(|(end, watermark)| (end - watermark).max(0));
        self.metrics.state(lag, self.in_flight());
        let far_ahead = (self.fetch_paused && self.is_far_ahead()).then_some(PausedReason::OldestUnfinished);
        let shown = PartitionSnapshot {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            epoch: self.assignment_epoch,
            committed: self.committed.as_ref().map(|position| position.offset),
            watermark,
            lag,
            in_flight: self.in_flight() as u64,
            oldest,
            paused_reason: problem
                .paused_reason
                .max(paused.then_some(PausedReason::Paused))
                .max(far_ahead),
            stalled_since: None,
        };
        (shown, problem.last_error)
    }
}

#[cfg(test)]
mod tests;
