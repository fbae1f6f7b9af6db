//! Operations of a user on a running group: pause, stop, scale, delete.

use anyhow::{Result, ensure};
use crds::names;
use harness::{
    Load, World, scenario,
    systems::kubernetes::{identities, summary},
    until,
    verify::check::check_records,
};
use serde_json::json;

const PARTITIONS: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_group_keeps_its_members_and_reads_nothing_until_it_is_resumed() -> Result<()> {
    scenario("pause", async |world| {
        let (input, output) = start_group(world, json!({})).await?;
        let group_id = world.group_id("orders");
        let first = Load::new(&input, "before", 0..PARTITIONS)
            .produce(&world.kafka, 300)
            .await?;
        world.kafka.until_drained(&group_id, &input).await?;
        let pods = identities(&world.workers("orders").await?);
        let shown = world.kcg(&["status", "orders"]).await?.ok("kubectl kcg status")?;
        assert!(shown.contains("AllPartitionsConsumed"), "{shown}");

        let paused = world.kcg(&["pause", "orders"]).await?.ok("kubectl kcg pause")?;
        assert!(paused.contains("orders: paused"), "{paused}");
        until("all workers report that they are paused", async || {
            let group = world.group("orders").await?;
            let workers = group.status.clone().unwrap_or_default().workers;
            let paused = workers
                .iter()
                .filter(|worker| worker.paused_reason.as_deref() == Some("Paused"))
                .count();
            ensure!(
                paused == PARTITIONS as usize,
                "{paused} paused of {}",
                summary(&group)
            );
            Ok(())
        })
        .await?;
        let second = Load::new(&input, "while-paused", 0..PARTITIONS)
            .produce(&world.kafka, 300)
            .await?;
        let group = until("the lag of the paused group shows in its status", async || {
            let group = world.group("orders").await?;
            let lag = group
                .status
                .as_ref()
                .and_then(|status| status.lag.as_ref())
                .map(|lag| lag.total);
            ensure!(lag == Some(300), "{}", summary(&group));
            Ok(group)
        })
        .await?;
        println!("  paused: {}", summary(&group));
        assert_eq!(
            group
                .status
                .as_ref()
                .and_then(|status| status.group_state.as_deref()),
            Some("Stable")
        );
        assert_eq!(
            world.kafka.group(&group_id).await?.map(|(_, members)| members),
            Some(PARTITIONS as usize)
        );
        assert_eq!(
            world.kafka.lag(&group_id, &input).await?,
            300,
            "nothing was committed"
        );
        let arrived = world.kafka.read_all(&output).await?;
        assert!(check_records(&first, &arrived)?.complete());
        assert_eq!(check_records(&second, &arrived)?.arrived, 0, "nothing was read");
        let text = world
            .kubectl(&["get", "kcg", "orders"], None)
            .await?
            .ok("kubectl get")?;
        assert!(
            text.contains("Paused"),
            "kubectl get shows that it is paused: {text}"
        );
        let shown = world.kcg(&["status", "orders"]).await?.ok("kubectl kcg status")?;
        assert!(shown.contains("Paused"), "{shown}");
        let plan = ["reset", "orders", "--to-earliest", "--dry-run"];
        let plan = world.kcg(&plan).await?.ok("kubectl kcg reset")?;
        for part in [
            input.as_str(),
            "300 offsets will be read again",
            "this is a dry run",
        ] {
            assert!(plan.contains(part), "{part}: {plan}");
        }
        assert_eq!(
            world.kafka.lag(&group_id, &input).await?,
            300,
            "a dry run commits nothing"
        );

        let resumed = world.kcg(&["resume", "orders"]).await?.ok("kubectl kcg resume")?;
        assert!(resumed.contains("orders: running"), "{resumed}");
        world.kafka.until_drained(&group_id, &input).await?;
        world.until_ready("orders", PARTITIONS).await?;
        let verdict = check_records(&second, &world.kafka.read_all(&output).await?)?;
        assert!(verdict.complete() && verdict.duplicates() == 0, "{verdict}");
        assert_eq!(
            identities(&world.workers("orders").await?),
            pods,
            "pausing restarts no worker"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_has_no_workers_and_resumes_at_its_offsets_when_started() -> Result<()> {
    scenario("stop", async |world| {
        let (input, output) = start_group(world, json!({})).await?;
        let group_id = world.group_id("orders");
        let first = Load::new(&input, "before", 0..PARTITIONS)
            .produce(&world.kafka, 300)
            .await?;
        world.kafka.until_drained(&group_id, &input).await?;

        world
            .patch_group("orders", json!({"spec": {"desiredState": "Stopped"}}))
            .await?;
        let group = until("the group is stopped, and its status shows it", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            ensure!(
                status.observed_generation == group.metadata.generation,
                "{}",
                summary(&group)
            );
            ensure!(
                status.replicas == Some(0) && status.ready_replicas == Some(0),
                "{}",
                summary(&group)
            );
            ensure!(
                status.group_state.as_deref() == Some("Empty"),
                "{}",
                summary(&group)
            );
            ensure!(status.workers.is_empty(), "{}", summary(&group));
            ensure!(world.workers("orders").await?.is_empty(), "there are pods");
            Ok(group)
        })
        .await?;
        println!("  stopped: {}", summary(&group));
        assert_eq!(
            world.kafka.group(&group_id).await?,
            Some(("Empty".to_string(), 0))
        );
        let text = world
            .kubectl(&["get", "kcg", "orders"], None)
            .await?
            .ok("kubectl get")?;
        assert!(
            text.contains("Stopped"),
            "kubectl get shows that it is stopped: {text}"
        );
        // The lag of a group without workers is still known: the operator asks the broker itself.
        let second = Load::new(&input, "while-stopped", 0..PARTITIONS)
            .produce(&world.kafka, 300)
            .await?;
        until("the lag of the stopped group shows in its status", async || {
            let group = world.group("orders").await?;
            let lag = group
                .status
                .as_ref()
                .and_then(|status| status.lag.as_ref())
                .map(|lag| lag.total);
            ensure!(lag == Some(300), "{}", summary(&group));
            Ok(())
        })
        .await?;

        world
            .patch_group("orders", json!({"spec": {"desiredState": "Running"}}))
            .await?;
        world.until_ready("orders", PARTITIONS).await?;
        world.kafka.until_drained(&group_id, &input).await?;
        let arrived = world.kafka.read_all(&output).await?;
        for ledger in [first, second] {
            let verdict = check_records(&ledger, &arrived)?;
            assert!(
                verdict.complete() && verdict.duplicates() == 0,
                "{}: {verdict}",
                ledger.run
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_scale_sets_the_workers_of_a_manual_group_up_to_its_partitions() -> Result<()> {
    scenario("scale", async |world| {
        let (input, output) =
            start_group(world, json!({"scaling": {"mode": "Manual"}, "replicas": 1})).await?;
        let running = Load::new(&input, "scaling", 0..PARTITIONS).start(&world.kafka, 300)?;
        let scale = async |replicas: &str| {
            world
                .kubectl(&["scale", "kcg/orders", &format!("--replicas={replicas}")], None)
                .await?
                .ok("kubectl scale")
        };
        scale("3").await?;
        world.until_ready("orders", 3).await?;
        scale("2").await?;
        world.until_ready("orders", 2).await?;
        until("two workers are left", async || {
            let workers = world.pods(&format!("{}=orders", names::GROUP_LABEL)).await?;
            ensure!(workers.len() == 2, "{:?}", identities(&workers));
            Ok(())
        })
        .await?;
        // More workers would be idle: the status shows why the group does not get them.
        scale("5").await?;
        let group = world.until_ready("orders", PARTITIONS).await?;
        println!("  requested 5: {}", summary(&group));
        let scaling = group
            .status
            .as_ref()
            .and_then(|status| status.scaling.clone())
            .unwrap_or_default();
        assert_eq!(scaling.limited_by.as_deref(), Some("Partitions"), "{scaling:?}");
        assert_eq!(
            group.spec.replicas,
            Some(5),
            "the operator does not change the requested number"
        );

        let ledger = running.stop().await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        assert!(verdict.complete() && verdict.duplicates() == 0, "{verdict}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_group_leaves_only_its_offsets() -> Result<()> {
    scenario("delete", async |world| {
        let (input, _) = start_group(world, json!({})).await?;
        let group_id = world.group_id("orders");
        Load::new(&input, "before", 0..PARTITIONS)
            .produce(&world.kafka, 300)
            .await?;
        world.kafka.until_drained(&group_id, &input).await?;
        let committed = world.kafka.committed(&group_id, &input).await?;
        let before = labelled(world).await?;
        for kind in [
            "Deployment",
            "ConfigMap",
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "PodDisruptionBudget",
            "Pod",
        ] {
            assert!(
                before
                    .iter()
                    .any(|object| object.starts_with(&format!("{kind}/"))),
                "no {kind} in {before:?}"
            );
        }

        world
            .kubectl(&["delete", "kcg", "orders", "--timeout=60s"], None)
            .await?
            .ok("kubectl delete")?;
        until("every object of the group is gone", async || {
            let left = labelled(world).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        assert_eq!(
            world.kafka.group(&group_id).await?,
            Some(("Empty".to_string(), 0))
        );
        assert_eq!(
            world.kafka.committed(&group_id, &input).await?,
            committed,
            "offsets stay"
        );
        Ok(())
    })
    .await
}

/// Every object of any kind in the namespace with the group's label, as "Kind/name".
async fn labelled(world: &World) -> Result<Vec<String>> {
    let kinds = world
        .kubectl(
            &[
                "api-resources",
                "--namespaced",
                "--verbs=list,delete",
                "-o",
                "name",
            ],
            None,
        )
        .await?
        .ok("kubectl api-resources")?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let template = "{range .items[*]}{.kind}/{.metadata.name}{\"\\n\"}{end}";
    let selector = format!("{}=orders", names::GROUP_LABEL);
    let found = world
        .kubectl(
            &[
                "get",
                &kinds.join(","),
                "-l",
                &selector,
                "-o",
                &format!("jsonpath={template}"),
            ],
            None,
        )
        .await?
        .ok("kubectl get")?;
    Ok(found.lines().map(Into::into).collect())
}

/// A running group that copies, with the number of workers of `scaling`; returns its topics.
async fn start_group(world: &World, scaling: serde_json::Value) -> Result<(String, String)> {
    let input = world.topic("orders", PARTITIONS).await?;
    let output = world.topic("copy", PARTITIONS).await?;
    let workers = scaling["replicas"].as_i64().unwrap_or(i64::from(PARTITIONS)) as i32;
    let mut spec = json!({
        "topics": [{"name": input}],
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
    });
    harness::systems::kubernetes::merge(&mut spec, scaling);
    world.apply_group("orders", spec).await?;
    world.until_ready("orders", workers).await?;
    Ok((input, output))
}
