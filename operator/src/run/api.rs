//! The API of the operator: listens, and publishes about once a second what the caches and Kafka say. In: an
//! address, sources. Out: a board that the server shows. Without an address, nothing runs and nothing listens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::runtime::reflector::Store;
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::board::Board;
use crate::controller::board::Sources;
use crate::controller::caches::{Filled, Guarded};
use crate::controller::watches::watch_groups_only;
use crate::kafka::KafkaClients;
use crate::sync::lock;

/// The API, if it is wanted. Clones share it.
#[derive(Clone)]
pub struct RunningApi(Option<Parts>);

#[derive(Clone)]
struct Parts {
    board: Arc<Board>,
    sources: watch::Sender<Sources>,
    /// The watches of an operator that stands by.
    standby: Arc<Mutex<JoinSet<()>>>,
}

impl RunningApi {
    /// Listens, if there is an address.
    pub async fn open(address: Option<SocketAddr>, config: &Config) -> anyhow::Result<Self> {
        let Some(address) = address else {
            return Ok(Self(None));
        };
        let parts = Parts {
            board: Arc::default(),
            sources: watch::Sender::default(),
            standby: Arc::default(),
        };
        serve(address, config, &parts).await?;
        Ok(Self(Some(parts)))
    }

    /// Shows what the resources say, until this operator leads.
    pub fn stand_by(&self, client: &Client, namespaces: &[Option<String>]) {
        let Some(parts) = &self.0 else { return };
        let mut tasks = lock(&parts.standby);
        let mut groups = Vec::new();
        for namespace in namespaces {
            let (store, filled, mut watch) = watch_groups_only(client, namespace.as_deref());
            groups.push((store, filled));
            tasks.spawn(async move {
                while let Some(event) = watch.next().await {
                    if let Err(error) = event {
                        tracing::warn!(%error, "the API cannot watch the groups, retrying");
                    }
                }
            });
        }
        parts.sources.send_replace(Sources { groups, kafka: None });
    }

    /// Shows what the caches of the controller say, as soon as they are filled, and what it has read from Kafka.
    pub fn lead(&self, groups: Vec<(Store<Guarded>, Filled)>, kafka: KafkaClients) {
        let Some(parts) = &self.0 else { return };
        let kafka = Some(kafka);
        parts.sources.send_replace(Sources { groups, kafka });
        lock(&parts.standby).abort_all();
    }

    /// Says goodbye to pages that are open.
    pub fn close(&self) {
        if let Some(parts) = &self.0 {
            parts.board.close();
        }
    }
}

#[cfg(feature = "api")]
async fn serve(address: SocketAddr, config: &Config, parts: &Parts) -> anyhow::Result<()> {
    use anyhow::Context as _;

    use crate::api::cluster::{Cluster, Times};
    use crate::api::places::Find;
    use crate::api::server;
    use crate::api::shared::{Backend, Shared};
    use crate::controller::dead_letter_places;

    let listener = server::bind(address, false)
        .await
        .with_context(|| format!("cannot listen on --api-listen {address}"))?;
    let cluster = Cluster::new(config.clone(), Times::default())
        .context("cannot create the Kubernetes client of the API")?;
    tracing::info!("REST API and dashboard: http://{}/", listener.local_addr()?);
    let backend = Backend::Cluster(Arc::new(cluster));
    let client =
        Client::try_from(config.clone()).context("cannot create the Kubernetes client of the API")?;
    let find: Find = Arc::new(move |key| {
        let client = client.clone();
        Box::pin(async move { dead_letter_places::find(&client, &key).await })
    });
    let shared = Shared::new(Arc::clone(&parts.board), backend, find);
    tokio::spawn(server::serve(listener, shared));
    tokio::spawn(publish(Arc::clone(&parts.board), parts.sources.subscribe()));
    Ok(())
}

#[cfg(not(feature = "api"))]
async fn serve(_: SocketAddr, _: &Config, _: &Parts) -> anyhow::Result<()> {
    anyhow::bail!("--api-listen: this program was built without the feature api")
}

/// Publishes what the sources say, once their caches are filled.
#[cfg(feature = "api")]
async fn publish(board: Arc<Board>, mut sources: watch::Receiver<Sources>) {
    use std::time::Duration;

    use crate::controller::board::Publisher;

    /// As often as a stream sends a change.
    const PAUSE: Duration = Duration::from_secs(1);

    let mut publisher = Publisher::new(board);
    loop {
        let current = sources.borrow_and_update().clone();
        if current.are_filled() {
            publisher.publish(&current);
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            changed = sources.changed() => if changed.is_err() { return },
        }
    }
}
