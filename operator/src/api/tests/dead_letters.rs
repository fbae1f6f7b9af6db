//! Dead letters of a broker in memory, through the routes.

use std::sync::Arc;

use crds::client_config::KafkaCredentials;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Api, header};
use super::{Server, group, send, serve_at};
use crate::api::board::Board;
use crate::api::cluster::Times;
use crate::api::command;
use crate::api::places::{NoPlace, Place, Places};
use crate::api::shared::Backend;
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::model::GroupKey;
use crate::kafka::testing::{Written, broker, write};

const LETTERS: &str = "/api/v1/groups/shop/orders/dead-letters";
const TOPIC: &str = "orders.dlq";

fn place(bootstrap: &str) -> Place {
    Place {
        topic: TOPIC.into(),
        kafka: serde_yaml::from_str(&format!("bootstrapServers: ['{bootstrap}']")).unwrap(),
        credentials: KafkaCredentials::default(),
    }
}

/// Local mode with the groups shop/orders and shop/bills, which has no dead letter topic.
async fn local(place: Option<Place>) -> Server {
    let board = Arc::new(Board::default());
    board.publish(vec![group("orders"), group("bills")], Timestamp::now());
    let (sender, commands) = command::channel();
    let places = Places::default();
    let orders = (GroupKey::new("shop", "orders"), place);
    places.set([orders, (GroupKey::new("shop", "bills"), None)].into());
    let address = serve_at(&board, Backend::Local(sender), places.find()).await;
    Server {
        address,
        board,
        commands: Some(commands),
    }
}

const VALUE: &[u8] = br#"{"id":12345678901234567890.10}"#;

/// Three dead letters and a record of another program.
fn letters() -> EmbeddedBroker {
    let broker = broker(TOPIC, 2);
    let origin = |offset: &'static str, stage: &'static str, message: &'static str| {
        [
            ("trace", &b"abc"[..]),
            ("kafka-consumer.dev/topic", b"orders"),
            ("kafka-consumer.dev/partition", b"3"),
            ("kafka-consumer.dev/offset", offset.as_bytes()),
            ("kafka-consumer.dev/stage", stage.as_bytes()),
            ("kafka-consumer.dev/component", b"pg"),
            ("kafka-consumer.dev/attempts", b"5"),
            ("kafka-consumer.dev/error-class", b"Rejected"),
            ("kafka-consumer.dev/error-message", message.as_bytes()),
        ]
    };
    let (first, second, third) = (
        origin("7", "write", "row 1 violates a constraint"),
        origin("8", "write", "row 22 violates a constraint"),
        origin("9", "decode", "is not JSON"),
    );
    let record = |key, value, timestamp, headers| Written {
        key,
        value,
        timestamp,
        headers,
    };
    write(
        &broker,
        TOPIC,
        &[
            record(Some(&b"k"[..]), Some(VALUE), 1_000, &first[..]),
            record(Some(&b"k"[..]), Some(&b"plain text"[..]), 3_000, &second[..]),
            record(None, None, 2_000, &third[..]),
            record(None, Some(&[0xff, 0][..]), 4_000, &[]),
        ],
    );
    broker
}

fn offsets(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["offset"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_with_their_origin_and_counted_by_error() {
    let broker = letters();
    let server = local(Some(place(&broker.bootstrap_servers()))).await;
    let (status, headers, body) = server.send("GET", LETTERS, "", "").await;
    assert_eq!(status, 200, "{body}");
    assert!(headers.contains("cache-control: no-store"), "{headers}");
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(offsets(&page), [3, 2, 1, 0]);
    assert_eq!(
        (&page["topic"], &page["partial"], &page["nextCursor"]),
        (&TOPIC.into(), &false.into(), &Value::Null)
    );
    assert_eq!(page["lookedAt"], 4);
    let [foreign, third, second, first] = &page["items"].as_array().unwrap()[..] else {
        panic!("{page}")
    };
    assert_eq!(
        first["origin"],
        json!({"topic": "orders", "partition": 3, "offset": 7})
    );
    assert_eq!(
        (&first["stage"], &first["component"], &first["attempts"]),
        (&"write".into(), &"pg".into(), &5.into())
    );
    assert_eq!(
        (&first["keySize"], &first["valueSize"]),
        (&1.into(), &VALUE.len().into())
    );
    assert_eq!(first["timestamp"], "1970-01-01T00:00:01Z");
    assert_eq!(first["headers"][0]["value"], "abc");
    assert_eq!(
        (&third["keySize"], &third["valueSize"]),
        (&Value::Null, &Value::Null)
    );
    assert!(foreign["origin"].is_null() && foreign["noOrigin"].as_str().unwrap().contains("another program"));
    assert!(!body.contains("plain text"), "a list has no payload");
    assert!(second["message"].as_str().unwrap().contains("row 22"));
    assert_eq!(
        page["errors"][0],
        json!({"class": "Rejected", "component": "pg", "stage": "write", "shape": "row # violates a constraint", "count": 2})
    );
    for (query, expected) in [
        ("?stage=write", vec![1, 0]),
        ("?search=PLAIN", vec![1]),
        ("?search=not%20json&class=Rejected", vec![2]),
        ("?from=1970-01-01T00:00:02Z&to=1970-01-01T00:00:03Z", vec![2]),
        ("?partition=1", vec![]),
        ("?component=none", vec![]),
    ] {
        let (status, page) = server.get(&format!("{LETTERS}{query}")).await;
        assert_eq!((status, offsets(&page)), (200, expected), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_continues_where_the_page_ended() {
    let broker = letters();
    let server = local(Some(place(&broker.bootstrap_servers()))).await;
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = server.get(&format!("{LETTERS}?limit=1&cursor={cursor}")).await;
        assert_eq!(status, 200, "{page}");
        all.extend(offsets(&page));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = next.into(),
            None => break,
        }
        assert!(all.len() < 10);
    }
    assert_eq!(all, [3, 2, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_is_shown_as_it_is_and_its_parts_are_files() {
    let broker = letters();
    let server = local(Some(place(&broker.bootstrap_servers()))).await;
    let (status, first) = server.get(&format!("{LETTERS}/0/0")).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["value"]["json"], "{\n  \"id\": 12345678901234567890.10\n}");
    assert_eq!(
        (&first["key"]["text"], &first["value"]["truncated"]),
        (&"k".into(), &false.into())
    );
    assert_eq!(
        (&first["topic"], &first["stage"]),
        (&TOPIC.into(), &"write".into())
    );
    assert_eq!(first["allHeaders"].as_array().unwrap().len(), 9);
    let (_, third) = server.get(&format!("{LETTERS}/0/2")).await;
    assert!(third["key"].is_null() && third["value"].is_null(), "{third}");
    let (status, headers, body) = server
        .send("GET", &format!("{LETTERS}/0/0?part=value"), "", "")
        .await;
    assert_eq!((status, body.as_bytes()), (200, VALUE));
    for header in [
        "content-type: application/octet-stream",
        "content-disposition: attachment; filename=\"orders.dlq-0-0.value\"",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(headers.contains(header), "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_says_what_is_wrong() {
    let broker = letters();
    let server = local(Some(place(&broker.bootstrap_servers()))).await;
    for (path, status, reason, part) in [
        ("?partition=x", 400, "InvalidQuery", "partition"),
        ("?from=x", 400, "InvalidQuery", "from"),
        ("?to=x", 400, "InvalidQuery", "to"),
        ("?stage=x", 400, "InvalidQuery", "stage"),
        ("?limit=0", 400, "InvalidQuery", "limit"),
        ("?cursor=x", 400, "InvalidQuery", "cursor"),
        ("?writer=x", 400, "InvalidQuery", "writer"),
        ("?partition=7", 404, "PartitionNotFound", "0 to 1"),
        ("/0/4", 404, "RecordNotFound", "ends before offset 4"),
        ("/9/0", 404, "PartitionNotFound", "0 to 1"),
        ("/x/0", 400, "InvalidPath", "partition"),
        ("/0/-1", 400, "InvalidPath", "offset"),
        ("/5000000000/0", 400, "InvalidPath", "partition"),
        ("/0/0?part=header", 400, "InvalidQuery", "key or value"),
        ("/0/2?part=value", 404, "PartIsNull", "value"),
    ] {
        let (found, problem) = server.get(&format!("{LETTERS}{path}")).await;
        assert_eq!(
            (found, problem["reason"].as_str()),
            (status, Some(reason)),
            "{path}: {problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{path}: {detail}");
    }
    for (path, status, reason) in [
        ("/api/v1/groups/shop/bills/dead-letters", 409, "NoDeadLetterTopic"),
        ("/api/v1/groups/shop/nothing/dead-letters", 404, "GroupNotFound"),
    ] {
        let (found, problem) = server.get(path).await;
        assert_eq!(
            (found, problem["reason"].as_str()),
            (status, Some(reason)),
            "{problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_and_an_unreachable_broker_are_different_problems() {
    let other = broker("another", 1);
    let server = local(Some(place(&other.bootstrap_servers()))).await;
    let (status, problem) = server.get(LETTERS).await;
    assert_eq!(
        (status, &problem["reason"]),
        (404, &"DeadLetterTopicMissing".into())
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let server = local(Some(place(&closed))).await;
    let (status, problem) = server.get(LETTERS).await;
    assert_eq!(
        (status, &problem["reason"]),
        (503, &"KafkaUnreachable".into()),
        "{problem}"
    );
}

#[tokio::test]
async fn records_need_a_separate_right() {
    let api = Api::start(Times::default()).await;
    for path in [
        LETTERS.to_string(),
        format!("{LETTERS}/0/0"),
        format!("{LETTERS}/0/0?part=key"),
    ] {
        let (status, problem) = api.get("viewer", &path).await;
        assert_eq!(
            (status, &problem["reason"]),
            (403, &"Forbidden".into()),
            "{problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("get kafkaconsumergroups.kafka-consumer.dev/deadletters"),
            "{detail}"
        );
        // The group can be seen.
        assert_eq!(api.get("viewer", "/api/v1/groups/shop/orders").await.0, 200);
        let (status, problem) = api.get("reader", &path).await;
        assert_eq!(
            (status, &problem["reason"]),
            (409, &"NoDeadLetterTopic".into()),
            "{problem}"
        );
    }
    let (_, me) = api.get("viewer", "/api/v1/me?group=shop/orders").await;
    assert_eq!(me["actions"]["deadLetters"]["allowed"], false, "{me}");
    let (_, me) = api.get("reader", "/api/v1/me?group=shop/orders").await;
    assert_eq!(me["actions"]["deadLetters"]["allowed"], true, "{me}");
    let (status, headers, _) = send(api.address, "GET", LETTERS, &header(""), "").await;
    assert_eq!(status, 401, "{headers}");
}

#[tokio::test]
async fn what_the_group_references_is_named_when_it_is_missing() {
    let board = Arc::new(Board::default());
    board.publish(vec![group("orders")], Timestamp::now());
    for (no, status, reason) in [
        (
            NoPlace::Invalid("Secret kafka does not exist".into()),
            409,
            "GroupInvalid",
        ),
        (
            NoPlace::Unknown("the API server cannot be asked".into()),
            503,
            "ApiServerUnavailable",
        ),
    ] {
        let find = Arc::new(move |_| {
            let no = no.clone();
            Box::pin(async move { Err(no) }) as futures::future::BoxFuture<'static, _>
        });
        let (sender, _commands) = command::channel();
        let address = serve_at(&board, Backend::Local(sender), find).await;
        let (found, _, body) = send(address, "GET", LETTERS, "", "").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (found, problem["reason"].as_str()),
            (status, Some(reason)),
            "{problem}"
        );
    }
}
