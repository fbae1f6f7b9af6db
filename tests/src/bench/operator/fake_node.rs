//! A node without a kubelet, and the kubelet of its pods. In: a namespace, and the topic that its workers read.
//! Out: a Node that stays ready, pods on it that run as far as the API server knows, each with an address of
//! 127.0.0.0/8 at which this process answers `/status` as a busy worker does. Starts no container.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use crds::names::WORKER_HTTP_PORT;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const NODE: &str = "bench-operator";
const LABEL: &str = "bench-operator";
const LEASES: &str = "kube-node-lease";
/// As a kubelet: Kubernetes takes a node as lost after 40 s.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Patches of pods at the same time.
const PATCHES: usize = 10;

/// The node. Its tasks end when the value is dropped; [`FakeNode::remove`] removes the objects.
pub(super) struct FakeNode {
    kube: kube::Client,
    workers: Arc<FakeWorkers>,
    tasks: Vec<JoinHandle<()>>,
}

/// The workers that answer here.
#[derive(Default)]
struct FakeWorkers {
    topic: String,
    names: Mutex<HashMap<Ipv4Addr, String>>,
    reports_read: AtomicUsize,
}

impl FakeNode {
    /// What a pod needs to be placed on it.
    pub fn selector() -> Value {
        json!({LABEL: NODE})
    }

    pub async fn start(kube: kube::Client, namespace: &str, topic: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, WORKER_HTTP_PORT))
            .await
            .with_context(|| format!("cannot listen on port {WORKER_HTTP_PORT}, which the workers have"))?;
        create(&kube).await.context("cannot create the node")?;
        let workers = Arc::new(FakeWorkers {
            topic: topic.into(),
            ..FakeWorkers::default()
        });
        let tasks = vec![
            tokio::spawn(heartbeats(Api::namespaced(kube.clone(), LEASES))),
            tokio::spawn(run_pods(
                Api::namespaced(kube.clone(), namespace),
                workers.clone(),
            )),
            tokio::spawn(answer(listener, workers.clone())),
        ];
        Ok(Self { kube, workers, tasks })
    }

    /// Reports that were read so far.
    pub fn reports_read(&self) -> usize {
        self.workers.reports_read.load(Ordering::Relaxed)
    }

    pub async fn remove(self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.kube.clone());
        nodes.delete(NODE, &DeleteParams::default()).await?;
        let leases: Api<Lease> = Api::namespaced(self.kube.clone(), LEASES);
        leases.delete(NODE, &DeleteParams::default()).await?;
        Ok(())
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn create(kube: &kube::Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(kube.clone());
    let node = json!({"metadata": {"name": NODE, "labels": FakeNode::selector()}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    let room = json!({"cpu": "10000", "memory": "10Ti", "ephemeral-storage": "10Ti", "pods": "10000"});
    let now = Timestamp::now().to_string();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "no kubelet",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    let leases: Api<Lease> = Api::namespaced(kube.clone(), LEASES);
    let lease = json!({
        "metadata": {"name": NODE},
        "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": micro_time()},
    });
    leases
        .create(&PostParams::default(), &serde_json::from_value(lease)?)
        .await?;
    Ok(())
}

async fn heartbeats(leases: Api<Lease>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let renewed = json!({"spec": {"renewTime": micro_time()}});
        // The next one follows soon.
        let _ = leases
            .patch(NODE, &PatchParams::default(), &Patch::Merge(renewed))
            .await;
    }
}

fn micro_time() -> String {
    format!("{:.6}", Timestamp::now())
}

/// Gives every pod that is bound to the node an address, and says that it runs.
async fn run_pods(pods: Api<Pod>, workers: Arc<FakeWorkers>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let changes = watcher(pods.clone(), config)
        .default_backoff()
        .applied_objects()
        .filter_map(async |pod| pod.ok().filter(is_new))
        .map(|pod| {
            let (name, address) = (pod.name_any(), workers.address_of(&pod.name_any()));
            let pods = pods.clone();
            async move {
                let status = Patch::Merge(running(&pod, address));
                // The watch delivers it again.
                let _ = pods.patch_status(&name, &PatchParams::default(), &status).await;
            }
        })
        .buffer_unordered(PATCHES);
    pin!(changes).collect::<Vec<()>>().await;
}

fn is_new(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.pod_ip.as_ref())
        .is_none()
}

/// The status that a kubelet would write.
fn running(pod: &Pod, address: Ipv4Addr) -> Value {
    let now = Timestamp::now().to_string();
    let is_true = |name| json!({"type": name, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(is_true);
    let containers = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "none", "ready": true,
                "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        });
    let containers: Vec<Value> = containers.collect();
    json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": conditions, "containerStatuses": containers,
    }})
}

impl FakeWorkers {
    /// The address of a pod, the same each time.
    fn address_of(&self, pod: &str) -> Ipv4Addr {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, _)) = names.iter().find(|(_, name)| *name == pod) {
            return *address;
        }
        // 127.1.0.0 and up: 127.0.0.1 is everybody's.
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + names.len() as u32);
        names.insert(address, pod.into());
        address
    }

    /// `/status` of the worker at an address: its numbers grow with every read, as those of a busy worker do.
    fn status(&self, address: IpAddr) -> Option<Value> {
        let IpAddr::V4(address) = address else { return None };
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.get(&address)?;
        let records = 1000 * self.reports_read.fetch_add(1, Ordering::Relaxed);
        let partition = u32::from(address) - u32::from(Ipv4Addr::new(127, 1, 0, 1));
        Some(json!({
            "worker": name, "phase": "Running", "paused": false, "recordsTotal": records,
            "deadLetteredTotal": 0, "skippedTotal": 0,
            "partitions": [{
                "topic": self.topic, "partition": partition, "watermark": records, "lag": records % 977,
                "inFlight": records % 101,
            }],
        }))
    }
}

async fn answer(listener: TcpListener, workers: Arc<FakeWorkers>) {
    while let Ok((connection, _)) = listener.accept().await {
        let workers = workers.clone();
        tokio::spawn(async move {
            // The operator may close the connection at any time.
            let _ = serve(connection, &workers).await;
        });
    }
}

async fn serve(connection: TcpStream, workers: &FakeWorkers) -> Result<()> {
    let address = connection.local_addr()?.ip();
    let mut connection = BufReader::new(connection);
    loop {
        let mut line = String::new();
        while line.trim_end() != "" || line.is_empty() {
            line.clear();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
        }
        let (status, body) = match workers.status(address) {
            Some(body) => ("200 OK", body.to_string()),
            None => ("404 Not Found", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(answer.as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_an_address_and_answers_with_its_name() {
        let workers = FakeWorkers::default();
        let first = workers.address_of("a");
        assert_ne!(workers.address_of("b"), first);
        assert_eq!(workers.address_of("a"), first);
        let report = workers.status(first.into()).unwrap();
        assert_eq!(
            (&report["worker"], &report["partitions"][0]["partition"]),
            (&json!("a"), &json!(0))
        );
        assert!(workers.status(Ipv4Addr::LOCALHOST.into()).is_none());
        let _: operator::reports::WorkerReport = serde_json::from_value(report).unwrap();
    }
}
