//! What the measurements need in the cluster: the CRD of the measured operator, an empty namespace, and no
//! other operator. Removes groups, topics and namespace at the end; the CRD stays, because deleting it would
//! delete every group of the cluster.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use rdkafka::consumer::Consumer as _;
use serde_json::json;

use super::{groups::Groups, topics};
use crate::systems::{
    command,
    env::Env,
    install,
    kafka::{Kafka, REQUEST},
    wait::until_within,
};

/// The namespace of all groups. The measured operator watches only this one.
pub(super) const NAMESPACE: &str = "bench-operator";
/// Kubernetes deletes the children of up to 20,000 groups, each with several requests.
const NAMESPACE_GONE: Duration = Duration::from_secs(900);

/// The cluster of the environment, prepared.
pub(super) struct Cluster {
    pub kafka: Kafka,
    pub kube: kube::Client,
    bootstrap: String,
}

impl Cluster {
    /// Checks that nothing else is in the way, installs the CRD and creates the namespace.
    pub async fn prepare(env: &Env, operator: &Path) -> Result<Self> {
        let kube = kube::Client::try_default()
            .await
            .context("cannot create the Kubernetes client")?;
        let label = ListParams::default().labels(&format!("app.kubernetes.io/name={}", install::OPERATOR));
        let others = Api::<Deployment>::all(kube.clone()).list(&label).await?;
        if let Some(other) = others.items.first() {
            anyhow::bail!(
                "an operator is installed in this cluster (Deployment {}/{}) and would serve the same groups; \
                 uninstall it, or use another cluster",
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
        }
        let crd = command::run(operator, &["crd"], None)
            .await?
            .ok("kafka-consumer-operator crd")?;
        command::run("kubectl", &["apply", "--server-side", "-f", "-"], Some(&crd))
            .await?
            .ok("kubectl apply of the CRDs")?;
        let established = [
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/kafkaconsumergroups.kafka-consumer.dev",
            "crd/kafkaoffsetresets.kafka-consumer.dev",
            "crd/kafkareplays.kafka-consumer.dev",
        ];
        command::run("kubectl", &established, None)
            .await?
            .ok("kubectl wait for the CRDs")?;
        let namespaces: Api<Namespace> = Api::all(kube.clone());
        ensure!(
            namespaces.get_opt(NAMESPACE).await?.is_none(),
            "the namespace {NAMESPACE} exists, perhaps from an interrupted run; delete it: kubectl delete \
             namespace {NAMESPACE}"
        );
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Self {
            kafka: Kafka::new(&env.kafka),
            bootstrap: env.kafka.clone(),
            kube,
        })
    }

    /// The servers of `spec.kafka`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The groups of a measurement; none exists yet.
    pub fn groups(&self, size: u32, running: bool) -> Groups {
        Groups::new(self.kube.clone(), &self.bootstrap, size, running)
    }

    /// Addresses that a client of this Kafka connects to: the bootstrap servers, and what they advertise.
    pub async fn brokers(&self) -> Result<Vec<SocketAddr>> {
        let mut servers: Vec<String> = self.bootstrap.split(',').map(|s| s.trim().into()).collect();
        let advertised = self.kafka.blocking(|consumer| {
            let metadata = consumer.fetch_metadata(None, REQUEST)?;
            let brokers = metadata.brokers().iter();
            Ok(brokers
                .map(|broker| format!("{}:{}", broker.host(), broker.port()))
                .collect::<Vec<_>>())
        });
        servers.extend(advertised.await?);
        let mut addresses = Vec::new();
        for server in servers {
            let resolved = server
                .to_socket_addrs()
                .with_context(|| format!("cannot resolve {server}"))?;
            addresses.extend(resolved);
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// Deletes the namespace with all groups, and the topics. Tries both, whatever fails.
    pub async fn clean_up(&self, sizes: &[u32]) -> Result<()> {
        println!("cleaning up");
        // The broker rejects a request that names a topic twice.
        let sizes: BTreeSet<u32> = sizes.iter().copied().collect();
        let names: Vec<String> = sizes.into_iter().flat_map(topics::names).collect();
        let topics = self.kafka.delete_topics(&names).await;
        let namespaces: Api<Namespace> = Api::all(self.kube.clone());
        namespaces
            .delete(NAMESPACE, &DeleteParams::default())
            .await
            .context("cannot delete the namespace")?;
        until_within(
            NAMESPACE_GONE,
            &format!("namespace {NAMESPACE} is gone"),
            async || {
                let found = namespaces.get_opt(NAMESPACE).await?;
                ensure!(found.is_none(), "it still exists");
                Ok(())
            },
        )
        .await?;
        topics.context("cannot delete the topics")
    }
}
