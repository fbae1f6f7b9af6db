//! Brokers that require authentication: SASL over TLS, client certificates, missing or wrong Secrets. And: a
//! password is nowhere except in its Secret.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{
    Load, World, scenario,
    systems::{
        install::OPERATOR,
        kubernetes::{condition, summary},
    },
    until, until_within,
    verify::check::check_records,
};
use kube::ResourceExt;
use serde_json::{Value, json};

const PARTITIONS: i32 = 2;

/// How long it may take until status shows a wrong password; the goal is 30 s, the rest is for a busy
/// machine.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn scram_over_tls_works_from_secrets_and_the_password_is_nowhere_else() -> Result<()> {
    scenario("scram", async |world| {
        let (input, output) = topics(world).await?;
        let ledger = Load::new(&input, "scram", 0..PARTITIONS)
            .produce(&world.kafka, 1000)
            .await?;
        world
            .apply_group("orders", group(world, scram(world)?, &input, &output))
            .await?;

        // The status asks for one Secret after the other by name, and creating it is enough.
        for (secret, key) in [("broker-ca", "ca.crt"), ("broker-login", "username")] {
            let shown = until(&format!("status asks for Secret {secret}"), async || {
                let found = world.until_condition("orders", "Accepted", "False").await?;
                ensure!(
                    found.reason == "SecretMissing" && found.message.contains(secret),
                    "{found:?}"
                );
                Ok(found)
            })
            .await?;
            println!("  {}", shown.message);
            for part in [key, "spec.kafka.", "kubectl create secret", &world.namespace] {
                assert!(
                    shown.message.contains(part),
                    "{part} is missing: {}",
                    shown.message
                );
            }
            match secret {
                "broker-ca" => authority(world).await?,
                _ => login(world, &password(world)?).await?,
            }
        }
        world.until_condition("orders", "Accepted", "True").await?;
        world.until_ready("orders", PARTITIONS).await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        println!("  {verdict}");
        assert!(verdict.complete(), "{verdict}");
        secret_is_nowhere(world, &password(world)?).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_a_wrong_password_and_a_corrected_secret_is_enough_to_recover() -> Result<()> {
    const WRONG: &str = "this-is-not-the-password";
    scenario("password", async |world| {
        let (input, output) = topics(world).await?;
        authority(world).await?;
        login(world, WRONG).await?;
        let asked = Instant::now();
        world
            .apply_group("orders", group(world, scram(world)?, &input, &output))
            .await?;
        until_refused(world, asked).await?;
        let first = Load::new(&input, "first", 0..PARTITIONS)
            .produce(&world.kafka, 200)
            .await?;
        login(world, &password(world)?).await?;
        world.until_ready("orders", PARTITIONS).await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;

        // The same at runtime: the Secret of a running group gets a wrong password.
        let asked = Instant::now();
        login(world, WRONG).await?;
        until_refused(world, asked).await?;
        let second = Load::new(&input, "second", 0..PARTITIONS)
            .produce(&world.kafka, 200)
            .await?;
        secret_is_nowhere(world, WRONG).await?;
        login(world, &password(world)?).await?;
        world.until_ready("orders", PARTITIONS).await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        let records = world.kafka.read_all(&output).await?;
        for ledger in [first, second] {
            let verdict = check_records(&ledger, &records)?;
            println!("  {}: {verdict}", ledger.run);
            assert!(verdict.complete(), "{verdict}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_works_with_a_client_certificate_and_its_key_is_nowhere_else() -> Result<()> {
    scenario("mtls", async |world| {
        let (input, output) = topics(world).await?;
        let ledger = Load::new(&input, "mtls", 0..PARTITIONS).produce(&world.kafka, 1000).await?;
        let read = |variable: &str| Ok::<_, anyhow::Error>(std::fs::read_to_string(world.env.variable(variable)?)?);
        let (certificate, key) = (read("KAFKA_CLIENT_CERT_FILE")?, read("KAFKA_CLIENT_KEY_FILE")?);
        // The CA from a ConfigMap here; the client's certificate as cert-manager creates it.
        let manifests = [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authorities"},
                "data": {"brokers.pem": read("KAFKA_CA_FILE")?}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"}, "type": "kubernetes.io/tls",
                "stringData": {"tls.crt": certificate, "tls.key": key}}),
        ];
        for manifest in manifests {
            world.apply(&manifest.to_string()).await?;
        }
        let kafka = json!({
            "bootstrapServers": [world.env.variable("KAFKA_MTLS_BOOTSTRAP_SERVERS")?],
            "tls": {
                "ca": {"configMapName": "authorities", "key": "brokers.pem"},
                "clientCertificate": {"secretName": "client"},
            },
        });
        world.apply_group("orders", group(world, kafka, &input, &output)).await?;
        world.until_ready("orders", PARTITIONS).await?;
        world.kafka.until_drained(&world.group_id("orders"), &input).await?;
        let verdict = check_records(&ledger, &world.kafka.read_all(&output).await?)?;
        println!("  {verdict}");
        assert!(verdict.complete(), "{verdict}");
        for line in key.lines().filter(|line| !line.starts_with("-----")) {
            secret_is_nowhere(world, line).await?;
        }
        Ok(())
    })
    .await
}

/// Waits until status shows that the broker refuses the login, and where to correct it.
async fn until_refused(world: &World, since: Instant) -> Result<()> {
    let shown = until_within(
        SHOWN_WITHIN,
        "status shows that the broker refuses the login",
        async || {
            let group = world.group("orders").await?;
            let Some(found) = condition(&group, "KafkaReachable") else {
                anyhow::bail!("no condition yet");
            };
            ensure!(
                found.status == "False" && found.reason == "AuthenticationFailed",
                "{}",
                summary(&group)
            );
            Ok(found)
        },
    )
    .await?;
    println!(
        "  shown after {:.1} s (goal 30 s): {}",
        since.elapsed().as_secs_f32(),
        shown.message
    );
    assert!(
        shown.message.contains("spec.kafka.sasl.credentials"),
        "the message says where to correct it: {}",
        shown.message
    );
    let ready = world.until_condition("orders", "Ready", "False").await?;
    println!("  Ready=False {}: {}", ready.reason, ready.message);
    let stalled = world.until_condition("orders", "Stalled", "True").await?;
    assert_eq!(stalled.reason, "AuthenticationFailed", "{stalled:?}");
    Ok(())
}

/// Searches everything in the namespace except Secrets, the operator, and all logs.
async fn secret_is_nowhere(world: &World, secret: &str) -> Result<()> {
    let mut places: Vec<(String, String)> = Vec::new();
    for kinds in [
        "kafkaconsumergroups",
        "configmaps",
        "pods",
        "deployments,replicasets",
        "events",
        "roles,rolebindings,serviceaccounts,poddisruptionbudgets",
    ] {
        let arguments = ["get", kinds, "-o", "yaml", "--show-managed-fields"];
        let text = world.kubectl(&arguments, None).await?.ok("kubectl get")?;
        places.push((kinds.into(), text));
    }
    let operator = ["--namespace", OPERATOR];
    for (what, arguments) in [
        (
            "pods and events of the operator",
            &["get", "pods,configmaps,events,leases", "-o", "yaml"][..],
        ),
        (
            "log of the operator",
            &[
                "logs",
                "--tail=-1",
                "-l",
                "app.kubernetes.io/name=kafka-consumer-operator",
            ],
        ),
    ] {
        let output =
            harness::systems::command::run("kubectl", &[&operator[..], arguments].concat(), None).await?;
        places.push((what.into(), output.ok("kubectl")?));
    }
    places.push(("logs of the workers".into(), world.worker_logs("orders").await?));
    for pod in world.workers("orders").await? {
        // A worker that cannot start has no pages.
        for page in ["status", "metrics"] {
            if let Ok(text) = world.worker_page(&pod.name_any(), page).await {
                places.push((format!("{page} of {}", pod.name_any()), text));
            }
        }
    }
    let encoded = base64(secret.as_bytes());
    for (place, text) in places {
        for form in [secret, &encoded] {
            assert!(!text.contains(form), "a secret is in the {place}");
        }
    }
    Ok(())
}

async fn topics(world: &World) -> Result<(String, String)> {
    Ok((
        world.topic("orders", PARTITIONS).await?,
        world.topic("copy", PARTITIONS).await?,
    ))
}

/// A group that copies, and connects to Kafka as `kafka` says.
fn group(world: &World, kafka: Value, input: &str, output: &str) -> Value {
    println!("  {} through {}", world.namespace, kafka["bootstrapServers"]);
    json!({
        "topics": [{"name": input}],
        "kafka": kafka,
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
    })
}

/// SCRAM-SHA-512 over TLS, everything secret from Secrets.
fn scram(world: &World) -> Result<Value> {
    Ok(json!({
        "bootstrapServers": [world.env.variable("KAFKA_SASL_BOOTSTRAP_SERVERS")?],
        "tls": {"ca": {"secretName": "broker-ca"}},
        "sasl": {"mechanism": "SCRAM-SHA-512", "credentials": {"secretName": "broker-login"}},
    }))
}

async fn authority(world: &World) -> Result<()> {
    let pem = std::fs::read_to_string(world.env.variable("KAFKA_CA_FILE")?)?;
    world.apply_secret("broker-ca", &[("ca.crt", &pem)]).await
}

async fn login(world: &World, password: &str) -> Result<()> {
    let username = world.env.variable("KAFKA_SASL_USERNAME")?;
    world
        .apply_secret("broker-login", &[("username", &username), ("password", password)])
        .await
}

fn password(world: &World) -> Result<String> {
    world.env.variable("KAFKA_SASL_PASSWORD")
}

fn base64(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes)
}
