//! Routes that read groups.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::events;
use crate::api::caller::Caller;
use crate::api::cluster::Right;
use crate::api::list::ListQuery;
use crate::api::model::{Event, Group, Partition, Summary, Worker};
use crate::api::parameters::{GroupPath, Parameters, namespace};
use crate::api::problem::Problem;
use crate::api::series::{Points, RESOLUTIONS};
use crate::api::shared::Shared;
use crate::kafka::model::GroupKey;

/// One page of groups.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupList {
    items: Vec<Summary>,
    /// Value of `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
    /// Number of groups that the filters select, on all pages.
    total: usize,
    /// Time of what is shown.
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// A complete list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    items: Vec<T>,
    /// Time of what is shown.
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// Finds the group of a path, if the caller may see it. Without the right, the answer does not say whether the
/// group exists.
pub(super) async fn find(
    shared: &Shared,
    caller: &Caller,
    key: &GroupKey,
) -> Result<(Arc<Group>, Timestamp), Problem> {
    caller.require(Right::GetGroup, key).await?;
    let snapshot = shared.board.snapshot();
    let group = snapshot.groups.get(key).cloned();
    Ok((group.ok_or_else(|| Problem::no_group(key))?, snapshot.as_of))
}

/// Lists groups.
#[utoipa::path(get, path = "/groups", tag = "groups", params(ListQuery),
    responses(
        (status = 200, body = GroupList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<GroupList>, Problem> {
    if let Some(text) = &query.namespace {
        namespace(text).map_err(|why| Problem::bad_request("InvalidQuery", why))?;
    }
    let snapshot = shared.board.snapshot();
    let visible = caller.visible(&snapshot, query.namespace.as_deref()).await?;
    let groups = snapshot.groups.values().map(|group| &group.summary);
    let page = query.page(groups.filter(|group| visible.has(&group.namespace)))?;
    Ok(Json(GroupList {
        items: page.items.into_iter().cloned().collect(),
        next_cursor: page.next_cursor,
        total: page.total,
        as_of: snapshot.as_of,
    }))
}

/// Shows one group.
#[utoipa::path(get, path = "/groups/{namespace}/{name}", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = Group),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<Json<Group>, Problem> {
    let (group, _) = find(&shared, &caller, &key).await?;
    Ok(Json(Group::clone(&group)))
}

/// Lists the partitions of the input topics.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/partitions", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = List<Partition>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn partitions(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<Json<List<Partition>>, Problem> {
    let (group, as_of) = find(&shared, &caller, &key).await?;
    let items = group.partitions.clone();
    Ok(Json(List { items, as_of }))
}

/// Lists the workers.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/workers", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = List<Worker>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn workers(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<Json<List<Worker>>, Problem> {
    let (group, as_of) = find(&shared, &caller, &key).await?;
    let items = group.workers.clone();
    Ok(Json(List { items, as_of }))
}

/// Lists the last events, the latest first. In a cluster, the user needs the right to list events.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/events", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = List<Event>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<Json<List<Event>>, Problem> {
    let (_, as_of) = find(&shared, &caller, &key).await?;
    let items = match &caller {
        Caller::Anybody => shared.board.events(&key),
        Caller::User(session) => events::of(session, &key).await?,
    };
    Ok(Json(List { items, as_of }))
}

/// Query parameters of a history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SeriesQuery {
    /// `lag`, `in`, `done` and `replicas`, separated by commas. Default: all.
    metric: Option<String>,
    /// First time, for example 2026-11-30T08:00:00Z. Default: 10 minutes ago.
    since: Option<String>,
    /// Seconds between two points: 2 (kept for 10 minutes, in local mode only), 15 (an hour), 60 (6 hours) or
    /// 900 (7 days). Default: the finest that reaches back to `since`.
    step: Option<i64>,
}

/// Shows the history of a group, as points of equal distance.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/series", tag = "groups",
    params(("namespace" = String, Path), ("name" = String, Path), SeriesQuery),
    responses(
        (status = 200, body = Points),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn series(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
    Parameters(query): Parameters<SeriesQuery>,
) -> Result<Json<Points>, Problem> {
    let invalid = |detail: String| Problem::bad_request("InvalidQuery", detail);
    let now = Timestamp::now().as_second();
    let since = match &query.since {
        None => now - 600,
        Some(text) => {
            let time: Timestamp = text.parse().map_err(|_| {
                invalid(format!(
                    "since is \"{text}\"; write a time such as 2026-11-30T08:00:00Z"
                ))
            })?;
            time.as_second()
        }
    };
    if let Some(step) = query.step
        && RESOLUTIONS.iter().all(|resolution| resolution.step != step)
    {
        return Err(invalid(format!("step is {step}; it must be 2, 15, 60 or 900")));
    }
    find(&shared, &caller, &key).await?;
    let points = shared.board.points(&key, since, query.step, now);
    let mut points = points.ok_or_else(|| Problem::no_group(&key))?;
    if let Some(metrics) = &query.metric {
        let metrics: Vec<&str> = metrics.split(',').map(str::trim).collect();
        if let Some(wrong) = metrics
            .iter()
            .find(|name| !["lag", "in", "done", "replicas"].contains(name))
        {
            let detail = format!("metric has \"{wrong}\"; it must be lag, in, done or replicas");
            return Err(invalid(detail));
        }
        let wanted = |name: &str| metrics.contains(&name);
        points.lag = points.lag.filter(|_| wanted("lag"));
        points.incoming = points.incoming.filter(|_| wanted("in"));
        points.done = points.done.filter(|_| wanted("done"));
        points.replicas = points.replicas.filter(|_| wanted("replicas"));
    }
    Ok(Json(points))
}
