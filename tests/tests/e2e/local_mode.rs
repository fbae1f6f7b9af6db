//! `kafka-consumer-operator local`: the same resources without Kubernetes, with a real Kafka and with the
//! embedded broker; a custom worker; Ctrl-C; invalid files. Only the first test needs the cluster, for its
//! Kafka.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::{
    Kafka, Load, alone, beside_others, scenario,
    systems::local::{Process, program},
    until,
    verify::{check::check_records, load},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const OPERATOR: &str = "kafka-consumer-operator";

#[tokio::test(flavor = "multi_thread")]
async fn local_mode_with_a_real_kafka_loses_and_repeats_nothing_after_ctrl_c() -> Result<()> {
    scenario("local", async |world| {
        let input = world.topic("orders", 4).await?;
        let output = world.topic("shipped", 4).await?;
        let folder = TempDir::new()?;
        let manifest = |source: &str| {
            let spec = json!({
                "topics": [{"name": input}],
                "decode": {"value": {"type": "Json"}},
                "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": source}}],
                "writers": [{"name": "shipped", "type": "Kafka", "kafka": {"topic": output}}],
            });
            world.group_manifest("orders", spec)
        };
        let file = write(&folder, "orders.yaml", &manifest(load::SHIP))?;
        let group_id = world.group_id("orders");
        let running = Load::new(&input, "local", 0..4).start(&world.kafka, 300)?;

        // Twice: the second session continues where Ctrl-C has ended the first.
        for session in ["first", "second"] {
            let mut local = start(&["-f", &file, "--max-workers", "2"])?;
            local.until_prints("orders: 2 workers").await?;
            let sent = running.sent() + 600;
            until(
                &format!("the {session} session has committed {sent} records"),
                async || {
                    let committed: i64 = world.kafka.committed(&group_id, &input).await?.values().sum();
                    anyhow::ensure!(committed as u64 >= sent, "{committed} are committed");
                    Ok(())
                },
            )
            .await?;
            if session == "first" {
                // A broken change is reported and changes nothing.
                write(&folder, "orders.yaml", &manifest(".amount = to_flot!(.amount)"))?;
                let printed = local.until_prints("to_flot").await?;
                println!("  {printed}");
                local.until_prints("its workers keep running unchanged").await?;
                write(&folder, "orders.yaml", &manifest(load::SHIP))?;
            }
            local.interrupt().await?;
            let (code, printed) = local.end().await?;
            assert_eq!(code, 0, "{printed}");
            assert!(printed.contains("stopping: "), "{printed}");
            assert!(
                !printed.contains("exit code"),
                "no worker ended unexpectedly:\n{printed}"
            );
            // They left the group instead of timing out.
            let (state, members) = world
                .kafka
                .group(&group_id)
                .await?
                .context("the group is known")?;
            assert_eq!((state.as_str(), members), ("Empty", 0), "{printed}");
        }

        let ledger = running.stop().await?;
        let mut local = start(&["-f", &file])?;
        world.kafka.until_drained(&group_id, &input).await?;
        local.until_prints("lag 0").await?;
        let (code, printed) = reset(&file, &["--to-earliest", "--execute"]).await?;
        println!("{printed}");
        assert_eq!(code, 1, "{printed}");
        for part in ["nothing is changed", &group_id, "client.id \"", "Ctrl-C"] {
            assert!(printed.contains(part), "{part} is missing: {printed}");
        }
        local.interrupt().await?;
        let (code, printed) = local.end().await?;
        assert_eq!(code, 0, "{printed}");
        let records = world.kafka.read_all(&output).await?;
        let verdict = check_records(&ledger, &records)?;
        println!("  {verdict}");
        assert!(verdict.complete(), "{verdict}");
        assert_eq!(verdict.duplicates(), 0, "{verdict}");
        assert_eq!(records[0].json()?["status"], "NEW", "the program has run");
        replays_a_range(&world.kafka, &file, &group_id, (&input, &output)).await?;
        resets_offsets(&world.kafka, &file, &group_id, &input).await
    })
    .await
}

/// Runs some offsets of two partitions through the group once more. The group has finished every record.
async fn replays_a_range(
    kafka: &Kafka,
    file: &str,
    group_id: &str,
    (input, output): (&str, &str),
) -> Result<()> {
    let committed = kafka.committed(group_id, input).await?;
    let before = kafka.end_offsets(output).await?;
    let bounds = [(0, 5, 25), (1, 0, 3)];
    let offsets = bounds.map(|(partition, from, to)| {
        [
            "--from-offset".to_string(),
            format!("{input}:{partition}={from}"),
            "--to-offset".to_string(),
            format!("{input}:{partition}={to}"),
        ]
    });
    let arguments: Vec<&str> = offsets.iter().flatten().map(String::as_str).collect();
    let (code, printed) = replay(file, &[&arguments[..], &["--dry-run"]].concat()).await?;
    assert_eq!(code, 0, "{printed}");
    for part in ["23 offsets of 2 partitions through 1 worker", "dry run"] {
        assert!(printed.contains(part), "{part} is missing: {printed}");
    }
    assert_eq!(kafka.end_offsets(output).await?, before, "a dry run");
    let (code, printed) = replay(file, &[&arguments[..], &["--workers", "2"]].concat()).await?;
    println!("{printed}");
    assert_eq!(code, 0, "{printed}");
    for part in ["2 workers", "100 %: 23 of 23 offsets processed", "done"] {
        assert!(printed.contains(part), "{part} is missing: {printed}");
    }
    assert!(!printed.contains("is still in Kafka"), "{printed}");

    let id = |record: &harness::Record| -> Result<String> { Ok(record.json()?["id"].to_string()) };
    let records = kafka.read_all(input).await?;
    let in_bounds = |record: &&harness::Record| {
        let of = |(partition, from, to): &(i32, i64, i64)| {
            record.partition == *partition && (*from..*to).contains(&record.offset)
        };
        bounds.iter().any(of)
    };
    let mut expected = records
        .iter()
        .filter(in_bounds)
        .map(id)
        .collect::<Result<Vec<_>>>()?;
    let records = kafka.read_all(output).await?;
    let is_new = |record: &&harness::Record| record.offset >= before[&record.partition];
    let mut written = records
        .iter()
        .filter(is_new)
        .map(id)
        .collect::<Result<Vec<_>>>()?;
    expected.sort();
    written.sort();
    assert_eq!(written, expected, "exactly the range, once");
    assert_eq!(
        kafka.committed(group_id, input).await?,
        committed,
        "the group's own offsets"
    );
    let replays = printed
        .split_whitespace()
        .find(|word| word.contains(".replay.local-"))
        .context("the consumer group of the replay is named")?;
    let group = kafka.group(replays).await?;
    assert!(group.is_none_or(|(state, _)| state == "Dead"), "it is removed");
    let (code, printed) = replay(file, &["--from-earliest", "--writer", "nobody"]).await?;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("is not a writer of the group"), "{printed}");
    Ok(())
}

/// `local replay` of the only group in this file.
async fn replay(file: &str, arguments: &[&str]) -> Result<(i32, String)> {
    start(&[&["replay", "-f", file], arguments].concat())?.end().await
}

/// Sets the offsets of the stopped group, which has finished every record.
async fn resets_offsets(kafka: &Kafka, file: &str, group_id: &str, input: &str) -> Result<()> {
    let ends = kafka.committed(group_id, input).await?;
    let (code, printed) = reset(file, &["--to-datetime", "2020-01-01T00:00:00Z"]).await?;
    println!("{printed}");
    assert_eq!(code, 0, "{printed}");
    let all: i64 = ends.values().sum();
    for part in ["dry run", &format!("{all} offsets will be read again")] {
        assert!(printed.contains(part), "{part} is missing: {printed}");
    }
    // A row ends with the time of its record.
    let timed = printed.lines().filter(|line| line.ends_with('Z')).count();
    assert_eq!(timed, ends.len(), "{printed}");
    assert_eq!(kafka.committed(group_id, input).await?, ends, "a dry run");
    let one = format!("{input}:0");
    let (code, printed) = reset(file, &["--to-earliest", "--topic", &one, "--execute"]).await?;
    assert_eq!(code, 0, "{printed}");
    let (code, printed) = reset(file, &["--shift-by", "-5", "--execute"]).await?;
    println!("{printed}");
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("-5 is below the first offset"), "{printed}");
    let expected = ends.iter().map(|(partition, end)| match partition {
        0 => (0, 0),
        other => (*other, end - 5),
    });
    assert_eq!(kafka.committed(group_id, input).await?, expected.collect());
    Ok(())
}

/// `local reset` of the only group in this file.
async fn reset(file: &str, arguments: &[&str]) -> Result<(i32, String)> {
    start(&[&["reset", "-f", file], arguments].concat())?.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_serves_a_group_with_its_dead_letters() -> Result<()> {
    let _beside_others = beside_others().await;
    let folder = TempDir::new()?;
    let file = write(
        &folder,
        "orders.yaml",
        &group(json!({
            "topics": [{"name": "orders", "provision": {"partitions": 3}}],
            "decode": {"value": {"type": "Json"}},
            "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
            "writers": [{"name": "shipped", "type": "Kafka", "kafka": {"topic": "shipped"}}],
            "errorHandling": {"deadLetter": {"topic": "orders.dlq", "provision": {}}},
        })),
    )?;
    let mut local = start(&["-f", &file, "--embedded-kafka", "--max-workers", "2"])?;
    let kafka = embedded(&mut local).await?;
    assert_eq!(kafka.partitions("orders").await?, 3);
    let ledger = Load::new("orders", "embedded", 0..3)
        .produce(&kafka, 3000)
        .await?;
    let poison = harness::Message {
        value: Some(b"not JSON".to_vec()),
        ..harness::Message::default()
    };
    kafka.produce("orders", [poison]).await?;
    kafka.until_drained("default.orders", "orders").await?;
    let verdict = check_records(&ledger, &kafka.read_all("shipped").await?)?;
    println!("  {verdict}");
    assert!(verdict.complete(), "{verdict}");
    let letters = kafka.read_all("orders.dlq").await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].value.as_deref(), Some(&b"not JSON"[..]));
    assert_eq!(
        letters[0].header("kafka-consumer.dev/stage").as_deref(),
        Some("decode")
    );
    local.until_prints("finished 3,001, dead letters 1").await?;
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_worker_runs_its_transform_and_its_writer() -> Result<()> {
    let _beside_others = beside_others().await;
    // The example unchanged, and a second writer to see the output of its transform.
    let example = repository()?.join("deploy/examples/custom-worker.yaml");
    let mut object: Value = serde_yaml::from_str(&std::fs::read_to_string(&example)?)?;
    object["spec"]["writers"]
        .as_array_mut()
        .context("writers")?
        .push(json!({"name": "seen", "type": "Kafka", "kafka": {"topic": "shouted"}}));
    let folder = TempDir::new()?;
    let file = write(&folder, "custom-worker.yaml", &object)?;
    let custom = program("custom-worker")?;
    let custom = custom.to_string_lossy();
    let mut local = start(&[
        "-f",
        &file,
        "--embedded-kafka",
        "--worker-binary",
        &custom,
        "--max-workers",
        "2",
    ])?;
    let kafka = embedded(&mut local).await?;
    let partitions = kafka.partitions("orders").await? as i32;
    let ledger = Load::new("orders", "custom", 0..partitions)
        .produce(&kafka, 600)
        .await?;
    // A record is finished when every writer has written it, so the example's writer has counted these.
    local.until_prints("finished 600").await?;
    let records = kafka.read_all("shouted").await?;
    let verdict = check_records(&ledger, &records)?;
    println!("  {verdict}");
    assert!(verdict.complete(), "{verdict}");
    for record in &records {
        let value = record.json()?;
        assert_eq!(value["status"], "NEW", "{value}");
        assert_eq!(value["note"], "to be dropped", "the rest is kept: {value}");
    }
    local.interrupt().await?;
    let (code, printed) = local.end().await?;
    assert_eq!(code, 0, "{printed}");

    // The released worker knows neither, and the error says what to do.
    let mut local = start(&["-f", &file, "--embedded-kafka", "--max-workers", "1"])?;
    let printed = local.until_prints("this worker has no custom").await?;
    println!("  {printed}");
    assert!(printed.contains("set worker.image"), "{printed}");
    local.until_prints("ended with exit code 2").await?;
    local.interrupt().await?;
    assert_eq!(local.end().await?.0, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_on_its_own_with_correct_sums() -> Result<()> {
    let _alone = alone().await;
    let local = start(&["--demo", "--demo-records", "5000"])?;
    let (code, printed) = local.end().await?;
    println!("{printed}");
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("5,000"), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn local_mode_check_accepts_every_example() -> Result<()> {
    let _beside_others = beside_others().await;
    let mut checked = 0;
    for entry in std::fs::read_dir(repository()?.join("deploy/examples"))? {
        let path = entry?.path();
        let (code, printed) = start(&["-f", &path.to_string_lossy(), "--check"])?.end().await?;
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("valid"), "{printed}");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} examples");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_an_invalid_file_names_the_file_and_the_field() -> Result<()> {
    let _beside_others = beside_others().await;
    let folder = TempDir::new()?;
    let spec = |changes: Value| {
        let mut spec = json!({
            "topics": [{"name": "orders"}],
            "writers": [{"name": "out", "type": "Stdout"}],
        });
        harness::systems::kubernetes::merge(&mut spec, changes);
        group(spec).to_string()
    };
    let vrl =
        |source: &str| json!({"transforms": [{"name": "clean", "type": "Vrl", "vrl": {"source": source}}]});
    let login =
        json!({"kafka": {"tls": {}, "sasl": {"mechanism": "PLAIN", "credentials": {"secretName": "login"}}}});
    // Name of the file, its text, the expected parts of the message; true: only a cluster or a start can find
    // the error.
    let cases: [(&str, String, &[&str], bool); 9] = [
        (
            "unknown.yaml",
            spec(json!({"topcis": []})),
            &["spec.topcis", "topics"],
            false,
        ),
        (
            "bounds.yaml",
            spec(json!({"processing": {"concurrency": 0}})),
            &["spec.processing.concurrency", "1"],
            false,
        ),
        (
            "missing.yaml",
            spec(json!({"writers": [{"name": "out"}]})),
            &["spec.writers[0].type", "Required value"],
            false,
        ),
        (
            "type.yaml",
            spec(json!({"replicas": "many"})),
            &["spec.replicas", "integer"],
            false,
        ),
        (
            "cel.yaml",
            spec(json!({"errorHandling": {"deadLetter": {"topic": "orders"}}})),
            &[
                "spec",
                "errorHandling.deadLetter.topic is also an input topic",
                "<topic>.dlq",
            ],
            false,
        ),
        (
            "program.yaml",
            spec(vrl(".a = to_flot!(.b)")),
            &["clean", "undefined function", "to_flot"],
            false,
        ),
        ("broken.yaml", "kind: [".into(), &["not YAML"], false),
        (
            "kind.yaml",
            "kind: Deployment\nmetadata: {name: a}\n".into(),
            &["KafkaConsumerGroup"],
            false,
        ),
        (
            "secret.yaml",
            spec(login),
            &["Secret login", "spec.kafka.sasl.credentials", "--secrets-dir"],
            true,
        ),
    ];
    for (name, text, parts, start_only) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        let path = path.to_string_lossy();
        for mode in ["--check", "--embedded-kafka"] {
            if mode == "--check" && start_only {
                continue;
            }
            // The embedded broker does not use SASL, so that Secret is not needed with it.
            let arguments: &[&str] = if start_only {
                &["-f", &path]
            } else {
                &["-f", &path, mode]
            };
            let (code, printed) = start(arguments)?.end().await?;
            assert_eq!(code, 1, "{name} {mode}: {printed}");
            // The last one has no document whose name could be shown.
            if name != "kind.yaml" {
                assert!(
                    printed.contains(name),
                    "{name} {mode}: the message does not name the file: {printed}"
                );
            }
            for part in parts {
                assert!(
                    printed.contains(part),
                    "{name} {mode}: {part} is missing: {printed}"
                );
            }
        }
    }
    for (arguments, code, part) in [
        (&["-f", "/nowhere/at/all.yaml"][..], 1, "/nowhere/at/all.yaml"),
        (&["--check"], 2, "--file"),
        (&["-f", "x.yaml", "--max-workers", "0"], 2, "--max-workers"),
        (
            &["-f", "x.yaml", "--embedded-kafka", "--bootstrap-servers", "a:1"],
            2,
            "--bootstrap-servers",
        ),
    ] {
        let (ended, printed) = start(arguments)?.end().await?;
        assert_eq!(ended, code, "{arguments:?}: {printed}");
        assert!(
            printed.contains(part),
            "{arguments:?}: {part} is missing: {printed}"
        );
    }
    Ok(())
}

/// `kafka-consumer-operator local ARGUMENTS`.
pub(crate) fn start(arguments: &[&str]) -> Result<Process> {
    Process::start(&program(OPERATOR)?, &[&["local"], arguments].concat())
}

/// The embedded broker, whose address local mode prints when it has started.
pub(crate) async fn embedded(local: &mut Process) -> Result<Kafka> {
    let line = local.until_prints("(127.0.0.1:").await?;
    let address = line
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .with_context(|| format!("no address in {line}"))?
        .0;
    local.until_prints(" worker").await?;
    Ok(Kafka::new(address))
}

/// A group of the namespace default; `kafka` is replaced where it matters.
pub(crate) fn group(spec: Value) -> Value {
    let mut whole = json!({
        "kafka": {"bootstrapServers": ["localhost:9092"]},
        "processing": {"commitIntervalMilliseconds": 200},
        "worker": {"terminationGracePeriodSeconds": 20},
    });
    harness::systems::kubernetes::merge(&mut whole, spec);
    json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": "orders"},
        "spec": whole,
    })
}

/// Writes a file of the folder and returns its path.
pub(crate) fn write(folder: &TempDir, name: &str, object: &Value) -> Result<String> {
    let path = folder.path().join(name);
    std::fs::write(&path, serde_yaml::to_string(object)?)?;
    Ok(path.to_string_lossy().into_owned())
}

fn repository() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("the tests crate has no parent folder")
}
