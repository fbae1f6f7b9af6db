mod properties;

use crds::offset_reset::ResetTopic;
use serde_json::{Value, json};

use super::*;

fn group() -> KafkaConsumerGroupSpec {
    group_with(json!({"name": "out", "type": "Stdout"}), "AtLeastOnce")
}

fn group_with(writer: Value, guarantee: &str) -> KafkaConsumerGroupSpec {
    let spec = json!({
        "topics": [{"name": "orders"}, {"name": "returns"}],
        "kafka": {"bootstrapServers": ["k:1"]},
        "writers": [writer],
        "processing": {"deliveryGuarantee": guarantee},
    });
    serde_json::from_value(spec).unwrap()
}

fn exactly_once_into_postgres() -> KafkaConsumerGroupSpec {
    let postgres = json!({
        "connection": {"secretName": "db", "key": "url"},
        "table": "orders",
        "recordIdColumn": "id",
        "offsetsTable": "shop.offsets",
    });
    group_with(
        json!({"name": "db", "type": "Postgres", "postgres": postgres}),
        "ExactlyOnce",
    )
}

fn reset(to: Value) -> KafkaOffsetResetSpec {
    serde_json::from_value(json!({"groupRef": {"name": "orders"}, "to": to})).unwrap()
}

fn of_topics(to: Value, topics: &[(&str, &[i32])]) -> KafkaOffsetResetSpec {
    let topics = topics.iter().map(|(topic, partitions)| ResetTopic {
        topic: topic.to_string(),
        partitions: partitions.to_vec(),
    });
    KafkaOffsetResetSpec {
        topics: topics.collect(),
        ..reset(to)
    }
}

fn at(committed: Option<i64>, log_start: i64, end: i64) -> ResetPosition {
    ResetPosition {
        committed,
        metadata: CommitMetadata::default(),
        log_start,
        end,
        at: None,
    }
}

/// A position whose commit lists finished records above it, or is of another topic.
fn with_metadata(finished_above: bool, other_topic: bool, at: ResetPosition) -> ResetPosition {
    let metadata = CommitMetadata {
        finished_above,
        other_topic,
    };
    ResetPosition { metadata, ..at }
}

/// Positions of partitions 0, 1, ... of topic orders, and of partition 0 of topic returns.
fn positions(orders: &[ResetPosition]) -> ResetPositions {
    let of_orders = (0..)
        .zip(orders)
        .map(|(index, at)| (("orders".to_string(), index), *at));
    let returns = (("returns".to_string(), 0), at(None, 0, 0));
    ResetPositions {
        cluster_id: Some("here".into()),
        topic_ids: BTreeMap::new(),
        topics: [
            ("orders".to_string(), Some(i32::try_from(orders.len()).unwrap())),
            ("returns".to_string(), Some(1)),
        ]
        .into(),
        partitions: of_orders.chain([returns]).collect(),
        members: Vec::new(),
    }
}

/// New offsets and notes of topic orders.
fn orders(to: Value, positions: &ResetPositions) -> Vec<(i64, Option<String>)> {
    let plan = plan(&of_topics(to, &[("orders", &[])]), &group(), positions).unwrap();
    let planned = plan
        .partitions
        .into_iter()
        .map(|planned| (planned.new, planned.note));
    planned.collect()
}

fn new(to: Value, positions: &ResetPositions) -> Vec<i64> {
    orders(to, positions).into_iter().map(|(new, _)| new).collect()
}

#[test]
fn each_type_finds_its_offset() {
    let mut known = positions(&[at(Some(40), 10, 100), at(None, 0, 7)]);
    assert_eq!(new(json!({"type": "Earliest"}), &known), [10, 0]);
    assert_eq!(new(json!({"type": "Latest"}), &known), [100, 7]);
    known.partitions.get_mut(&("orders".to_string(), 0)).unwrap().at = Some(55);
    let time = json!({"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"});
    let found = orders(time, &known);
    assert_eq!(found[0], (55, None));
    assert!(found[1].0 == 7 && found[1].1.as_ref().unwrap().contains("this is the end"));
    let offsets = json!({"type": "Offsets", "offsets": [{"topic": "orders", "partition": 1, "offset": 3}]});
    let plan = plan(&reset(offsets), &group(), &known).unwrap();
    assert_eq!(plan.partitions.len(), 1, "partitions that are not listed stay");
    assert_eq!((plan.partitions[0].partition, plan.partitions[0].new), (1, 3));
    assert_eq!(plan.partitions[0].difference, None);
}

#[test]
fn offsets_outside_of_the_log_become_its_ends_with_a_note() {
    let known = positions(&[at(Some(40), 10, 100)]);
    let offset = |offset: i64| json!({"type": "Offsets", "offsets": [{"topic": "orders", "partition": 0, "offset": offset}]});
    for (to, expected, note) in [
        (offset(3), 10, Some("3 is below")),
        (offset(10), 10, None),
        (offset(100), 100, None),
        (offset(101), 100, Some("101 is beyond the end")),
        (json!({"type": "Shift", "by": -31}), 10, Some("9 is below")),
        (json!({"type": "Shift", "by": -30}), 10, None),
        (json!({"type": "Shift", "by": 60}), 100, None),
        (json!({"type": "Shift", "by": 61}), 100, Some("101 is beyond")),
        (json!({"type": "Shift", "by": i64::MIN}), 10, Some("below")),
        (json!({"type": "Shift", "by": i64::MAX}), 100, Some("beyond")),
    ] {
        let (new, found) = orders(to.clone(), &known).remove(0);
        assert_eq!(new, expected, "{to}");
        match note {
            None => assert_eq!(found, None, "{to}"),
            Some(note) => assert!(found.as_ref().unwrap().contains(note), "{to}: {found:?}"),
        }
    }
}

#[test]
fn a_partition_without_a_committed_offset_is_not_shifted_and_the_plan_says_so() {
    let shift = json!({"type": "Shift", "by": -5});
    let both = positions(&[at(Some(40), 10, 100), at(None, 0, 7)]);
    let plan = plan(&of_topics(shift.clone(), &[("orders", &[])]), &group(), &both).unwrap();
    assert_eq!(plan.partitions.len(), 1);
    assert!(plan.notes[0].contains("orders-1"), "{:?}", plan.notes);
    let none = positions(&[at(None, 0, 7)]);
    let refused = super::plan(&reset(shift), &group(), &none).unwrap_err();
    assert_eq!(refused.reason, "NothingCommitted");
    assert!(
        refused.message.contains("orders-0, returns-0"),
        "{}",
        refused.message
    );
}

#[test]
fn a_commit_of_a_deleted_topic_is_replaced_even_if_its_offset_stays() {
    let known = positions(&[with_metadata(false, true, at(Some(0), 0, 9)), at(Some(0), 0, 9)]);
    let earliest = json!({"type": "Earliest"});
    for group in [group(), exactly_once_into_postgres()] {
        let plan = plan(&of_topics(earliest.clone(), &[("orders", &[])]), &group, &known).unwrap();
        assert_eq!(changes(&plan.partitions), [(("orders".to_string(), 0), 0)].into());
        assert_eq!(plan.totals.changed, 1);
        let note = plan.partitions[0].note.as_ref().unwrap();
        assert!(note.contains("another topic with this name"), "{note}");
        // It is what an operator that is killed finds again.
        let stored = serde_json::to_value(&plan.partitions).unwrap();
        let stored: Vec<PlannedPartition> = serde_json::from_value(stored).unwrap();
        assert_eq!(changes(&stored), changes(&plan.partitions));
    }
}

#[test]
fn a_commit_of_a_deleted_topic_is_nothing_to_shift_from_or_to_compare_with() {
    let old = with_metadata(false, true, at(Some(1_000_000), 0, 500));
    let known = positions(&[old, at(Some(40), 0, 100)]);
    let shifted = plan(&reset(json!({"type": "Shift", "by": -10})), &group(), &known).unwrap();
    assert_eq!(
        changes(&shifted.partitions),
        [(("orders".to_string(), 1), 30)].into()
    );
    assert!(shifted.notes[0].contains("orders-0"), "{:?}", shifted.notes);
    let earliest = plan(&reset(json!({"type": "Earliest"})), &group(), &known).unwrap();
    assert_eq!(
        (earliest.partitions[0].difference, earliest.totals.again),
        (None, 40)
    );
    assert_eq!(earliest.cluster_id.as_deref(), Some("here"));
}

#[test]
fn finished_records_above_a_commit_are_read_again_and_the_plan_says_so() {
    let finished = || with_metadata(true, false, at(Some(4), 4, 9));
    let known = positions(&[finished(), finished()]);
    let offset = |offset| json!({"type": "Offsets", "offsets": [{"topic": "orders", "partition": 0, "offset": offset}]});
    for to in [json!({"type": "Earliest"}), offset(4), offset(8)] {
        let plan = plan(&reset(to.clone()), &group(), &known).unwrap();
        assert!(
            changes(&plan.partitions).contains_key(&("orders".to_string(), 0)),
            "{to}"
        );
        let note = plan.partitions[0].note.as_ref().unwrap();
        assert!(note.contains("are read again"), "{to}: {note}");
    }
    let clamped = orders(offset(2), &known).remove(0).1.unwrap();
    assert!(
        clamped.contains("2 is below") && clamped.contains("; records above"),
        "{clamped}"
    );
    let latest = orders(json!({"type": "Latest"}), &known);
    assert!(
        latest.iter().all(|(_, note)| note.is_none()),
        "nothing is read again"
    );
    // The table in the database lists them, too, and is not changed.
    let group = exactly_once_into_postgres();
    let plan = plan(&reset(offset(4)), &group, &known).unwrap();
    assert!(changes(&plan.partitions).is_empty() && plan.partitions[0].note.is_none());
}

#[test]
fn only_a_reset_that_changes_something_waits_for_transactions() {
    let mut reset = reset(json!({"type": "Earliest"}));
    assert!(query(&reset, "g", &group()).unwrap().stable);
    reset.dry_run = true;
    assert!(!query(&reset, "g", &group()).unwrap().stable);
}

#[test]
fn totals_say_what_is_read_again_and_what_is_skipped() {
    let known = positions(&[at(Some(40), 10, 100), at(Some(100), 0, 100), at(None, 2, 7)]);
    let plan = plan(&reset(json!({"type": "Latest"})), &group(), &known).unwrap();
    let expected = ResetTotals {
        partitions: 4,
        changed: 3,
        again: 0,
        // Nothing is committed of the third, whose 5 records are skipped.
        skipped: 65,
    };
    assert_eq!(plan.totals, expected);
    let changed: Vec<Partition> = changes(&plan.partitions).into_keys().collect();
    let names = [("orders", 0), ("orders", 2), ("returns", 0)];
    assert_eq!(changed, names.map(|(topic, index)| (topic.to_string(), index)));
}

#[test]
fn topics_and_partitions_are_selected() {
    let known = positions(&[at(Some(4), 0, 9), at(Some(4), 0, 9), at(Some(4), 0, 9)]);
    let planned = |topics: &[(&str, &[i32])]| -> Vec<String> {
        let reset = of_topics(json!({"type": "Earliest"}), topics);
        let query = query(&reset, "g", &group()).unwrap();
        let plan = plan(&reset, &group(), &known).unwrap().partitions;
        let names = plan.iter().map(|it| format!("{}-{}", it.topic, it.partition));
        let asked: Vec<&String> = query.topics.keys().collect();
        assert!(plan.iter().all(|planned| asked.contains(&&planned.topic)));
        names.collect()
    };
    assert_eq!(planned(&[]).len(), 4);
    assert_eq!(planned(&[("returns", &[])]), ["returns-0"]);
    assert_eq!(planned(&[("orders", &[2, 0, 2])]), ["orders-0", "orders-2"]);
    assert_eq!(planned(&[("orders", &[2]), ("orders", &[])]).len(), 3);
    assert_eq!(
        planned(&[("orders", &[2]), ("orders", &[1])]),
        ["orders-1", "orders-2"]
    );
}

#[test]
fn what_does_not_exist_is_refused_by_its_name() {
    let earliest = || json!({"type": "Earliest"});
    let refused = query(&of_topics(earliest(), &[("payments", &[])]), "g", &group()).unwrap_err();
    assert_eq!(refused.reason, "TopicNotInGroup");
    assert!(refused.message.contains("\"payments\"") && refused.message.contains("orders, returns"));
    let mut known = positions(&[at(None, 0, 9)]);
    let refused = plan(&of_topics(earliest(), &[("orders", &[0, 7])]), &group(), &known).unwrap_err();
    assert_eq!(refused.reason, "PartitionMissing");
    assert!(refused.message.contains("no partition 7") && refused.message.contains("0 to 0"));
    known.topics.insert("returns".into(), None);
    known.partitions.remove(&("returns".to_string(), 0));
    let refused = plan(&reset(earliest()), &group(), &known).unwrap_err();
    assert_eq!(refused.reason, "TopicMissing");
    assert!(refused.message.contains("\"returns\""), "{}", refused.message);
    let mut conflict = of_topics(
        json!({"type": "Offsets", "offsets": [{"topic": "orders", "partition": 1, "offset": 3}]}),
        &[("orders", &[0])],
    );
    let refused = query(&conflict, "g", &group()).unwrap_err();
    assert_eq!(refused.reason, "PartitionNotSelected");
    conflict.topics.clear();
    assert!(query(&conflict, "g", &group()).is_ok());
}

#[test]
fn two_offsets_for_one_partition_are_refused() {
    let offset =
        |partition: i32, offset: i64| json!({"topic": "orders", "partition": partition, "offset": offset});
    let given = |second: i32| reset(json!({"type": "Offsets", "offsets": [offset(0, 3), offset(second, 4)]}));
    assert!(query(&given(1), "g", &group()).is_ok());
    let refused = query(&given(0), "g", &group()).unwrap_err();
    assert_eq!(refused.reason, "DuplicateOffset");
    assert!(
        refused.message.contains("partition 0 of topic \"orders\""),
        "{}",
        refused.message
    );
}

#[test]
fn a_plan_has_no_more_partitions_than_a_resource_can_hold() {
    let partitions = MAX_PARTITIONS + 1;
    let known = positions(&vec![at(None, 0, 9); partitions]);
    let refused = plan(&reset(json!({"type": "Earliest"})), &group(), &known).unwrap_err();
    assert_eq!(refused.reason, "TooManyPartitions");
    assert!(refused.message.contains("4098 partitions"), "{}", refused.message);
    assert!(
        plan(
            &of_topics(json!({"type": "Earliest"}), &[("returns", &[])]),
            &group(),
            &known
        )
        .is_ok()
    );
}

#[test]
fn offsets_in_postgres_do_not_go_back() {
    let group = exactly_once_into_postgres();
    let known = positions(&[at(Some(4), 0, 9), at(Some(0), 0, 9)]);
    let mut back = reset(json!({"type": "Earliest"}));
    let refused = plan(&back, &group, &known).unwrap_err();
    assert_eq!(refused.reason, "OffsetsInDatabase");
    for part in ["orders-0 would go back", "shop.offsets", "--reset-offsets"] {
        assert!(refused.message.contains(part), "{} lacks {part}", refused.message);
    }
    back.dry_run = true;
    let shown = plan(&back, &group, &known).unwrap();
    assert!(shown.notes[0].contains("will be refused"), "{:?}", shown.notes);
    assert!(plan(&reset(json!({"type": "Latest"})), &group, &known).is_ok());
    // Kafka removes commits of a group that is unused for long, and the table keeps its rows.
    let expired = positions(&[at(Some(0), 0, 9), at(None, 0, 9)]);
    let refused = plan(&reset(json!({"type": "Earliest"})), &group, &expired).unwrap_err();
    assert_eq!(refused.reason, "OffsetsInDatabase");
    for part in ["orders-1 would go back", "no committed offset"] {
        assert!(refused.message.contains(part), "{} lacks {part}", refused.message);
    }
    let shown = plan(&back, &group, &expired).unwrap();
    assert!(shown.notes[0].contains("will be refused"), "{:?}", shown.notes);
    assert!(plan(&reset(json!({"type": "Latest"})), &group, &expired).is_ok());
    // Rows of a deleted topic do not count.
    let other = positions(&[with_metadata(false, true, at(Some(4), 0, 9))]);
    assert!(plan(&reset(json!({"type": "Earliest"})), &group, &other).is_ok());
    // Only this combination keeps offsets in the database.
    let kafka = json!({"name": "out", "type": "Kafka", "kafka": {"topic": "clean"}});
    assert!(
        plan(
            &reset(json!({"type": "Earliest"})),
            &group_with(kafka, "ExactlyOnce"),
            &known
        )
        .is_ok()
    );
}
