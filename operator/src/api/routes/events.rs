//! Events of a group in a cluster, read in the name of the user. In: a session. Out: events, the latest first.

use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use kube::Resource as _;

use super::lists::List;
use crate::api::caller::Session;
use crate::api::model::{Event, EventKind};
use crate::api::problem::Problem;
use crate::kafka::model::GroupKey;

/// Events that are shown; the API server keeps them for an hour.
const MOST: usize = 100;
/// Lists that are read: 5,000 events. The API server lists by name and not by time, so the latest events may be
/// in the last one.
const LISTS: usize = 10;

/// The latest events about a group.
pub async fn of(session: &Session, key: &GroupKey) -> Result<Vec<Event>, Problem> {
    let kind = crds::KafkaConsumerGroup::kind(&());
    let path = format!(
        "/api/v1/namespaces/{}/events?limit=500&fieldSelector=involvedObject.kind%3D{kind},involvedObject.name%3D{}",
        key.namespace, key.name
    );
    let list = List {
        path: &path,
        most: LISTS,
        resource: "events",
    };
    let mut events: Vec<Event> = Vec::new();
    let take = |found: Vec<v1::Event>| {
        events.extend(found.into_iter().filter_map(shown));
        events.sort_by_key(|event| std::cmp::Reverse(event.time));
        events.truncate(MOST);
    };
    list.read(session, take).await?;
    Ok(events)
}

fn shown(event: v1::Event) -> Option<Event> {
    let series = event.series.and_then(|series| series.last_observed_time);
    let precise = series.or(event.event_time).map(|time| time.0);
    let time: Timestamp = precise
        .or(event.last_timestamp.map(|time| time.0))
        .or(event.metadata.creation_timestamp.map(|time| time.0))?;
    Some(Event {
        time,
        kind: match event.type_.as_deref() {
            Some("Warning") => EventKind::Warning,
            _ => EventKind::Normal,
        },
        reason: event.reason.unwrap_or_default().into(),
        message: event.message.unwrap_or_default(),
    })
}
