//! Resets of offsets in a cluster.

use serde_json::json;

use super::cluster::Api;
use crate::api::cluster::Times;

#[tokio::test]
async fn a_reset_is_a_resource_that_the_user_creates_reads_and_deletes() {
    let api = Api::start(Times::default()).await;
    let resets = "/api/v1/groups/shop/orders/offset-resets";
    let body = r#"{"to": {"type": "Earliest"}, "dryRun": true}"#;
    let (status, headers, answer) = api.ask("writer", "POST", resets, body).await;
    assert_eq!(
        (status, &answer["name"]),
        (201, &"orders-x7k2p".into()),
        "{answer}"
    );
    let location = format!("location: {resets}/orders-x7k2p");
    assert!(headers.to_lowercase().contains(&location), "{headers}");
    let asked = api
        .fake
        .asked("kafkaoffsetresets?fieldManager=kafka-consumer-api:writer");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].body["spec"],
        json!({
            "groupRef": {"name": "orders"}, "to": {"type": "Earliest"}, "dryRun": true, "stopGroup": false,
            "ttlSecondsAfterFinished": 3600,
        })
    );
    let (status, _, answer) = api.ask("reader", "POST", resets, body).await;
    assert_eq!((status, &answer["reason"]), (403, &"Forbidden".into()));

    let (_, list) = api.get("reader", resets).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "only those of the group, from all pages: {list}");
    assert_eq!(items[0]["name"], "done");
    assert!(items[0]["status"]["partitions"].is_null(), "{list}");
    let (status, one) = api.get("reader", &format!("{resets}/done")).await;
    assert_eq!((status, &one["status"]["partitions"][0]["new"]), (200, &7.into()));
    for name in ["other", "none"] {
        let path = format!("{resets}/{name}");
        for method in ["GET", "DELETE"] {
            let (status, _, answer) = api.ask("writer", method, &path, "").await;
            assert_eq!((status, &answer["reason"]), (404, &"OffsetResetNotFound".into()));
        }
    }
    let (status, _, answer) = api.ask("writer", "DELETE", &format!("{resets}/done"), "").await;
    assert_eq!((status, &answer["name"]), (200, &"done".into()));
    let deleted: Vec<_> = (api.fake.asked("kafkaoffsetresets/").into_iter())
        .filter(|asked| asked.method == "DELETE")
        .map(|asked| asked.path)
        .collect();
    assert_eq!(
        deleted,
        ["/apis/kafka-consumer.dev/v1alpha1/namespaces/shop/kafkaoffsetresets/done"]
    );
    let (_, me) = api.get("reader", "/api/v1/me?group=shop/orders").await;
    assert_eq!(
        me["actions"]["reset"]["why"],
        "you may not create kafkaoffsetresets.kafka-consumer.dev"
    );
}
