//! Partitions that the worker claims from their writer, and records that it writes as a whole or not at all.

use std::ops::Range;

use crds::spec::{DeliveryGuarantee, Ordering};

use super::{FIRST, start_with};
use crate::{
    dead_letter::FailurePolicy,
    health::snapshot::PausedReason,
    offsets::FinishedSet,
    processing::testing::{Script, ScriptedAnswer},
    record::Offset,
    writer::WriteError,
};

fn finished(ranges: &[Range<Offset>]) -> FinishedSet {
    let mut finished = FinishedSet::default();
    ranges.iter().cloned().for_each(|range| finished.insert(range));
    finished
}

fn start(claims: Vec<Result<FinishedSet, WriteError>>) -> super::Running {
    let script = Script::default();
    script.claims.lock().unwrap().extend(claims.into_iter().rev());
    start_with(
        script,
        Ordering::PerPartition,
        DeliveryGuarantee::ExactlyOnce,
        FailurePolicy::Skip,
    )
}

#[tokio::test]
async fn what_the_writer_says_is_finished_is_reported_and_not_processed() {
    let mut running = start(vec![Ok(finished(&[0..FIRST + 2, FIRST + 4..FIRST + 6]))]);
    // 101 would fail and be skipped if it were processed.
    running.send("a b!");
    running.send("c d! e f");
    running.send("g");
    running.finished(FIRST..FIRST + 7).await;
    assert_eq!((running.skipped, running.script.written()), (1, vec![102, 106]));
    assert_eq!(running.done.len(), 7, "each once");
}

#[tokio::test]
async fn nothing_is_processed_before_the_partition_is_claimed() {
    let mut running = start(vec![
        Err(WriteError::Systemic("no table".into())),
        Err(WriteError::Transient("unavailable".into())),
        Ok(finished(std::slice::from_ref(&(0..FIRST + 1)))),
    ]);
    running.send("a b");
    running
        .until(|running| running.problems.oldest().paused_reason == Some(PausedReason::WriterUnavailable))
        .await;
    let error = running.problems.oldest().last_error;
    assert!(error.is_some_and(|error| error.starts_with("writer script: ")));
    running.finished(FIRST..FIRST + 2).await;
    assert_eq!(running.script.written(), [101]);
    assert_eq!(running.problems.oldest(), Default::default());
}

#[tokio::test]
async fn a_partition_that_cannot_be_claimed_can_be_drained() {
    let mut running = start(vec![Err(WriteError::Transient("unavailable".into())); 1000]);
    running.send("a");
    running
        .until(|running| running.problems.oldest().attempts > 2)
        .await;
    running.drain.send_replace(true);
    running.until(|running| running.ended).await;
    assert!(running.script.written().is_empty() && running.done.is_empty());
}

#[tokio::test]
async fn a_batch_is_halved_between_records_and_a_refused_record_leaves_no_output() {
    let mut running = start(vec![]);
    running.script.answer(102, &[ScriptedAnswer::RefuseBatch]);
    running.send("a b2 c2 d2 e");
    running.finished(FIRST..FIRST + 5).await;
    assert_eq!(running.script.written(), [100, 101, 101, 103, 103, 104]);
    assert_eq!(running.skipped, 1, "one record, however many outputs");
}
