use std::{collections::BTreeSet, ops::Range, sync::Arc, sync::mpsc as std_mpsc, time::Duration};

use crds::spec::{DeliveryGuarantee, Ordering};
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::super::{AssignedPartition, Position, Start};
use crate::{
    consumer::{bounds::Bound, dispatch::Dispatcher},
    dead_letter::FailurePolicy,
    offsets::{Sequence, commit_metadata},
    processing::{
        messages::{DispatchedChunk, FinishedRecords},
        testing::shared,
    },
    record::{Offset, TopicPartition},
};

type Task = mpsc::UnboundedReceiver<DispatchedChunk>;

/// A runtime that runs nothing.
fn idle_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The partition as a worker starts it after it was assigned, and the chunks that it dispatches.
fn assigned(
    runtime: &tokio::runtime::Runtime,
    guarantee: DeliveryGuarantee,
    bound: Bound,
    committed: Option<Position>,
) -> (AssignedPartition, Task) {
    let shared = shared(
        &Arc::default(),
        Ordering::PerKey,
        guarantee,
        FailurePolicy::Stop,
        Duration::from_millis(8),
    );
    let finished = committed
        .as_ref()
        .map(|position| commit_metadata::decode(position.offset, &position.metadata).unwrap());
    let at = bound.start(committed.as_ref().map(|position| position.offset));
    let start = Start {
        partition: TopicPartition::new("t", 0),
        task_epoch: 1,
        assignment_epoch: 1,
        finished: finished.unwrap_or_default(),
        committed,
        fetch_paused: false,
        one_at_a_time: false,
        topic_id: None,
        parked: None,
        bound: Some((bound, Some(at))),
    };
    let (events, _) = std_mpsc::channel();
    let mut entry = AssignedPartition::start(start, &shared, runtime.handle(), &events);
    let (input, task) = mpsc::unbounded_channel();
    entry.dispatcher = match guarantee {
        DeliveryGuarantee::AtMostOnce => Dispatcher::committed_first(input),
        _ => Dispatcher::at_once(input),
    };
    (entry, task)
}

fn read(entry: &mut AssignedPartition, offset: Offset) {
    if entry.admits(offset)
        && let Some(chunk) = entry.chunk_for(offset, offset)
    {
        chunk.push(offset, 0, None, None, []);
    }
}

fn commit(entry: &mut AssignedPartition) -> Option<Position> {
    let position = entry.uncommitted()?;
    entry.committing(position.clone());
    entry.commit_answered(Some(position.offset));
    Some(position)
}

fn dispatched(task: &mut Task) -> Vec<(Sequence, Offset)> {
    let mut records = Vec::new();
    while let Ok(dispatched) = task.try_recv() {
        records.extend((dispatched.first..).zip(dispatched.chunk.offsets()));
    }
    records
}

const AT_LEAST_ONCE: DeliveryGuarantee = DeliveryGuarantee::AtLeastOnce;

#[test]
fn records_outside_of_the_bounds_are_not_processed_and_the_first_one_behind_is_the_end() {
    let runtime = idle_runtime();
    let (mut entry, mut task) = assigned(&runtime, AT_LEAST_ONCE, Bound { from: 3, to: 6 }, None);
    read(&mut entry, 0);
    entry.seek_done();
    (1..6).for_each(|offset| read(&mut entry, offset));
    assert!(!entry.is_read_out());
    read(&mut entry, 9);
    assert!(entry.is_read_out());
    let offsets: Vec<Offset> = dispatched(&mut task).iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [3, 4, 5], "dispatched without waiting for more");
    entry.complete(&FinishedRecords::Run(0..2));
    entry.finish_bound();
    assert_eq!(commit(&mut entry).map(|position| position.offset), Some(5));
    assert!(!entry.is_finished() && !entry.waits_for_last_commit());
    entry.complete(&FinishedRecords::Run(2..3));
    entry.finish_bound();
    assert!(entry.waits_for_last_commit());
    assert_eq!(commit(&mut entry).map(|position| position.offset), Some(6));
    assert!(entry.is_finished() && !entry.waits_for_last_commit());
    read(&mut entry, 4);
    assert!(dispatched(&mut task).is_empty());
}

#[test]
fn the_end_is_committed_where_its_last_offsets_belong_to_no_record() {
    for guarantee in [AT_LEAST_ONCE, DeliveryGuarantee::AtMostOnce] {
        let runtime = idle_runtime();
        let (mut entry, mut task) = assigned(&runtime, guarantee, Bound { from: 0, to: 6 }, None);
        (0..3).for_each(|offset| read(&mut entry, offset));
        assert!(entry.log_ends(4), "the client has to read from there again");
        assert_eq!(entry.pending_seek(), Some(4));
        assert!(entry.admits(7) && entry.chunk_for(7, 7).is_none());
        assert!(
            !entry.is_read_out(),
            "the record arrived before the seek was done"
        );
        entry.seek_done();
        assert!(!entry.log_ends(6));
        assert!(entry.is_read_out() && entry.pending_seek().is_none());
        if guarantee == DeliveryGuarantee::AtMostOnce {
            assert!(dispatched(&mut task).is_empty());
            assert_eq!(commit(&mut entry).map(|position| position.offset), Some(3));
        }
        assert_eq!(dispatched(&mut task).len(), 3);
        entry.complete(&FinishedRecords::Run(0..3));
        entry.finish_bound();
        assert_eq!(commit(&mut entry).map(|position| position.offset), Some(6));
        assert!(entry.is_finished());
    }
}

#[test]
fn a_partition_without_anything_to_read_is_read_out_from_the_start() {
    let runtime = idle_runtime();
    let at = |offset| Position {
        offset,
        metadata: String::new(),
    };
    let bound = Bound { from: 3, to: 6 };
    let (entry, _) = assigned(&runtime, AT_LEAST_ONCE, bound, Some(at(6)));
    assert!(entry.is_read_out() && entry.is_finished());
    assert_eq!(entry.snapshot(false, Some(100), None).0.lag, Some(0));
    let (entry, _) = assigned(&runtime, AT_LEAST_ONCE, bound, Some(at(5)));
    assert!(!entry.is_read_out());
    assert_eq!(
        entry.snapshot(false, Some(100), None).0.lag,
        Some(1),
        "to the end of the run"
    );
    let (entry, _) = assigned(&runtime, AT_LEAST_ONCE, Bound { from: 3, to: 3 }, None);
    assert!(entry.is_read_out() && entry.is_finished());
}

#[test]
fn records_that_retention_removes_count_only_inside_of_the_bounds() {
    let runtime = idle_runtime();
    let bound = Bound { from: 10, to: 20 };
    let removed = |at, first| {
        let (mut entry, _) = assigned(&runtime, AT_LEAST_ONCE, bound, None);
        entry.was_out_of_range(at);
        let resolved = entry.resolve_out_of_range(first, 100);
        assert_eq!(entry.out_of_range_at(), None);
        match resolved {
            Some(super::super::OutOfRange::Removed { records }) => records,
            other => {
                assert_eq!(other, None);
                0
            }
        }
    };
    assert_eq!(removed(12, 15), 3);
    assert_eq!(removed(12, 50), 8);
    assert_eq!(removed(5, 12), 2);
    assert_eq!(removed(25, 50), 0, "the client was ahead");
}

#[test]
fn records_that_retention_removes_count_also_if_the_end_is_known_before() {
    let runtime = idle_runtime();
    let (mut entry, _) = assigned(&runtime, AT_LEAST_ONCE, Bound { from: 0, to: 100 }, None);
    // The client found offset 0 out of range and continued at 200, where the log ends. It reports the end first.
    assert!(!entry.log_ends(200));
    assert!(entry.is_read_out());
    entry.was_out_of_range(0);
    let removed = super::super::OutOfRange::Removed { records: 100 };
    assert_eq!(entry.resolve_out_of_range(200, 200), Some(removed));
    entry.was_out_of_range(100);
    assert_eq!(entry.out_of_range_at(), None, "nothing of the run was there");
}

#[test]
fn a_partition_that_starts_before_the_run_continues_once_at_its_first_offset() {
    let runtime = idle_runtime();
    let bound = Bound { from: 10, to: 20 };
    let (mut entry, mut task) = assigned(&runtime, AT_LEAST_ONCE, bound, None);
    assert!(!entry.admits(3));
    assert_eq!(entry.pending_seek(), Some(10));
    read(&mut entry, 4);
    entry.seek_done();
    // The first offset is out of range as well: the client starts at the first record again.
    assert!(!entry.admits(3) && entry.pending_seek().is_none(), "only once");
    (10..21).for_each(|offset| read(&mut entry, offset));
    assert!(entry.is_read_out() && !entry.admits(3) && entry.pending_seek().is_none());
    let offsets: Vec<Offset> = dispatched(&mut task).iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, Vec::from_iter(10..20));
}

/// What happens to a partition between two reads.
#[derive(Clone, Debug)]
enum Step {
    /// Kafka returns this many more records, or its end of the log.
    Read(usize),
    /// The task finishes the record at this position of those in flight.
    Finish(usize),
    Commit,
    /// Its worker dies or loses it; another one starts at what is committed.
    Move,
    /// Kafka returns the last records once more.
    Again(usize),
    /// Retention removes the oldest records.
    Remove(usize),
    /// The end of the log becomes visible.
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_usize..6).prop_map(Step::Read),
        5 => any::<usize>().prop_map(Step::Finish),
        3 => Just(Step::Commit),
        1 => Just(Step::Move),
        1 => (1_usize..4).prop_map(Step::Again),
        1 => (1_usize..4).prop_map(Step::Remove),
        1 => Just(Step::Grow),
    ]
}

/// One partition in Kafka, and the worker that owns it.
struct Model {
    runtime: tokio::runtime::Runtime,
    bound: Bound,
    /// Offsets with a record. The others are markers, or were compacted.
    records: BTreeSet<Offset>,
    log_start: Offset,
    log_end: Offset,
    /// End of what a consumer gets to see.
    visible: Offset,
    committed: Option<Position>,
    entry: AssignedPartition,
    task: Task,
    /// Where the client reads next.
    position: Offset,
    in_flight: Vec<(Sequence, Offset)>,
    processed: BTreeSet<Offset>,
}

impl Model {
    fn new(records: BTreeSet<Offset>, bound: Bound, log_end: Offset, visible: Offset) -> Self {
        let runtime = idle_runtime();
        let (entry, task) = assigned(&runtime, AT_LEAST_ONCE, bound, None);
        Self {
            runtime,
            bound,
            records,
            log_start: 0,
            log_end,
            visible,
            committed: None,
            entry,
            task,
            position: bound.from,
            in_flight: Vec::new(),
            processed: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read(count) => {
                for _ in 0..count {
                    self.read_one();
                }
                self.entry.dispatch();
            }
            Step::Finish(index) if !self.in_flight.is_empty() => {
                let (sequence, offset) = self.in_flight.remove(index % self.in_flight.len());
                self.processed.insert(offset);
                self.entry.complete(&FinishedRecords::Run(sequence..sequence + 1));
            }
            Step::Finish(_) => {}
            Step::Commit => {
                if let Some(position) = commit(&mut self.entry) {
                    let before = self.committed.as_ref().map_or(0, |position| position.offset);
                    assert!(before <= position.offset && position.offset <= self.bound.to);
                    self.committed = Some(position);
                }
            }
            Step::Move => {
                let (entry, task) =
                    assigned(&self.runtime, AT_LEAST_ONCE, self.bound, self.committed.clone());
                (self.entry, self.task) = (entry, task);
                let committed = self.committed.as_ref().map(|position| position.offset);
                self.position = self.bound.start(committed);
                self.in_flight.clear();
            }
            Step::Again(count) => {
                let last: Vec<Offset> = self
                    .records
                    .range(..self.position)
                    .rev()
                    .take(count)
                    .copied()
                    .collect();
                for offset in last.into_iter().rev() {
                    // Not those before the place where this worker has started.
                    if self.entry.tracker.committable().is_some_and(|at| at <= offset) {
                        read(&mut self.entry, offset);
                    }
                }
                self.entry.dispatch();
            }
            Step::Remove(count) => {
                let kept = self.records.iter().nth(count).copied();
                self.log_start = self.log_start.max(kept.unwrap_or(self.visible)).min(self.visible);
            }
            Step::Grow => self.visible = self.log_end,
        }
        self.in_flight.extend(dispatched(&mut self.task));
        self.entry.finish_bound();
        if let Some(offset) = self.entry.pending_seek() {
            self.position = offset;
            self.entry.seek_done();
        }
    }

    /// What the client does for one record.
    fn read_one(&mut self) {
        if self.entry.is_read_out() || self.entry.pending_seek().is_some() {
            return;
        }
        self.position = self.position.max(self.log_start);
        let readable = self.position..self.visible.max(self.position);
        match self.records.range(readable).next().copied() {
            Some(offset) => {
                self.position = offset + 1;
                read(&mut self.entry, offset);
            }
            None => {
                let end = self.visible.max(self.position);
                self.position = end + 1;
                self.entry.log_ends(end);
            }
        }
    }
}

proptest! {
    /// Whatever happens: nothing outside of the bounds is processed, no commit passes the end or an unprocessed
    /// record, and the run comes to its end once the end of the log is visible.
    #[test]
    fn a_run_processes_exactly_its_part_of_the_log_and_ends(
        records in prop::collection::btree_set(0_i64..40, 0..40),
        ends in (0_i64..40, 0_i64..40),
        visible in 0_i64..40,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let bound = Bound { from: ends.0.min(ends.1), to: ends.0.max(ends.1) };
        let mut model = Model::new(records.clone(), bound, 40, visible);
        let mut removed = 0;
        for step in steps {
            model.take(step);
            removed = removed.max(model.log_start);
            let committed = model.committed.as_ref().map_or(bound.from, |position| position.offset);
            let below: Range<Offset> = removed.max(bound.from)..committed;
            if !below.is_empty() {
                for offset in records.range(below) {
                    prop_assert!(model.processed.contains(offset), "{offset} is committed and not processed");
                }
            }
        }
        model.take(Step::Grow);
        for _ in 0..200 {
            model.take(Step::Read(1));
            model.take(Step::Finish(0));
            model.take(Step::Commit);
        }
        prop_assert!(model.entry.is_finished());
        let part = bound.from..bound.to;
        prop_assert!(model.processed.iter().all(|offset| part.contains(offset)));
        if !part.is_empty() {
            let left = records.range(part).filter(|offset| **offset >= removed);
            for offset in left {
                prop_assert!(model.processed.contains(offset), "{offset} was not processed");
            }
        }
    }
}
