//! What holds for every plan.

use crds::offset_reset::PartitionOffset;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::{group, positions, reset, with_metadata};

fn any_position() -> impl Strategy<Value = ResetPosition> {
    let offset = || prop_oneof![4 => 0..200_i64, 1 => Just(i64::MAX), 1 => 0..=i64::MAX];
    let maybe = || proptest::option::of(offset());
    let flags = (any::<bool>(), any::<bool>());
    (maybe(), offset(), offset(), maybe(), flags).prop_map(|(committed, log_start, end, at, flags)| {
        let (finished_above, other_topic) = flags;
        let position = ResetPosition {
            at,
            ..super::at(committed, log_start, end)
        };
        match committed {
            Some(_) => with_metadata(finished_above, other_topic, position),
            None => position,
        }
    })
}

fn any_positions() -> impl Strategy<Value = ResetPositions> {
    vec(any_position(), 1..6).prop_map(|orders| positions(&orders))
}

fn any_reset() -> impl Strategy<Value = KafkaOffsetResetSpec> {
    let by = prop_oneof![Just(i64::MIN), Just(i64::MAX), -300..300_i64, any::<i64>()];
    let offsets = btree_map(0..1_i32, prop_oneof![0..300_i64, Just(i64::MAX)], 1..2);
    let offsets = offsets.prop_map(|offsets| {
        let offset = |(partition, offset)| PartitionOffset {
            topic: "orders".into(),
            partition,
            offset,
        };
        let offsets: Vec<_> = offsets.into_iter().map(offset).collect();
        json!({"type": "Offsets", "offsets": offsets})
    });
    prop_oneof![
        Just(json!({"type": "Earliest"})),
        Just(json!({"type": "Latest"})),
        Just(json!({"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"})),
        by.prop_map(|by| json!({"type": "Shift", "by": by})),
        offsets,
    ]
    .prop_map(reset)
}

proptest! {
    #[test]
    fn a_plan_stays_inside_the_log_adds_up_and_is_final(reset in any_reset(), known in any_positions()) {
        let Ok(first) = plan(&reset, &group(), &known) else {
            let nothing_to_shift = known.partitions.values().all(|at| comparable(at).is_none());
            prop_assert!(reset.to.kind == ResetType::Shift && nothing_to_shift);
            return Ok(());
        };
        for planned in &first.partitions {
            prop_assert!(planned.log_start <= planned.new && planned.new <= planned.end);
            let position = &known.partitions[&(planned.topic.clone(), planned.partition)];
            let difference = comparable(position).map(|committed| planned.new - committed);
            prop_assert_eq!(planned.difference, difference);
        }
        let sum = |sign: i64| {
            let difference = |it: &PlannedPartition| it.difference.unwrap_or(it.new - it.log_start);
            let differences = first.partitions.iter().map(difference);
            let some = differences.filter(|difference| difference.signum() == sign);
            some.fold(0_i64, |sum, difference| sum.saturating_add(difference.saturating_abs()))
        };
        prop_assert_eq!((first.totals.again, first.totals.skipped), (sum(-1), sum(1)));
        prop_assert_eq!(first.totals.partitions as usize, first.partitions.len());
        let changes = changes(&first.partitions);
        prop_assert_eq!(first.totals.changed as usize, changes.len());
        let mut after = known.clone();
        for (partition, offset) in &changes {
            let position = after.partitions.get_mut(partition).unwrap();
            *position = ResetPosition {
                committed: Some(*offset),
                metadata: CommitMetadata::default(),
                ..*position
            };
        }
        if reset.to.kind != ResetType::Shift {
            let second = plan(&reset, &group(), &after).unwrap();
            prop_assert_eq!(second.totals.changed, 0);
        }
    }
}
