//! What users see, as a whole: the files beside this one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{condition, failing, group};
use crate::plugin::detail::detail;
use crate::plugin::detail::found::{Beside, Found};
use crate::plugin::overview::overview;
use crate::plugin::partitions::partitions;
use crate::plugin::view::GroupView;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn view(resource: Value) -> GroupView {
    GroupView::of(resource).unwrap()
}

fn nothing() -> Beside {
    Beside {
        resets: Found::Items(Vec::new()),
        events: Found::Items(Vec::new()),
    }
}

fn check(name: &str, text: &str, expected: &str) {
    assert_eq!(text, expected, "{name} is:\n{text}");
}

#[test]
fn a_table_of_all_groups() {
    let mut late = group("late");
    late["metadata"]["generation"] = 3.into();
    let new = json!({"metadata": {"name": "new", "namespace": "bank"}});
    let groups = [view(new), view(late), view(group("orders")), view(failing())];
    check(
        "overview",
        &overview(&groups, true, false, now()),
        include_str!("overview.txt"),
    );
    let wide = overview(&groups, false, true, now());
    let header: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header[6..],
        ["STATE", "PARTITIONS", "STALLED", "CONSUMER", "GROUP", "MESSAGE"]
    );
    let orders = wide.lines().find(|line| line.starts_with("orders ")).unwrap();
    assert!(orders.ends_with("all 3 partitions are being consumed"), "{wide}");
}

#[test]
fn a_group_that_is_well_needs_few_lines() {
    check(
        "well",
        &detail(&view(group("orders")), &nothing(), false, now()),
        include_str!("well.txt"),
    );
}

#[test]
fn a_group_that_is_not_well_says_why_and_what_to_do() {
    let event = |minute: u32, reason: &str| {
        json!({
            "type": "Warning", "reason": reason, "message": format!("{reason} message"),
            "lastTimestamp": format!("2026-01-01T11:{minute:02}:00Z"),
        })
    };
    let reset = |name: &str, phase: &str| {
        json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T11:58:00Z"},
            "spec": {"groupRef": {"name": "payments"}, "to": {"type": "Earliest"}},
            "status": {"phase": phase, "message": "waits until the group has no members"},
        })
    };
    let beside = Beside {
        resets: Found::Items(vec![reset("done", "Succeeded"), reset("again", "Stopping")]),
        events: Found::Items(vec![event(59, "WriterUnavailable"), event(10, "Scaled")]),
    };
    check(
        "failing",
        &detail(&view(failing()), &beside, false, now()),
        include_str!("failing.txt"),
    );
}

#[test]
fn what_is_not_known_is_unknown_with_its_reason_and_never_0() {
    let resource = json!({"metadata": {"name": "new", "namespace": "bank", "generation": 1}});
    let beside = Beside {
        resets: Found::Unreadable("the API server refuses: forbidden".into()),
        events: Found::Unreadable("the API server refuses: forbidden".into()),
    };
    let text = detail(&view(resource.clone()), &beside, false, now());
    check("unknown", &text, include_str!("unknown.txt"));
    assert!(!text.contains('0'), "{text}");
    assert!(partitions(&view(resource), now()).contains("unknown"));
}

#[test]
fn a_paused_group_is_well_and_needs_nothing() {
    let mut paused = group("orders");
    paused["spec"]["desiredState"] = "Paused".into();
    let conditions = paused["status"]["conditions"].as_array_mut().unwrap();
    conditions[0] = condition("Ready", "True", "Paused", "as requested");
    conditions[5] = condition("Consuming", "False", "Paused", "as requested");
    let view = view(paused);
    assert!(view.is_well());
    let text = detail(&view, &nothing(), false, now());
    assert!(
        !text.contains("Needs attention") && !text.contains("what to do"),
        "{text}"
    );
}

#[test]
fn partitions_are_shown_as_far_as_the_status_knows_them() {
    check(
        "partitions",
        &partitions(&view(failing()), now()),
        include_str!("partitions.txt"),
    );
    let mut resource = group("orders");
    resource["status"]["topics"] = json!([{"name": "orders", "partitions": 1}, {"name": "gone"}]);
    let text = partitions(&view(resource), now());
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1][..3], ["orders-0", "not", "stalled"]);
    assert_eq!(rows[2][..3], ["gone-?", "unknown", "unknown"]);
    assert!(
        text.contains("Topic gone: the number of partitions is unknown"),
        "{text}"
    );
}
