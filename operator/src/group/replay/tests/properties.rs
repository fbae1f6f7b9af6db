//! What holds for every plan.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::{at, group, offsets, positions, replay};

fn any_offset() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..200_i64, 1 => Just(i64::MAX), 1 => 0..=i64::MAX]
}

fn any_position() -> impl Strategy<Value = ResetPosition> {
    let maybe = || proptest::option::of(any_offset());
    (any_offset(), any_offset(), maybe(), maybe()).prop_map(|(log_start, end, found, committed)| {
        ResetPosition {
            at: found,
            committed,
            ..at(log_start, end)
        }
    })
}

fn any_answers() -> impl Strategy<Value = Answers> {
    let pairs = vec((any_position(), proptest::option::of(any_offset())), 1..6);
    pairs.prop_map(|pairs| {
        let from: Vec<ResetPosition> = pairs.iter().map(|(from, _)| *from).collect();
        let to = pairs.iter().map(|(from, at)| ResetPosition { at: *at, ..*from });
        let to: Vec<ResetPosition> = to.collect();
        Answers {
            from: positions(&from),
            to: Some(positions(&to)),
        }
    })
}

fn any_replay() -> impl Strategy<Value = KafkaReplaySpec> {
    let time = || Just(json!({"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"}));
    let listed = || any_offset().prop_map(|offset| offsets(&[(0, offset)]));
    let from = prop_oneof![Just(json!({"type": "Earliest"})), time(), listed()];
    let to = prop_oneof![Just(json!({"type": "Latest"})), time(), listed()];
    let rate = proptest::option::of(1..100_i32);
    (from, to, 1..10_i32, rate).prop_map(|(from, to, workers, rate)| {
        replay(json!({"from": from, "to": to, "workers": workers, "recordsPerSecond": rate}))
    })
}

proptest! {
    #[test]
    fn a_plan_stays_inside_the_log_adds_up_and_shares_the_rate(
        replay in any_replay(),
        answers in any_answers(),
    ) {
        let plan = match plan(&replay, &group(), &answers) {
            Ok(plan) => plan,
            Err(refused) => {
                prop_assert_eq!(refused.reason, "RangeReversed");
                return Ok(());
            }
        };
        let mut records = 0_i64;
        for planned in &plan.partitions {
            let position = &answers.from.partitions[&(planned.topic.clone(), planned.partition)];
            let end = position.end.max(position.log_start);
            prop_assert!(position.log_start <= planned.from && planned.to <= end, "{planned:?}");
            prop_assert!(planned.from <= planned.to, "{planned:?}");
            records = records.saturating_add(planned.records());
        }
        prop_assert_eq!(plan.totals.records, records);
        let busy = plan.partitions.iter().filter(|planned| planned.records() > 0).count();
        prop_assert_eq!(plan.workers == 0, busy == 0);
        prop_assert!(plan.workers <= replay.workers && plan.workers as usize <= busy);
        let until = until(&plan.partitions, replay.records_per_second, plan.workers);
        prop_assert_eq!(until.partitions.len(), busy);
        if let (Some(all), Some(each)) = (replay.records_per_second, until.records_per_second) {
            prop_assert!(each >= 1 && each * plan.workers <= all.max(1));
        }
    }

    #[test]
    fn the_start_is_committed_once_and_progress_never_leaves_the_bounds(
        replay in any_replay(),
        answers in any_answers(),
        committed in vec(proptest::option::of(any_offset()), 6),
    ) {
        let Ok(plan) = plan(&replay, &group(), &answers) else { return Ok(()) };
        let mut partitions = plan.partitions.clone();
        for (planned, committed) in partitions.iter_mut().zip(committed) {
            planned.position = committed;
        }
        let totals = totals(&partitions);
        prop_assert!(0 <= totals.processed && totals.processed <= totals.records);
        prop_assert_eq!(totals.percent == 100, totals.finished == totals.partitions);
        // After the start offsets are committed, nothing is left to commit.
        let now = &answers.from.partitions;
        let start = start_offsets(&plan.partitions, now);
        let mut after = now.clone();
        for (partition, offset) in &start {
            let position = after.get_mut(partition).unwrap();
            prop_assert_eq!(position.committed, None);
            position.committed = Some(*offset);
        }
        prop_assert!(start_offsets(&plan.partitions, &after).is_empty());
    }
}
