use proptest::prelude::*;

use super::*;
use crate::{
    dead_letter::FailurePolicy,
    health::{problems::Problem, snapshot::PausedReason},
    offsets::commit_metadata::{self, MetadataLimit},
    processing::testing::shared,
};

fn start(finished: Vec<Range<Offset>>) -> AssignedPartition {
    start_with(finished, false)
}

fn start_with(finished: Vec<Range<Offset>>, one_at_a_time: bool) -> AssignedPartition {
    start_on(&tokio::runtime::Handle::current(), None, finished, one_at_a_time)
}

fn start_on(
    runtime: &tokio::runtime::Handle,
    committed: Option<Position>,
    finished: Vec<Range<Offset>>,
    one_at_a_time: bool,
) -> AssignedPartition {
    let policy = FailurePolicy::Stop;
    let shared = shared(
        &Arc::default(),
        Ordering::PerKey,
        DeliveryGuarantee::AtLeastOnce,
        policy,
        Duration::from_millis(8),
    );
    let start = Start {
        partition: TopicPartition::new("t", 0),
        task_epoch: 1,
        assignment_epoch: 1,
        finished,
        committed,
        fetch_paused: false,
        one_at_a_time,
        topic_id: None,
        parked: None,
        bound: None,
    };
    let (events, _) = std_mpsc::channel();
    AssignedPartition::start(start, &shared, runtime, &events)
}

/// A runtime that runs nothing.
fn idle_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Chunks that the partition dispatches from now on arrive here, and not at its task.
fn instead_of_the_task(
    entry: &mut AssignedPartition,
    limit: usize,
) -> mpsc::UnboundedReceiver<DispatchedChunk> {
    let (input, task) = mpsc::unbounded_channel();
    entry.dispatcher = Dispatcher::metered(limit, input);
    task
}

fn received(task: &mut mpsc::UnboundedReceiver<DispatchedChunk>) -> Vec<Offset> {
    let mut offsets = Vec::new();
    while let Ok(dispatched) = task.try_recv() {
        offsets.extend(dispatched.chunk.offsets());
    }
    offsets
}

/// What is committed next: the offset, and the out-of-order completions above it.
fn listed(entry: &AssignedPartition) -> (Offset, Vec<Range<Offset>>) {
    let Position { offset, metadata } = entry.uncommitted().unwrap();
    (offset, commit_metadata::decode(offset, &metadata).unwrap())
}

/// The limit after the brokers have refused metadata of this length.
fn metadata_limit_after(refused: usize) -> MetadataLimit {
    let mut metadata_limit = MetadataLimit::default();
    metadata_limit.shrink(refused);
    metadata_limit
}

fn read(entry: &mut AssignedPartition, offsets: Range<Offset>) {
    fill(entry, offsets);
    entry.dispatch();
}

fn fill(entry: &mut AssignedPartition, offsets: Range<Offset>) {
    for offset in offsets {
        if let Some(chunk) = entry.chunk_for(offset, offset) {
            chunk.push(offset, 0, None, None, []);
        }
    }
}

#[tokio::test]
async fn what_an_aborted_transaction_has_finished_is_not_committed() {
    let mut entry = start(Vec::new());
    read(&mut entry, 5..9);
    entry.complete(&FinishedRecords::Run(0..2));
    assert_eq!(entry.uncommitted().map(|position| position.offset), Some(7));
    entry.discard();
    assert_eq!(entry.uncommitted(), None);
    assert!(entry.is_draining());
}

#[tokio::test]
async fn what_an_earlier_owner_has_finished_is_listed_until_it_is_passed() {
    let mut entry = start(vec![7..10, 20..22]);
    read(&mut entry, 5..6);
    assert_eq!(listed(&entry), (5, vec![7..10, 20..22]));
    read(&mut entry, 6..9);
    assert_eq!(listed(&entry), (5, vec![7..10, 20..22]), "read in part");
    entry.complete(&FinishedRecords::Run(0..2));
    read(&mut entry, 9..21);
    let (committed, ranges) = listed(&entry);
    assert_eq!((committed, ranges.first()), (10, Some(&(20..22))));
    assert!(ranges.len() == 1 && entry.metadata_fits());
}

#[tokio::test]
async fn one_at_a_time_ends_once_all_out_of_order_completions_are_passed() {
    let one = std::iter::once(7..8).collect();
    let mut entry = start_with(one, true);
    let mut task = instead_of_the_task(&mut entry, 0);
    read(&mut entry, 5..6);
    entry.chunk_for(6, 6).unwrap().push(6, 0, None, None, []);
    assert!(!entry.end_one_at_a_time());
    assert!(entry.is_full(1000, 1_000_000), "one record at a time");
    read(&mut entry, 7..8);
    assert_eq!(received(&mut task), [5]);
    entry.complete(&FinishedRecords::Run(0..1));
    assert_eq!(received(&mut task), [6], "7 is finished, and not dispatched");
    assert!(!entry.end_one_at_a_time(), "a record before it is not finished");
    entry.complete(&FinishedRecords::Run(1..2));
    assert!(entry.end_one_at_a_time());
    entry.chunk_for(8, 8).unwrap().push(8, 0, None, None, []);
    assert!(!entry.is_full(1000, 1_000_000));
    entry.dispatch();
    read(&mut entry, 9..11);
    assert_eq!(received(&mut task), [8, 9, 10]);
}

#[tokio::test]
async fn what_an_earlier_owner_has_finished_behind_a_chunk_does_not_delay_it() {
    let mut entry = start(vec![1..1901, 2501..4901]);
    let mut task = instead_of_the_task(&mut entry, MAX_DISPATCHED);
    read(&mut entry, 0..4901);
    assert_eq!(received(&mut task), [0]);
    entry.complete(&FinishedRecords::Run(0..1));
    assert_eq!(received(&mut task), Vec::from_iter(1901..2501));
    entry.complete(&FinishedRecords::Run(1901..2501));
    assert_eq!(listed(&entry), (4901, vec![]));
}

#[tokio::test]
async fn metadata_that_cannot_list_all_out_of_order_completions_is_detected() {
    for (gap, fits) in [(1, true), (100_000, false)] {
        let mut entry = start(Vec::new());
        for offset in (0..2000).map(|n| n * gap) {
            entry
                .chunk_for(offset, offset)
                .unwrap()
                .push(offset, 0, None, None, []);
        }
        entry.dispatch();
        for record in (1..2000).step_by(2) {
            entry.complete(&FinishedRecords::Run(record..record + 1));
        }
        assert_eq!(entry.metadata_fits(), fits, "every other record, {gap} apart");
    }
}

#[tokio::test]
async fn a_record_that_arrives_again_is_not_read_twice_but_a_recreated_partition_is() {
    let mut entry = start(Vec::new());
    read(&mut entry, 5..9);
    read(&mut entry, 7..10);
    assert_eq!(entry.in_flight(), 5, "7 and 8 arrived twice");
    // The topic was deleted and created again. librdkafka's position is still that of the old one: reading
    // starts again from here.
    assert!(entry.chunk_for(7, 1000).is_none());
    assert_eq!(entry.pending_seek(), Some(7));
    assert!(entry.chunk_for(8, 8).is_none(), "it arrives again");
    entry.seek_done();
    assert!(entry.chunk_for(7, 1000).is_some());
    assert!(
        entry.chunk_for(8, 8).is_some(),
        "records of the old topic do not count any more"
    );
}

#[tokio::test]
async fn an_error_is_shown_with_the_offset_that_it_belongs_to() {
    let mut entry = start(Vec::new());
    read(&mut entry, 100..110);
    let shown = |entry: &AssignedPartition| {
        let (shown, error) = entry.snapshot(false, None, None);
        let oldest = shown.oldest.unwrap();
        assert_eq!(oldest.offset, 100);
        assert_eq!(oldest.last_error, error);
        (
            oldest.error_offset,
            oldest.attempts,
            error.unwrap_or_default(),
            shown.paused_reason,
        )
    };
    assert_eq!(shown(&entry), (None, 0, String::new(), None));
    // The oldest record is in a slow call; a later one waits.
    let later = entry.problems.at(105);
    later.failing(2, "too many requests");
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), None));
    let oldest = entry.problems.at(100);
    oldest.failing(1, "timed out");
    assert_eq!(shown(&entry), (None, 1, "timed out".into(), None));
    // Reason and error belong together.
    let failed = Some(PausedReason::RecordFailed);
    later.pause(PausedReason::RecordFailed);
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), failed));
    oldest.pause(PausedReason::TransformSlow);
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), failed));
    later.recovered();
    let slow = Some(PausedReason::TransformSlow);
    assert_eq!(shown(&entry), (None, 1, "timed out".into(), slow));
}

#[tokio::test]
async fn a_problem_is_shown_while_nothing_is_in_flight_and_an_outage_with_the_record_that_it_blocks() {
    let mut entry = start(Vec::new());
    let claim = entry.problems.at(-1);
    claim.failing(1, "table missing");
    claim.pause(PausedReason::WriterUnavailable);
    let (shown, error) = entry.snapshot(true, None, None);
    assert_eq!((shown.oldest, error.as_deref()), (None, Some("table missing")));
    assert_eq!(shown.paused_reason, Some(PausedReason::WriterUnavailable));
    read(&mut entry, 5..6);
    let oldest = entry.snapshot(false, None, None).0.oldest.unwrap();
    assert_eq!(
        (oldest.attempts, oldest.error_offset),
        (1, None),
        "the problem is about the whole partition"
    );
    claim.recovered();

    let waiting = entry.problems.at(5);
    waiting.failing(7, "too many requests");
    let outage = Problem {
        attempts: 2,
        last_error: Some("brokers do not answer".into()),
        paused_reason: Some(PausedReason::WriterUnavailable),
    };
    let (shown, error) = entry.snapshot(true, None, Some(&outage));
    assert_eq!(error, outage.last_error);
    assert_eq!(shown.paused_reason, outage.paused_reason);
    waiting.pause(PausedReason::RecordFailed);
    let (shown, error) = entry.snapshot(true, None, Some(&outage));
    assert_eq!(error.as_deref(), Some("too many requests"));
    assert_eq!(shown.paused_reason, Some(PausedReason::RecordFailed));
}

#[tokio::test]
async fn where_brokers_accept_less_metadata_a_commit_lists_less_and_fewer_records_are_dispatched() {
    let mut entry = start(Vec::new());
    let mut task = instead_of_the_task(&mut entry, MAX_DISPATCHED);
    read(&mut entry, 0..200);
    for record in (1..200).step_by(2) {
        entry.complete(&FinishedRecords::Run(record..record + 1));
    }
    let before = listed(&entry).1;
    assert!(before.len() == 100 && entry.metadata_fits());
    entry.committing(entry.uncommitted().unwrap());
    let refused = entry.committing_metadata().unwrap();
    entry.limit_metadata(metadata_limit_after(refused));
    assert_eq!(entry.commit_answered(None), None);
    assert_eq!(entry.committing_metadata(), None);
    let next = entry.uncommitted().unwrap();
    assert!(
        next.metadata.len() <= refused / 2,
        "{} of {refused}",
        next.metadata.len()
    );
    let after = listed(&entry).1;
    assert!(after.len() > 40 && after == before[..after.len()]);
    assert!(
        !entry.metadata_fits() && !entry.must_stay_open(),
        "a transaction is aborted"
    );

    // The limit now allows 49 ranges; 1150 ranges are the ones that allow 2000 records.
    assert_eq!(received(&mut task).len(), 200);
    fill(&mut entry, 200..280);
    assert!(!entry.is_full(1000, 1_000_000));
    fill(&mut entry, 280..290);
    assert!(entry.is_full(1000, 1_000_000));
    entry.dispatch();
    entry.complete(&FinishedRecords::Run(0..198));
    assert!(received(&mut task).is_empty());
    entry.complete(&FinishedRecords::Run(198..199));
    assert_eq!(received(&mut task).len(), 90);
    entry.limit_metadata(metadata_limit_after(0));
    fill(&mut entry, 290..291);
    assert!(
        entry.is_full(1000, 1_000_000),
        "without any metadata one record at a time"
    );
}

#[tokio::test]
async fn what_was_committed_when_brokers_accepted_more_is_not_committed_again_with_less() {
    let ranges: Vec<Range<Offset>> = (0..100).map(|n| 10 * n + 6..10 * n + 8).collect();
    let committed = Position {
        offset: 5,
        metadata: commit_metadata::encode(MetadataLimit::default(), 5, &ranges),
    };
    let length = committed.metadata.len();
    let runtime = tokio::runtime::Handle::current();
    let mut entry = start_on(&runtime, Some(committed), ranges, true);
    let mut task = instead_of_the_task(&mut entry, 0);
    assert_eq!(entry.uncommitted(), None);
    entry.limit_metadata(metadata_limit_after(length));
    assert_eq!(entry.uncommitted(), None);
    for offset in 5..1000 {
        read(&mut entry, offset..offset + 1);
    }
    assert_eq!((entry.uncommitted(), entry.must_stay_open()), (None, false));
    // The transaction stays open until the rest of the list fits.
    let mut passed = 0;
    loop {
        let next = received(&mut task);
        assert_eq!(next.len(), 1);
        let sequence = (next[0] - 5) as Sequence;
        entry.complete(&FinishedRecords::Run(sequence..sequence + 1));
        passed += 1;
        if !entry.must_stay_open() {
            break;
        }
    }
    assert!(entry.metadata_fits() && passed > 100, "{passed}");
    let (offset, left) = listed(&entry);
    assert!(left.len() > 40 && left.iter().all(|range| range.start >= offset));
    assert!(!entry.end_one_at_a_time());
}

/// Takes the dispatched chunks, and checks that they stay within the limit and that something is dispatched.
fn take(
    entry: &AssignedPartition,
    task: &mut mpsc::UnboundedReceiver<DispatchedChunk>,
    limit: usize,
    open: &mut Vec<Sequence>,
) -> Result<(), TestCaseError> {
    while let Ok(dispatched) = task.try_recv() {
        let records = dispatched.first..dispatched.first + dispatched.chunk.len() as Sequence;
        let span = records.end - entry.tracker.oldest_sequence();
        prop_assert!(
            open.is_empty() || span <= limit as Sequence,
            "{span} with {open:?}"
        );
        prop_assert!(!entry.one_at_a_time || dispatched.chunk.len() == 1);
        open.extend(records);
    }
    let unfinished = entry.tracker.unfinished();
    prop_assert!(
        unfinished == 0 || !open.is_empty(),
        "{unfinished} records wait although none is dispatched"
    );
    Ok(())
}

proptest! {
    /// Whatever an earlier owner has finished, and in whatever order the rest finishes: while an unfinished
    /// record is known, the task has one; and it never has more than the limit, except for a single chunk.
    #[test]
    fn something_is_always_dispatched_and_never_more_than_the_limit(
        layout in prop::collection::vec((1_i64..30, 0_i64..30), 1..10),
        one_at_a_time in any::<bool>(),
        limit in 0_usize..40,
        max_records in 1_usize..20,
        steps in prop::collection::vec(
            (any::<bool>(), any::<bool>(), any::<prop::sample::Index>()),
            1..200,
        ),
    ) {
        let runtime = idle_runtime();
        let mut finished: Vec<Range<Offset>> = Vec::new();
        let mut end: Offset = 0;
        for (unfinished, done) in layout {
            let start = end + unfinished;
            end = start + done;
            finished.push(start..end);
        }
        finished.retain(|range| !range.is_empty());
        let mut entry = start_on(runtime.handle(), None, finished, one_at_a_time);
        let mut limit = if one_at_a_time { 0 } else { limit };
        let mut task = instead_of_the_task(&mut entry, limit);
        // Dispatched, and not finished.
        let mut open: Vec<Sequence> = Vec::new();
        let mut next: Offset = 0;
        for step in 0.. {
            let (reads, now, pick) = &steps[step % steps.len()];
            if next < end && (*reads || open.is_empty()) {
                if let Some(chunk) = entry.chunk_for(next, next) {
                    chunk.push(next, 0, None, None, []);
                    if *now || entry.is_full(max_records, usize::MAX) {
                        entry.dispatch();
                    }
                }
                next += 1;
            } else if open.is_empty() {
                entry.dispatch();
                take(&entry, &mut task, limit, &mut open)?;
                if open.is_empty() {
                    break;
                }
            } else {
                let sequence = open.swap_remove(pick.index(open.len()));
                entry.complete(&FinishedRecords::Run(sequence..sequence + 1));
                take(&entry, &mut task, limit, &mut open)?;
                if *now && entry.end_one_at_a_time() && one_at_a_time {
                    limit = MAX_DISPATCHED;
                }
            }
            take(&entry, &mut task, limit, &mut open)?;
        }
        prop_assert_eq!((next, entry.tracker.committable()), (end, Some(end)));
        prop_assert!(entry.end_one_at_a_time());
    }

    /// The committed metadata is never longer than the brokers accept and lists nothing unfinished.
    /// `metadata_fits` is true exactly if it lists everything.
    #[test]
    fn a_commit_lists_what_the_metadata_limit_allows(
        refused in 0_usize..400,
        done in prop::collection::vec(any::<bool>(), 1..300),
        earlier in prop::collection::vec((1_i64..20, 1_i64..20), 0..60),
    ) {
        let runtime = idle_runtime();
        let records = done.len() as Offset;
        let mut at = records;
        let place = |(gap, run): (i64, i64)| {
            let start = at + gap;
            at = start + run;
            start..at
        };
        let earlier: Vec<Range<Offset>> = earlier.into_iter().map(place).collect();
        let mut entry = start_on(runtime.handle(), None, earlier.clone(), false);
        entry.limit_metadata(metadata_limit_after(refused));
        read(&mut entry, 0..records);
        for (record, _) in done.iter().enumerate().filter(|(_, done)| **done) {
            let record = record as Sequence;
            entry.complete(&FinishedRecords::Run(record..record + 1));
        }
        let position = entry.uncommitted().unwrap();
        prop_assert!(position.metadata.len() <= refused / 2);
        let listed = commit_metadata::decode(position.offset, &position.metadata).unwrap();
        let is_listed = |offset: Offset| listed.iter().any(|range| range.contains(&offset));
        let mut all = true;
        for offset in position.offset..records {
            prop_assert!(!is_listed(offset) || done[offset as usize]);
            all &= is_listed(offset) || !done[offset as usize];
        }
        all &= earlier.iter().all(|range| range.clone().all(is_listed));
        for offset in records..at {
            prop_assert!(!is_listed(offset) || earlier.iter().any(|range| range.contains(&offset)));
        }
        prop_assert_eq!(entry.metadata_fits(), all);
    }
}

#[tokio::test]
async fn an_offset_out_of_range_means_removed_records_or_the_end() {
    let mut entry = start(Vec::new());
    assert_eq!(entry.resolve_out_of_range(9, 9), None, "nothing was out of range");
    entry.was_out_of_range(40);
    assert_eq!(entry.resolve_out_of_range(-1, 50), None, "watermarks from before");
    assert_eq!(
        entry.resolve_out_of_range(90, 120),
        Some(OutOfRange::Removed { records: 50 })
    );
    assert_eq!(entry.out_of_range_at(), None);
    let skipped = entry.snapshot(false, None, None).0.skipped_by_retention;
    assert_eq!(
        skipped.map(|skipped| (skipped.from_offset, skipped.to_offset)),
        Some((40, 90))
    );
    entry.was_out_of_range(40);
    assert_eq!(entry.resolve_out_of_range(0, 30), Some(OutOfRange::BehindTheEnd));
    assert_eq!(entry.resolve_out_of_range(0, 30), None);
}

#[tokio::test]
async fn a_parked_partition_commits_what_tells_later_owners() {
    let id = |text| TopicId::parse(text);
    let (old, new) = (
        id("ZD6bC7i9QUO1dWlbyS9QNg.1f3e88a2"),
        id("pSwp9nH_SBuNVFtWXg-ZcA.1f3e88a2"),
    );
    let mut entry = start(Vec::new());
    assert!(entry.continues(None) && entry.continues(old.as_ref()));
    assert!(entry.continues(old.as_ref()) && !entry.continues(new.as_ref()));
    read(&mut entry, 5..9);
    entry.complete(&FinishedRecords::Run(0..2));
    entry.park_out_of_range(9, "out of range");
    let position = entry.uncommitted().unwrap();
    assert_eq!(position.offset, 7, "what was read before is committed");
    assert_eq!(commit_metadata::topic_id(&position.metadata), old);
    assert!(entry.is_parked());
    assert_eq!(
        entry.problems.oldest().paused_reason,
        Some(PausedReason::OffsetOutOfRange)
    );

    entry.parked = Some(Parked::recreated(&entry.problems, old.as_ref(), "recreated"));
    let marker = entry.uncommitted().unwrap();
    assert_eq!(
        (marker.offset, commit_metadata::topic_id(&marker.metadata)),
        (0, old)
    );
    entry.committing(marker);
    entry.commit_answered(Some(0));
    assert_eq!(entry.uncommitted(), None);
    entry.commit_marker_again();
    let marker = entry.uncommitted().unwrap();
    entry.committing(marker);
    entry.commit_answered(Some(0));
    assert_eq!(entry.uncommitted(), None);
    entry.drain();
    assert_eq!(
        entry.uncommitted().map(|marker| marker.offset),
        Some(0),
        "the next owner must find it"
    );
    entry.parked = Some(Parked::recreated(&entry.problems, None, "recreated"));
    assert_eq!(entry.uncommitted(), None, "nothing of the deleted topic is known");
}

#[tokio::test]
async fn records_before_an_offset_out_of_range_are_read_first() {
    let mut entry = start(Vec::new());
    assert!(!entry.continues_at(0), "nothing was out of range");
    read(&mut entry, 5..8);
    // Prefetched up to 10, and then retention has removed the records up to 90.
    entry.was_out_of_range(10);
    assert!(!entry.continues_at(8) && !entry.continues_at(9));
    assert_eq!(entry.past_range(), None);
    assert!(entry.continues_at(90));
    assert_eq!(entry.past_range(), Some(10));
    entry.skip_to(120);
    assert_eq!((entry.past_range(), entry.pending_seek()), (None, Some(120)));
    entry.seek_done();
    entry.finish_skip();
    assert_eq!(
        entry.uncommitted().map(|position| position.offset),
        Some(5),
        "not while in flight"
    );
    entry.complete(&FinishedRecords::Run(0..3));
    entry.finish_skip();
    assert_eq!(entry.uncommitted().map(|position| position.offset), Some(120));

    // Behind the end: reading starts again at a lower offset.
    let mut entry = start(Vec::new());
    read(&mut entry, 5..8);
    entry.was_out_of_range(10);
    assert!(entry.continues_at(2));
    let mut fresh = start(Vec::new());
    fresh.was_out_of_range(10);
    assert!(
        fresh.continues_at(0),
        "the committed offset itself was out of range"
    );
}
