//! The assigned partitions as the poll loop keeps them: tracker, in-flight bytes, task. No rdkafka calls here.

mod commit_position;

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

pub(super) use self::commit_position::Position;
use super::dispatch::Handover;
use crate::{
    health::{
        problems::{Trouble, Troubles},
        snapshot::{OldestRecord, PartitionSnapshot, PausedReason},
    },
    offsets::{Sequence, Tracker, commit_metadata::Room},
    processing::{
        PartitionTask,
        context::{PartitionContext, WorkerContext},
        messages::{DispatchedChunk, FinishedRecords, TaskEvent},
    },
    record::{Chunk, Offset, TopicPartition},
    seeded_bugs::planted,
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

/// With transactions, finished records must all be told in the commit's metadata, or they would be written again. So few
/// records may be with the lanes, that even if every other one of them is finished it fits, unless their offsets lie far
/// apart. Then see [`Assigned::fits`]. Less where brokers take less than [`Room::default`].
const MAX_HANDED_ON: usize = 2000;

/// Records by which one that comes again is known. Every rebalance pauses all partitions. When it does so between the moment in
/// which librdkafka 2.12 takes records out of its queue and that in which it notes the position behind them, it reads on from
/// before them. That is one batch of reads at most.
const RECENT: usize = 4096;

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
    pub epoch: u64,
    /// Stays the same when the partition is read again after an abort.
    pub assignment: u64,
    /// Ranges of offsets above the committed one that need no work any more.
    pub finished: Vec<Range<Offset>>,
    /// What is committed, where the partition is read again from there.
    pub committed: Option<Position>,
    /// It is paused in librdkafka.
    pub held: bool,
    /// One record after the other.
    pub cautious: bool,
}

/// One assigned partition.
pub(super) struct Assigned {
    pub partition: TopicPartition,
    pub epoch: u64,
    pub assignment: u64,
    pub tracker: Tracker,
    /// Committed by us in this epoch.
    committed: Option<Position>,
    /// In the commit that is on its way.
    committing: Option<Position>,
    /// Paused in librdkafka.
    pub held: bool,
    /// The task is told to finish.
    pub draining: bool,
    /// The task has ended.
    pub ended: bool,
    /// Its transaction was aborted: what it has finished does not count.
    void: bool,
    pub troubles: Troubles,
    pub metrics: PartitionMetrics,
    /// Finished records that nobody has been told of yet.
    pub uncounted: Counters,
    /// Finished records above the committed offset are told in the commit.
    ahead: bool,
    /// See [`Start::cautious`].
    cautious: bool,
    /// For the metadata of commits.
    room: Room,
    /// Records of a chunk at most, if `batch.maxRecords` is not less.
    max_chunk: usize,
    filling: Chunk,
    /// Since when the chunk is being filled.
    filling_since: Option<Instant>,
    /// Finished by an earlier owner, but for what was passed already.
    finished: VecDeque<Range<Offset>>,
    /// Everything below was read.
    read_to: Offset,
    /// To be read again from here; what comes before that is done, is thrown away.
    going_back: Option<Offset>,
    /// The last records that were read: offset and timestamp, ascending.
    recent: VecDeque<(Offset, i64)>,
    flights: VecDeque<Flight>,
    handover: Handover,
    drain: watch::Sender<bool>,
    task: AbortHandle,
}

impl Assigned {
    /// Starts the partition's task on the current runtime.
    pub fn start(
        start: Start,
        shared: &Arc<WorkerContext>,
        runtime: &tokio::runtime::Handle,
        reports: &std_mpsc::Sender<TaskEvent>,
    ) -> Self {
        let Start {
            partition,
            epoch,
            assignment,
            finished,
            committed,
            held,
            cautious,
        } = start;
        let (input, receiver) = mpsc::unbounded_channel();
        let (drain, draining) = watch::channel(false);
        let troubles = Troubles::default();
        let context = PartitionContext {
            shared: shared.clone(),
            partition: partition.clone(),
            epoch,
            round: shared.gate.as_ref().map_or(0, |gate| gate.round()),
            troubles: troubles.clone(),
            reports: reports.clone(),
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
        let handover = match shared.guarantee {
            DeliveryGuarantee::AtMostOnce if !planted("at-most-once-commits-later") => {
                Handover::committed_first(input)
            }
            _ if cautious => Handover::metered(0, input),
            _ if shared.gate.is_some() => Handover::metered(MAX_HANDED_ON, input),
            _ => Handover::at_once(input),
        };
        Self {
            metrics: shared.metrics.partition(&partition),
            uncounted: Counters::default(),
            filling: Chunk::new(partition.clone(), epoch),
            filling_since: None,
            finished: finished.into(),
            read_to: 0,
            going_back: None,
            recent: VecDeque::new(),
            partition,
            epoch,
            assignment,
            tracker,
            committed,
            committing: None,
            held,
            draining: false,
            ended: false,
            void: false,
            troubles,
            // In partition order nothing is finished ahead, but for a writer that refuses one record of several and
            // `onExhausted: Stop`: repeating those is fine, unless exactly once is promised.
            ahead: shared.ordering != Ordering::PerPartition || shared.gate.is_some(),
            cautious,
            room: Room::default(),
            max_chunk: if cautious { 1 } else { usize::MAX },
            flights: VecDeque::new(),
            handover,
            drain,
            task: runtime.spawn(task.run()).abort_handle(),
        }
    }

    /// The chunk that the record at `offset` goes into; None if an earlier owner has finished it, or if it was read before.
    pub fn filling(&mut self, offset: Offset, timestamp: i64) -> Option<&mut Chunk> {
        if self.going_back.is_some() || offset < self.read_to && self.was_read(offset, timestamp) {
            return None;
        }
        if offset < self.read_to {
            // librdkafka's position stays where it was.
            self.read_to = offset;
            self.go_back_to(offset);
            return None;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((offset, timestamp));
        let first = self.filling.is_empty() && self.tracker.committable().is_none();
        self.read_to = offset + 1;
        if !self.finished.is_empty() && self.was_finished(offset)
            || first && planted("skip-first-record-after-assign")
        {
            // It takes its place in the order of the deliveries.
            self.dispatch();
            self.tracker.deliver_finished(offset);
            return None;
        }
        if self.filling_since.is_none() {
            self.filling_since = Some(Instant::now());
        }
        Some(&mut self.filling)
    }

    /// True for a record that came before. Else the offsets have gone back for good, because the topic was emptied or made
    /// anew.
    fn was_read(&mut self, offset: Offset, timestamp: i64) -> bool {
        let found = self.recent.binary_search_by_key(&offset, |(offset, _)| *offset);
        let again = found.is_ok_and(|at| self.recent[at].1 == timestamp);
        tracing::debug!(partition = %self.partition, offset, again, "below what was read");
        if !again {
            self.recent.clear();
        }
        again
    }

    /// What was not read yet is to be read from here on.
    pub fn go_back_to(&mut self, offset: Offset) {
        let target = self.going_back.map_or(offset, |target| target.min(offset));
        self.going_back = Some(target);
    }

    /// Where to, while it is not done.
    pub fn going_back_to(&self) -> Option<Offset> {
        self.going_back
    }

    /// It is read from there.
    pub fn went_back(&mut self) {
        self.going_back = None;
    }

    fn was_finished(&mut self, offset: Offset) -> bool {
        while self.finished.front().is_some_and(|range| range.end <= offset) {
            self.finished.pop_front();
        }
        self.finished.front().is_some_and(|range| range.contains(&offset))
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
        if self.is_idle() && self.going_back.is_none() {
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
        if planted("commit-before-write") {
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
        self.handover.offer(end, DispatchedChunk { chunk, first });
        self.handover.make_room(self.tracker.oldest_sequence());
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
        self.handover.make_room(self.tracker.oldest_sequence());
    }

    /// Counts finished records.
    pub fn count(&self, counters: Counters) {
        self.metrics.done(counters.done as usize);
    }

    /// Tells the task to finish what it has begun and to start nothing. What was not handed on is read again by the next
    /// owner.
    pub fn drain(&mut self) {
        self.draining = true;
        if !self.handover.finish() {
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
    pub fn annul(&mut self) {
        self.void = true;
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
        let limit = if self.held { MAX_SPAN / 2 } else { MAX_SPAN };
        self.tracker.span() > limit
    }

    /// What status shows, and the error that belongs to its reason, also while no record is in flight. `end` is the end of
    /// the partition, where known; `outage` what keeps transactions from being committed.
    pub fn snapshot(
        &self,
        paused: bool,
        end: Option<Offset>,
        outage: Option<&Trouble>,
    ) -> (PartitionSnapshot, Option<String>) {
        let (at, trouble) = match (self.troubles.gravest(), outage) {
            (Some((_, own)), Some(outage)) if outage.held > own.held => (None, outage.clone()),
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
                attempts: trouble.attempts,
                last_error: trouble.last_error.clone(),
                // A trouble has the offset of the first record of its work, so one from here on down is of this record too.
                error_offset: at.filter(|at| *at > offset),
            });
        let lag = end
            .zip(watermark)
            .map(|(end, watermark)| (end - watermark).max(0));
        self.metrics.state(lag, self.in_flight());
        let far_ahead = (self.held && self.is_far_ahead()).then_some(PausedReason::OldestUnfinished);
        let shown = PartitionSnapshot {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            epoch: self.assignment,
            committed: self.committed.as_ref().map(|position| position.offset),
            watermark,
            lag,
            in_flight: self.in_flight() as u64,
            oldest,
            paused_reason: trouble
                .held
                .max(paused.then_some(PausedReason::Paused))
                .max(far_ahead),
            stalled_since: None,
        };
        (shown, trouble.last_error)
    }
}

#[cfg(test)]
mod tests;
