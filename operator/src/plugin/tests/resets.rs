//! Resets: first the plan, then a question, then the offsets.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fake::{Fake, GROUPS, RESETS};
use super::{group, kcg};
use crate::plugin::{DONE, NOT_WELL};
use crate::sync::lock;

fn plan(changed: i32) -> Value {
    json!({
        "phase": "Succeeded", "message": "1 offset is set", "groupId": "shop.orders",
        "totals": {"partitions": 1, "changed": changed, "again": 500, "skipped": 0},
        "partitions": [{
            "topic": "orders", "partition": 0, "committed": 1500, "new": 1000, "difference": -500, "logStart": 1000,
            "end": 2000,
        }],
    })
}

async fn start(status: Value) -> Arc<Fake> {
    let fake = Fake::start(vec![(format!("{GROUPS}/orders"), group("orders"))]).await;
    *lock(&fake.reset) = status;
    fake
}

/// The specs of the resets that were created.
fn created(fake: &Fake) -> Vec<Value> {
    let changes = fake.changes();
    let created = changes
        .iter()
        .filter(|(method, path, _)| method == "POST" && path == RESETS);
    created.map(|(.., body)| body["spec"].clone()).collect()
}

#[tokio::test]
async fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let fake = start(plan(1)).await;
    let done = kcg(
        &fake,
        "reset orders --to-earliest --topic orders:0 --dry-run",
        None,
    )
    .await;
    assert_eq!(done.code, Ok(DONE), "{}", done.notes);
    for part in [
        "1500",
        "-500",
        "shop.orders: 1 of 1 partitions change",
        "nothing is changed",
    ] {
        assert!(done.out.contains(part), "{part}: {}", done.out);
    }
    assert_eq!(
        created(&fake),
        [json!({
            "groupRef": {"name": "orders"}, "to": {"type": "Earliest"}, "dryRun": true, "stopGroup": false,
            "topics": [{"topic": "orders", "partitions": [0]}], "ttlSecondsAfterFinished": 3600,
        })]
    );
}

#[tokio::test]
async fn offsets_are_set_after_a_yes_to_the_plan() {
    let fake = start(plan(1)).await;
    let no = kcg(&fake, "reset orders --shift-by -500 --stop-group", Some("no\n")).await;
    assert_eq!(no.code, Ok(NOT_WELL));
    assert!(
        no.notes
            .contains("Set these offsets of shop/orders, stopping its workers meanwhile?"),
        "{}",
        no.notes
    );
    assert_eq!(created(&fake).len(), 1, "only the dry run");
    let yes = kcg(&fake, "reset orders --shift-by -500 --stop-group", Some("y\n")).await;
    assert_eq!(yes.code, Ok(DONE), "{}", yes.notes);
    assert!(yes.out.contains("1 offset is set"), "{}", yes.out);
    let dry: Vec<Value> = created(&fake).iter().map(|spec| spec["dryRun"].clone()).collect();
    assert_eq!(dry, [json!(true), json!(true), json!(false)]);
    assert_eq!(created(&fake)[2]["stopGroup"], true);
    let at_once = kcg(&fake, "reset orders --to-latest --stop-group --yes", None).await;
    assert_eq!(at_once.code, Ok(DONE));
    assert_eq!(created(&fake).len(), 4, "--yes needs no dry run");
}

#[tokio::test]
async fn what_could_only_fail_creates_nothing() {
    let fake = start(plan(1)).await;
    for (line, answer, why) in [
        (
            "reset orders --to-latest --stop-group",
            None,
            "add --dry-run to see the plan, or --yes",
        ),
        ("reset orders --to-latest", Some("y\n"), "add --stop-group"),
        ("reset orders --to-latest --yes", None, "kubectl kcg stop orders"),
        (
            "reset other --to-latest --dry-run",
            None,
            "no KafkaConsumerGroup other",
        ),
        (
            "reset orders --to-offset 5 --dry-run",
            None,
            "for which partitions",
        ),
        (
            "reset orders --to-offset orders:0=5 --topic orders:1 --dry-run",
            None,
            "--topic does not select",
        ),
    ] {
        let error = kcg(&fake, line, answer).await.code.unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
    assert!(created(&fake).is_empty());
}

#[tokio::test]
async fn offsets_of_selected_partitions_are_listed_once() {
    let fake = start(plan(1)).await;
    kcg(
        &fake,
        "reset orders --to-offset 5 --topic orders:0,2 --dry-run",
        None,
    )
    .await;
    let spec = created(&fake).remove(0);
    let offset = |partition: i32| json!({"topic": "orders", "partition": partition, "offset": 5});
    assert_eq!(
        spec["to"],
        json!({"type": "Offsets", "offsets": [offset(0), offset(2)]})
    );
    assert_eq!(
        spec["topics"],
        Value::Null,
        "the API server refuses topics with type Offsets"
    );
}

#[tokio::test]
async fn a_plan_without_changes_asks_nothing_and_a_failure_says_what_to_do() {
    let fake = start(plan(0)).await;
    let same = kcg(&fake, "reset orders --to-latest --stop-group", Some("y\n")).await;
    assert_eq!(same.code, Ok(DONE));
    assert!(
        same.out.contains("the new ones already") && created(&fake).len() == 1,
        "{}",
        same.out
    );

    let mut failed = plan(0);
    failed["phase"] = "Failed".into();
    failed["message"] = "no partition has a committed offset".into();
    failed["conditions"] = json!([super::condition("Failed", "True", "NothingCommitted", "no")]);
    let fake = start(failed).await;
    let done = kcg(&fake, "reset orders --shift-by 5 --dry-run", None).await;
    assert_eq!(done.code, Ok(NOT_WELL));
    for part in [
        "failed: NothingCommitted: no partition",
        "what to do: use another target",
    ] {
        assert!(done.notes.contains(part), "{part}: {}", done.notes);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_does_not_create_a_second_reset() {
    for code in [503, 504] {
        let fake = start(plan(1)).await;
        fake.next("POST", [code]);
        let done = kcg(&fake, "reset orders --shift-by -5 --stop-group --yes", None).await;
        let error = done.code.unwrap_err();
        assert!(error.contains("as the test wants"), "{error}");
        assert_eq!(created(&fake).len(), 1, "{code}: a second one would shift twice");
        assert!(
            done.notes.contains("look before you repeat this command"),
            "{}",
            done.notes
        );
    }
    let fake = start(plan(1)).await;
    fake.next("POST", [403]);
    let done = kcg(&fake, "reset orders --shift-by -5 --stop-group --yes", None).await;
    assert!(done.code.is_err() && done.notes.is_empty(), "{}", done.notes);
}

#[tokio::test]
async fn a_reset_is_followed_although_reading_it_fails_for_a_moment() {
    let fake = start(plan(1)).await;
    // The group, then the reset.
    fake.next("GET", [0, 503, 429]);
    let done = kcg(&fake, "reset orders --shift-by -5 --stop-group --yes", None).await;
    assert_eq!(done.code, Ok(DONE), "{}", done.notes);
    assert!(
        done.notes
            .contains("not known now: the API server refuses: as the test wants"),
        "{}",
        done.notes
    );
    assert!(!done.notes.contains("has not ended"), "{}", done.notes);

    fake.next("GET", [0, 403]);
    let done = kcg(&fake, "reset orders --shift-by -5 --stop-group --yes", None).await;
    assert!(done.code.is_err());
    assert!(done.notes.contains("kubectl delete kor"), "{}", done.notes);

    fake.next("GET", [0, 404]);
    let done = kcg(&fake, "reset orders --shift-by -5 --stop-group --yes", None).await;
    let error = done.code.unwrap_err();
    assert!(error.contains("was deleted"), "{error}");
    assert!(!done.notes.contains("continues"), "{}", done.notes);
}
