//! The Kubernetes side of a test: kubectl as users run it, the group's resource, its pods, and killing their
//! processes.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use crds::{KafkaConsumerGroup, names};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::systems::{
    command::{self, CommandOutput},
    install,
    local::program,
    wait::until,
    world::World,
};

impl World {
    /// `kubectl ARGUMENTS` in the scenario's namespace.
    pub async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<CommandOutput> {
        command::run(
            "kubectl",
            &[&["--namespace", &self.namespace], arguments].concat(),
            input,
        )
        .await
    }

    /// `kubectl kcg ARGUMENTS` in the scenario's namespace, with the plugin of this workspace.
    pub async fn kcg(&self, arguments: &[&str]) -> Result<CommandOutput> {
        let namespace = ["--namespace", self.namespace.as_str()];
        command::run(program("kubectl-kcg")?, &[arguments, &namespace].concat(), None).await
    }

    /// `kubectl apply --server-side` of YAML or JSON; the output shows whether the API server accepted it.
    pub async fn try_apply(&self, manifest: &str) -> Result<CommandOutput> {
        self.kubectl(
            &["apply", "--server-side", "--field-manager=e2e", "-f", "-"],
            Some(manifest),
        )
        .await
    }

    /// The same; a rejection is an error.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        self.try_apply(manifest).await?.ok("kubectl apply").map(drop)
    }

    /// A KafkaConsumerGroup as JSON: the cluster's Kafka and fast settings, with `spec` merged over them.
    pub fn group_manifest(&self, name: &str, spec: Value) -> Value {
        let mut whole = json!({
            "kafka": {"bootstrapServers": [self.env.kafka]},
            "processing": {"commitIntervalMilliseconds": 200},
            "worker": {
                "terminationGracePeriodSeconds": 20,
                // Two cores run everything here, so resource requests must not prevent the scheduling of
                // pods.
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            },
        });
        merge(&mut whole, spec);
        json!({
            "apiVersion": format!("{}/v1alpha1", names::API_GROUP), "kind": "KafkaConsumerGroup",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": whole,
        })
    }

    /// Applies [`World::group_manifest`].
    pub async fn apply_group(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(&self.group_manifest(name, spec).to_string()).await
    }

    /// A Secret of the scenario's namespace.
    pub async fn apply_secret(&self, name: &str, data: &[(&str, &str)]) -> Result<()> {
        let data: BTreeMap<_, _> = data.iter().copied().collect();
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.apply(&secret.to_string()).await
    }

    /// The scenario's groups.
    pub fn groups(&self) -> Api<KafkaConsumerGroup> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// The resource in its current state.
    pub async fn group(&self, name: &str) -> Result<KafkaConsumerGroup> {
        self.groups()
            .get(name)
            .await
            .with_context(|| format!("no KafkaConsumerGroup {name}"))
    }

    /// A merge patch, as `kubectl patch --type merge` and `kubectl edit` send it.
    pub async fn patch_group(&self, name: &str, patch: Value) -> Result<KafkaConsumerGroup> {
        Ok(self
            .groups()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?)
    }

    /// Waits until the group is Ready with this many workers, and its status refers to the newest spec.
    pub async fn until_ready(&self, name: &str, workers: i32) -> Result<KafkaConsumerGroup> {
        until(&format!("{name} is Ready with {workers} workers"), async || {
            let group = self.group(name).await?;
            let status = group.status.clone().unwrap_or_default();
            ensure!(
                status.observed_generation == group.metadata.generation,
                "{}",
                summary(&group)
            );
            ensure!(status.replicas == Some(workers), "{}", summary(&group));
            ensure!(status.ready_replicas == Some(workers), "{}", summary(&group));
            ensure!(is(&group, "Ready", "True"), "{}", summary(&group));
            Ok(group)
        })
        .await
    }

    /// Waits until a condition of the group has this status, and returns the condition.
    pub async fn until_condition(&self, name: &str, kind: &str, status: &str) -> Result<Condition> {
        until(&format!("{name} has {kind}={status}"), async || {
            let group = self.group(name).await?;
            ensure!(is(&group, kind, status), "{}", summary(&group));
            condition(&group, kind).context("no such condition")
        })
        .await
    }

    /// The group's worker pods without terminating ones, sorted by name.
    pub async fn workers(&self, group: &str) -> Result<Vec<Pod>> {
        let mut pods = self.pods(&format!("{}={group}", names::GROUP_LABEL)).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Pods of the scenario's namespace with a label, sorted by name.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        pods(Api::namespaced(self.kube.clone(), &self.namespace), selector).await
    }

    /// Sends SIGKILL to the worker in a pod and deletes the pod, so that the Deployment replaces it at once
    /// instead of after the kubelet's crash backoff. The worker cannot clean up.
    pub async fn kill_worker(&self, pod: &str) -> Result<()> {
        self.crash_worker(pod).await?;
        let pods: Api<Pod> = Api::namespaced(self.kube.clone(), &self.namespace);
        forget(&pods, pod).await
    }

    /// Sends SIGKILL to the worker in a pod; the kubelet restarts its container.
    pub async fn crash_worker(&self, pod: &str) -> Result<()> {
        let pids = processes(names::WORKER_APP, pod)?;
        ensure!(!pids.is_empty(), "no process of worker {pod} on this machine");
        kill(&pids).await
    }

    /// The operator's pods, sorted by name.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>> {
        pods(
            Api::namespaced(self.kube.clone(), install::OPERATOR),
            &format!("app.kubernetes.io/name={}", install::OPERATOR),
        )
        .await
    }

    /// Sends SIGKILL to the running operator. With `replace` it also deletes the pod, so that a new pod takes
    /// over; otherwise the kubelet restarts the container. Returns the state before the kill, for
    /// [`World::until_operator_is_back`].
    pub async fn kill_operator(&self, replace: bool) -> Result<BTreeMap<String, i32>> {
        let pods = self.operator_pods().await?;
        let mut killed = 0;
        for pod in &pods {
            let pids = processes(install::OPERATOR, &pod.name_any())?;
            kill(&pids).await?;
            killed += pids.len();
            if replace {
                forget(
                    &Api::namespaced(self.kube.clone(), install::OPERATOR),
                    &pod.name_any(),
                )
                .await?;
            }
        }
        ensure!(killed > 0, "no process of the operator on this machine");
        Ok(identities(&pods))
    }

    /// Waits until an operator is ready that did not run `before`: another pod, or one more restart. (A
    /// killed operator still counts as ready until the kubelet has noticed.)
    pub async fn until_operator_is_back(&self, before: &BTreeMap<String, i32>) -> Result<()> {
        until("another operator is ready", async || {
            let mut pods = self.operator_pods().await?;
            pods.retain(pod_ready);
            let now = identities(&pods);
            ensure!(
                now.iter()
                    .any(|(pod, restarts)| before.get(pod) != Some(restarts)),
                "ready: {now:?}; before the kill: {before:?}"
            );
            Ok(())
        })
        .await
    }
}

/// A group's condition.
pub fn condition(group: &KafkaConsumerGroup, kind: &str) -> Option<Condition> {
    group
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .cloned()
}

/// Whether a group's condition has this status.
pub fn is(group: &KafkaConsumerGroup, kind: &str, status: &str) -> bool {
    condition(group, kind).is_some_and(|condition| condition.status == status)
}

/// A group's status in one line, for the errors of waits.
pub fn summary(group: &KafkaConsumerGroup) -> String {
    let status = group.status.clone().unwrap_or_default();
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_, condition.status, condition.reason, condition.message
            )
        })
        .collect();
    format!(
        "generation {:?} observed {:?}, state {:?}, replicas {:?} ready {:?} updated {:?}, partitions {:?}, lag {:?}, {} workers; {}",
        group.metadata.generation,
        status.observed_generation,
        status.group_state,
        status.replicas,
        status.ready_replicas,
        status.updated_replicas,
        status.partitions,
        status.lag.map(|lag| lag.total),
        status.workers.len(),
        conditions.join("; ")
    )
}

/// Whether a pod is ready and not terminating.
pub fn pod_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The uid and the restart count of each pod: equal before and after means undisturbed.
pub fn identities(pods: &[Pod]) -> BTreeMap<String, i32> {
    pods.iter()
        .map(|pod| {
            let restarts = pod
                .status
                .iter()
                .flat_map(|status| status.container_statuses.iter().flatten())
                .map(|container| container.restart_count)
                .sum();
            (
                format!("{} {}", pod.name_any(), pod.uid().unwrap_or_default()),
                restarts,
            )
        })
        .collect()
}

/// Merges `over` into `base`: objects are merged, everything else is replaced.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

async fn pods(api: Api<Pod>, selector: &str) -> Result<Vec<Pod>> {
    let mut pods = api.list(&ListParams::default().labels(selector)).await?.items;
    pods.sort_by_key(ResourceExt::name_any);
    Ok(pods)
}

/// Deletes a pod without waiting for its kubelet.
async fn forget(api: &Api<Pod>, pod: &str) -> Result<()> {
    match api.delete(pod, &DeleteParams::default().grace_period(0)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Processes of this machine that run `program` for the pod: containers share the machine's process table.
fn processes(program: &str, pod: &str) -> Result<Vec<u32>> {
    // Each program has another name for the variable.
    let wanted = format!("={pod}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path: PathBuf = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        // A process that ends meanwhile is not the one.
        let (Ok(command), Ok(environment)) = (
            std::fs::read(path.join("cmdline")),
            std::fs::read(path.join("environ")),
        ) else {
            continue;
        };
        let runs = command
            .split(|byte| *byte == 0)
            .next()
            .is_some_and(|name| name.ends_with(program.as_bytes()));
        if runs
            && environment
                .split(|byte| *byte == 0)
                .any(|variable| variable.ends_with(wanted.as_bytes()))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

async fn kill(pids: &[u32]) -> Result<()> {
    for pid in pids {
        let output = command::run("kill", &["-KILL", &pid.to_string()], None).await?;
        if !output.success && PathBuf::from(format!("/proc/{pid}")).exists() {
            bail!("cannot kill process {pid}: {}", output.stderr);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_is_not_named() {
        let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge(&mut base, json!({"a": {"c": [3]}, "e": {"f": 2}}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [3]}, "d": 1, "e": {"f": 2}}));
    }
}
