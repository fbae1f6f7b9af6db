//! Series that appear, change and disappear with what they measure.

use super::*;
use crate::fixtures::{facts, group, lag};

fn observed(metrics: &Metrics, lags: Option<&[i64]>) -> String {
    let mut facts = facts(&[("orders", Some(2))]);
    facts.lag = lags.map(lag);
    let status = KafkaConsumerGroupStatus {
        replicas: Some(2),
        ..Default::default()
    };
    metrics.observe(&group(), &status, &KafkaView::Known(facts));
    metrics.text().unwrap()
}

#[test]
fn lag_series_follow_the_facts_and_are_removed_with_the_group() {
    let metrics = Metrics::default();
    let series = |partition: i32, value: i64| {
        format!(
            "kcg_lag_records{{namespace=\"shop\",group=\"orders\",topic=\"orders\",partition=\"{partition}\"}} {value}\n"
        )
    };
    let text = observed(&metrics, Some(&[4, 7]));
    assert!(
        text.contains(&series(0, 4)) && text.contains(&series(1, 7)),
        "{text}"
    );
    assert!(!observed(&metrics, Some(&[5])).contains("partition=\"1\""));
    assert!(!observed(&metrics, None).contains("kcg_lag_records{"));
    assert!(metrics.text().unwrap().contains("kcg_desired_replicas{"));
    metrics.dead_members_removed("shop", "orders", 2);
    let removed = "kcg_dead_members_removed_total{namespace=\"shop\",group=\"orders\"} 2\n";
    assert!(metrics.text().unwrap().contains(removed));
    metrics.forget("shop", "orders");
    assert!(!metrics.text().unwrap().contains("orders"));
}

#[test]
fn a_condition_has_one_series_with_its_current_reason() {
    let metrics = Metrics::default();
    let observe = |status: &str, reason: &str| {
        let condition = serde_json::json!({
            "type": "Ready", "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = KafkaConsumerGroupStatus {
            conditions: vec![serde_json::from_value(condition).unwrap()],
            ..Default::default()
        };
        metrics.observe(&group(), &status, &KafkaView::NotAsked);
        metrics.text().unwrap()
    };
    let series = |reason: &str, value: i32| {
        format!("kcg_group_ready{{namespace=\"shop\",group=\"orders\",reason=\"{reason}\"}} {value}\n")
    };
    assert!(observe("False", "KafkaUnreachable").contains(&series("KafkaUnreachable", 0)));
    let text = observe("True", "AllPartitionsConsumed");
    assert!(text.contains(&series("AllPartitionsConsumed", 1)), "{text}");
    assert!(!text.contains("KafkaUnreachable"), "{text}");
    metrics.forget("shop", "orders");
    assert!(!metrics.text().unwrap().contains("orders"));
}

#[test]
fn counters_have_their_documented_names() {
    let metrics = Arc::new(Metrics::default());
    metrics.reconcile().done(Some("status"));
    let text = metrics.text().unwrap();
    assert!(text.contains("kcg_reconcile_total 1\n"), "{text}");
    assert!(
        text.contains("kcg_reconcile_errors_total{kind=\"status\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("kcg_reconcile_duration_seconds_count 1\n"),
        "{text}"
    );
}
