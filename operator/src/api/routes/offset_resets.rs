//! The routes for resets of committed offsets. Each reset is a KafkaOffsetReset, which is created, read and
//! deleted in the name of the user: the API server checks the rights and the spec.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, LOCATION};
use crds::names::API_GROUP;
use crds::offset_reset::KafkaOffsetResetSpec;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::change::Body;
use super::groups::find;
use super::lists::List;
use crate::api::caller::{Caller, Session};
use crate::api::cluster::Cluster;
use crate::api::parameters::{GroupPath, ResetPath, group_key};
use crate::api::problem::Problem;
use crate::api::resource::resets_path;
use crate::api::shared::{Backend, Shared};
use crate::kafka::model::GroupKey;

/// Resets in one answer, the newest.
const LISTED: usize = 100;
/// Resets in one answer of the API server: each may have a plan of some 100 kB.
const PAGE: usize = 20;
/// Answers that are read: 1,000 resets in a namespace.
const PAGES: usize = 50;
/// How long dry runs that this API creates are kept, unless the request says otherwise.
const DRY_RUN_SECONDS: i64 = 3600;
const EXPECTED: &str = r#"send for example {"to": {"type": "Earliest"}, "dryRun": true}, as spec of a KafkaOffsetReset without groupRef"#;

/// A reset of the committed offsets of a group.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffsetReset {
    /// Name of the KafkaOffsetReset.
    name: String,
    /// When it was created.
    created_at: Option<String>,
    /// As in the resource KafkaOffsetReset.
    #[schema(value_type = Object)]
    spec: Value,
    /// As in the resource KafkaOffsetReset; in lists without `partitions`. Empty until the operator has looked at
    /// it.
    #[schema(value_type = Object)]
    status: Value,
}

/// Resets of a group, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct OffsetResets {
    /// At most 100.
    items: Vec<OffsetReset>,
}

/// The body of a request for a reset: the spec of a KafkaOffsetReset without groupRef, and its name.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "documents the body, which is read as the spec of the resource"
)]
pub struct OffsetResetRequest {
    /// Name of the resource. Default: the name of the group and a random suffix. A request that is repeated
    /// with the same name is answered by 409 instead of a second reset.
    name: Option<String>,
    /// `{"type": "Earliest"}`, `Latest`, `Timestamp` with `timestamp`, `Offsets` with `offsets`, or `Shift` with
    /// `by`.
    #[schema(value_type = Object)]
    to: Value,
    /// Topics, each with `partitions` for some of them. Default: all partitions of all topics.
    #[schema(value_type = Vec<Object>)]
    topics: Option<Vec<Value>>,
    /// Only show what would change. Default: false.
    dry_run: Option<bool>,
    /// Stop the workers, reset, and start them again. Default: false.
    stop_group: Option<bool>,
    /// Seconds after which the resource is deleted, counted from its end. Default: 3600 for a dry run,
    /// otherwise it stays.
    ttl_seconds_after_finished: Option<i64>,
}

type Created = (StatusCode, [(HeaderName, String); 1], Json<OffsetReset>);

/// Sets the committed offsets of a group, or shows what would change.
#[utoipa::path(post, path = "/groups/{namespace}/{name}/offset-resets", tag = "offsets",
    params(("namespace" = String, Path), ("name" = String, Path)),
    request_body = OffsetResetRequest,
    responses(
        (status = 201, description = "Created; Location is its path", body = OffsetReset),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn post(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
    body: Body,
) -> Result<Created, Problem> {
    let (session, cluster) = in_cluster(&caller, &shared)?;
    let _slot = cluster.write_slot()?;
    find(&shared, &caller, &key).await?;
    let (name, spec) = parsed(&key, &body.bytes().await?)?;
    let metadata = match name {
        Some(name) => json!({"name": name}),
        None => json!({"generateName": format!("{}-", key.name)}),
    };
    let resource = json!({
        "apiVersion": format!("{API_GROUP}/v1alpha1"),
        "kind": "KafkaOffsetReset",
        "metadata": metadata,
        "spec": spec,
    });
    let created = session
        .api_server()
        .create(&resets_path(&key.namespace), &resource)
        .await?;
    let reset = OffsetReset::of(created);
    let location = format!(
        "/api/v1/groups/{}/{}/offset-resets/{}",
        key.namespace, key.name, reset.name
    );
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(reset)))
}

/// The resets of a group.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/offset-resets", tag = "offsets",
    params(("namespace" = String, Path), ("name" = String, Path)),
    responses(
        (status = 200, body = OffsetResets),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    GroupPath(key): GroupPath,
) -> Result<Json<OffsetResets>, Problem> {
    let (session, _) = in_cluster(&caller, &shared)?;
    find(&shared, &caller, &key).await?;
    let path = format!("{}?limit={PAGE}", resets_path(&key.namespace));
    let list = List {
        path: &path,
        most: PAGES,
        resource: "kafkaoffsetresets",
    };
    let mut items: Vec<OffsetReset> = Vec::new();
    let take = |found: Vec<Value>| {
        let of_group = found.into_iter().filter(|reset| is_of(reset, &key));
        items.extend(of_group.map(OffsetReset::of).map(OffsetReset::without_plan));
        items.sort_by(|one, other| (&other.created_at, &other.name).cmp(&(&one.created_at, &one.name)));
        items.truncate(LISTED);
    };
    list.read(session, take).await?;
    Ok(Json(OffsetResets { items }))
}

/// One reset, with its plan.
#[utoipa::path(get, path = "/groups/{namespace}/{name}/offset-resets/{reset}", tag = "offsets",
    params(("namespace" = String, Path), ("name" = String, Path), ("reset" = String, Path)),
    responses(
        (status = 200, body = OffsetReset),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    ResetPath(key, reset): ResetPath,
) -> Result<Json<OffsetReset>, Problem> {
    let (session, _) = in_cluster(&caller, &shared)?;
    find(&shared, &caller, &key).await?;
    Ok(Json(OffsetReset::of(read(session, &key, &reset).await?)))
}

/// Deletes a reset. One that is not finished ends: what it has committed stays.
#[utoipa::path(delete, path = "/groups/{namespace}/{name}/offset-resets/{reset}", tag = "offsets",
    params(("namespace" = String, Path), ("name" = String, Path), ("reset" = String, Path)),
    responses(
        (status = 200, description = "Deleted; as it was before", body = OffsetReset),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    ResetPath(key, reset): ResetPath,
) -> Result<Json<OffsetReset>, Problem> {
    let (session, cluster) = in_cluster(&caller, &shared)?;
    let _slot = cluster.write_slot()?;
    find(&shared, &caller, &key).await?;
    let found = read(session, &key, &reset).await?;
    let path = format!("{}/{reset}", resets_path(&key.namespace));
    session.api_server().delete(&path).await?;
    Ok(Json(OffsetReset::of(found)))
}

impl OffsetReset {
    fn of(mut resource: Value) -> Self {
        let text = |value: &Value| value.as_str().map(String::from);
        Self {
            name: text(&resource["metadata"]["name"]).unwrap_or_default(),
            created_at: text(&resource["metadata"]["creationTimestamp"]),
            spec: resource["spec"].take(),
            status: match resource["status"].take() {
                Value::Null => json!({}),
                status => status,
            },
        }
    }

    fn without_plan(mut self) -> Self {
        if let Some(status) = self.status.as_object_mut() {
            status.remove("partitions");
        }
        self
    }
}

fn in_cluster<'a>(caller: &'a Caller, shared: &'a Shared) -> Result<(&'a Session, &'a Cluster), Problem> {
    match (caller, &shared.backend) {
        (Caller::User(session), Backend::Cluster(cluster)) => Ok((session, cluster)),
        _ => Err(Problem::new(
            StatusCode::CONFLICT,
            "NotInLocalMode",
            "local mode has no resources for resets; end it and run `kafka-consumer-operator local reset`",
        )),
    }
}

fn is_of(resource: &Value, key: &GroupKey) -> bool {
    resource["spec"]["groupRef"]["name"] == key.name.as_str()
}

async fn read(session: &Session, key: &GroupKey, reset: &str) -> Result<Value, Problem> {
    let not_found = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "OffsetResetNotFound",
            format!(
                "the group {}/{} has no reset \"{reset}\"; it may have been deleted after its ttlSecondsAfterFinished",
                key.namespace, key.name
            ),
        )
    };
    let path = format!("{}/{reset}", resets_path(&key.namespace));
    match session.api_server().get(&path).await {
        Ok(resource) if is_of(&resource, key) => Ok(resource),
        Ok(_) => Err(not_found()),
        Err(problem) if problem.status == 404 => Err(not_found()),
        Err(problem) => Err(problem),
    }
}

/// The name and the spec from a body. The rules of the spec are checked by the API server.
fn parsed(key: &GroupKey, body: &[u8]) -> Result<(Option<String>, KafkaOffsetResetSpec), Problem> {
    let invalid = |why: String| Problem::bad_request("InvalidBody", format!("{why}; {EXPECTED}"));
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not JSON: {error}")))?;
    let object = value
        .as_object_mut()
        .ok_or_else(|| invalid("the body is not an object".into()))?;
    if object.contains_key("groupRef") {
        return Err(invalid(
            "the path names the group, so groupRef is not allowed".into(),
        ));
    }
    let name = match object.remove("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(group_key(&key.namespace, &name).map_err(invalid)?.name),
        Some(_) => return Err(invalid("name is not a string".into())),
    };
    object.insert("groupRef".into(), json!({"name": key.name}));
    let mut spec: KafkaOffsetResetSpec =
        serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    if spec.dry_run {
        spec.ttl_seconds_after_finished.get_or_insert(DRY_RUN_SECONDS);
    }
    Ok((name, spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_spec_without_the_group() {
        let key = GroupKey::new("shop", "orders");
        let of = |body: &str| parsed(&key, body.as_bytes()).map(|(_, spec)| spec);
        let named = parsed(&key, br#"{"name": "again", "to": {"type": "Latest"}}"#).unwrap();
        assert_eq!(named.0.as_deref(), Some("again"));
        let dry = of(r#"{"to": {"type": "Shift", "by": -5}, "dryRun": true}"#).unwrap();
        assert_eq!(
            (
                dry.group_ref.name.as_str(),
                dry.to.by,
                dry.ttl_seconds_after_finished
            ),
            ("orders", Some(-5), Some(DRY_RUN_SECONDS))
        );
        let real = of(r#"{"to": {"type": "Earliest"}, "stopGroup": true}"#).unwrap();
        assert!(real.stop_group && real.ttl_seconds_after_finished.is_none());
        for (body, why) in [
            ("", "not JSON"),
            ("[]", "not an object"),
            ("{}", "missing field `to`"),
            (r#"{"to": {"type": "earliest"}}"#, "unknown variant"),
            (
                r#"{"to": {"type": "Latest"}, "force": true}"#,
                "unknown field `force`",
            ),
            (r#"{"name": "A", "to": {"type": "Latest"}}"#, "DNS subdomain"),
            (r#"{"name": 1, "to": {"type": "Latest"}}"#, "not a string"),
            (
                r#"{"to": {"type": "Latest"}, "groupRef": {"name": "other"}}"#,
                "groupRef is not allowed",
            ),
        ] {
            let problem = of(body).unwrap_err();
            assert_eq!((problem.status, problem.reason), (400, "InvalidBody"), "{body}");
            assert!(
                problem.detail.contains(why) && problem.detail.contains(EXPECTED),
                "{body}: {}",
                problem.detail
            );
        }
    }
}
