use super::*;
use crate::{dead_letter::FailurePolicy, lane::tests::shared, offsets::ahead};

fn start(finished: Vec<Range<Offset>>) -> Assigned {
    start_with(finished, false)
}

fn start_with(finished: Vec<Range<Offset>>, cautious: bool) -> Assigned {
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
        epoch: 1,
        assignment: 1,
        finished,
        committed: None,
        held: false,
        cautious,
    };
    let (reports, _) = std_mpsc::channel();
    Assigned::start(start, &shared, &tokio::runtime::Handle::current(), &reports)
}

fn read(entry: &mut Assigned, offsets: Range<Offset>) {
    for offset in offsets {
        if let Some(chunk) = entry.filling(offset, offset) {
            chunk.push(offset, 0, None, None, []);
        }
    }
    entry.dispatch();
}

#[tokio::test]
async fn what_an_aborted_transaction_has_finished_is_not_committed() {
    let mut entry = start(Vec::new());
    read(&mut entry, 5..9);
    entry.complete(&Finished::Run(0..2));
    assert_eq!(entry.uncommitted().map(|position| position.offset), Some(7));
    entry.annul();
    assert_eq!(entry.uncommitted(), None);
    assert!(entry.draining);
}

#[tokio::test]
async fn what_an_earlier_owner_has_finished_is_told_until_it_is_passed() {
    let mut entry = start(vec![7..10, 20..22]);
    read(&mut entry, 5..6);
    let told = |entry: &Assigned| {
        let position = entry.uncommitted().unwrap();
        (
            position.offset,
            ahead::decode(position.offset, &position.metadata).unwrap(),
        )
    };
    assert_eq!(told(&entry), (5, vec![7..10, 20..22]));
    read(&mut entry, 6..9);
    assert_eq!(told(&entry), (5, vec![7..10, 20..22]), "read in part");
    entry.complete(&Finished::Run(0..2));
    read(&mut entry, 9..21);
    let (committed, ranges) = told(&entry);
    assert_eq!((committed, ranges.first()), (10, Some(&(20..22))));
    assert!(ranges.len() == 1 && entry.fits());
}

#[tokio::test]
async fn a_cautious_partition_goes_on_as_usual_once_it_has_passed_what_was_finished_ahead() {
    let one = std::iter::once(7..8).collect();
    let mut entry = start_with(one, true);
    read(&mut entry, 5..6);
    entry.filling(6, 6).unwrap().push(6, 0, None, None, []);
    assert!(!entry.relax());
    assert!(entry.is_full(1000, 1_000_000), "one record after the other");
    read(&mut entry, 7..8);
    entry.complete(&Finished::Run(0..1));
    assert!(!entry.relax(), "a record before it is not finished");
    entry.complete(&Finished::Run(1..2));
    assert!(entry.relax());
    entry.filling(8, 8).unwrap().push(8, 0, None, None, []);
    assert!(!entry.is_full(1000, 1_000_000));
}

#[tokio::test]
async fn a_commit_that_cannot_tell_all_that_is_finished_is_found_out() {
    for (gap, fits) in [(1, true), (100_000, false)] {
        let mut entry = start(Vec::new());
        for offset in (0..2000).map(|n| n * gap) {
            entry
                .filling(offset, offset)
                .unwrap()
                .push(offset, 0, None, None, []);
        }
        entry.dispatch();
        for record in (1..2000).step_by(2) {
            entry.complete(&Finished::Run(record..record + 1));
        }
        assert_eq!(entry.fits(), fits, "every other record, {gap} apart");
    }
}

#[tokio::test]
async fn a_record_that_comes_again_is_not_read_twice_but_a_partition_that_begins_anew_is() {
    let mut entry = start(Vec::new());
    read(&mut entry, 5..9);
    read(&mut entry, 7..10);
    assert_eq!(entry.in_flight(), 5, "7 and 8 came twice");
    // The topic was deleted and made again. librdkafka's position is still that of the old one: reading begins anew from here.
    assert!(entry.filling(7, 1000).is_none());
    assert_eq!(entry.going_back_to(), Some(7));
    assert!(entry.filling(8, 8).is_none(), "it comes again");
    entry.went_back();
    assert!(entry.filling(7, 1000).is_some());
    assert!(
        entry.filling(8, 8).is_some(),
        "what was before it does not count any more"
    );
}

#[tokio::test]
async fn an_error_is_shown_with_the_offset_that_it_belongs_to() {
    let mut entry = start(Vec::new());
    read(&mut entry, 100..110);
    let shown = |entry: &Assigned| {
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
    // The oldest is in a slow call; a later one waits.
    let later = entry.troubles.at(105);
    later.failing(2, "too many requests");
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), None));
    let oldest = entry.troubles.at(100);
    oldest.failing(1, "timed out");
    assert_eq!(shown(&entry), (None, 1, "timed out".into(), None));
    // Reason and error belong together.
    let failed = Some(PausedReason::RecordFailed);
    later.hold(PausedReason::RecordFailed);
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), failed));
    oldest.hold(PausedReason::TransformSlow);
    assert_eq!(shown(&entry), (Some(105), 2, "too many requests".into(), failed));
    later.recovered();
    let slow = Some(PausedReason::TransformSlow);
    assert_eq!(shown(&entry), (None, 1, "timed out".into(), slow));
}

#[tokio::test]
async fn what_is_wrong_is_told_while_nothing_is_in_flight_and_an_outage_with_what_it_holds_back() {
    let mut entry = start(Vec::new());
    let claim = entry.troubles.at(-1);
    claim.failing(1, "table missing");
    claim.hold(PausedReason::WriterUnavailable);
    let (shown, error) = entry.snapshot(true, None, None);
    assert_eq!((shown.oldest, error.as_deref()), (None, Some("table missing")));
    assert_eq!(shown.paused_reason, Some(PausedReason::WriterUnavailable));
    read(&mut entry, 5..6);
    let oldest = entry.snapshot(false, None, None).0.oldest.unwrap();
    assert_eq!((oldest.attempts, oldest.error_offset), (1, None), "of all of it");
    claim.recovered();

    let waiting = entry.troubles.at(5);
    waiting.failing(7, "too many requests");
    let outage = Trouble {
        attempts: 2,
        last_error: Some("brokers do not answer".into()),
        held: Some(PausedReason::WriterUnavailable),
    };
    let (shown, error) = entry.snapshot(true, None, Some(&outage));
    assert_eq!(error, outage.last_error);
    assert_eq!(shown.paused_reason, outage.held);
    waiting.hold(PausedReason::RecordFailed);
    let (shown, error) = entry.snapshot(true, None, Some(&outage));
    assert_eq!(error.as_deref(), Some("too many requests"));
    assert_eq!(shown.paused_reason, Some(PausedReason::RecordFailed));
}
