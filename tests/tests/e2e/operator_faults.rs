//! The operator is killed, starts again, and writes nothing if there is nothing to do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, ensure};
use harness::{
    World, scenario_alone,
    systems::{
        audit::{Mark, Write},
        install::OPERATOR_USER,
        kubernetes::{identities, summary},
    },
    until,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    discovery::ApiResource,
};
use serde_json::{Value, json};

/// How long a group at rest is watched: longer than every interval of the operator (partitions every 30 s).
const WATCHED: Duration = Duration::from_secs(40);
/// Longer than the operator takes to write what a worker reports.
const AT_REST: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_repeatedly_disturbs_no_worker_and_completes_every_change() -> Result<()> {
    scenario_alone("kill-op", async |world| {
        let steady = world.topic("steady", 2).await?;
        let changing = world.topic("changing", 4).await?;
        world.apply_group("steady", blackhole(&steady)).await?;
        world.until_ready("steady", 2).await?;
        let before = identities(&world.workers("steady").await?);

        // The test creates a second group and changes it twice, and kills the operator at some moment around
        // each change.
        let mut random = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .subsec_micros() as u64;
        for (round, most) in [4, 1, 3].into_iter().enumerate() {
            let mut spec = blackhole(&changing);
            spec["scaling"] = json!({"maxReplicas": most});
            world.apply_group("changing", spec).await?;
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let moment = (random >> 33) % 1500;
            println!("  round {round}: killed {moment} ms after the change");
            tokio::time::sleep(Duration::from_millis(moment)).await;
            // The kubelet restarts the container, or another pod takes over when the lease has expired.
            let operator = world.kill_operator(round % 2 == 1).await?;
            world.until_operator_is_back(&operator).await?;
        }
        let group = world.until_ready("changing", 3).await?;
        println!("  {}", summary(&group));
        until("the workers are those of the last change", async || {
            let pods = world.workers("changing").await?;
            ensure!(pods.len() == 3, "{:?}", identities(&pods));
            Ok(())
        })
        .await?;
        world.until_ready("steady", 2).await?;
        assert_eq!(
            identities(&world.workers("steady").await?),
            before,
            "a crash of the operator must not disturb workers"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reconcile_writes_nothing() -> Result<()> {
    scenario_alone("steady", async |world| {
        let input = world.topic("orders", 2).await?;
        world.apply_group("orders", blackhole(&input)).await?;
        world.until_ready("orders", 2).await?;
        // The last reports of the start have been written when there was no write for a while: the operator
        // reads reports every 15 s.
        let (mut mark, mut since) = (Mark::now(&world.env)?, Instant::now());
        until("the operator is at rest", async || {
            if let Err(written) = nothing_written(&mark) {
                (mark, since) = (Mark::now(&world.env)?, Instant::now());
                return Err(written);
            }
            ensure!(
                since.elapsed() >= AT_REST,
                "at rest for {} s",
                since.elapsed().as_secs()
            );
            Ok(())
        })
        .await?;
        let before = children(world).await?;
        let kinds = before.len();
        assert!(kinds >= 6, "{before:?}");

        // A change without effect triggers the reconcile; afterwards nothing changes.
        let mark = Mark::now(&world.env)?;
        world
            .kubectl(&["annotate", "kcg", "orders", "example.com/poke=1"], None)
            .await?
            .ok("kubectl annotate")?;
        tokio::time::sleep(WATCHED).await;
        nothing_written(&mark)?;
        assert_eq!(
            children(world).await?,
            before,
            "generation and resourceVersion stay"
        );

        // A new operator reconciles everything from the start.
        let operator = world.kill_operator(false).await?;
        world.until_operator_is_back(&operator).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(
            children(world).await?,
            before,
            "generation and resourceVersion stay"
        );
        nothing_written(&mark)
    })
    .await
}

/// Every write of the operator since the mark, except of its lease.
fn nothing_written(mark: &Mark) -> Result<()> {
    let writes: Vec<Write> = mark
        .writes_of(OPERATOR_USER)?
        .into_iter()
        .filter(|write| write.resource != "leases")
        .collect();
    ensure!(
        writes.is_empty(),
        "the operator wrote {} times: {writes:?}",
        writes.len()
    );
    Ok(())
}

/// Generation and resourceVersion of every child of the group; of the Deployment only the generation, because
/// Kubernetes' own controller writes its status.
async fn children(world: &World) -> Result<BTreeMap<String, (Option<i64>, Option<String>)>> {
    let mut found = BTreeMap::new();
    let deployments: Api<Deployment> = Api::namespaced(world.kube.clone(), &world.namespace);
    for deployment in deployments.list(&selector()).await? {
        found.insert(
            format!("Deployment {:?}", deployment.metadata.name),
            (deployment.metadata.generation, None),
        );
    }
    for (version, kind, plural) in [
        ("v1", "ConfigMap", "configmaps"),
        ("v1", "ServiceAccount", "serviceaccounts"),
        ("rbac.authorization.k8s.io/v1", "Role", "roles"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
        ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ] {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: if group.is_empty() {
                version.into()
            } else {
                format!("{group}/{version}")
            },
            kind: kind.into(),
            plural: plural.into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(world.kube.clone(), &world.namespace, &resource);
        for object in api.list(&selector()).await? {
            // The operator does not write the status of a disruption budget either.
            let version = (kind != "PodDisruptionBudget")
                .then_some(object.metadata.resource_version)
                .flatten();
            found.insert(
                format!("{kind} {:?}", object.metadata.name),
                (object.metadata.generation, version),
            );
        }
    }
    Ok(found)
}

fn selector() -> ListParams {
    ListParams::default().labels(&format!("{}=orders", crds::names::GROUP_LABEL))
}

/// A group that reads and discards.
fn blackhole(topic: &str) -> Value {
    json!({"topics": [{"name": topic}], "writers": [{"name": "nowhere", "type": "Blackhole"}]})
}
