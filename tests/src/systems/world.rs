//! The scenario around a test body: installs the operator, creates a namespace (with the restricted Pod
//! Security standard enforced, as users do), runs the body, prints what explains a failure, and deletes
//! everything that was created. Scenarios run beside each other, except those that disturb others or need both
//! cores: whatever number of threads the test runner has, they have the cluster alone.

use std::{
    panic::AssertUnwindSafe,
    sync::{Mutex as StdMutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::systems::{
    command, consumer_groups, env::Env, install, kafka::Kafka, postgres::Postgres, wait::until,
};

/// Who uses the cluster. Fair: a test that wants it alone waits only for the tests that run.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// The longest scenario has 30 kills and their recoveries; a hanging one must not use up the time of the whole
/// run.
const LONGEST: Duration = Duration::from_secs(900);

/// For tests that kill or stop what others use, that see what others do, or that need both cores.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    CLUSTER.write().await
}

/// For tests that disturb no other.
pub async fn beside_others() -> RwLockReadGuard<'static, ()> {
    CLUSTER.read().await
}

/// What a test body works with.
pub struct World {
    pub env: Env,
    pub kafka: Kafka,
    pub kube: kube::Client,
    /// The scenario's own namespace.
    pub namespace: String,
    topics: StdMutex<Vec<String>>,
}

/// Runs a test body in its own [`World`], beside others. `name` becomes part of the namespace: short, lower case.
pub async fn scenario(name: &str, body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    let _cluster = beside_others().await;
    with_operator(name, body).await
}

/// The same, [`alone`].
pub async fn scenario_alone(name: &str, body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    let _cluster = alone().await;
    with_operator(name, body).await
}

/// For a body that starts an operator of its own, beside others: only the CRDs are installed, and no image is
/// needed.
pub async fn scenario_without_operator(
    name: &str,
    body: impl AsyncFnOnce(&World) -> Result<()>,
) -> Result<()> {
    let _cluster = beside_others().await;
    let env = Env::read()?;
    install::crds(&env).await?;
    run(env, name, body).await
}

async fn with_operator(name: &str, body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    let env = Env::read()?;
    install::operator(&env).await?;
    run(env, name, body).await
}

async fn run(env: Env, name: &str, body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    let world = World::new(env, name).await?;
    println!("scenario {name} in namespace {}", world.namespace);
    // A failed assertion is a panic. Caught, so that the failure is explained and everything is cleaned up.
    let result = match tokio::time::timeout(LONGEST, AssertUnwindSafe(body(&world)).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(anyhow!("{}", panic_message(panic.as_ref()))),
        Err(_) => Err(anyhow!("the scenario did not end within {} s", LONGEST.as_secs())),
    };
    if result.is_err() {
        println!("{}", world.report().await);
    }
    let cleaned = world.clean_up().await;
    result?;
    cleaned.context("cleaning up after the scenario")
}

impl World {
    async fn new(env: Env, name: &str) -> Result<Self> {
        let kube = kube::Client::try_default()
            .await
            .context("cannot create the Kubernetes client")?;
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos();
        let namespace = format!("e2e-{name}-{:06x}", (nanos / 1_000_000) & 0xff_ffff);
        let world = Self {
            kafka: Kafka::new(&env.kafka),
            env,
            kube,
            namespace,
            topics: StdMutex::default(),
        };
        world
            .apply(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}, labels: {{\
                 pod-security.kubernetes.io/enforce: restricted}}}}}}",
                world.namespace
            ))
            .await?;
        Ok(world)
    }

    /// Creates a topic whose name is unique to this scenario, and returns the name.
    pub async fn topic(&self, suffix: &str, partitions: i32) -> Result<String> {
        let name = self.topic_name(suffix);
        self.kafka.create_topic(&name, partitions).await?;
        Ok(name)
    }

    /// A name for a topic that the test or the product creates; the scenario deletes it.
    pub fn topic_name(&self, suffix: &str) -> String {
        let name = format!("{}.{suffix}", self.namespace);
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // The broker rejects a request that names a topic twice.
        if !topics.contains(&name) {
            topics.push(name.clone());
        }
        name
    }

    /// A table name that is unique to this scenario.
    pub fn table_name(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.namespace.replace('-', "_"))
    }

    /// The group id of a resource that sets none.
    pub fn group_id(&self, group: &str) -> String {
        format!("{}.{group}", self.namespace)
    }

    /// A database connection.
    pub async fn postgres(&self) -> Result<Postgres> {
        Postgres::connect(&self.env).await
    }

    /// What Kafka's own tool says about the partitions of a group.
    pub async fn describe_group(&self, group_id: &str) -> Result<Vec<consumer_groups::Partition>> {
        consumer_groups::describe(&self.env, group_id).await
    }

    /// Everything that explains a failure.
    async fn report(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["get", "kcg,kor", "-o", "yaml"][..],
            &["get", "pods,deployments,replicasets,configmaps", "-o", "wide"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &[
                "logs",
                "--all-containers",
                "--prefix",
                "--tail=40",
                "-l",
                "app.kubernetes.io/name=kafka-consumer-worker",
            ],
        ] {
            text += &install::section(&[&["--namespace", &self.namespace], arguments].concat()).await;
        }
        text + &install::operator_report().await
    }

    /// First the groups, while the operator and the namespace still exist; then everything else.
    async fn clean_up(&self) -> Result<()> {
        // They may not exist any more, so failures here mean nothing; the end of the namespace is what
        // counts.
        let _ = self
            .kubectl(&["delete", "kor,kcg", "--all", "--timeout=60s"], None)
            .await?;
        command::run(
            "kubectl",
            &["delete", "namespace", &self.namespace, "--wait=false"],
            None,
        )
        .await?
        .ok("kubectl delete namespace")?;
        until(&format!("namespace {} is gone", self.namespace), async || {
            let found = command::run(
                "kubectl",
                &["get", "namespace", &self.namespace, "-o", "yaml"],
                None,
            )
            .await?;
            anyhow::ensure!(!found.success, "it is still there: {}", found.stdout);
            Ok(())
        })
        .await?;
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.kafka.delete_topics(&topics).await
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => text.to_string(),
        _ => "panicked".into(),
    }
}
