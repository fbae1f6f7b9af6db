//! Writers whose system is unavailable.

use super::*;

#[tokio::test]
async fn at_most_once_never_repeats_a_write_that_may_have_happened() {
    let mut running = start(
        Ordering::PerPartition,
        DeliveryGuarantee::AtMostOnce,
        FailurePolicy::Skip,
    );
    running
        .script
        .answer(101, &[ScriptedAnswer::Transient, ScriptedAnswer::Accept]);
    running
        .script
        .answer(102, &[ScriptedAnswer::RetryLater, ScriptedAnswer::Accept]);
    running.send("a b");
    running.send("c c");
    running.finished(100..104).await;
    // The rejected record was not written, so the worker may retry it. It may not retry the one written
    // beside it.
    assert_eq!((running.skipped, running.script.written()), (2, vec![103, 102]));
}

#[tokio::test]
async fn a_record_in_doubt_is_repeated_except_with_at_most_once() {
    for (guarantee, skipped, written) in [
        (DeliveryGuarantee::AtMostOnce, 1, vec![100, 102]),
        (DeliveryGuarantee::AtLeastOnce, 0, vec![100, 102, 101]),
    ] {
        let mut running = start(Ordering::PerPartition, guarantee, FailurePolicy::Stop);
        running
            .script
            .answer(101, &[ScriptedAnswer::InDoubt, ScriptedAnswer::Accept]);
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
async fn while_a_breaker_is_open_other_partitions_start_nothing_report_why_and_can_drain() {
    let (ordering, guarantee) = (Ordering::PerPartition, DeliveryGuarantee::AtLeastOnce);
    let (script, hour) = (Arc::new(Script::default()), Duration::from_secs(3600));
    let shared = shared(&script, ordering, guarantee, FailurePolicy::Skip, hour);
    let mut tries = run_on(shared.clone(), script.clone());
    script.answer(100, &[ScriptedAnswer::Systemic]);
    tries.send("a");
    let paused =
        |running: &Running| running.problems.oldest().paused_reason == Some(PausedReason::WriterUnavailable);
    tries.until(paused).await;
    script.answer(100, &[ScriptedAnswer::Accept]);
    let mut waits = run_on(shared, script);
    waits.send("a");
    waits.until(paused).await;
    let error = waits.problems.oldest().last_error;
    assert_eq!(error.as_deref(), Some("writer script: broken"));
    waits.drain.send_replace(true);
    waits.until(|running| running.ended).await;
    assert_eq!((waits.done.len(), waits.script.written().len()), (0, 0));
}
