//! The board, and the port.

use jiff::Timestamp;

use super::group;
use crate::api::board::Board;
use crate::api::model::{EventKind, Truth};
use crate::api::server;

#[test]
fn the_board_keeps_times_of_changes_and_reports_them() {
    let board = Board::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    board.publish(vec![group("orders")], at(100));
    board.publish(vec![group("orders")], at(101));
    let (key, time) = (group("orders").summary.key(), |board: &Board| {
        board.snapshot().groups.values().next().unwrap().conditions[0].last_transition_time
    });
    assert_eq!(time(&board), at(100));
    let mut changed = group("orders");
    changed.summary.ready = Truth::False;
    changed.summary.reason = "RecordFailed".into();
    changed.conditions[0].status = Truth::False;
    board.publish(vec![changed], at(102));
    assert_eq!(time(&board), at(102));
    let events = board.events(&key);
    assert_eq!(
        (events.len(), events[0].kind, events[0].reason.as_ref()),
        (1, EventKind::Warning, "ReadyChanged")
    );
    for number in 0..200 {
        board.event(&key, EventKind::Normal, "Scaled", &format!("{number}"), at(103));
    }
    let events = board.events(&key);
    assert_eq!((events.len(), events[0].message.as_str()), (100, "199"));
    board.publish(Vec::new(), at(104));
    assert!(
        board.events(&key).is_empty(),
        "a group that is gone leaves nothing"
    );
    assert_eq!(board.points(&key, 0, None, 104), None);
}

#[tokio::test]
async fn a_taken_port_is_an_error_or_the_next_free_one_is_used() {
    let taken = server::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = taken.local_addr().unwrap();
    assert!(server::bind(address, false).await.is_err());
    let next = server::bind(address, true).await.unwrap().local_addr().unwrap();
    assert!(next.port() > address.port(), "{next}");
}
