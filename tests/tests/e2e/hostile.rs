//! Generated resources that are deep, huge, slow to compile, oddly named or contradictory: the operator keeps
//! running, says about each one what is wrong, and serves the groups of other namespaces. `KCG_HOSTILE=1000`
//! generates more of them.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use crds::KafkaConsumerGroup;
use harness::{
    World, scenario_alone,
    systems::{command, kubernetes::identities},
    until,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

const RESOURCES: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_resources_leave_the_operator_running_and_other_groups_served() -> Result<()> {
    scenario_alone("hostile", async |world| {
        let namespace = format!("{}-generated", world.namespace);
        let result = survives(world, &namespace).await;
        let deleted = [
            "delete",
            "namespace",
            &namespace,
            "--ignore-not-found",
            "--timeout=300s",
        ];
        let deleted = command::run("kubectl", &deleted, None).await?;
        result?;
        deleted.ok("kubectl delete namespace").map(drop)
    })
    .await
}

async fn survives(world: &World, namespace: &str) -> Result<()> {
    let number = match std::env::var("KCG_HOSTILE") {
        Ok(number) => number.parse().context("KCG_HOSTILE")?,
        Err(_) => RESOURCES,
    };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    println!("  {number} resources, seed {seed}");
    let input = world.topic("orders", 1).await?;
    let before = identities(&world.operator_pods().await?);
    command::run("kubectl", &["create", "namespace", namespace], None)
        .await?
        .ok("kubectl create namespace")?;
    let mut random = Random(seed | 1);
    let items: Vec<Value> = (0..number)
        .map(|index| resource(&mut random, index, &world.env.kafka))
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    // The API server refuses some of them, and kubectl continues with the others.
    let arguments = ["--namespace", namespace, "create", "--validate=ignore", "-f", "-"];
    let created = command::run("kubectl", &arguments, Some(&list)).await?;
    let accepted = created
        .stdout
        .lines()
        .filter(|line| line.ends_with("created"))
        .count();
    println!("  {accepted} of them are accepted by the API server");
    ensure!(accepted * 4 >= number, "{}", created.stderr);

    // Meanwhile, a new group with a program that nobody has compiled yet.
    world
        .apply_group(
            "orders",
            json!({
                "topics": [{"name": input}],
                "decode": {"value": {"type": "Json"}},
                "transforms": [{"name": "mark", "type": "Vrl", "vrl": {"source": format!(".seen = {seed}")}}],
                "writers": [{"name": "nowhere", "type": "Blackhole"}],
            }),
        )
        .await?;
    world.until_ready("orders", 1).await?;

    let groups: Api<KafkaConsumerGroup> = Api::namespaced(world.kube.clone(), namespace);
    let judged = until("every resource has an answer", async || {
        let groups = groups.list(&ListParams::default()).await?;
        let (mut reasons, mut without) = (BTreeMap::<String, usize>::new(), Vec::new());
        for group in &groups {
            match answer(group) {
                Some(reason) => *reasons.entry(reason).or_default() += 1,
                None => without.push(group.name_any()),
            }
        }
        ensure!(without.is_empty(), "none yet: {without:?}");
        Ok(reasons)
    })
    .await?;
    println!("  {judged:?}");
    let of_programs = |reason: &String| reason.starts_with("Transform");
    assert!(judged.keys().any(of_programs), "{judged:?}");

    assert_eq!(
        identities(&world.operator_pods().await?),
        before,
        "the operator was not restarted"
    );
    world.until_ready("orders", 1).await.map(drop)
}

/// The reason of the condition Accepted, once it is about the present spec. It may still be open, because programs
/// that compile slowly wait for each other.
fn answer(group: &KafkaConsumerGroup) -> Option<String> {
    let status = group.status.as_ref()?;
    let accepted = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Accepted")?;
    let current = status.observed_generation == group.metadata.generation;
    current.then(|| accepted.reason.clone())
}

/// Numbers from a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A stopped group, so that none of them starts workers, with an odd program and perhaps something else.
fn resource(random: &mut Random, index: usize, kafka: &str) -> Value {
    let mut group = json!({
        "apiVersion": "kafka-consumer.dev/v1alpha1",
        "kind": "KafkaConsumerGroup",
        "metadata": {"name": format!("h{index}")},
        "spec": {
            "desiredState": "Stopped",
            "kafka": {"bootstrapServers": [kafka]},
            "topics": [{"name": "hostile"}],
            "decode": {"value": {"type": "Json"}},
            "writers": [{"name": "nowhere", "type": "Blackhole"}],
        },
    });
    let program = program(random, index);
    group["spec"]["transforms"] = json!([{"name": "t", "type": "Vrl", "vrl": {"source": program}}]);
    for _ in 0..random.below(2) {
        spoil(random, &mut group, index);
    }
    group
}

/// A program that no other resource has.
fn program(random: &mut Random, index: usize) -> String {
    let size = 1 + random.below(700) as usize;
    match random.below(8) {
        0 => format!(".x{index} = {}1{}", "[".repeat(size), "]".repeat(size)),
        1 => format!(".x{index} = {}.y{}", "to_string!(".repeat(40), ")".repeat(40)),
        2 => (0..size * 3)
            .map(|n| format!(".new_{n} = del(.old_{n}_{index})\n"))
            .collect(),
        3 => format!(
            "if .a == {index} {{ .b = 0 }} {}",
            (0..size)
                .map(|n| format!("else if .a == \"{n}\" {{ .b = {n} }} "))
                .collect::<String>()
        ),
        4 => format!(".x = {index}{}", " + 1".repeat(size)),
        5 => format!(
            "# {index}\n.x = match(string!(.a), r'(a*)*{}')",
            "(b|b)*".repeat(size % 60)
        ),
        6 => format!(".x = \"{}\u{202e}\u{0}{index}\"", "\u{1f4a5}".repeat(size)),
        _ => format!(".x = {index}"),
    }
}

/// Makes one thing odd. Some are refused by the API server, others by the operator, others are allowed.
fn spoil(random: &mut Random, group: &mut Value, index: usize) {
    let many = 1 + random.below(64);
    let odd = random.pick(&[
        "",
        " ",
        "-",
        "a.b",
        "ä",
        "A",
        "__consumer_offsets",
        "..",
        "a/b",
        "\u{0}",
        "*",
    ]);
    let number = [0, -1, 1, i64::from(i32::MAX), i64::MAX, i64::MIN][random.below(6) as usize];
    let spec = &mut group["spec"];
    match random.below(15) {
        0 => {
            spec["topics"] = (0..many)
                .map(|n| json!({"name": format!("t{index}-{n}")}))
                .collect()
        }
        1 => spec["topics"] = json!([{"name": odd}]),
        2 => spec["topics"] = json!([{"name": "x".repeat(200 + many as usize)}]),
        3 => group["metadata"]["name"] = json!(format!("{}{index}", "n".repeat(190 + many as usize))),
        4 => group["metadata"]["labels"] = json!({format!("example.com/{}", "l".repeat(many as usize)): odd}),
        5 => spec["kafka"]["bootstrapServers"] = json!(["127.0.0.1:1", format!("{odd}:9092"), "[::1]:0"]),
        6 => {
            spec["kafka"]["clientConfig"] = (0..many)
                .map(|n| (format!("unknown.{n}"), json!(odd)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        7 => spec["processing"] = json!({"concurrency": number, "commitIntervalMilliseconds": number}),
        8 => spec["scaling"] = json!({"maxReplicas": number, "partitionsPerWorker": number}),
        9 => spec["worker"] = json!({"env": [{"name": "A", "value": odd}, {"name": "A", "value": "b"}]}),
        10 => {
            spec["worker"] = json!({"volumes": [{"name": "v", "secret": {"secretName": odd}}],
                "volumeMounts": [{"name": "v", "mountPath": odd}]});
        }
        11 => {
            let writer = |n| json!({"name": format!("w{n}"), "type": "Kafka", "kafka": {"topic": odd}});
            spec["writers"] = (0..many).map(writer).collect();
        }
        12 => {
            spec["writers"] =
                json!([{"name": "api", "type": "Http", "http": {"url": format!("http://{odd}")}}])
        }
        13 => spec["errorHandling"] = json!({"deadLetter": {"topic": odd}, "retry": {"maxAttempts": number}}),
        _ => {
            let nested = (0..many * 20).fold(json!(odd), |inner, _| json!([inner]));
            group["metadata"]["annotations"] = json!({"example.com/deep": nested.to_string()});
        }
    }
}
