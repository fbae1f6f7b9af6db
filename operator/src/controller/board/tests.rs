use std::sync::Arc;

use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::{reflector, watcher};
use serde_json::json;

use super::group::{group as shown, unreadable};
use super::*;
use crate::api::model::Truth;
use crate::fixtures::group as resource;
use crate::kafka::model::Lag;

fn reported() -> crds::KafkaConsumerGroup {
    let mut group = resource();
    group.metadata.resource_version = Some("1".into());
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-11-30T08:00:00Z",
        })
    };
    group.status = serde_json::from_value(json!({
        "conditions": [condition("Ready", "False", "RecordFailed"), condition("LagKnown", "True", "Known")],
        "groupId": "shop.orders", "replicas": 2, "readyReplicas": 1,
        "topics": [{"name": "orders", "partitions": 2}],
        "partitions": {"total": 2, "assigned": 2, "stalled": 1},
        "lag": {"total": 70, "max": 70, "asOf": "2026-11-30T08:00:00Z"},
        "scaling": {"reason": "1 worker per partition"},
        "stalledPartitions": [{
            "topic": "orders", "partition": 1, "offset": 5, "since": "2026-11-30T08:00:00Z", "attempts": 3,
            "reason": "RecordFailed", "lastError": "bad",
        }],
        "workers": [{
            "name": "w-1", "assigned": 2, "recordsTotal": 10, "deadLetteredTotal": 1, "inFlight": 4,
        }],
    }))
    .unwrap();
    group
}

fn read(ends: [i64; 2], lags: [i64; 2], second: i64, positions: &mut Positions) -> View {
    let both = |values: [i64; 2]| {
        let entry = |(number, value)| (("orders".to_string(), number), value);
        [entry((0, values[0])), entry((1, values[1]))].into()
    };
    let lag = Lag {
        per_partition: both(lags),
        ends: both(ends),
        ..Lag::default()
    };
    positions.note(lag, Timestamp::from_second(second).unwrap());
    View::Known {
        topics: [("orders".to_string(), Some(2))].into(),
        has_lag: true,
    }
}

#[test]
fn the_leader_shows_what_it_has_read() {
    let mut positions = Positions::default();
    read([100, 100], [10, 0], 0, &mut positions);
    let view = read([120, 100], [20, 0], 10, &mut positions);
    let group = shown(&reported(), &view, &positions, Some(3));
    let summary = &group.summary;
    assert_eq!(
        (summary.ready, summary.reason.as_str()),
        (Truth::False, "RecordFailed")
    );
    assert_eq!((summary.workers, summary.workers_desired), (Some(1), Some(2)));
    assert_eq!((summary.lag, summary.partitions), (Some(20), Some(2)));
    assert_eq!(
        (summary.in_per_second, summary.done_per_second),
        (Some(2.0), Some(1.0))
    );
    assert_eq!(
        summary.unknown.get("catchUpSeconds"),
        Some("the lag does not shrink")
    );
    assert_eq!(summary.finished_total, Some(10));
    assert_eq!(group.deployment.as_deref(), Some("orders-worker"));
    let partition = &group.partitions[1];
    assert_eq!((partition.committed, partition.end), (Some(100), Some(100)));
    assert_eq!(partition.paused_reason.as_deref(), Some("RecordFailed"));
    let oldest = partition.oldest.as_ref().unwrap();
    assert_eq!((oldest.offset, oldest.last_error.as_deref()), (5, Some("bad")));
    assert_eq!(group.workers[0].in_flight, Some(4));
}

#[test]
fn what_is_not_known_is_null_with_the_reason() {
    let none = Positions::default();
    // An operator that stands by knows the status.
    let group = shown(&reported(), &View::NotRead, &none, None);
    assert_eq!((group.summary.lag, group.summary.partitions), (Some(70), Some(2)));
    assert_eq!(group.summary.in_per_second, None);
    assert!(
        group
            .summary
            .unknown
            .get("inPerSecond")
            .unwrap()
            .contains("stands by")
    );
    assert!(
        group.partitions[0]
            .unknown
            .get("lag")
            .unwrap()
            .contains("stands by")
    );
    let problem = KafkaProblem::Unreachable("refused".into());
    let group = shown(&reported(), &View::Failed(problem), &none, None);
    assert_eq!(group.summary.lag, None);
    let why = group.summary.unknown.get("lag").unwrap();
    assert!(
        why.starts_with("KafkaUnreachable: ") && why.contains("refused"),
        "{why}"
    );
    // A resource that was just created.
    let group = shown(&resource(), &View::NotRead, &none, None);
    let summary = &group.summary;
    assert_eq!(
        (summary.ready, summary.workers, summary.lag),
        (Truth::Unknown, None, None)
    );
    for field in [
        "workers",
        "workersDesired",
        "lag",
        "partitions",
        "stalled",
        "finishedTotal",
    ] {
        assert!(summary.unknown.get(field).is_some(), "{field}");
    }
    let group = unreadable(&GroupKey::new("shop", "orders"), "unknown variant");
    assert_eq!(
        (group.summary.ready, group.summary.desired_state),
        (Truth::False, None)
    );
    assert!(group.summary.message.contains("unknown variant"));
}

#[test]
fn every_null_of_a_group_has_a_reason() {
    let positions = Positions::default();
    for group in [
        shown(&reported(), &View::NotRead, &positions, None),
        shown(&resource(), &View::NotRead, &positions, None),
        unreadable(&GroupKey::new("shop", "orders"), "why"),
    ] {
        let mut objects = vec![serde_json::to_value(&group.summary).unwrap()];
        objects.extend(
            group
                .partitions
                .iter()
                .map(|it| serde_json::to_value(it).unwrap()),
        );
        objects.extend(group.workers.iter().map(|it| serde_json::to_value(it).unwrap()));
        for object in objects {
            for (field, value) in object.as_object().unwrap() {
                // Null says something itself in these.
                let plain = ["oldest", "pausedReason", "stalledSince", "lastError"].contains(&field.as_str());
                if value.is_null() && !plain {
                    assert!(object["unknown"][field].is_string(), "{field} in {object}");
                }
            }
        }
    }
}

#[test]
fn an_unchanged_group_stays_the_same_allocation() {
    let (store, mut writer) = reflector::store::<Guarded>();
    let apply = |writer: &mut reflector::store::Writer<Guarded>, group| {
        writer.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(group)));
    };
    apply(&mut writer, Ok(reported()));
    let mut sources = Sources {
        groups: vec![(store, Filled::default())],
        kafka: None,
    };
    assert!(!sources.are_filled() && !Sources::default().are_filled());
    sources.groups[0].1.set();
    assert!(sources.are_filled());
    let board = Arc::new(Board::default());
    let mut publisher = Publisher::new(Arc::clone(&board));
    let mut publish = |sources: &Sources| {
        publisher.publish(sources);
        board.snapshot().groups.values().next().cloned().unwrap()
    };
    let first = publish(&sources);
    assert!(Arc::ptr_eq(&first, &publish(&sources)));
    let mut annotated = reported();
    annotated.metadata.resource_version = Some("2".into());
    annotated.metadata.annotations = Some([("a".to_string(), "b".to_string())].into());
    apply(&mut writer, Ok(annotated.clone()));
    assert!(
        Arc::ptr_eq(&first, &publish(&sources)),
        "nothing that is shown has changed"
    );
    annotated.metadata.resource_version = Some("3".into());
    annotated.spec.desired_state = crds::spec::DesiredState::Paused;
    apply(&mut writer, Ok(annotated.clone()));
    assert!(!Arc::ptr_eq(&first, &publish(&sources)));
    let invalid = InvalidObject {
        error: "unknown variant".into(),
        metadata: kube::api::ObjectMeta {
            resource_version: Some("4".into()),
            ..annotated.metadata
        },
    };
    apply(&mut writer, Err(invalid));
    assert_eq!(publish(&sources).summary.reason, "InvalidSpec");
    assert_eq!(board.snapshot().role, Role::Standby);
    sources.kafka = Some(KafkaClients::new(Duration::from_secs(15)));
    publish(&sources);
    assert_eq!(board.snapshot().role, Role::Leader);
}

#[test]
fn a_number_of_partitions_in_the_status_is_not_trusted() {
    let mut resource = reported();
    let positions = Positions::default();
    for (count, shown_count) in [(i32::MAX, 10_000), (-1, 0), (3, 3)] {
        let status = resource.status.as_mut().unwrap();
        status.topics[0].partitions = Some(count);
        let group = shown(&resource, &View::NotRead, &positions, None);
        assert_eq!(group.summary.partitions, Some(shown_count));
        assert_eq!(group.partitions.len(), usize::try_from(shown_count).unwrap());
    }
}

#[test]
fn without_a_report_of_a_worker_numbers_are_unknown_and_not_0() {
    let mut resource = reported();
    let status = resource.status.as_mut().unwrap();
    status.workers.clear();
    status.worker_totals = Some(crds::status::WorkerTotals {
        silent: 2,
        silent_reason: Some("pod w-1: no answer".into()),
        ..Default::default()
    });
    let group = shown(&resource, &View::NotRead, &Positions::default(), None);
    let summary = &group.summary;
    assert_eq!(
        (
            summary.finished_total,
            summary.dead_lettered_total,
            summary.skipped_total
        ),
        (None, None, None)
    );
    for field in [
        "finishedTotal",
        "deadLetteredTotal",
        "skippedTotal",
        "deadLettersPerMinute",
    ] {
        let why = summary.unknown.get(field).unwrap();
        assert!(why.contains("pod w-1: no answer"), "{field}: {why}");
    }
    resource.status.as_mut().unwrap().replicas = Some(0);
    let group = shown(&resource, &View::NotRead, &Positions::default(), Some(0));
    assert_eq!(group.summary.finished_total, Some(0), "no worker shall run");
}

#[test]
fn what_was_read_long_ago_is_outdated_once() {
    let (mut known, start) = (Known::default(), Instant::now());
    let at = |second| start + Duration::from_secs(second);
    let longest = Duration::from_secs(630);
    let problem = KafkaProblem::Unreachable("refused".into());
    assert!(known.take_answer(Some((start, Err(problem))), longest, start));
    for second in [121, 630] {
        assert!(!known.take_answer(None, longest, at(second)), "{second}");
        assert!(matches!(known.kafka, View::Failed(_)));
    }
    assert!(known.take_answer(None, longest, at(631)));
    assert!(matches!(known.kafka, View::Outdated));
    assert_eq!(known.read, Some(start), "the same answer does not come again");
    assert!(!known.take_answer(None, longest, at(632)));
    let group = shown(&reported(), &known.kafka, &known.positions, None);
    assert_eq!(group.summary.lag, Some(70), "the status says it");
    let why = group.summary.unknown.get("inPerSecond").unwrap();
    assert!(why.contains("has not read Kafka for more than"), "{why}");
    let why = group.partitions[0].unknown.get("lag").unwrap();
    assert!(why.contains("has not read Kafka for more than"), "{why}");
}
