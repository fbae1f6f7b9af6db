//! Records that wait until the cause of their failure is fixed, and records that must not overtake them.

use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::writer::{NamedWriter, breaker::WriterBreaker};

/// A partition with two writers. The second one accepts everything. Waits end after 2 ms.
fn start_two(
    ordering: Ordering,
    guarantee: DeliveryGuarantee,
    policy: FailurePolicy,
) -> (Running, Arc<Script>) {
    let (script, second) = (Arc::new(Script::default()), Arc::new(Script::default()));
    let mut shared = shared(&script, ordering, guarantee, policy, Duration::from_millis(2));
    let both = Arc::get_mut(&mut shared).unwrap();
    both.writers.push(NamedWriter {
        name: "second".into(),
        writer: second.clone(),
    });
    both.breakers
        .push(WriterBreaker::new("second".into(), both.metrics.clone()));
    (run_on(shared, script), second)
}

/// The position of the last write of each record.
fn last_writes(written: &[Offset]) -> std::collections::BTreeMap<Offset, usize> {
    written.iter().copied().zip(0..).collect()
}

#[tokio::test]
async fn what_was_written_before_a_refused_record_of_its_key_is_written_again_behind_it() {
    for ordering in [Ordering::PerPartition, Ordering::PerKey] {
        let mut running = start(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
        running.script.answer(101, &[ScriptedAnswer::Refuse]);
        running.send("a b b c");
        running.send("b");
        running
            .until(|running| running.problems.oldest().attempts > 2)
            .await;
        assert!(!running.done.contains(&102), "{ordering:?}");
        running.script.answer(101, &[ScriptedAnswer::Accept]);
        running.finished(100..105).await;
        assert_eq!(
            running.order_of(&[101, 102, 104]),
            [102, 101, 102, 104],
            "{ordering:?}"
        );
        assert_eq!(running.order_of(&[103]), [103], "another key, {ordering:?}");
    }
}

#[tokio::test]
async fn a_waiting_record_goes_only_to_the_writers_that_have_not_written_it() {
    for guarantee in [DeliveryGuarantee::AtLeastOnce, DeliveryGuarantee::AtMostOnce] {
        for ordering in [Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered] {
            let (mut running, second) = start_two(ordering, guarantee, FailurePolicy::Stop);
            running.script.answer(101, &[ScriptedAnswer::Refuse]);
            running.send("a b2 b a");
            running
                .until(|running| running.problems.oldest().attempts > 3)
                .await;
            running.script.answer(101, &[ScriptedAnswer::Accept]);
            running.finished(100..104).await;
            let mut to_second = second.written();
            to_second.sort();
            assert_eq!(to_second, [100, 101, 101, 102, 103], "{ordering:?} {guarantee:?}");
            let again = match (guarantee, ordering) {
                (DeliveryGuarantee::AtLeastOnce, Ordering::PerPartition | Ordering::PerKey) => 2,
                _ => 1,
            };
            assert_eq!(
                running.order_of(&[102]).len(),
                again,
                "{ordering:?} {guarantee:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_written_output_is_not_written_again_with_the_others_of_its_record() {
    let mut running = start(
        Ordering::PerPartition,
        DeliveryGuarantee::AtLeastOnce,
        FailurePolicy::Stop,
    );
    // The writer accepts the first output.
    running
        .script
        .answer(100, &[ScriptedAnswer::Accept, ScriptedAnswer::Refuse]);
    running.send("a2");
    running
        .until(|running| running.problems.oldest().attempts > 3)
        .await;
    assert_eq!(running.script.written(), [100]);
    running.script.answer(100, &[ScriptedAnswer::Accept]);
    running.finished([100]).await;
    assert_eq!(running.script.written(), [100, 100]);
}

#[tokio::test]
async fn records_that_failed_behind_a_waiting_one_continue_with_it_in_order() {
    for ordering in [Ordering::PerPartition, Ordering::PerKey] {
        let mut running = start(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
        running.send("a! a a! a");
        running.send("a! a a!");
        running.send("a!");
        running
            .until(|running| running.problems.oldest().attempts > 2)
            .await;
        running.script.fix();
        running.finished(100..108).await;
        assert_eq!(running.script.written(), Vec::from_iter(100..108), "{ordering:?}");
        assert_eq!(running.done.len(), 8, "each once");
    }
}

#[tokio::test]
async fn a_retried_record_takes_no_lane_from_other_partitions() {
    let (script, hour) = (Arc::new(Script::default()), Duration::from_secs(3600));
    let (ordering, guarantee) = (Ordering::PerPartition, DeliveryGuarantee::AtLeastOnce);
    let mut shared = shared(&script, ordering, guarantee, FailurePolicy::Skip, hour);
    Arc::get_mut(&mut shared).unwrap().lanes = Semaphore::new(1);
    script.answer(100, &[ScriptedAnswer::RetryLater, ScriptedAnswer::Accept]);
    let mut waits = run_on(shared.clone(), script.clone());
    waits.send("a b");
    waits
        .until(|running| running.problems.oldest().attempts == 1)
        .await;
    let mut other = run_on(shared, script);
    other.send("a b");
    other.finished(100..102).await;
    assert!(waits.done.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Records fail, wait and are fixed: every record is finished once and written, the later record of a key
    /// last. A writer that accepts everything gets each output once, in the order of its key.
    #[test]
    fn everything_is_written_and_the_later_of_a_key_last(
        ordering in prop::sample::select(vec![Ordering::PerPartition, Ordering::PerKey, Ordering::Unordered]),
        chunks in prop::collection::vec(prop::collection::vec("[abc-][!2]?", 1..7), 1..6),
        scripted in prop::collection::vec((0_i64..30, prop::collection::vec(
            prop::sample::select(vec![ScriptedAnswer::Refuse, ScriptedAnswer::RetryLater, ScriptedAnswer::RefuseBatch, ScriptedAnswer::Transient]), 1..4,
        )), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let total = chunks.iter().map(Vec::len).sum::<usize>() as i64;
        let (first, second, mut done) = runtime.block_on(async {
            let (mut running, second) = start_two(ordering, DeliveryGuarantee::AtLeastOnce, FailurePolicy::Stop);
            for (record, mut answers) in scripted {
                answers.push(ScriptedAnswer::Accept);
                running.script.answer(FIRST + record, &answers);
            }
            for words in &chunks {
                running.send(&words.join(" "));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            running.script.fix();
            running.finished(FIRST..FIRST + total).await;
            (running.script.written(), second.written(), running.done)
        });
        done.sort();
        prop_assert_eq!(&done, &Vec::from_iter(FIRST..FIRST + total));
        let words: Vec<&String> = chunks.iter().flatten().collect();
        let of_key = |key: char| {
            (FIRST..).zip(&words).filter(|(_, word)| word.starts_with(key)).map(|(offset, _)| offset).collect::<Vec<_>>()
        };
        let times = |written: &[Offset], offset: Offset| written.iter().filter(|other| **other == offset).count();
        for (word, offset) in chunks.iter().flatten().zip(FIRST..) {
            let outputs = if word.ends_with('2') { 2 } else { 1 };
            prop_assert!(times(&first, offset) >= outputs, "{} of {:?}", offset, first);
            prop_assert_eq!(times(&second, offset), outputs, "{} of {:?}", offset, second);
        }
        if ordering != Ordering::Unordered {
            let last = last_writes(&first);
            for key in ['a', 'b', 'c'] {
                let offsets = of_key(key);
                prop_assert!(offsets.iter().map(|offset| last[offset]).is_sorted(), "{} in {:?}", key, first);
                let mut to_second = second.clone();
                to_second.retain(|offset| offsets.contains(offset));
                prop_assert!(to_second.is_sorted(), "{} in {:?}", key, second);
            }
        }
    }
}
