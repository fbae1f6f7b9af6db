//! Live data as server-sent events. In: snapshots from the board. Out: `snapshot` first, then a `patch` when
//! something changed, `tick` when nothing did, and `bye` before the server ends. A patch is relative to what
//! this client has received, so a slow client receives fewer and larger patches, and nothing queues up.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use utoipa::IntoParams;

use super::model::{Group, Snapshot};
use super::parameters::Parameters;
use super::patch::diff;
use super::problem::Problem;
use super::shared::Shared;
use crate::kafka::model::GroupKey;

/// A comment keeps proxies from closing an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time between two events of one stream.
const PAUSE: Duration = Duration::from_secs(1);
/// An unchanged stream says this often that its data is still current.
const TICK: Duration = Duration::from_secs(5);
/// A page shows one group, or some; the list has no filter.
const MAX_GROUPS: usize = 100;

/// Query parameters of the stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// `NAMESPACE/NAME,...`: only these groups, with `partitionList` and `workerList`. Default: all groups, as
    /// in the list.
    groups: Option<String>,
}

/// Streams what is known of the groups, as server-sent events.
///
/// `snapshot` has `{asOf, groups: {"NAMESPACE/NAME": {...}}}`. `patch` has the same form: a JSON merge patch
/// (RFC 7396) for each group that changed, null for a group that is gone. `tick` has `asOf` only: nothing has
/// changed. `bye`: the server ends.
#[utoipa::path(get, path = "/watch", tag = "groups", params(WatchQuery),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn watch(
    State(shared): State<Shared>,
    Parameters(query): Parameters<WatchQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let only = query.groups.as_deref().map(keys).transpose()?;
    let closed = shared.board.closed();
    if *closed.borrow() {
        return Err(Problem::shutting_down());
    }
    let permit = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyStreams",
            "200 streams are open already; close some, or poll /api/v1/groups",
        )
    })?;
    let client = Client {
        snapshots: shared.board.subscribe(),
        closed,
        only,
        sent: None,
        last: Instant::now(),
        ended: false,
        _permit: permit,
    };
    let events = stream::unfold(client, |mut client| async move {
        let event = client.next().await?;
        Some((Ok(event), client))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn keys(text: &str) -> Result<Vec<GroupKey>, Problem> {
    let keys: Option<Vec<GroupKey>> = text
        .split(',')
        .map(|key| {
            key.split_once('/')
                .map(|(namespace, name)| GroupKey::new(namespace, name))
        })
        .collect();
    let keys = keys.filter(|keys| keys.len() <= MAX_GROUPS);
    keys.ok_or_else(|| {
        let detail =
            format!("groups must be NAMESPACE/NAME, at most {MAX_GROUPS} of them, separated by commas");
        Problem::bad_request("InvalidQuery", detail)
    })
}

/// A group as this client knows it.
struct Sent {
    group: Arc<Group>,
    value: Value,
}

struct Client {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    closed: watch::Receiver<bool>,
    only: Option<Vec<GroupKey>>,
    /// None before the first event.
    sent: Option<BTreeMap<GroupKey, Sent>>,
    last: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        if self.sent.is_none() {
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            let groups = self.changes(&snapshot);
            return Some(self.event("snapshot", &snapshot, Some(groups)));
        }
        loop {
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => {
                    self.ended = true;
                    return Some(Event::default().event("bye").data("{}"));
                }
                () = tokio::time::sleep_until(self.last + PAUSE) => {}
            }
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => continue,
                changed = self.snapshots.changed() => changed.ok()?,
            }
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            let groups = self.changes(&snapshot);
            if !groups.is_empty() {
                return Some(self.event("patch", &snapshot, Some(groups)));
            }
            if self.last.elapsed() >= TICK {
                return Some(self.event("tick", &snapshot, None));
            }
        }
    }

    fn event(
        &mut self,
        kind: &str,
        snapshot: &Snapshot,
        groups: Option<serde_json::Map<String, Value>>,
    ) -> Event {
        self.last = Instant::now();
        let mut data = json!({"asOf": snapshot.as_of});
        if let Some(groups) = groups {
            data["groups"] = Value::Object(groups);
        }
        Event::default().event(kind).data(data.to_string())
    }

    /// What has changed since the last call, by group.
    fn changes(&mut self, snapshot: &Snapshot) -> serde_json::Map<String, Value> {
        let mut before = self.sent.take().unwrap_or_default();
        let mut changes = serde_json::Map::new();
        let mut now = BTreeMap::new();
        for (key, group) in &snapshot.groups {
            if self.only.as_ref().is_some_and(|only| !only.contains(key)) {
                continue;
            }
            let old = match before.remove(key) {
                Some(old) if Arc::ptr_eq(&old.group, group) => {
                    now.insert(key.clone(), old);
                    continue;
                }
                old => old,
            };
            let value = shown(group, self.only.is_some());
            let change = match &old {
                Some(old) => diff(&old.value, &value),
                None => Some(value.clone()),
            };
            if let Some(change) = change {
                changes.insert(format!("{}/{}", key.namespace, key.name), change);
            }
            let group = Arc::clone(group);
            now.insert(key.clone(), Sent { group, value });
        }
        for key in before.keys().filter(|key| !now.contains_key(*key)) {
            changes.insert(format!("{}/{}", key.namespace, key.name), Value::Null);
        }
        self.sent = Some(now);
        changes
    }
}

/// The group with partitions and workers, or as in the list.
fn shown(group: &Group, detail: bool) -> Value {
    #[derive(Serialize)]
    struct Detail<'a> {
        #[serde(flatten)]
        group: &'a Group,
        #[serde(rename = "partitionList")]
        partitions: &'a [super::model::Partition],
        // "workers" is the number of them.
        #[serde(rename = "workerList")]
        workers: &'a [super::model::Worker],
    }
    let value = if detail {
        serde_json::to_value(Detail {
            group,
            partitions: &group.partitions,
            workers: &group.workers,
        })
    } else {
        serde_json::to_value(&group.summary)
    };
    value.unwrap_or_default()
}
