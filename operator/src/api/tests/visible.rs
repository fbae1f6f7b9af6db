//! What lists and streams show to users with rights in some namespaces.

use jiff::Timestamp;
use serde_json::Value;

use super::cluster::{Api, header};
use super::{event, watch_at};
use crate::api::cluster::Times;
use crate::api::model::Role;

#[tokio::test]
async fn lists_and_streams_have_the_namespaces_that_the_user_may_list() {
    let api = Api::start(Times::default()).await;
    let names = |answer: &Value| {
        let items = answer["items"].as_array().unwrap().iter();
        let names: Vec<String> = items.map(|it| it["name"].as_str().unwrap().to_string()).collect();
        names.join(",")
    };
    let (_, all) = api.get("admin", "/api/v1/groups?sort=name").await;
    assert_eq!((names(&all).as_str(), &all["total"]), ("bills,orders", &2.into()));
    let (_, some) = api.get("reader", "/api/v1/groups?sort=name").await;
    assert_eq!((names(&some).as_str(), &some["total"]), ("orders", &1.into()));
    let (status, refused) = api.get("reader", "/api/v1/groups?namespace=bank").await;
    assert_eq!(status, 403);
    assert!(
        refused["detail"].as_str().unwrap().contains("in namespace bank"),
        "{refused}"
    );
    // Without the right, a group that does not exist looks like one that does.
    let (one, other) = (
        api.get("reader", "/api/v1/groups/bank/bills").await,
        api.get("reader", "/api/v1/groups/bank/nothing").await,
    );
    assert_eq!((one.0, other.0), (403, 403));
    assert_eq!(api.get("admin", "/api/v1/groups/bank/nothing").await.0, 404);
    let mut stream = watch_at(api.address, "", &header("reader")).await;
    let (_, data) = event(&mut stream).await.unwrap();
    let seen: Vec<&String> = data["groups"].as_object().unwrap().keys().collect();
    assert_eq!(seen, ["shop/orders"]);
}

#[tokio::test]
async fn without_groups_a_list_is_empty_and_other_lists_say_what_is_not_seen() {
    let api = Api::start(Times::default()).await;
    let (status, answer) = api.get("nobody", "/api/v1/groups").await;
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        status == 403 && detail.contains("a namespace without groups is not seen"),
        "{detail}"
    );
    api.board.show(Vec::new(), Role::Leader, Timestamp::now());
    for token in ["reader", "nobody"] {
        let (status, answer) = api.get(token, "/api/v1/groups").await;
        assert_eq!((status, &answer["total"]), (200, &0.into()), "{token}");
    }
    let (status, answer) = api.get("reader", "/api/v1/groups?namespace=shop").await;
    assert_eq!((status, &answer["total"]), (200, &0.into()));
    assert_eq!(api.get("nobody", "/api/v1/groups?namespace=shop").await.0, 403);
    // A stream continues with the first group that the user may see.
    let mut stream = watch_at(api.address, "", &header("reader")).await;
    assert_eq!(event(&mut stream).await.unwrap().0, "snapshot");
    api.show(0);
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(name, "patch");
    assert!(data["groups"]["shop/orders"].is_object(), "{data}");
    assert!(data["groups"]["bank/bills"].is_null(), "{data}");
}
