//! Writers whose system is away.

use super::*;

#[tokio::test]
async fn at_most_once_never_repeats_a_write_that_may_have_happened() {
    let mut running = start(
        Ordering::PerPartition,
        DeliveryGuarantee::AtMostOnce,
        FailurePolicy::Skip,
    );
    running.script.tell(101, &[Does::Fail, Does::Accept]);
    running.script.tell(102, &[Does::RetryLater, Does::Accept]);
    running.send("a b");
    running.send("c c");
    running.finished(100..104).await;
    // A refused record was not written, so it may be tried again; the one written beside it may not.
    assert_eq!((running.skipped, running.script.written()), (2, vec![103, 102]));
}

#[tokio::test]
async fn a_record_of_which_the_writer_does_not_know_is_repeated_but_with_at_most_once() {
    for (guarantee, skipped, written) in [
        (DeliveryGuarantee::AtMostOnce, 1, vec![100, 102]),
        (DeliveryGuarantee::AtLeastOnce, 0, vec![100, 102, 101]),
    ] {
        let mut running = start(Ordering::PerPartition, guarantee, FailurePolicy::Stop);
        running.script.tell(101, &[Does::Doubt, Does::Accept]);
        running.send("a b c");
        running.finished(100..103).await;
        assert_eq!(
            (running.skipped, running.script.written()),
            (skipped, written),
            "{guarantee:?}"
        );
    }
}

#[tokio::test]
async fn while_a_writer_is_away_other_partitions_begin_nothing_say_why_and_may_leave() {
    let (ordering, guarantee) = (Ordering::PerPartition, DeliveryGuarantee::AtLeastOnce);
    let (script, hour) = (Arc::new(Script::default()), Duration::from_secs(3600));
    let shared = shared(&script, ordering, guarantee, FailurePolicy::Skip, hour);
    let mut tries = run_on(shared.clone(), script.clone());
    script.tell(100, &[Does::Break]);
    tries.send("a");
    let held =
        |running: &Running| running.problems.oldest().paused_reason == Some(PausedReason::WriterUnavailable);
    tries.until(held).await;
    script.tell(100, &[Does::Accept]);
    let mut waits = run_on(shared, script);
    waits.send("a");
    waits.until(held).await;
    let error = waits.problems.oldest().last_error;
    assert_eq!(error.as_deref(), Some("writer script: broken"));
    waits.drain.send_replace(true);
    waits.until(|running| running.ended).await;
    assert_eq!((waits.done.len(), waits.script.written().len()), (0, 0));
}
