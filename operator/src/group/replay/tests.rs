mod properties;

use serde_json::{Value, json};

use super::*;
use crate::kafka::model::CommitMetadata;

fn group() -> KafkaConsumerGroupSpec {
    let spec = json!({
        "topics": [{"name": "orders"}, {"name": "returns"}],
        "kafka": {"bootstrapServers": ["k:1"]},
        "writers": [{"name": "out", "type": "Stdout"}, {"name": "copy", "type": "Kafka", "kafka": {"topic": "copy"}}],
    });
    serde_json::from_value(spec).unwrap()
}

fn replay(changes: Value) -> KafkaReplaySpec {
    let mut spec = json!({"groupRef": {"name": "orders"}, "from": {"type": "Earliest"}});
    for (field, value) in changes.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn at(log_start: i64, end: i64) -> ResetPosition {
    ResetPosition {
        committed: None,
        metadata: CommitMetadata::default(),
        log_start,
        end,
        at: None,
    }
}

/// Partitions 0, 1, ... of topic orders, and partition 0 of topic returns.
fn positions(orders: &[ResetPosition]) -> ResetPositions {
    let of_orders = (0..)
        .zip(orders)
        .map(|(index, at)| (("orders".to_string(), index), *at));
    let returns = (("returns".to_string(), 0), at(0, 0));
    ResetPositions {
        cluster_id: Some("here".into()),
        topic_ids: BTreeMap::from([("orders".to_string(), "id-of-orders".to_string())]),
        topics: BTreeMap::from([
            ("orders".to_string(), Some(i32::try_from(orders.len()).unwrap())),
            ("returns".to_string(), Some(1)),
        ]),
        partitions: of_orders.chain([returns]).collect(),
        members: Vec::new(),
    }
}

fn answers(orders: &[ResetPosition]) -> Answers {
    Answers {
        from: positions(orders),
        to: None,
    }
}

fn planned(changes: Value, answers: &Answers) -> Plan {
    plan(&replay(changes), &group(), answers).unwrap()
}

fn refused(changes: Value, answers: &Answers) -> Rejection {
    let replay = replay(changes);
    let refused = plan(&replay, &group(), answers);
    refused.expect_err("a refusal")
}

fn bounds(plan: &Plan) -> Vec<(&str, i32, i64, i64)> {
    let partitions = plan.partitions.iter();
    partitions
        .map(|planned| {
            (
                planned.topic.as_str(),
                planned.partition,
                planned.from,
                planned.to,
            )
        })
        .collect()
}

fn offsets(list: &[(i32, i64)]) -> Value {
    let offset = |(partition, offset): &(i32, i64)| json!({"topic": "orders", "partition": partition, "offset": offset});
    json!({"type": "Offsets", "offsets": list.iter().map(offset).collect::<Vec<_>>()})
}

#[test]
fn without_bounds_it_is_all_that_kafka_has() {
    let plan = planned(json!({}), &answers(&[at(3, 10), at(5, 5)]));
    assert_eq!(
        bounds(&plan),
        [("orders", 0, 3, 10), ("orders", 1, 5, 5), ("returns", 0, 0, 0)]
    );
    assert_eq!(plan.partitions[0].topic_id.as_deref(), Some("id-of-orders"));
    assert_eq!(plan.cluster_id.as_deref(), Some("here"));
    let totals = plan.totals;
    assert_eq!(
        (totals.partitions, totals.finished, totals.records, totals.percent),
        (3, 2, 7, 0)
    );
}

#[test]
fn times_are_asked_for_and_a_time_after_the_last_record_is_the_end() {
    let changes = json!({
        "from": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"},
        "to": {"type": "Timestamp", "timestamp": "2026-01-31T01:00:00Z"},
    });
    let queries = queries(&replay(changes.clone()), "g", &group()).unwrap();
    assert_eq!(queries.from.at, Some(1_769_817_600_000));
    assert_eq!(queries.to.unwrap().at, Some(1_769_821_200_000));
    let found = |at: ResetPosition, offset: i64| ResetPosition {
        at: Some(offset),
        ..at
    };
    let answers = Answers {
        from: positions(&[found(at(0, 100), 40), found(at(0, 100), 50), at(0, 100)]),
        to: Some(positions(&[found(at(0, 100), 60), at(0, 100), at(0, 100)])),
    };
    let plan = planned(changes, &answers);
    assert_eq!(
        bounds(&plan)[..3],
        [
            ("orders", 0, 40, 60),
            ("orders", 1, 50, 100),
            ("orders", 2, 100, 100)
        ]
    );
    let note = plan.partitions[2].note.as_deref().unwrap();
    assert!(note.contains("from.timestamp"), "{note}");
}

#[test]
fn given_offsets_select_their_partitions_and_stay_inside_the_log() {
    let answers = answers(&[at(10, 20), at(10, 20), at(10, 20)]);
    let plan = planned(json!({"from": offsets(&[(0, 12), (1, 5)])}), &answers);
    assert_eq!(bounds(&plan), [("orders", 0, 12, 20), ("orders", 1, 10, 20)]);
    assert_eq!(plan.partitions[0].note, None);
    let note = plan.partitions[1].note.as_deref().unwrap();
    assert!(
        note.contains("from 5 is below the first offset") && note.contains("10"),
        "{note}"
    );

    let plan = planned(
        json!({"from": offsets(&[(0, 12)]), "to": offsets(&[(0, 15)])}),
        &answers,
    );
    assert_eq!(bounds(&plan), [("orders", 0, 12, 15)]);

    let plan = planned(json!({"to": offsets(&[(2, 99), (0, 3)])}), &answers);
    assert_eq!(bounds(&plan), [("orders", 0, 10, 10), ("orders", 2, 10, 20)]);
    let note = |index: usize| plan.partitions[index].note.clone().unwrap();
    assert!(note(0).contains("to 3 is below"), "{}", note(0));
    assert!(note(1).contains("beyond the end, 20"), "{}", note(1));
}

#[test]
fn an_end_before_the_start_is_empty_and_says_so() {
    let changes = json!({
        "from": {"type": "Timestamp", "timestamp": "2026-01-31T00:00:00Z"},
        "to": offsets(&[(0, 15)]),
    });
    let from = ResetPosition {
        at: Some(18),
        ..at(10, 20)
    };
    let plan = planned(changes, &answers(&[from]));
    assert_eq!(bounds(&plan), [("orders", 0, 18, 18)]);
    let note = plan.partitions[0].note.as_deref().unwrap();
    assert!(note.contains("to 15 lies before from 18"), "{note}");
    assert_eq!((plan.workers, plan.totals.percent), (0, 100));
    assert_eq!(plan.notes, ["there is nothing to replay in these bounds"]);
}

#[test]
fn each_refusal_says_what_is_wrong_and_where() {
    let answers = answers(&[at(0, 9), at(0, 9)]);
    for (changes, reason, says) in [
        (
            json!({"topics": [{"topic": "retruns"}]}),
            "TopicNotInGroup",
            "orders, returns",
        ),
        (
            json!({"topics": [{"topic": "orders", "partitions": [0, 7]}]}),
            "PartitionMissing",
            "0 to 1",
        ),
        (
            json!({"writers": ["out", "cpoy"]}),
            "WriterNotInGroup",
            "\"cpoy\" is not a writer of the group; it has out, copy",
        ),
        (
            json!({"from": offsets(&[(0, 1), (0, 2)])}),
            "DuplicateOffset",
            "from.offsets",
        ),
        (
            json!({"to": offsets(&[(0, 1), (0, 2)])}),
            "DuplicateOffset",
            "to.offsets",
        ),
        (
            json!({"from": offsets(&[(0, 1), (1, 1)]), "to": offsets(&[(0, 2)])}),
            "OffsetMissing",
            "from.offsets lists partition 1 of topic \"orders\", and to.offsets does not",
        ),
        (
            json!({"from": offsets(&[(0, 1)]), "to": offsets(&[(0, 2), (1, 2)])}),
            "OffsetMissing",
            "to.offsets lists partition 1",
        ),
        (
            json!({"from": offsets(&[(1, 5)]), "to": offsets(&[(1, 2)])}),
            "RangeReversed",
            "partition 1 of topic \"orders\" is to be replayed from 5 to 2",
        ),
    ] {
        let refused = refused(changes.clone(), &answers);
        assert_eq!(refused.reason, reason, "{changes}");
        assert!(refused.message.contains(says), "{}", refused.message);
    }
    let mut gone = answers;
    gone.from.topics.insert("returns".into(), None);
    assert_eq!(refused(json!({}), &gone).reason, "TopicMissing");
}

#[test]
fn topics_and_writers_are_refused_before_kafka_is_asked() {
    let asked = |changes| queries(&replay(changes), "g", &group());
    let foreign = asked(json!({"topics": [{"topic": "retruns"}]})).unwrap_err();
    assert_eq!(foreign.reason, "TopicNotInGroup");
    assert_eq!(
        asked(json!({"writers": ["cpoy"]})).unwrap_err().reason,
        "WriterNotInGroup"
    );
    let only = writers(&replay(json!({"writers": ["copy"]})), &group()).unwrap();
    assert_eq!(
        only.iter().map(|writer| writer.name.as_str()).collect::<Vec<_>>(),
        ["copy"]
    );
    assert_eq!(writers(&replay(json!({})), &group()).unwrap().len(), 2);
}

#[test]
fn more_partitions_than_fit_are_refused() {
    let many = vec![at(0, 1); MAX_PARTITIONS + 1];
    let refused = refused(json!({}), &answers(&many));
    assert_eq!(refused.reason, "TooManyPartitions");
    assert!(refused.message.contains("at most 4096"), "{}", refused.message);
}

#[test]
fn no_worker_is_without_a_partition_or_without_a_record_per_second() {
    let answers = answers(&[at(0, 9), at(0, 9), at(4, 4)]);
    let of = |changes| {
        let plan = planned(changes, &answers);
        (plan.workers, plan.notes)
    };
    assert_eq!(of(json!({})), (1, vec![]));
    assert_eq!(of(json!({"workers": 2})), (2, vec![]));
    assert_eq!(
        of(json!({"workers": 5})),
        (
            2,
            vec!["2 workers instead of 5: 2 partitions to process".to_string()]
        )
    );
    assert_eq!(
        of(json!({"workers": 2, "recordsPerSecond": 1})),
        (
            1,
            vec!["1 worker instead of 2: recordsPerSecond is 1".to_string()]
        )
    );
}

#[test]
fn workers_share_the_rate_and_get_only_what_is_to_be_processed() {
    let plan = planned(json!({"workers": 2}), &answers(&[at(0, 9), at(0, 9), at(4, 4)]));
    let until = until(&plan.partitions, Some(101), plan.workers);
    assert_eq!(until.records_per_second, Some(50));
    let listed: Vec<_> = until
        .partitions
        .iter()
        .map(|it| (&*it.topic, it.partition, it.from, it.to))
        .collect();
    assert_eq!(listed, [("orders", 0, 0, 9), ("orders", 1, 0, 9)]);
    let mut config = WorkerConfig::from_spec("shop", "orders", &group(), Vec::new());
    config.consumer.on_offset_out_of_range = OnOffsetOutOfRange::Latest;
    let config = bounded(config, "shop.orders.replay.again", until.clone());
    assert_eq!(config.topics, ["orders"]);
    assert_eq!(
        config.consumer.on_offset_out_of_range,
        OnOffsetOutOfRange::Earliest
    );
    assert_eq!(
        (config.group_id.as_str(), config.until),
        ("shop.orders.replay.again", Some(until))
    );
}

#[test]
fn what_is_committed_already_is_never_set_back() {
    let plan = planned(json!({}), &answers(&[at(0, 9), at(2, 9), at(4, 4)]));
    let mut now = positions(&[at(0, 9), at(2, 9), at(4, 4)]).partitions;
    assert_eq!(
        start_offsets(&plan.partitions, &now),
        BTreeMap::from([(("orders".to_string(), 0), 0), (("orders".to_string(), 1), 2)])
    );
    now.get_mut(&("orders".to_string(), 1)).unwrap().committed = Some(7);
    assert_eq!(
        start_offsets(&plan.partitions, &now),
        BTreeMap::from([(("orders".to_string(), 0), 0)])
    );
}

#[test]
fn lost_offsets_start_where_the_status_says_and_finished_partitions_are_not_asked_for() {
    let mut partitions = planned(json!({}), &answers(&[at(0, 9), at(2, 9), at(4, 4)])).partitions;
    let topics = |partitions: &[ReplayPartition]| progress_query(partitions, "g", &group()).topics;
    assert_eq!(
        topics(&partitions),
        Selection::from([("orders".to_string(), vec![0, 1])])
    );
    partitions[0].position = Some(9);
    partitions[1].position = Some(5);
    assert_eq!(
        start_offsets(&partitions, &BTreeMap::new()),
        BTreeMap::from([(("orders".to_string(), 1), 5)])
    );
    assert_eq!(
        topics(&partitions),
        Selection::from([("orders".to_string(), vec![1])])
    );
    // Members are still to be asked for.
    partitions[1].position = Some(9);
    assert_eq!(topics(&partitions)["orders"], [0, 1, 2]);
}

#[test]
fn only_a_finished_replay_shows_100_percent() {
    let mut partitions = planned(json!({}), &answers(&[at(0, 100_000), at(0, 0)])).partitions;
    let percent = |partitions: &[ReplayPartition]| totals(partitions).percent;
    assert_eq!(percent(&partitions), 0);
    partitions[0].position = Some(99_999);
    assert_eq!(percent(&partitions), 99);
    partitions[0].position = Some(100_000);
    assert_eq!(percent(&partitions), 100);
    // A group that was set elsewhere by hand.
    partitions[0].position = Some(i64::MAX);
    assert_eq!(totals(&partitions).processed, 100_000);
}

#[test]
fn offsets_in_postgres_are_named_because_nothing_removes_them() {
    let mut group = group();
    let postgres = json!({
        "connection": {"secretName": "db", "key": "url"}, "table": "orders",
        "recordIdColumn": "id", "offsetsTable": "shop.offsets",
    });
    let writer = json!({"name": "db", "type": "Postgres", "postgres": postgres});
    group.writers = vec![serde_json::from_value(writer).unwrap()];
    group.processing = serde_json::from_value(json!({"deliveryGuarantee": "ExactlyOnce"})).unwrap();
    let plan = plan(&replay(json!({})), &group, &answers(&[at(0, 9)])).unwrap();
    assert!(plan.notes[0].contains("table shop.offsets"), "{:?}", plan.notes);
}
