//! `report`: what a maintainer needs for a bug report. In: a group. Out: a zip file or a folder with resources,
//! Events and logs. Never asks for a Secret or a ConfigMap; removes literal values. What cannot be read is listed
//! with the reason.

mod archive;
mod redact;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::archive::{File, store};
use self::redact::{redacted, without_login};
use super::DONE;
use super::args::ReportArgs;
use super::cluster::{Cluster, escaped};
use super::detail::detail;
use super::error::Error;
use super::logs::{path, pods};
use super::status::beside;
use super::terminal::Terminal;
use super::view::{GroupView, named};
use crate::api::resource::{deployment_path, resets_path};

/// Last lines of each log.
const LINES: u32 = 1_000;
/// `app.kubernetes.io/name` of the pods of the operator.
const OPERATOR: &str = "app.kubernetes.io/name=kafka-consumer-operator";

/// The files, and what is missing.
#[derive(Default)]
struct Report {
    files: Vec<File>,
    missing: Vec<String>,
}

impl Report {
    fn add(&mut self, name: &str, read: Result<String, Error>) {
        match read {
            Ok(text) => self.files.push((name.into(), text)),
            Err(error) => self.missing.push(format!("{name}: {error}")),
        }
    }

    fn add_yaml(&mut self, name: &str, read: Result<Value, Error>) {
        let text = read.and_then(|resource| {
            let text = serde_yaml::to_string(&redacted(resource));
            text.map_err(|error| Error::Unreadable(error.to_string()))
        });
        self.add(name, text);
    }

    fn add_list(&mut self, name: &str, read: Result<Vec<Value>, Error>) {
        let redacted = read.map(|items| items.into_iter().map(redacted).collect::<Vec<_>>());
        self.add_yaml(name, redacted.map(|items| json!({"items": items})));
    }
}

pub async fn run(cluster: &Cluster, args: &ReportArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    let now = Timestamp::now();
    let mut report = Report::default();
    resources(cluster, &group, now, &mut report).await;
    worker_logs(cluster, &group, &mut report).await;
    operator(cluster, &group, &mut report).await;
    let head = head(&group, &report.missing, now);
    report.files.insert(0, ("report.txt".into(), head));
    let target = args.file.clone().unwrap_or_else(|| default_name(&group, now));
    store(&target, &report.files).map_err(|error| {
        Error::Impossible(format!(
            "cannot write {}: {error}; name another with -f",
            target.display()
        ))
    })?;
    for missing in &report.missing {
        terminal.note(&format!("not in the report: {missing}"))?;
    }
    terminal.print(&format!(
        "{}: {} files. Secrets and ConfigMaps are not read, and literal values are replaced; read it before you send it, because logs and programs are in it as they are",
        target.display(),
        report.files.len()
    ))?;
    Ok(DONE)
}

fn default_name(group: &GroupView, now: Timestamp) -> PathBuf {
    let time = now.strftime("%Y%m%d-%H%M%S");
    let name = format!("kcg-report-{}-{}-{time}.zip", group.key.namespace, group.key.name);
    name.into()
}

fn head(group: &GroupView, missing: &[String], now: Timestamp) -> String {
    let mut text = format!(
        "Report of {}/{}\ntime: {now}\nplugin: {}\nworker image: {}\noperator (namespace/lease): {}\n",
        group.key.namespace,
        group.key.name,
        env!("CARGO_PKG_VERSION"),
        group.status.worker_image.as_deref().unwrap_or("unknown"),
        group.status.operator.as_deref().unwrap_or("unknown"),
    );
    text.push_str(match missing.is_empty() {
        true => "\nEverything could be read.\n",
        false => "\nCould not be read:\n",
    });
    for missing in missing {
        text.push_str(&format!("- {missing}\n"));
    }
    text
}

async fn resources(cluster: &Cluster, group: &GroupView, now: Timestamp, report: &mut Report) {
    let namespace = &group.key.namespace;
    let screen = detail(group, &beside(cluster, group).await, true, now);
    report.add("status.txt", Ok(without_login(&screen)));
    report.add_yaml("group.yaml", Ok(group.resource.clone()));
    let deployment = deployment_path(&group.deployment());
    report.add_yaml("deployment.yaml", cluster.get(&deployment).await);
    report.add_list("pods.yaml", pods(cluster, group).await);
    let resets = cluster.list(&resets_path(namespace), "").await;
    let of_group = |reset: &Value| reset["spec"]["groupRef"]["name"] == group.key.name.as_str();
    let resets = resets.map(|resets| resets.into_iter().filter(of_group).collect());
    report.add_list("offset-resets.yaml", resets);
    let events = cluster
        .list(&format!("/api/v1/namespaces/{namespace}/events"), "")
        .await;
    let events = events.map(|events| events.into_iter().filter(|event| is_of(event, group)).collect());
    report.add_list("events.yaml", events);
    report.add("cluster-version.json", cluster.text("/version").await);
}

/// Whether an Event is of the group, or of its Deployment or a ReplicaSet or pod of it.
fn is_of(event: &Value, group: &GroupView) -> bool {
    let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
    let child = group.deployment().name;
    name == group.key.name
        || name
            .strip_prefix(&child)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

async fn worker_logs(cluster: &Cluster, group: &GroupView, report: &mut Report) {
    // Listed as missing with pods.yaml.
    let Ok(pods) = pods(cluster, group).await else {
        return;
    };
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let log = cluster.text(&path(group, name, false, false, LINES)).await;
        report.add(&format!("logs/{name}.log"), log);
        if has_restarted(&pod) {
            let log = cluster.text(&path(group, name, false, true, LINES)).await;
            report.add(&format!("logs/{name}.previous.log"), log);
        }
    }
}

fn has_restarted(pod: &Value) -> bool {
    let mut containers = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    containers.any(|container| container["restartCount"].as_i64().unwrap_or(0) > 0)
}

/// The pods and logs of the operator, which users of a namespace often may not read.
async fn operator(cluster: &Cluster, group: &GroupView, report: &mut Report) {
    let lease = group.status.operator.as_deref().unwrap_or_default();
    let namespace = lease.split_once('/').map(|(namespace, _)| namespace);
    let path = match namespace.and_then(|namespace| named(namespace).ok()) {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        None => "/api/v1/pods".into(),
    };
    let pods = cluster
        .list(&path, &format!("&labelSelector={}", escaped(OPERATOR)))
        .await;
    let names: Vec<(String, String)> = pods
        .iter()
        .flatten()
        .filter_map(|pod| {
            let text = |field: &str| pod["metadata"][field].as_str().map(String::from);
            Some((text("namespace")?, text("name")?))
        })
        .collect();
    report.add_list("operator/pods.yaml", pods);
    for (namespace, name) in names {
        let log = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?tailLines={LINES}");
        report.add(&format!("operator/{name}.log"), cluster.text(&log).await);
    }
}
