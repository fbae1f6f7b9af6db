//! The environment that `tests/cluster/exec.sh` sets. Each scenario reads it once; no other file of the tests
//! does. Fails without a cluster: a test that skips itself proves nothing.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};

/// Addresses and credentials of the test cluster.
#[derive(Clone, Debug)]
pub struct Env {
    /// Plaintext brokers; pods and tests reach them at the same address.
    pub kafka: String,
    /// Folder with the cluster's scripts.
    pub cluster_scripts: PathBuf,
    /// Repository root.
    pub repository: PathBuf,
    /// Image of the operator, `repository:tag`.
    pub operator_image: String,
    /// Image of the workers, `repository:tag`.
    pub worker_image: String,
}

impl Env {
    /// Reads the variables that every test needs.
    pub fn read() -> Result<Self> {
        required("KUBECONFIG")?;
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map(PathBuf::from)
            .context("the tests crate has no parent folder")?;
        let version = env!("CARGO_PKG_VERSION");
        let image = |variable: &str, name: &str| {
            std::env::var(variable).unwrap_or_else(|_| format!("localhost/{name}:{version}"))
        };
        Ok(Self {
            kafka: required("KAFKA_BOOTSTRAP_SERVERS")?,
            cluster_scripts: repository.join("tests/cluster"),
            operator_image: image("KCG_OPERATOR_IMAGE", "kafka-consumer-operator"),
            worker_image: image("KCG_WORKER_IMAGE", "kafka-consumer-worker"),
            repository,
        })
    }

    /// A variable that only some tests need, such as `POSTGRES_URL` or `KAFKA_CA_FILE`.
    pub fn variable(&self, name: &str) -> Result<String> {
        required(name)
    }
}

/// What tests of bare worker processes need: a Kafka broker, and for some a PostgreSQL server.
#[derive(Clone, Debug)]
pub struct KafkaEnv {
    /// Plaintext brokers.
    pub kafka: String,
    /// The worker to test, instead of the one next to the tests.
    pub worker: Option<PathBuf>,
    /// A worker built with the feature `seeded-bugs`, instead of the one in target/seeded.
    pub seeded_worker: Option<PathBuf>,
}

impl KafkaEnv {
    /// Reads the variables.
    pub fn read() -> Result<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Ok(Self {
            kafka: required("KAFKA_BOOTSTRAP_SERVERS")?,
            worker: path("KCG_WORKER_BINARY"),
            seeded_worker: path("KCG_SEEDED_WORKER_BINARY"),
        })
    }

    /// A database that its user owns.
    pub fn postgres(&self) -> Result<String> {
        required("POSTGRES_URL")
    }

    /// The listener of the broker that advertises another address: its own address, and the advertised one,
    /// where a proxy has to listen.
    pub fn proxied(&self) -> Result<(String, SocketAddr)> {
        let address = required("KAFKA_PROXY_ADDRESS")?;
        let address = address.parse().with_context(|| {
            format!("KAFKA_PROXY_ADDRESS is {address}; it must be an IP address and a port")
        })?;
        Ok((required("KAFKA_PROXIED_SERVERS")?, address))
    }
}

fn required(name: &str) -> Result<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
        format!(
            "{name} is not set: the end-to-end tests need their cluster. Run `make test`, or start one with \
             `tests/cluster/up.sh` and run `tests/cluster/exec.sh cargo test -p kafka-consumer-tests`"
        )
    })
}
