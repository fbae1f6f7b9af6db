//! What one user can take of the API in a cluster: questions, streams, bodies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::cluster::{Api, SCALE, STATE, header, watch_status};
use super::{event, group, watch_at};
use crate::api::cluster::Times;
use crate::api::model::Role;

#[tokio::test]
async fn one_user_asks_few_questions_at_the_same_time_and_each_only_once() {
    let times = Times {
        refused: Duration::ZERO,
        ..Times::default()
    };
    let api = Api::start(times).await;
    let groups = (0..20).map(|number| {
        let mut group = group("orders");
        group.summary.namespace = format!("n{number}");
        Arc::new(group)
    });
    api.board.show(groups.collect(), Role::Leader, Timestamp::now());
    let lists = (0..5).map(|_| api.get("nobody", "/api/v1/groups"));
    for (status, answer) in futures::future::join_all(lists).await {
        assert_eq!(status, 403, "{answer}");
    }
    let most = api.fake.most_rights.load(Ordering::Relaxed);
    assert!((1..=4).contains(&most), "{most}");
    let asked = api.fake.asked("subjectaccessreviews").len();
    // Of 5 requests that ask the same, at least one waits and finds the answer.
    assert!((21..=84).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_user_has_ten_streams_and_others_have_their_own() {
    let api = Api::start(Times::default()).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = watch_at(api.address, "", &header("reader")).await;
        assert_eq!(event(&mut stream).await.unwrap().0, "snapshot");
        streams.push(stream);
    }
    assert_eq!(watch_status(&api, "reader").await, 429);
    assert_eq!(watch_status(&api, "writer").await, 200);
}

#[tokio::test]
async fn a_body_is_read_only_from_those_who_may_send_it() {
    let api = Api::start(Times::default()).await;
    let large = " ".repeat(4 * 1024 + 1);
    for path in [STATE, SCALE] {
        let (status, _, answer) = api.ask("reader", "PUT", path, &large).await;
        assert_eq!((status, &answer["reason"]), (403, &"Forbidden".into()));
        let (status, _, answer) = api.ask("writer", "PUT", path, &large).await;
        assert_eq!((status, &answer["reason"]), (413, &"BodyTooLarge".into()));
    }
}
