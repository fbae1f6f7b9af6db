//! Live data as server-sent events. In: snapshots from the board. Out: `snapshot` first, then a `patch` when
//! something changed, `tick` when nothing did, and `bye` before the server ends. A patch is relative to what
//! this client has received, so a slow client receives fewer and larger patches, and nothing queues up.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::caller::{Caller, Visible};
use super::cluster::Right;
use super::model::{Group, Listed, Snapshot};
use super::parameters::{Parameters, group_of};
use super::patch::diff;
use super::problem::Problem;
use super::shared::{Shared, StreamPlace};
use crate::kafka::model::GroupKey;

/// A comment keeps proxies from closing an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time between two events of one stream.
const PAUSE: Duration = Duration::from_secs(1);
/// An unchanged stream says this often that its data is still current.
const TICK: Duration = Duration::from_secs(5);
/// A page shows one group, or some; the list has no filter.
const MAX_GROUPS: usize = 20;

/// Query parameters of the stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// `NAMESPACE/NAME,...`: only these groups, at most 20, with `partitionList` and `workerList`. Default: all
    /// groups, as in the list.
    groups: Option<String>,
}

/// Streams what is known of the groups, as server-sent events.
///
/// `snapshot` has `{asOf, groups: {"NAMESPACE/NAME": {...}}}`. `patch` has the same form: a JSON merge patch
/// (RFC 7396) for each group that changed, null for a group that is gone. `tick` has `asOf` only: nothing has
/// changed. `bye`: the stream ends, because the server ends or the user has no right any more; then it has a
/// `reason`.
#[utoipa::path(get, path = "/watch", tag = "groups", params(WatchQuery),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn watch(
    State(shared): State<Shared>,
    caller: Caller,
    Parameters(query): Parameters<WatchQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let only = query.groups.as_deref().map(keys).transpose()?;
    let allowed = Allowed::check(&caller, only.as_deref(), &shared.board.snapshot()).await?;
    let closed = shared.board.closed();
    if *closed.borrow() {
        return Err(Problem::shutting_down());
    }
    let user = match &caller {
        Caller::Anybody => None,
        Caller::User(session) => Some(session.user.name.as_str()),
    };
    let place = shared.streams.place(user)?;
    let client = Client {
        snapshots: shared.board.subscribe(),
        closed,
        caller,
        only,
        allowed,
        sent: None,
        last: Instant::now(),
        ended: false,
        _place: place,
    };
    let events = stream::unfold(client, |mut client| async move {
        let event = client.next().await?;
        Some((Ok(event), client))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn keys(text: &str) -> Result<Vec<GroupKey>, Problem> {
    let rule = format!("groups must be NAMESPACE/NAME, at most {MAX_GROUPS} of them, separated by commas");
    let invalid = |why: String| Problem::bad_request("InvalidQuery", format!("{why}; {rule}"));
    let count = text.split(',').count();
    if count > MAX_GROUPS {
        return Err(invalid(format!("there are {count} groups")));
    }
    text.split(',')
        .map(|key| group_of(key).map_err(invalid))
        .collect()
}

/// What a client may see, as of the last check.
struct Allowed {
    visible: Visible,
    at: Instant,
}

impl Allowed {
    /// Fails if the client may not see a group that it asks for, or none at all.
    async fn check(caller: &Caller, only: Option<&[GroupKey]>, snapshot: &Snapshot) -> Result<Self, Problem> {
        let visible = match only {
            None => caller.visible(snapshot, None).await?,
            Some(keys) => {
                for key in keys {
                    caller.require(Right::GetGroup, key).await?;
                }
                Visible::All
            }
        };
        Ok(Self {
            visible,
            at: Instant::now(),
        })
    }
}

struct Client {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    closed: watch::Receiver<bool>,
    caller: Caller,
    only: Option<Vec<GroupKey>>,
    allowed: Allowed,
    /// The groups as this client knows them; None before the first event. Their JSON is made again when it is
    /// compared: that of all partitions needs several times the memory of the group.
    sent: Option<BTreeMap<GroupKey, Arc<Group>>>,
    last: Instant,
    ended: bool,
    _place: StreamPlace,
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
            let closed = tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => true,
                () = tokio::time::sleep_until(self.last + PAUSE) => false,
            };
            if closed {
                return Some(self.bye(json!({})));
            }
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => continue,
                changed = self.snapshots.changed() => changed.ok()?,
            }
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            if let Err(problem) = self.check(&snapshot).await {
                return Some(self.bye(json!({"reason": problem.reason, "detail": problem.detail})));
            }
            let groups = self.changes(&snapshot);
            if !groups.is_empty() {
                return Some(self.event("patch", &snapshot, Some(groups)));
            }
            if self.last.elapsed() >= TICK {
                return Some(self.event("tick", &snapshot, None));
            }
        }
    }

    /// Asks again, after a while or about new namespaces, who this is and what they may see.
    async fn check(&mut self, snapshot: &Snapshot) -> Result<(), Problem> {
        let Some(time) = self.caller.recheck() else {
            return Ok(());
        };
        let due = self.allowed.at.elapsed() >= time;
        if !due && self.allowed.visible.covers(snapshot) {
            return Ok(());
        }
        self.caller = self.caller.again().await?;
        self.allowed = Allowed::check(&self.caller, self.only.as_deref(), snapshot).await?;
        Ok(())
    }

    fn bye(&mut self, why: Value) -> Event {
        self.ended = true;
        Event::default().event("bye").data(why.to_string())
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
        let mut sent = self.sent.take().unwrap_or_default();
        let mut changes = serde_json::Map::new();
        let name = |key: &GroupKey| format!("{}/{}", key.namespace, key.name);
        let shows = |key: &GroupKey| match &self.only {
            Some(only) => only.contains(key),
            None => self.allowed.visible.has(&key.namespace),
        };
        let detail = self.only.is_some();
        for (key, group) in snapshot.groups.iter().filter(|(key, _)| shows(key)) {
            match sent.get_mut(key) {
                Some(old) if Arc::ptr_eq(old, group) => {}
                Some(old) => {
                    if let Some(change) = diff(&value(old, detail), &value(group, detail)) {
                        changes.insert(name(key), change);
                    }
                    *old = Arc::clone(group);
                }
                None => {
                    changes.insert(name(key), value(group, detail).into_owned());
                    sent.insert(key.clone(), Arc::clone(group));
                }
            }
        }
        sent.retain(|key, _| {
            let stays = snapshot.groups.contains_key(key) && shows(key);
            if !stays {
                changes.insert(name(key), Value::Null);
            }
            stays
        });
        self.sent = Some(sent);
        changes
    }
}

/// The group as JSON: with partitions and workers, or as in lists.
fn value(group: &Group, detail: bool) -> Cow<'_, Value> {
    if detail {
        Cow::Owned(detailed(group))
    } else {
        Cow::Borrowed(Listed::of(group))
    }
}

/// The group with partitions and workers.
fn detailed(group: &Group) -> Value {
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
    let detail = Detail {
        group,
        partitions: &group.partitions,
        workers: &group.workers,
    };
    serde_json::to_value(detail).unwrap_or_default()
}
