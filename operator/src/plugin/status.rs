//! `status`: reads groups and what belongs to them. In: arguments. Out: text, JSON or YAML, and whether all is
//! well. What cannot be read beside the group is named and does not hide the rest.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{Output, StatusArgs};
use super::cluster::{Cluster, escaped};
use super::detail::detail;
use super::detail::found::{Beside, Found};
use super::error::Error;
use super::overview::overview;
use super::terminal::Terminal;
use super::view::GroupView;
use super::{DONE, NOT_WELL};
use crate::api::resource::resets_path;
use crate::kafka::model::GroupKey;

pub async fn run(cluster: &Cluster, args: &StatusArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let groups = match &args.group {
        Some(name) => vec![GroupView::read(cluster, name).await?],
        None => GroupView::read_all(cluster, args.all_namespaces).await?,
    };
    let code = match groups.iter().all(GroupView::is_well) {
        true => DONE,
        false => NOT_WELL,
    };
    let wide = args.output == Some(Output::Wide);
    match (args.output, &args.group, &groups[..]) {
        (Some(Output::Json), ..) => {
            let text = serde_json::to_string_pretty(&resources(args, groups));
            terminal.print(&text.map_err(|error| Error::Unreadable(error.to_string()))?)?;
        }
        (Some(Output::Yaml), ..) => {
            let text = serde_yaml::to_string(&resources(args, groups));
            terminal.print(&text.map_err(|error| Error::Unreadable(error.to_string()))?)?;
        }
        (_, Some(_), [group]) => {
            let beside = beside(cluster, group).await;
            terminal.print(&detail(group, &beside, wide, Timestamp::now()))?;
        }
        (_, _, []) => {
            let place = match args.all_namespaces {
                true => "in this cluster".into(),
                false => format!(
                    "in namespace {}; -A lists those of all namespaces",
                    cluster.namespace
                ),
            };
            terminal.note(&format!("there are no KafkaConsumerGroups {place}"))?;
        }
        _ => terminal.print(&overview(&groups, args.all_namespaces, wide, Timestamp::now()))?,
    }
    Ok(code)
}

/// One resource, or a list as kubectl prints it.
fn resources(args: &StatusArgs, groups: Vec<GroupView>) -> Value {
    let mut resources: Vec<Value> = groups
        .into_iter()
        .map(|group| without_managers(group.resource))
        .collect();
    match (&args.group, resources.pop()) {
        (Some(_), Some(only)) => only,
        (_, last) => {
            resources.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": resources})
        }
    }
}

fn without_managers(mut resource: Value) -> Value {
    if let Some(metadata) = resource["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    resource
}

/// Resets and Events of a group.
pub async fn beside(cluster: &Cluster, group: &GroupView) -> Beside {
    let resets_path = resets_path(&group.key.namespace);
    let (resets, events) = tokio::join!(cluster.list(&resets_path, ""), events(cluster, &group.key));
    let of_group = |reset: &Value| reset["spec"]["groupRef"]["name"] == group.key.name.as_str();
    Beside {
        resets: Found::of(resets.map(|resets| resets.into_iter().filter(of_group).collect())),
        events: Found::of(events),
    }
}

/// The Events of a group.
async fn events(cluster: &Cluster, group: &GroupKey) -> Result<Vec<Value>, Error> {
    let path = format!("/api/v1/namespaces/{}/events", group.namespace);
    let selector = format!(
        "involvedObject.kind=KafkaConsumerGroup,involvedObject.name={}",
        group.name
    );
    cluster
        .list(&path, &format!("&fieldSelector={}", escaped(&selector)))
        .await
}
