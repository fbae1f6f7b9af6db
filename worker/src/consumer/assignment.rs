//! The assigned partitions as the poll loop keeps them: tracker, in-flight bytes, task. No rdkafka calls here.

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

use super::handover::Handover;
use crate::{
    lane::Context,
    offsets::{Sequence, Tracker, ahead},
    partition::{PartitionTask, Report, Shared, Work},
    planted::{now_and_then, planted},
    progress::Troubles,
    record::{Chunk, Offset, TopicPartition},
    snapshot::{OldestRecord, PartitionSnapshot, PausedReason},
    telemetry::PartitionMetrics,
    unit::Finished,
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

/// What to commit: the offset, and what is finished above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub offset: Offset,
    pub metadata: String,
}

/// One assigned partition.
pub(super) struct Assigned {
    pub partition: TopicPartition,
    pub epoch: u64,
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
    pub troubles: Troubles,
    pub metrics: PartitionMetrics,
    ordering: Ordering,
    filling: Chunk,
    /// Since when the chunk is being filled.
    filling_since: Option<Instant>,
    /// Finished by an earlier owner.
    finished: VecDeque<Range<Offset>>,
    flights: VecDeque<Flight>,
    handover: Handover,
    drain: watch::Sender<bool>,
    task: AbortHandle,
}

impl Assigned {
    /// Starts the partition's task on the current runtime. `finished`: ranges of offsets above the committed one that
    /// need no work any more.
    pub fn start(
        partition: TopicPartition,
        epoch: u64,
        finished: Vec<Range<Offset>>,
        shared: &Arc<Shared>,
        runtime: &tokio::runtime::Handle,
        reports: &std_mpsc::Sender<Report>,
    ) -> Self {
        let (input, receiver) = mpsc::unbounded_channel();
        let (drain, draining) = watch::channel(false);
        let troubles = Troubles::default();
        let context = Context {
            shared: shared.clone(),
            partition: partition.clone(),
            epoch,
            troubles: troubles.clone(),
            reports: reports.clone(),
            draining,
        };
        let task = PartitionTask {
            context: Arc::new(context),
            input: receiver,
        };
        Self {
            metrics: shared.metrics.partition(&partition),
            filling: Chunk::new(partition.clone(), epoch),
            filling_since: None,
            finished: finished.into(),
            partition,
            epoch,
            tracker: Tracker::default(),
            committed: None,
            committing: None,
            held: false,
            draining: false,
            ended: false,
            troubles,
            ordering: shared.ordering,
            flights: VecDeque::new(),
            handover: Handover::new(
                shared.guarantee == DeliveryGuarantee::AtMostOnce && !planted("at-most-once-commits-later"),
                input,
            ),
            drain,
            task: runtime.spawn(task.run()).abort_handle(),
        }
    }

    /// The chunk that the record at `offset` goes into; None if an earlier owner has finished it.
    pub fn filling(&mut self, offset: Offset) -> Option<&mut Chunk> {
        let first = self.filling.is_empty() && self.tracker.committable().is_none();
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

    fn was_finished(&mut self, offset: Offset) -> bool {
        while self.finished.front().is_some_and(|range| range.end <= offset) {
            self.finished.pop_front();
        }
        self.finished.front().is_some_and(|range| range.contains(&offset))
    }

    /// True when everything that was read is finished.
    pub fn is_idle(&self) -> bool {
        !self.draining && self.in_flight() == 0
    }

    /// Everything below `position` was read. Counts only while idle: what is in flight must not be passed.
    pub fn read_up_to(&mut self, position: Offset) {
        if self.is_idle() {
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
        self.handover.offer(end, Work { chunk, first });
    }

    /// Records are finished.
    pub fn complete(&mut self, finished: &Finished) {
        for run in finished.runs() {
            // All of one report are of one chunk.
            let after = self.flights.partition_point(|flight| flight.first <= run.start);
            if let Some(flight) = after.checked_sub(1).and_then(|at| self.flights.get_mut(at)) {
                flight.open = flight.open.saturating_sub((run.end - run.start) as usize);
            }
            self.tracker.complete(run);
        }
        self.flights.retain(|flight| flight.open > 0);
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

    /// What to commit, if there is anything new.
    pub fn uncommitted(&self) -> Option<Position> {
        let position = match self.handover.to_commit() {
            Some(offset) => offset.map(|offset| (offset, String::new())),
            None => self
                .tracker
                .committable()
                .map(|offset| (offset, self.metadata(offset))),
        };
        let (mut offset, mut metadata) = position?;
        if planted("commit-maximum") {
            let ahead = self.tracker.ahead(usize::MAX);
            offset = ahead.last().map_or(offset, |range| range.end);
            metadata.clear();
        }
        if planted("commit-offset-plus-one") {
            offset += 1;
        }
        if planted("commit-goes-back") && now_and_then(7) {
            offset = 0;
        }
        let position = Position { offset, metadata };
        (self.committed.as_ref() != Some(&position)).then_some(position)
    }

    /// In partition order nothing is finished ahead.
    fn metadata(&self, offset: Offset) -> String {
        if self.ordering == Ordering::PerPartition {
            return String::new();
        }
        if planted("finished-ahead-invented") {
            // The record at the offset itself is never in there.
            return ahead::encode(offset, std::slice::from_ref(&(offset + 1..offset + 4)));
        }
        ahead::encode(offset, &self.tracker.ahead(ahead::MAX_RANGES))
    }

    /// True when records wait for a commit before they may be handed on.
    pub fn waits_for_commit(&self) -> bool {
        !self.ended && self.handover.waits()
    }

    /// A commit of this position is on its way.
    pub fn committing(&mut self, position: Position) {
        self.committing = Some(position);
        self.handover.committing();
    }

    /// A commit was answered: with the offset it has committed, or not at all. Gives back the offset if it is news of this
    /// epoch.
    pub fn commit_answered(&mut self, committed: Option<Offset>) -> Option<Offset> {
        self.handover.answered(committed);
        // The answer to a commit of an earlier epoch may come now; it says nothing of ours.
        let ours = self.committing.take();
        let position = ours.filter(|position| Some(position.offset) == committed)?;
        let offset = position.offset;
        self.committed = Some(position);
        Some(offset)
    }

    /// What status shows. `end` is the end of the partition, where known.
    pub fn snapshot(&self, paused: bool, end: Option<Offset>) -> PartitionSnapshot {
        let trouble = self.troubles.oldest();
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
        self.metrics.state(lag, self.in_flight());
        let far_ahead = (self.held && self.is_far_ahead()).then_some(PausedReason::OldestUnfinished);
        PartitionSnapshot {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            epoch: self.epoch,
            committed: self.committed.as_ref().map(|position| position.offset),
            watermark,
            lag,
            in_flight: self.in_flight() as u64,
            oldest,
            paused_reason: trouble
                .held
                .or(paused.then_some(PausedReason::Paused))
                .or(far_ahead),
            stalled_since: None,
        }
    }
}
