//! What the API server and the operator reject, with which messages: every rule of the schema, every CEL
//! rule, programs that do not compile. And what they accept: every example.

mod cases;
mod replays;
mod resets;
mod schema;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use harness::{
    Load, World, scenario,
    systems::kubernetes::{identities, summary},
    until,
};
use serde::Deserialize;
use serde_json::{Value, json};

use cases::{Case, cases};

#[tokio::test(flavor = "multi_thread")]
async fn every_schema_rule_rejects_a_resource_that_breaks_it_and_names_the_field() -> Result<()> {
    scenario("schema", async |world| {
        let crd = crd(world, FILE)?;
        let good = complete(world)?;
        accepted(world, "the complete example", &good).await?;
        let mut unset = good.clone();
        unset["spec"]["errorHandling"]["onExhausted"] = Value::Null;
        unset["spec"]["worker"]["imagePullPolicy"] = Value::Null;
        accepted(world, "an enum with an empty value", &unset).await?;
        let mut broken = schema::broken(schema::schema(&crd)?, &good)?;
        let good = resets::complete(world);
        accepted(world, "the complete reset", &good).await?;
        let resets = self::crd(world, resets::FILE)?;
        broken.extend(schema::broken(schema::schema(&resets)?, &good)?);
        let good = replays::complete(world);
        accepted(world, "the complete replay", &good).await?;
        let replays = self::crd(world, replays::FILE)?;
        broken.extend(schema::broken(schema::schema(&replays)?, &good)?);
        println!("  {} rules", broken.len());
        // At least as many as there are fields: each field has a type.
        assert!(
            broken.len() > 300,
            "only {} rules were found in the schema",
            broken.len()
        );
        let mut faults = Vec::new();
        for case in &broken {
            match world.dry_run(&case.object).await? {
                Ok(()) => faults.push(format!("{}: accepted", case.rule)),
                Err(refusal) => {
                    let matches = match &case.field {
                        Some(field) => refusal.says(field, &case.says),
                        None => refusal.message.contains(&case.says),
                    };
                    if !matches {
                        faults.push(format!(
                            "{}: wanted {:?} {:?}, got {refusal}",
                            case.rule, case.field, case.says
                        ));
                    }
                }
            }
        }
        assert!(
            faults.is_empty(),
            "{} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cel_rule_rejects_a_resource_that_breaks_it_with_its_message() -> Result<()> {
    scenario("cel", async |world| {
        accepted(world, "the good resource", &good(world, json!({}))).await?;
        let crd = crd(world, FILE)?;
        let mut unhit = schema::cel_rules(schema::schema(&crd)?)?;
        println!("  {} rules", unhit.len());
        let mut faults = Vec::new();
        for Case(name, changes, field, says) in cases() {
            unhit.retain(|rule| rule.path != field || !rule.message.contains(says));
            match world.dry_run(&good(world, changes)).await? {
                Ok(()) => faults.push(format!("{name}: accepted")),
                Err(refusal) if refusal.says(&field.replace("[]", "[0]"), says) => {}
                Err(refusal) => faults.push(format!("{name}: wanted {field} {says:?}, got {refusal}")),
            }
        }
        faults.extend(group_id_cannot_change(world).await?);
        unhit.retain(|rule| !rule.message.contains(GROUP_ID));
        let resets = self::crd(world, resets::FILE)?;
        unhit.extend(schema::cel_rules(schema::schema(&resets)?)?);
        for Case(name, changes, field, says) in resets::cases() {
            unhit.retain(|rule| rule.path != field || !rule.message.contains(says));
            match world.dry_run(&resets::manifest(world, changes)).await? {
                Ok(()) => faults.push(format!("{name}: accepted")),
                Err(refusal) if refusal.says(field, says) => {}
                Err(refusal) => faults.push(format!("{name}: wanted {field} {says:?}, got {refusal}")),
            }
        }
        faults.extend(resets::cannot_change(world).await?);
        unhit.retain(|rule| !rule.message.contains(resets::IMMUTABLE));
        let replays = self::crd(world, replays::FILE)?;
        unhit.extend(schema::cel_rules(schema::schema(&replays)?)?);
        for Case(name, changes, field, says) in replays::cases() {
            unhit.retain(|rule| rule.path != field || !rule.message.contains(says));
            match world.dry_run(&replays::manifest(world, changes)).await? {
                Ok(()) => faults.push(format!("{name}: accepted")),
                Err(refusal) if refusal.says(field, says) => {}
                Err(refusal) => faults.push(format!("{name}: wanted {field} {says:?}, got {refusal}")),
            }
        }
        faults.extend(replays::cannot_change(world).await?);
        unhit.retain(|rule| !rule.message.contains(replays::IMMUTABLE));
        assert!(
            faults.is_empty(),
            "{} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
        assert!(unhit.is_empty(), "rules without a case: {unhit:#?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_apply_rejects_a_misspelled_field() -> Result<()> {
    scenario("unknown", async |world| {
        let manifest = good(world, json!({"topcis": []})).to_string();
        for (arguments, says) in [
            (&["apply", "-f", "-"][..], "unknown field \"spec.topcis\""),
            (&["create", "-f", "-"], "unknown field \"spec.topcis\""),
            (
                &["apply", "--server-side", "-f", "-"],
                ".spec.topcis: field not declared in schema",
            ),
        ] {
            let output = world.kubectl(arguments, Some(&manifest)).await?;
            assert!(!output.success, "{arguments:?}: accepted");
            assert!(output.stderr.contains(says), "{arguments:?}: {}", output.stderr);
        }
        assert!(world.groups().list(&Default::default()).await?.items.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_accepts_every_example() -> Result<()> {
    scenario("examples", async |world| {
        let mut files: Vec<_> = std::fs::read_dir(world.env.repository.join("deploy/examples"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        assert!(files.len() >= 10, "only {} examples", files.len());
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            // Users replace the namespace of the examples.
            let text = text.replace("namespace: shop", &format!("namespace: {}", world.namespace));
            let output = world
                .kubectl(&["apply", "--dry-run=server", "-f", "-"], Some(&text))
                .await?
                .ok(&file.display().to_string())?;
            println!("  {}: {}", file.display(), output.trim().replace('\n', "; "));
            assert!(
                output.contains("kafkaconsumergroup.kafka-consumer.dev/"),
                "{}: no group",
                file.display()
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_compiler_error_of_a_broken_program_and_the_workers_keep_running() -> Result<()> {
    scenario("broken-vrl", async |world| {
        let input = world.topic("orders", 2).await?;
        let with = |source: &str| {
            json!({
                "topics": [{"name": input}],
                "decode": {"value": {"type": "Json"}},
                "transforms": [{"name": "clean", "type": "Vrl", "vrl": {"source": source}}],
                "writers": [{"name": "nowhere", "type": "Blackhole"}],
            })
        };
        world.apply_group("orders", with(".seen = true")).await?;
        world.until_ready("orders", 2).await?;
        let workers = identities(&world.workers("orders").await?);
        let configuration = configuration(world).await?;

        world
            .apply_group("orders", with(".amount = to_flot!(.amount)"))
            .await?;
        let condition = until("status shows that the program is broken", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            ensure!(
                status.observed_generation == group.metadata.generation,
                "{}",
                summary(&group)
            );
            let condition = world.until_condition("orders", "Accepted", "False").await?;
            ensure!(condition.reason == "TransformInvalid", "{condition:?}");
            Ok(condition)
        })
        .await?;
        println!("{}", condition.message);
        for part in [
            "clean",
            "to_flot",
            "undefined function",
            "did you mean",
            "to_float",
        ] {
            assert!(
                condition.message.contains(part),
                "{part} is missing:\n{}",
                condition.message
            );
        }
        let ready = world.until_condition("orders", "Ready", "False").await?;
        assert_eq!(ready.reason, "TransformInvalid");
        world.until_condition("orders", "Stalled", "True").await?;
        let events = world
            .kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"], None)
            .await?
            .ok("kubectl get events")?;
        assert!(events.contains("TransformInvalid"), "{events}");

        // The change does not reach the workers: the same pods, the same configuration, and they consume.
        Load::new(&input, "meanwhile", 0..2)
            .produce(&world.kafka, 100)
            .await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        assert_eq!(identities(&world.workers("orders").await?), workers);
        assert_eq!(self::configuration(world).await?, configuration);

        world.apply_group("orders", with(".seen = false")).await?;
        world.until_condition("orders", "Accepted", "True").await?;
        until("the workers have the fixed program", async || {
            ensure!(
                self::configuration(world).await? != configuration,
                "the same configuration"
            );
            Ok(())
        })
        .await?;
        world.until_ready("orders", 2).await?;
        Ok(())
    })
    .await
}

/// Part of the message of the only rule about changes.
const GROUP_ID: &str = "groupId cannot be changed, added or removed after creation";

/// A group id that is changed, removed or added.
async fn group_id_cannot_change(world: &World) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let stopped = json!({"desiredState": "Stopped"});
    world
        .apply(&named(world, "without", stopped.clone()).to_string())
        .await?;
    let mut with = stopped;
    with["groupId"] = json!("mine");
    world.apply(&named(world, "with", with).to_string()).await?;
    for (name, change, to) in [
        ("with", "changed", json!("another")),
        ("with", "removed", Value::Null),
        ("without", "added", json!("another")),
    ] {
        let patch = json!({"spec": {"groupId": to}}).to_string();
        let output = world
            .kubectl(
                &[
                    "patch",
                    "kcg",
                    name,
                    "--type=merge",
                    "--dry-run=server",
                    "-p",
                    &patch,
                ],
                None,
            )
            .await?;
        if output.success || !output.stderr.contains(GROUP_ID) {
            faults.push(format!(
                "a group id is {change}: {}{}",
                output.stdout, output.stderr
            ));
        }
    }
    Ok(faults)
}

/// The data of the ConfigMaps that the operator created for the group.
async fn configuration(world: &World) -> Result<BTreeMap<String, Value>> {
    let selector = format!("{}=orders", crds::names::GROUP_LABEL);
    let text = world
        .kubectl(&["get", "configmaps", "-l", &selector, "-o", "json"], None)
        .await?
        .ok("kubectl get configmaps")?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("a list")?;
    ensure!(!items.is_empty(), "the group has no ConfigMap");
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_string();
    Ok(items
        .iter()
        .map(|item| (name(item), item["data"].clone()))
        .collect())
}

async fn accepted(world: &World, what: &str, object: &Value) -> Result<()> {
    match world.dry_run(object).await? {
        Ok(()) => Ok(()),
        Err(refusal) => anyhow::bail!("{what} is rejected: {refusal}"),
    }
}

/// A good resource with these changes of its spec.
fn good(world: &World, changes: Value) -> Value {
    named(world, "good", changes)
}

fn named(world: &World, name: &str, changes: Value) -> Value {
    let mut spec = json!({
        "topics": [{"name": "orders"}],
        "writers": [{"name": "nowhere", "type": "Blackhole"}],
    });
    harness::systems::kubernetes::merge(&mut spec, changes);
    world.group_manifest(name, spec)
}

/// The file of the CRD of groups.
const FILE: &str = "kafkaconsumergroups.yaml";

/// A committed CRD, which the chart installs.
fn crd(world: &World, file: &str) -> Result<Value> {
    let text = std::fs::read_to_string(world.env.repository.join("crds").join(file))?;
    Ok(serde_yaml::from_str(&text)?)
}

/// The group of the example that shows every field.
fn complete(world: &World) -> Result<Value> {
    let text = std::fs::read_to_string(world.env.repository.join("deploy/examples/full.yaml"))?;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document)?;
        if object["kind"] == "KafkaConsumerGroup" {
            object["metadata"]["namespace"] = json!(world.namespace);
            return Ok(object);
        }
    }
    anyhow::bail!("deploy/examples/full.yaml has no KafkaConsumerGroup")
}
