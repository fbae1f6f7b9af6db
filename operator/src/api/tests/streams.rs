//! Streams of server-sent events.

use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncBufReadExt as _;

use super::{Server, event, group, watch};

#[tokio::test]
async fn a_stream_begins_with_everything_and_continues_with_changes() {
    let server = Server::start().await;
    let mut stream = watch(&server, "").await;
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(
        (name.as_str(), data["groups"].as_object().unwrap().len()),
        ("snapshot", 2)
    );
    assert_eq!(
        data["groups"]["shop/orders"].get("partitions"),
        Some(&1.into()),
        "as in the list"
    );
    let mut changed = group("orders");
    changed.summary.lag = None;
    changed.summary.unknown.insert("lag", "KafkaUnreachable");
    server.board.publish(vec![changed], Timestamp::now());
    let (name, data) = event(&mut stream).await.unwrap();
    assert_eq!(name, "patch");
    assert_eq!(
        data["groups"],
        serde_json::json!({"shop/bills": null, "shop/orders": {"lag": null, "unknown": {"lag": "KafkaUnreachable"}}})
    );
    server.board.close();
    assert_eq!(event(&mut stream).await.unwrap().0, "bye");
    let (status, problem) = server.get("/api/v1/watch").await;
    assert_eq!((status, &problem["reason"]), (503, &"ShuttingDown".into()));
}

#[tokio::test]
async fn a_stream_of_one_group_has_its_partitions() {
    let server = Server::start().await;
    let mut stream = watch(&server, "?groups=shop/orders").await;
    let (_, data) = event(&mut stream).await.unwrap();
    assert_eq!(data["groups"].as_object().unwrap().len(), 1);
    assert_eq!(
        data["groups"]["shop/orders"]["partitionList"][0]["topic"],
        "orders"
    );
    // A merge patch takes null in an object as "remove", so a topic without partitions is in a list.
    let mut changed = group("orders");
    changed.topics[0].partitions = None;
    server.board.publish(vec![changed], Timestamp::now());
    let (_, data) = event(&mut stream).await.unwrap();
    assert_eq!(
        data["groups"]["shop/orders"]["topics"],
        serde_json::json!([{"name": "orders", "partitions": null}])
    );
}

#[tokio::test]
async fn streams_are_limited_and_closed_ones_are_free_again() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = watch(&server, "").await;
        event(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let (status, body) = server.get("/api/v1/watch").await;
    assert_eq!((status, &body["reason"]), (429, &"TooManyStreams".into()));
    assert_eq!(
        server.get("/api/v1/groups").await.0,
        200,
        "requests are still answered"
    );
    drop(streams);
    for _ in 0..100 {
        // The server notices that a client is gone when it writes.
        server.board.publish(vec![group("orders")], Timestamp::now());
        let mut stream = watch(&server, "").await;
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.contains("200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no stream became free");
}
