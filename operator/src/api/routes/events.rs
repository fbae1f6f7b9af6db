//! Events of a group in a cluster, read in the name of the user. In: a session. Out: events, the latest first.

use axum::http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use kube::Resource as _;
use serde_json::Value;

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
    let mut events: Vec<Event> = Vec::new();
    let mut next = path.clone();
    for _ in 0..LISTS {
        let (found, more) = parsed(session.api_server().get(&next).await?)?;
        events.extend(found.into_iter().filter_map(shown));
        events.sort_by_key(|event| std::cmp::Reverse(event.time));
        events.truncate(MOST);
        let Some(more) = more else { break };
        next = format!("{path}&continue={more}");
    }
    Ok(events)
}

/// The events of a list, and where the next list begins.
fn parsed(mut list: Value) -> Result<(Vec<v1::Event>, Option<String>), Problem> {
    let unreadable = |why: &str| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ApiServerUnavailable",
            format!("the API server's list of events cannot be read: {why}; try kubectl get events"),
        )
    };
    let Some(items) = list.get_mut("items") else {
        return Err(unreadable("it has no items"));
    };
    let items: Option<Vec<v1::Event>> =
        serde_json::from_value(items.take()).map_err(|error| unreadable(&error.to_string()))?;
    let more = list["metadata"]["continue"].as_str().unwrap_or_default();
    // Base64 of URLs, which a query may have as it is.
    if !more
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err(unreadable("its field continue is not base64"));
    }
    let more = (!more.is_empty()).then(|| more.to_string());
    Ok((items.unwrap_or_default(), more))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_is_no_empty_list() {
        let event = json!({"metadata": {}, "involvedObject": {}});
        let (events, more) = parsed(json!({"metadata": {"continue": "a"}, "items": [event]})).unwrap();
        assert_eq!((events.len(), more.as_deref()), (1, Some("a")));
        assert_eq!(parsed(json!({"items": null})).unwrap(), (Vec::new(), None));
        for list in [
            json!({}),
            json!("none"),
            json!({"items": "none"}),
            json!({"items": [{"metadata": {}, "involvedObject": {}, "count": "many"}]}),
            json!({"metadata": {"continue": "a&limit=1"}, "items": []}),
        ] {
            let problem = parsed(list).unwrap_err();
            assert_eq!((problem.status, problem.reason), (503, "ApiServerUnavailable"));
            assert!(
                problem.detail.contains("kubectl get events"),
                "{}",
                problem.detail
            );
        }
    }
}
