//! Records that fail: sent unchanged to the dead letter topic, blocking their partition, or skipped; never
//! lost.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use harness::{
    Ledger, Load, Message, Record, World, scenario,
    systems::kubernetes::summary,
    until,
    verify::{
        check::{check, check_records},
        load,
    },
};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Prefix of the headers that the worker adds. Spelled out here, because it is a promise to the consumers of
/// dead letters.
const PREFIX: &str = "kafka-consumer.dev/";

/// Part of every poison record; messages must not quote payloads.
const MARKER: &str = "PAYLOAD-MARKER";

/// How long the tests watch that nothing happens: several commit intervals, retries and metadata refreshes
/// (10 s).
const WATCHED: Duration = Duration::from_secs(15);

/// A failing record, and the expected contents of its dead letter.
struct Poison {
    name: &'static str,
    message: Message,
    stage: &'static str,
    component: &'static str,
    class: &'static str,
    says: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_records_reach_the_dead_letter_topic_unchanged_and_later_records_continue() -> Result<()> {
    scenario("poison", async |world| {
        let input = world.topic("orders", 3).await?;
        let returns = world.topic("returns", 1).await?;
        let dead = world.topic_name("dlq");
        let database = world.postgres().await?;
        let table = world.table_name("orders");
        let columns = "id text primary key, run text not null, key text, sequence bigint, \
                       total bigint check (total >= 0), status text";
        database.create_table(&table, columns).await?;
        world
            .apply_secret("warehouse", &[("url", &world.env.variable("POSTGRES_URL")?)])
            .await?;
        world
            .apply_group(
                "orders",
                json!({
                    "topics": [{"name": input}, {"name": returns}],
                    "decode": {"value": {"type": "Json"}},
                    "transforms": [{"name": "ship", "type": "Vrl", "vrl": {"source": load::SHIP}}],
                    "writers": [{"name": "warehouse", "type": "Postgres", "postgres": {
                        "connection": {"secretName": "warehouse", "key": "url"}, "table": table, "keyColumns": ["id"],
                    }}],
                    "errorHandling": {"deadLetter": {"topic": dead, "provision": {"config": {"retention.ms": "86400000"}}}},
                }),
            )
            .await?;
        world.until_ready("orders", 4).await?;

        let before = Load::new(&input, "before", 0..3).produce(&world.kafka, 300).await?;
        let poison = poison();
        let landed = world
            .kafka
            .produce(&input, poison.iter().map(|poison| poison.message.clone()))
            .await?;
        let after = Load::new(&input, "after", 0..3).produce(&world.kafka, 300).await?;
        let group_id = world.group_id("orders");
        world.kafka.until_drained(&group_id, &input).await?;

        assert_eq!(
            world.kafka.partitions(&dead).await?,
            3,
            "the dead letter topic has as many partitions as the largest input topic"
        );
        let letters = world.kafka.read_all(&dead).await?;
        assert_eq!(letters.len(), poison.len(), "one dead letter per poison record");
        let pods: Vec<String> = world.workers("orders").await?.iter().map(ResourceExt::name_any).collect();
        let originals = world.kafka.read_all(&input).await?;
        for (poison, place) in poison.iter().zip(&landed) {
            let at = |record: &&Record| record.partition == place.partition && record.offset == place.offset;
            let original = originals.iter().find(at).context("the record is in the input topic")?;
            let letter = letters
                .iter()
                .find(|letter| came_from(letter, place.partition, place.offset))
                .with_context(|| format!("no dead letter of {}", poison.name))?;
            check_letter(poison, original, letter, &input, &group_id, &pods)?;
        }

        // All other records are in the table, and none of the poison.
        for ledger in [&before, &after] {
            let rows = database
                .client
                .query(
                    &format!("select key, sequence from {table} where run = $1 order by sequence"),
                    &[&ledger.run],
                )
                .await?;
            let arrivals = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()));
            let verdict = check(ledger, arrivals);
            println!("  {}: {verdict}", ledger.run);
            assert!(verdict.complete(), "{verdict}");
        }
        assert_eq!(database.count(&table).await? as u64, before.total() + after.total());
        database.client.batch_execute(&format!("drop table {table}")).await?;

        until("status counts the dead letters", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            let counted: i64 = status.workers.iter().map(|worker| worker.dead_lettered_total).sum();
            ensure!(counted == poison.len() as i64, "{counted} counted; {}", summary(&group));
            Ok(())
        })
        .await?;
        let counted = world.workers_metric("orders", "kcg_worker_dead_lettered_total").await?;
        assert_eq!(counted, poison.len() as f64);
        world.until_condition("orders", "Ready", "True").await?;
        // No log contains the payload of a record.
        let logs = world.worker_logs("orders").await?;
        assert!(!logs.contains(MARKER), "a worker logs payloads:\n{logs}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_for_a_missing_dead_letter_topic_and_continues_when_it_appears() -> Result<()> {
    scenario("no-dlq", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        let dead = world.topic_name("dlq");
        let mut spec = copy(&input, &output, json!({"deadLetter": {"topic": dead}}));
        spec["scaling"] = json!({"partitionsPerWorker": 2});
        world.apply_group("orders", spec).await?;
        world.until_ready("orders", 1).await?;
        // Reported before the first record fails, and no reason not to run.
        let accepted = world.until_condition("orders", "Accepted", "True").await?;
        assert_eq!(accepted.reason, "DeadLetterTopicMissing");
        assert!(accepted.message.contains(&dead), "{}", accepted.message);

        let ledger = poisoned(world, &input, Some("a poison record")).await?;
        let condition = until(
            "status shows that the dead letter topic is unavailable",
            async || {
                let condition = world.until_condition("orders", "Consuming", "False").await?;
                ensure!(condition.reason == "DeadLetterUnavailable", "{condition:?}");
                Ok(condition)
            },
        )
        .await?;
        println!("  {}", condition.message);
        assert!(condition.message.contains(&dead), "{}", condition.message);
        let group = world.group("orders").await?;
        let workers = group.status.unwrap_or_default().workers;
        assert_eq!(
            workers[0].paused_reason.as_deref(),
            Some("DeadLetterUnavailable"),
            "{workers:?}"
        );

        // The other partition of the same worker continues; this one does not move.
        let group_id = world.group_id("orders");
        until_drained_but(world, &group_id, &input, 0).await?;
        stays_at(world, &group_id, 0, POISON_AT).await?;
        assert!(
            world.kafka.partitions(&dead).await.is_err(),
            "the spec does not ask to create the dead letter topic"
        );

        world.kafka.create_topic(&dead, 2).await?;
        world.kafka.until_drained(&group_id, &input).await?;
        let letters = world.kafka.read_all(&dead).await?;
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(came_from(&letters[0], 0, POISON_AT), "{letters:?}");
        assert_eq!(letters[0].value.as_deref(), Some(&b"a poison record"[..]));
        complete(world, &ledger, &output, 0).await?;
        world.until_condition("orders", "Consuming", "True").await?;
        until("no problem is reported any more", async || {
            let accepted = world.until_condition("orders", "Accepted", "True").await?;
            ensure!(accepted.reason == "Accepted", "{accepted:?}");
            Ok(())
        })
        .await?;
        world.until_ready("orders", 1).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_on_exhausted_stop_the_partition_waits_visibly_and_continues_once_fixed() -> Result<()> {
    scenario("stop", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        let retry =
            json!({"onExhausted": "Stop", "retry": {"maxBackoffSeconds": 1}, "stalledAfterSeconds": 10});
        let mut spec = copy(&input, &output, retry);
        spec["scaling"] = json!({"partitionsPerWorker": 2});
        spec["transforms"] =
            json!([{"name": "strict", "type": "Vrl", "vrl": {"source": ".sequence = int!(.sequence)"}}]);
        world.apply_group("orders", spec.clone()).await?;
        world.until_ready("orders", 1).await?;

        let poison = json!({"run": "repaired", "key": "poison", "sequence": "0"}).to_string();
        let ledger = poisoned(world, &input, Some(&poison)).await?;
        let condition = until("status shows that a record failed", async || {
            let condition = world.until_condition("orders", "Consuming", "False").await?;
            ensure!(condition.reason == "RecordFailed", "{condition:?}");
            Ok(condition)
        })
        .await?;
        println!("  {}", condition.message);
        let place = format!("{input}-0@{POISON_AT}");
        for part in [place.as_str(), "strict", "expected integer"] {
            assert!(
                condition.message.contains(part),
                "{part} is missing: {}",
                condition.message
            );
        }
        let stalled = world.until_condition("orders", "Stalled", "True").await?;
        assert_eq!(stalled.reason, "RecordFailed");
        world.until_condition("orders", "Ready", "False").await?;
        let group_id = world.group_id("orders");
        until_drained_but(world, &group_id, &input, 0).await?;
        stays_at(world, &group_id, 0, POISON_AT).await?;
        let stalled = until("status shows that the partition is stalled", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            ensure!(
                status.partitions.unwrap_or_default().stalled == Some(1),
                "{}",
                summary(&group)
            );
            Ok(status.stalled_partitions)
        })
        .await?;
        assert_eq!(stalled.len(), 1, "{stalled:?}");
        assert_eq!((stalled[0].partition, stalled[0].offset), (0, Some(POISON_AT)));
        assert_eq!(stalled[0].reason, "RecordFailed");
        let error = stalled[0].last_error.as_deref().unwrap_or_default();
        assert!(error.contains(&place), "{error}");

        // Fixed: the worker continues with exactly that record.
        spec["transforms"][0]["vrl"]["source"] = json!(".sequence = to_int!(.sequence)");
        world.apply_group("orders", spec).await?;
        world.kafka.until_drained(&group_id, &input).await?;
        // The batch of the record was written except for this record, and the new worker starts at the
        // record.
        complete(world, &ledger, &output, POISON_AT as u64).await?;
        let repaired = Ledger::counted("repaired", [("poison".into(), 1)]);
        complete(world, &repaired, &output, 0).await?;
        world.until_condition("orders", "Consuming", "True").await?;
        world.until_ready("orders", 1).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_on_exhausted_skip_failing_records_are_dropped_and_counted() -> Result<()> {
    scenario("skip", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        world
            .apply_group("orders", copy(&input, &output, json!({"onExhausted": "Skip"})))
            .await?;
        world.until_ready("orders", 2).await?;

        let first = poisoned(world, &input, Some("one")).await?;
        let more = ["two", "three"].map(|text| Message {
            partition: Some(1),
            value: Some(text.into()),
            ..Message::default()
        });
        world.kafka.produce(&input, more).await?;
        let second = Load::new(&input, "second", 0..2)
            .produce(&world.kafka, 100)
            .await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        complete(world, &first, &output, 0).await?;
        complete(world, &second, &output, 0).await?;
        until("status counts three skipped records", async || {
            let group = world.group("orders").await?;
            let status = group.status.clone().unwrap_or_default();
            let skipped: i64 = status.workers.iter().map(|worker| worker.skipped_total).sum();
            ensure!(skipped == 3, "{skipped} counted; {}", summary(&group));
            Ok(())
        })
        .await?;
        assert_eq!(
            world.workers_metric("orders", "kcg_worker_skipped_total").await?,
            3.0
        );
        world.until_ready("orders", 2).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_have_the_headers_of_kafka_connect_or_spring_if_configured() -> Result<()> {
    scenario("header-style", async |world| {
        let input = world.topic("orders", 2).await?;
        let output = world.topic("copy", 2).await?;
        for style in ["Connect", "Spring"] {
            let name = style.to_lowercase();
            let dead = world.topic_name(&name);
            let letters = json!({"deadLetter": {"topic": dead, "headerStyle": style, "provision": {}}});
            world.apply_group(&name, copy(&input, &output, letters)).await?;
        }
        poisoned(world, &input, Some("a poison record")).await?;
        for (style, expected) in [
            (
                "connect",
                vec![
                    ("__connect.errors.topic", input.as_bytes().to_vec()),
                    ("__connect.errors.partition", b"0".to_vec()),
                    ("__connect.errors.offset", POISON_AT.to_string().into_bytes()),
                    ("__connect.errors.stage", b"VALUE_CONVERTER".to_vec()),
                ],
            ),
            (
                "spring",
                vec![
                    ("kafka_dlt-original-topic", input.as_bytes().to_vec()),
                    ("kafka_dlt-original-partition", 0_i32.to_be_bytes().to_vec()),
                    ("kafka_dlt-original-offset", POISON_AT.to_be_bytes().to_vec()),
                    ("kafka_dlt-original-timestamp-type", b"CreateTime".to_vec()),
                ],
            ),
        ] {
            let group_id = world.group_id(style);
            world.kafka.until_drained(&group_id, &input).await?;
            let letters = world.kafka.read_all(&world.topic_name(style)).await?;
            assert_eq!(letters.len(), 1, "{style}: {letters:?}");
            assert_eq!(letters[0].value.as_deref(), Some(&b"a poison record"[..]));
            for (name, value) in expected {
                let found = letters[0].headers.iter().find(|(header, _)| header == name);
                assert_eq!(
                    found.and_then(|(_, value)| value.as_ref()),
                    Some(&value),
                    "{style}: {name}"
                );
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn if_everything_fails_the_breaker_protects_the_dead_letter_topic_until_the_fix() -> Result<()> {
    scenario("breaker", async |world| {
        let input = world.topic("orders", 1).await?;
        let output = world.topic("copy", 1).await?;
        let dead = world.topic("dlq", 1).await?;
        let breaker = json!({
            "deadLetter": {"topic": dead, "breaker": {"maxConsecutive": 3}},
            "retry": {"maxBackoffSeconds": 1},
        });
        let mut spec = copy(&input, &output, breaker);
        spec["transforms"] =
            json!([{"name": "broken", "type": "Vrl", "vrl": {"source": ".sequence = array!(.sequence)"}}]);
        world.apply_group("orders", spec.clone()).await?;
        world.until_ready("orders", 1).await?;

        let ledger = Load::new(&input, "all", 0..1).produce(&world.kafka, 100).await?;
        let condition = until("status shows that the breaker is open", async || {
            let condition = world.until_condition("orders", "Consuming", "False").await?;
            ensure!(condition.reason == "DeadLetterBreakerOpen", "{condition:?}");
            Ok(condition)
        })
        .await?;
        println!("  {}", condition.message);
        let place = format!("{input}-0@3");
        for part in [place.as_str(), "broken", "more than 3 records in a row"] {
            assert!(
                condition.message.contains(part),
                "{part} is missing: {}",
                condition.message
            );
        }
        world.until_condition("orders", "Stalled", "True").await?;
        stays_at(world, &world.group_id("orders"), 0, 3).await?;
        assert_eq!(world.kafka.read_all(&dead).await?.len(), 3);
        let events = world
            .kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"], None)
            .await?
            .ok("kubectl get events")?;
        assert!(events.contains("DeadLetterBreakerOpen"), "{events}");

        spec["transforms"][0]["vrl"]["source"] = json!(".seen = true");
        world.apply_group("orders", spec).await?;
        world
            .kafka
            .until_drained(&world.group_id("orders"), &input)
            .await?;
        assert_eq!(
            world.kafka.read_all(&dead).await?.len(),
            3,
            "no record followed the three"
        );
        let copied = world.kafka.read_all(&output).await?.len() as u64;
        assert_eq!(copied, ledger.total() - 3);
        world.until_ready("orders", 1).await?;
        Ok(())
    })
    .await
}

/// Name, key, value; stage, component, class and part of the message.
type Kind = (
    &'static str,
    Option<&'static [u8]>,
    Option<Vec<u8>>,
    [&'static str; 4],
);

/// One record for each kind of failure, with everything that a record can have.
fn poison() -> Vec<Poison> {
    let order = |changes: Value| {
        let mut order = load::order("poison", MARKER, 1);
        harness::systems::kubernetes::merge(&mut order, changes);
        Some(order.to_string().into_bytes())
    };
    let headers = vec![
        ("trace".to_string(), Some(b"first".to_vec())),
        ("trace".to_string(), Some(b"second".to_vec())),
        ("nothing".to_string(), None),
        ("empty".to_string(), Some(Vec::new())),
        ("binary".to_string(), Some(vec![0xff, 0x00, 0xfe])),
    ];
    let redriven = vec![
        ("trace".to_string(), Some(b"again".to_vec())),
        (format!("{PREFIX}stage"), Some(b"write".to_vec())),
        (format!("{PREFIX}offset"), Some(b"4711".to_vec())),
    ];
    let kinds: [Kind; 8] = [
        (
            "broken JSON",
            Some(b"key"),
            Some(format!("{{\"broken\": \"{MARKER}\"").into_bytes()),
            ["decode", "value", "Undecodable", "is not JSON"],
        ),
        (
            "a value that is not UTF-8, without key",
            None,
            Some(b"{\"id\": \"\xff\xfe\"}".to_vec()),
            ["decode", "value", "Undecodable", "is not JSON"],
        ),
        (
            "an empty value",
            Some(b""),
            Some(Vec::new()),
            ["decode", "value", "Undecodable", "is not JSON"],
        ),
        (
            "a program that fails",
            Some(&[0xff, 0xfe]),
            order(json!({"quantity": MARKER})),
            ["transform", "ship", "TransformFailed", "expected integer"],
        ),
        (
            "a tombstone that the program cannot process",
            Some(b"gone"),
            None,
            ["transform", "ship", "TransformFailed", "expected integer"],
        ),
        (
            "a check constraint",
            Some(b"check"),
            order(json!({"id": "check", "quantity": -1})),
            ["write", "warehouse", "Rejected", "check constraint"],
        ),
        (
            "a not-null constraint",
            Some(b"null"),
            order(json!({"id": "null", "run": null})),
            ["write", "warehouse", "Rejected", "not-null constraint"],
        ),
        (
            "a redriven dead letter",
            Some(b"again"),
            Some(format!("again {MARKER}").into_bytes()),
            ["decode", "value", "Undecodable", "is not JSON"],
        ),
    ];
    let all = kinds.into_iter().enumerate();
    all.map(
        |(index, (name, key, value, [stage, component, class, says]))| Poison {
            name,
            message: Message {
                partition: Some(index as i32 % 3),
                key: key.map(<[u8]>::to_vec),
                value,
                headers: if name.contains("redriven") {
                    redriven.clone()
                } else {
                    headers.clone()
                },
                timestamp: Some(1_700_000_000_000 + index as i64),
            },
            stage,
            component,
            class,
            says,
        },
    )
    .collect()
}

/// Compares the dead letter with the record in the input topic.
fn check_letter(
    poison: &Poison,
    original: &Record,
    letter: &Record,
    topic: &str,
    group: &str,
    pods: &[String],
) -> Result<()> {
    let name = poison.name;
    assert_eq!(letter.key, original.key, "{name}: key");
    assert_eq!(letter.value, original.value, "{name}: value");
    assert_eq!(letter.timestamp, original.timestamp, "{name}: timestamp");
    assert_eq!(
        letter.partition, original.partition,
        "{name}: the partition of the same number"
    );
    let (ours, theirs): (Vec<_>, Vec<_>) = letter
        .headers
        .iter()
        .cloned()
        .partition(|(header, _)| header.starts_with(PREFIX));
    let mut expected = original.headers.clone();
    expected.retain(|(header, _)| !header.starts_with(PREFIX));
    assert_eq!(theirs, expected, "{name}: headers");

    let mut left: BTreeMap<String, String> = BTreeMap::new();
    for (header, value) in ours {
        let text = String::from_utf8(value.with_context(|| format!("{name}: {header} is null"))?)?;
        let before = left.insert(header.clone(), text);
        assert_eq!(before, None, "{name}: {header} is there twice");
    }
    let mut take = |header: &str| {
        left.remove(&format!("{PREFIX}{header}"))
            .with_context(|| format!("{name}: no header {PREFIX}{header}"))
    };
    let timestamp = original.timestamp.context("the record has a timestamp")?;
    assert_eq!(take("topic")?, topic, "{name}");
    assert_eq!(take("partition")?, original.partition.to_string(), "{name}");
    assert_eq!(take("offset")?, original.offset.to_string(), "{name}");
    assert_eq!(take("timestamp")?, timestamp.to_string(), "{name}");
    assert_eq!(take("group")?, group, "{name}");
    let worker = take("worker")?;
    assert!(pods.contains(&worker), "{name}: {worker} is none of {pods:?}");
    assert_eq!(take("stage")?, poison.stage, "{name}");
    assert_eq!(take("component")?, poison.component, "{name}");
    assert_eq!(
        take("attempts")?,
        "1",
        "{name}: a permanent failure is not retried"
    );
    assert_eq!(take("error-class")?, poison.class, "{name}");
    let message = take("error-message")?;
    println!("  {name}: {message}");
    assert!(message.contains(poison.says), "{name}: {message}");
    assert!(
        !message.contains(MARKER),
        "{name}: the message quotes the payload: {message}"
    );
    assert!(message.len() <= 1024, "{name}: {message}");
    assert!(left.is_empty(), "{name}: undocumented headers: {left:?}");
    Ok(())
}

fn came_from(letter: &Record, partition: i32, offset: i64) -> bool {
    letter.header(&format!("{PREFIX}partition")) == Some(partition.to_string())
        && letter.header(&format!("{PREFIX}offset")) == Some(offset.to_string())
}

/// A group that decodes JSON and copies it.
fn copy(input: &str, output: &str, error_handling: Value) -> Value {
    json!({
        "topics": [{"name": input}],
        "decode": {"value": {"type": "Json"}},
        "writers": [{"name": "copy", "type": "Kafka", "kafka": {"topic": output}}],
        "errorHandling": error_handling,
    })
}

/// Offset of the poison record that [`poisoned`] writes.
const POISON_AT: i64 = 50;

/// Fills an empty topic of two partitions: 50 good records in each, a poison record in partition 0, again 50
/// good records in each.
async fn poisoned(world: &World, topic: &str, poison: Option<&str>) -> Result<Ledger> {
    let half = 2 * POISON_AT as u64;
    let before = Load::new(topic, "good", 0..2).produce(&world.kafka, half).await?;
    let poison = Message {
        partition: Some(0),
        value: poison.map(Into::into),
        ..Message::default()
    };
    let landed = world.kafka.produce(topic, [poison]).await?;
    assert_eq!(landed[0].offset, POISON_AT);
    // A second load of the same run would start its sequence numbers again.
    let after = Load::new(topic, "good after", 0..2)
        .produce(&world.kafka, half)
        .await?;
    assert_eq!(before.offsets, after.offsets);
    Ok(before)
}

/// The topic has everything of the ledger, with at most `repeated` duplicates; and the records that
/// [`poisoned`] wrote after the poison.
async fn complete(world: &World, ledger: &Ledger, output: &str, repeated: u64) -> Result<()> {
    let records = world.kafka.read_all(output).await?;
    let mut ledgers = vec![ledger.clone()];
    if ledger.run == "good" {
        ledgers.push(Ledger {
            run: "good after".into(),
            ..ledger.clone()
        });
    }
    for ledger in ledgers {
        let verdict = check_records(&ledger, &records)?;
        println!("  {}: {verdict}", ledger.run);
        assert!(verdict.complete(), "{verdict}");
        assert!(
            verdict.duplicates() <= repeated,
            "more than {repeated} duplicates: {verdict}"
        );
    }
    Ok(())
}

/// Waits until the group has committed all partitions except one to their ends.
async fn until_drained_but(world: &World, group: &str, topic: &str, waiting: i32) -> Result<()> {
    until("the other partitions are drained", async || {
        let mut committed = world.kafka.committed(group, topic).await?;
        let mut ends = world.kafka.end_offsets(topic).await?;
        committed.remove(&waiting);
        ends.remove(&waiting);
        ensure!(committed == ends, "committed {committed:?} of {ends:?}");
        Ok(())
    })
    .await
}

/// Kafka's own tool shows, and keeps showing, that the partition is committed up to this offset and not past
/// it.
async fn stays_at(world: &World, group: &str, partition: i32, offset: i64) -> Result<()> {
    let ended = tokio::time::Instant::now() + WATCHED;
    until("everything before the record is committed", async || {
        let committed = committed(world, group, partition).await?;
        ensure!(committed == offset, "{committed} is committed");
        Ok(())
    })
    .await?;
    while tokio::time::Instant::now() < ended {
        assert_eq!(
            committed(world, group, partition).await?,
            offset,
            "nothing is committed past the record"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn committed(world: &World, group: &str, partition: i32) -> Result<i64> {
    let described = world.describe_group(group).await?;
    let found = described.iter().find(|found| found.partition == partition);
    found
        .and_then(|found| found.committed)
        .with_context(|| format!("nothing is committed: {described:?}"))
}
