//! The text that `/metrics` shows.

use super::*;

fn text(metrics: &Metrics, snapshot: &Snapshot) -> String {
    metrics.encode(snapshot, Duration::from_millis(1500)).unwrap()
}

#[test]
fn everything_that_is_counted_is_in_the_text() {
    let metrics = Metrics::new();
    metrics
        .partition(&TopicPartition::new("orders", 3))
        .received(7, 700);
    metrics.written(&"pg".into(), 5);
    metrics.write_failed(&"pg".into(), "transient");
    metrics.dead_lettered("decode", &"value".into());
    metrics.transformed(&"clean".into(), Duration::from_millis(1), 2);
    metrics.retried(&"pg".into());
    metrics.writer_breaker_open(&"pg".into(), true);
    metrics.committed(Some("RebalanceInProgress"));
    metrics.rebalanced("revoked");
    metrics.paused_partitions([PausedReason::RecordFailed].into_iter());
    let text = text(&metrics, &Snapshot::default());
    for line in [
        "kcg_worker_records_consumed_total{topic=\"orders\",partition=\"3\"} 7",
        "kcg_worker_bytes_in_total{topic=\"orders\",partition=\"3\"} 700",
        "kcg_worker_records_written_total{writer=\"pg\"} 5",
        "kcg_worker_write_errors_total{writer=\"pg\",class=\"transient\"} 1",
        "kcg_worker_dead_lettered_total{stage=\"decode\",component=\"value\"} 1",
        "kcg_worker_filtered_total{transform=\"clean\"} 2",
        "kcg_worker_retries_total{writer=\"pg\"} 1",
        "kcg_worker_writer_breaker_open{writer=\"pg\"} 1",
        "kcg_worker_commit_errors_total{code=\"RebalanceInProgress\"} 1",
        "kcg_worker_rebalances_total{kind=\"revoked\"} 1",
        "kcg_worker_paused_partitions{reason=\"RecordFailed\"} 1",
        "kcg_worker_paused_partitions{reason=\"Paused\"} 0",
        "kcg_worker_paused_partitions{reason=\"DeadLetterBreakerOpen\"} 0",
        "kcg_worker_stalled_partitions 0",
        "kcg_worker_poll_age_seconds 1.5",
        "kcg_worker_phase{phase=\"Joining\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn an_unknown_lag_has_no_series_and_a_known_one_may_be_zero() {
    let metrics = Metrics::new();
    let partition = metrics.partition(&TopicPartition::new("orders", 3));
    partition.state(None, 2);
    let before = text(&metrics, &Snapshot::default());
    assert!(
        before.contains("kcg_worker_in_flight_records{topic=\"orders\",partition=\"3\"} 2"),
        "{before}"
    );
    assert!(!before.contains("kcg_worker_lag_records{"), "{before}");
    partition.state(Some(0), 0);
    let after = text(&metrics, &Snapshot::default());
    assert!(
        after.contains("kcg_worker_lag_records{topic=\"orders\",partition=\"3\"} 0"),
        "{after}"
    );
}

#[test]
fn a_partition_that_moved_has_no_series() {
    let metrics = Metrics::new();
    let partition = TopicPartition::new("orders", 3);
    let handle = metrics.partition(&partition);
    handle.received(1, 1);
    handle.state(Some(5), 1);
    metrics.forget(&partition);
    handle.state(Some(4), 0);
    let text = text(&metrics, &Snapshot::default());
    assert!(!text.contains("topic=\"orders\""), "{text}");
}
