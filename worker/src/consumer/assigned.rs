//! The assigned partitions as the poll loop keeps them: tracker, in-flight bytes, task. This file makes no
//! rdkafka calls.

mod bound;
mod bounded_read;
mod commit_state;
mod commits;
mod life;
mod open_chunk;
mod parked;
mod position;
mod read_cursor;
mod snapshot;
mod topic;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use crds::spec::{DeliveryGuarantee, Ordering};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use self::{
    bounded_read::BoundedRead,
    commit_state::CommitState,
    life::Life,
    open_chunk::OpenChunk,
    parked::Parked,
    position::MAX_DISPATCHED,
    read_cursor::{ReadCursor, ReadVerdict},
};
pub(super) use self::{parked::OutOfRange, position::Position};
use super::{bounds::Bound, dispatch::Dispatcher};
use crate::{
    health::{problems::Problems, snapshot::SkippedRange},
    offsets::{Sequence, Tracker},
    processing::{
        PartitionTask,
        context::{PartitionContext, WorkerContext},
        messages::{DispatchedChunk, FinishedRecords, TaskEvent},
    },
    record::{Chunk, Offset, TopicPartition, topic_id::TopicId},
    seeded_bugs::seeded_bug,
    telemetry::PartitionMetrics,
};

/// Limit of records between the first unfinished one and the last one read, where later records may finish
/// first. Bounds the memory of the tracker, and what a restart repeats when the commit's metadata cannot list
/// all out-of-order completions.
const MAX_SPAN: usize = 64 * 1024;

/// A dispatched chunk that is not finished.
struct ChunkInFlight {
    first: Sequence,
    /// Records not finished.
    unfinished: usize,
    bytes: usize,
    since: Timestamp,
}

/// Finished records, by outcome.
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

/// How a partition starts.
pub(super) struct Start {
    pub partition: TopicPartition,
    /// Unique. The loop discards completions of any other task.
    pub task_epoch: u64,
    /// Stays the same when the loop reads the partition again after an abort.
    pub assignment_epoch: u64,
    /// Ranges of offsets above the committed one that are finished already.
    pub finished: Vec<Range<Offset>>,
    /// The committed position, if the loop reads the partition again from there.
    pub committed: Option<Position>,
    /// librdkafka has paused fetching it.
    pub fetch_paused: bool,
    /// Dispatch one record at a time.
    pub one_at_a_time: bool,
    /// The topic that the committed position belongs to, if known.
    pub topic_id: Option<TopicId>,
    /// Park it, with this message: its topic was deleted and created again. The topic id is then that of the
    /// deleted one.
    pub parked: Option<String>,
    /// In a bounded run: its bounds, and where reading starts, if known.
    pub bound: Option<(Bound, Option<Offset>)>,
}

/// One assigned partition.
pub(super) struct AssignedPartition {
    pub partition: TopicPartition,
    pub task_epoch: u64,
    pub assignment_epoch: u64,
    pub tracker: Tracker,
    /// What is committed, and what the next commit may list.
    commit_state: CommitState,
    /// librdkafka has paused fetching it.
    pub fetch_paused: bool,
    /// The state of its task.
    life: Life,
    pub problems: Problems,
    pub metrics: PartitionMetrics,
    /// With transactions: finished records that count once the transaction is committed.
    pub uncounted: Counters,
    /// Only one record at a time is dispatched, until everything that an earlier commit lists is passed.
    one_at_a_time: bool,
    /// Maximum number of records in a chunk, if `batch.maxRecords` is not less.
    max_chunk: usize,
    open_chunk: OpenChunk,
    /// Where the loop reads.
    cursor: ReadCursor,
    /// In a bounded run: its bounds.
    bound: Option<BoundedRead>,
    /// Nothing is read until the user decides.
    parked: Option<Parked>,
    /// The position that was out of range, until it is known what that meant.
    out_of_range: Option<Offset>,
    /// A record from behind that position has arrived.
    is_past_range: bool,
    /// The end that reading continued at.
    skipped_to: Option<Offset>,
    /// The last records that retention removed before they were read.
    skipped_by_retention: Option<SkippedRange>,
    chunks_in_flight: VecDeque<ChunkInFlight>,
    dispatcher: Dispatcher,
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
            task_epoch,
            assignment_epoch,
            finished,
            committed,
            fetch_paused,
            one_at_a_time,
            topic_id,
            parked,
            bound,
        } = start;
        let (input, receiver) = mpsc::unbounded_channel();
        let (drain, draining) = watch::channel(false);
        let problems = Problems::default();
        let context = PartitionContext {
            shared: shared.clone(),
            partition: partition.clone(),
            task_epoch,
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
        if let Some((_, Some(at))) = bound {
            tracker.deliver_end(at);
        }
        let dispatcher = match shared.guarantee {
            DeliveryGuarantee::AtMostOnce if !seeded_bug("at-most-once-commits-later") => {
                Dispatcher::committed_first(input)
            }
            _ if one_at_a_time => Dispatcher::metered(0, input),
            _ if shared.gate.is_some() => Dispatcher::metered(MAX_DISPATCHED, input),
            _ => Dispatcher::at_once(input),
        };
        // In partition order there are no out-of-order completions, except when a writer rejects one record
        // of several and `onExhausted` is `Stop`. Repeating those is fine, unless exactly once is promised.
        let lists_out_of_order = shared.ordering != Ordering::PerPartition || shared.gate.is_some();
        let parked = parked.map(|message| Parked::recreated(&problems, topic_id.as_ref(), &message));
        let mut entry = Self {
            metrics: shared.metrics.partition(&partition),
            uncounted: Counters::default(),
            open_chunk: OpenChunk::new(partition.clone(), task_epoch),
            cursor: ReadCursor::new(finished),
            partition,
            task_epoch,
            assignment_epoch,
            tracker,
            commit_state: CommitState::new(committed, lists_out_of_order),
            fetch_paused,
            life: Life::new(drain, runtime.spawn(task.run()).abort_handle()),
            problems,
            one_at_a_time,
            max_chunk: if one_at_a_time { 1 } else { usize::MAX },
            bound: bound.map(|(bound, start)| BoundedRead::new(bound, start)),
            parked,
            out_of_range: None,
            skipped_by_retention: None,
            is_past_range: false,
            skipped_to: None,
            chunks_in_flight: VecDeque::new(),
            dispatcher,
        };
        entry.set_topic_id(topic_id);
        entry
    }

    /// True if this is the partition, and the task with this epoch is still its task.
    pub fn has_task(&self, partition: &TopicPartition, task_epoch: u64) -> bool {
        self.partition == *partition && self.task_epoch == task_epoch
    }

    /// The chunk that the record at `offset` belongs to. None if an earlier owner has finished the record, if
    /// it was read before, or if a seek is pending.
    pub fn chunk_for(&mut self, offset: Offset, timestamp: i64) -> Option<&mut Chunk> {
        let first = self.open_chunk.get().is_empty() && self.tracker.committable().is_none();
        match self.cursor.advance(&self.partition, offset, timestamp) {
            ReadVerdict::Ignored => return None,
            ReadVerdict::New if !(first && seeded_bug("skip-first-record-after-assign")) => {}
            ReadVerdict::New | ReadVerdict::Finished => {
                // The record takes its place in the order of the deliveries.
                self.dispatch();
                self.tracker.deliver_finished(offset);
                return None;
            }
        }
        Some(self.open_chunk.fill(Instant::now))
    }

    /// Requests a seek to this offset: librdkafka's position cannot be trusted any more.
    pub fn seek_to(&mut self, offset: Offset) {
        self.cursor.seek_to(offset);
    }

    /// Where to seek, until the seek is done.
    pub fn pending_seek(&self) -> Option<Offset> {
        self.cursor.pending_seek()
    }

    /// The consumer reads from there now.
    pub fn seek_done(&mut self) {
        self.cursor.seek_done();
    }

    /// True when the chunk that is being filled must be dispatched.
    pub fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        let open = self.open_chunk.get();
        open.len() >= max_records.min(self.max_chunk) || open.bytes() >= max_bytes
    }

    /// True when everything that was read is finished.
    pub fn is_idle(&self) -> bool {
        !self.life.is_draining() && self.in_flight() == 0
    }

    /// Everything below `position` was read. Has an effect only while idle: the position must not pass
    /// records in flight.
    pub fn read_up_to(&mut self, position: Offset) {
        // The client's position may be outside of the bounds, where its records are not admitted.
        let (position, _) = self.within_bound(position, position);
        if self.is_idle() && self.cursor.pending_seek().is_none() {
            self.tracker.deliver_end(position);
        }
    }

    /// Dispatches the chunk when it has waited long enough. The caller that fills a chunk dispatches it when
    /// it is full.
    pub fn dispatch_if_due(&mut self, linger: Option<Duration>) {
        if self
            .open_chunk
            .is_due(linger, self.chunks_in_flight.len(), Instant::now())
        {
            self.dispatch();
        }
    }

    /// When the loop must call [`AssignedPartition::dispatch_if_due`] again. None: after the next record.
    pub fn check_again_in(&self, linger: Option<Duration>) -> Option<Duration> {
        let in_flight = self.chunks_in_flight.len();
        self.open_chunk.waits_for(linger, in_flight, Instant::now())
    }

    /// Dispatches the chunk that is being filled.
    pub fn dispatch(&mut self) {
        let Some(chunk) = self.open_chunk.take() else {
            return;
        };
        let (len, bytes) = (chunk.len(), chunk.bytes());
        let end = chunk.record(len - 1).offset + 1;
        let range = self.tracker.deliver(chunk.offsets());
        if seeded_bug("commit-before-write") {
            self.tracker.complete(range.clone());
        }
        self.metrics.received(len, bytes);
        self.chunks_in_flight.push_back(ChunkInFlight {
            first: range.start,
            unfinished: len,
            bytes,
            since: Timestamp::now(),
        });
        let first = range.start;
        self.dispatcher.dispatch(end, DispatchedChunk { chunk, first });
        self.dispatcher.dispatch_ready(self.tracker.oldest_sequence());
    }

    /// Takes finished records.
    pub fn complete(&mut self, finished: &FinishedRecords) {
        for run in finished.runs() {
            // All records of one event belong to one chunk.
            let after = self
                .chunks_in_flight
                .partition_point(|chunk| chunk.first <= run.start);
            if let Some(chunk) = after
                .checked_sub(1)
                .and_then(|at| self.chunks_in_flight.get_mut(at))
            {
                chunk.unfinished = chunk.unfinished.saturating_sub((run.end - run.start) as usize);
            }
            self.tracker.complete(run);
        }
        self.chunks_in_flight.retain(|chunk| chunk.unfinished > 0);
        self.dispatcher.dispatch_ready(self.tracker.oldest_sequence());
    }

    /// Counts finished records in the partition's metrics.
    pub fn count(&self, counters: Counters) {
        self.metrics.done(counters.done as usize);
    }

    /// Makes the task finish its work in flight and start nothing more. The next owner reads again what was
    /// not dispatched.
    pub fn drain(&mut self) {
        self.commit_marker_again(); // The topic may have been recreated once more, unnoticed.
        let ends_by_itself = self.dispatcher.finish();
        self.life.drain(!ends_by_itself);
    }

    /// A seeded bug: ends the task, and treats everything as finished.
    pub fn pretend_finished(&mut self) {
        self.abort();
        self.tracker.complete(0..Sequence::MAX);
    }

    /// True when the task has to end: no more records are read for it.
    pub fn is_draining(&self) -> bool {
        self.life.is_draining()
    }

    /// True when the task has ended.
    pub fn has_ended(&self) -> bool {
        self.life.has_ended()
    }

    /// The task has reported its end.
    pub fn task_ended(&mut self) {
        self.life.end();
    }

    /// Ends the task at once. Its work in flight stays unfinished.
    pub fn abort(&self) {
        self.life.abort();
    }

    /// The transaction is aborted: ends the task, and its finished records are never committed.
    pub fn discard(&mut self) {
        self.life.discard();
        self.drain();
        self.abort();
    }

    /// Records read and not finished.
    pub fn in_flight(&self) -> usize {
        self.tracker.unfinished() + self.open_chunk.get().len()
    }

    /// Bytes read and not finished.
    pub fn bytes_in_flight(&self) -> usize {
        self.open_chunk.get().bytes()
            + self
                .chunks_in_flight
                .iter()
                .map(|chunk| chunk.bytes)
                .sum::<usize>()
    }

    /// True when out-of-order completions span so many records behind an unfinished one that reading more
    /// makes no sense. With hysteresis: pausing discards the prefetched records.
    pub fn is_far_ahead(&self) -> bool {
        let limit = if self.fetch_paused { MAX_SPAN / 2 } else { MAX_SPAN };
        self.tracker.span() > limit
    }
}

#[cfg(test)]
mod tests;
