//! What the operator's own Kafka client reads, against what Kafka's tools and librdkafka say about the same
//! cluster: lag, members and assignments, for both group protocols, open and aborted transactions and logs
//! that retention has cut.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::client_config::KafkaCredentials;
use crds::spec::{GroupProtocol, IsolationLevel};
use harness::systems::consumer_groups;
use harness::{Env, Kafka, Message, beside_others, until};
use operator::kafka::KafkaClients;
use operator::kafka::model::{FactsQuery, GroupKey, KafkaFacts, StartOutcome};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Topics without anything special, so that answers come in several pieces from several places.
const PLAIN_TOPICS: usize = 20;
const TIMEOUT: Duration = Duration::from_secs(30);

struct Reader {
    clients: KafkaClients,
    kafka: crds::spec::Kafka,
}

impl Reader {
    async fn facts(
        &self,
        group: &str,
        topics: &[&str],
        isolation: IsolationLevel,
        protocol: GroupProtocol,
    ) -> Result<KafkaFacts> {
        let query = FactsQuery {
            group_id: group.into(),
            topics: topics.iter().map(|topic| topic.to_string()).collect(),
            outputs: Vec::new(),
            isolation,
            protocol,
        };
        let key = GroupKey::new("facts", group);
        let credentials = KafkaCredentials::default();
        let facts = self
            .clients
            .facts(&key, &self.kafka, &credentials, &query, Duration::ZERO);
        Ok(facts.await?)
    }

    async fn start_at_end(&self, group: &str, topic: &str, protocol: GroupProtocol) -> Result<StartOutcome> {
        let query = FactsQuery {
            group_id: group.into(),
            topics: vec![topic.into()],
            outputs: Vec::new(),
            isolation: IsolationLevel::ReadCommitted,
            protocol,
        };
        let latest = serde_json::from_value(json!({"type": "Latest"}))?;
        let credentials = KafkaCredentials::default();
        let commit = self
            .clients
            .commit_start_positions(&self.kafka, &credentials, &query, &latest);
        Ok(commit.await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reads_what_kafkas_own_tools_say() -> Result<()> {
    let _beside_others = beside_others().await;
    let env = Env::read()?;
    let kafka = Kafka::new(&env.kafka);
    let reader = Reader {
        clients: KafkaClients::new(Duration::from_secs(3600)),
        kafka: serde_json::from_value(json!({"bootstrapServers": [&env.kafka]}))?,
    };
    let id = format!("facts-{}", std::process::id());
    let names: Vec<String> = (0..PLAIN_TOPICS).map(|index| format!("{id}-{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        kafka.create_topic(name, 3).await?;
        let messages = (0..index).map(|record| Message {
            value: Some(record.to_string().into_bytes()),
            ..Message::default()
        });
        kafka.produce(name, messages).await?;
    }
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();

    for (protocol, name) in [
        (GroupProtocol::Classic, "classic"),
        (GroupProtocol::Consumer, "consumer"),
    ] {
        let group = format!("{id}-{name}");
        let member = join(&env, &group, name, &topics)?;
        let polled = tokio::task::spawn_blocking(move || -> Result<BaseConsumer> {
            // Reads some records and commits them, so that every partition has its own lag.
            for _ in 0..100 {
                if let Some(record) = member.poll(Duration::from_millis(50)) {
                    member.commit_message(&record?, rdkafka::consumer::CommitMode::Sync)?;
                }
            }
            Ok(member)
        });
        let member = polled.await??;
        until("the facts about the group are those of the tool", async || {
            let isolation = IsolationLevel::ReadUncommitted;
            let facts = reader.facts(&group, &topics, isolation, protocol).await?;
            let expected = consumer_groups::describe(&env, &group).await?;
            ensure!(
                expected.len() == 3 * PLAIN_TOPICS,
                "the tool lists {} partitions",
                expected.len()
            );
            let found = facts.group.as_ref().context("no group")?;
            ensure!(found.state == "Stable" && found.members.len() == 1, "{found:?}");
            ensure!(found.protocol == protocol && found.is_of_consumers, "{found:?}");
            ensure!(
                matches!(found.assignor.as_str(), "range" | "uniform"),
                "{found:?}"
            );
            ensure!(facts.cluster_id.is_some(), "no cluster id");
            let owned = expected
                .iter()
                .filter(|partition| partition.consumer.is_some())
                .count();
            ensure!(
                found.assigned_partitions == i32::try_from(owned).ok(),
                "{found:?}, {owned}"
            );
            let lag = facts.lag.context("no lag")?;
            for partition in &expected {
                let end = partition.end.context("no end")?;
                let expected = end - partition.committed.unwrap_or(0);
                let read = lag
                    .per_partition
                    .get(&(partition.topic.clone(), partition.partition));
                ensure!(read == Some(&expected), "{partition:?}: {read:?}");
            }
            Ok(())
        })
        .await?;
        let later = format!("{id}-later-{name}");
        kafka.create_topic(&later, 2).await?;
        kafka
            .produce(&later, [Message::default(), Message::default()])
            .await?;
        // An added topic starts at its end, which Kafka takes only when the member has left.
        let occupied = StartOutcome::Occupied(vec![later.clone()]);
        ensure!(reader.start_at_end(&group, &later, protocol).await? == occupied);
        drop(member);
        // The other protocol finds the group as well, and the offsets stay when its member is gone.
        let other = match protocol {
            GroupProtocol::Classic => GroupProtocol::Consumer,
            GroupProtocol::Consumer => GroupProtocol::Classic,
        };
        until("the group is empty", async || {
            let isolation = IsolationLevel::ReadUncommitted;
            let found = reader.facts(&group, &topics, isolation, other).await?.group;
            let found = found.context("no group")?;
            ensure!(found.state == "Empty" && found.members.is_empty(), "{found:?}");
            ensure!(found.assigned_partitions == Some(0), "{found:?}");
            Ok(())
        })
        .await?;
        for committed in [2, 0] {
            let outcome = reader.start_at_end(&group, &later, protocol).await?;
            ensure!(outcome == StartOutcome::Committed(committed), "{outcome:?}");
        }
        let isolation = IsolationLevel::ReadUncommitted;
        let lag = reader.facts(&group, &[&later], isolation, protocol).await?.lag;
        ensure!(lag.is_some_and(|lag| lag.total == 0));
        kafka.delete_topics(&[later]).await?;
    }
    transactions(&env, &kafka, &reader, &id).await?;
    let mut all = names.clone();
    all.push(format!("{id}-tx"));
    kafka.delete_topics(&all).await
}

/// An aborted and an open transaction: for read_committed consumers the log ends before the open one.
async fn transactions(env: &Env, kafka: &Kafka, reader: &Reader, id: &str) -> Result<()> {
    let (topic, group) = (format!("{id}-tx"), format!("{id}-nobody"));
    kafka.create_topic(&topic, 1).await?;
    let config = {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &env.kafka)
            .set("transactional.id", id);
        config
    };
    let name = topic.clone();
    let open = tokio::task::spawn_blocking(move || -> Result<BaseProducer> {
        let producer: BaseProducer = config.create()?;
        producer.init_transactions(TIMEOUT)?;
        for outcome in ["commit", "abort", "open"] {
            producer.begin_transaction()?;
            for _ in 0..5 {
                let record = BaseRecord::<(), str>::to(&name).payload("x");
                producer.send(record).map_err(|(error, _)| error)?;
            }
            producer.flush(TIMEOUT)?;
            match outcome {
                "commit" => producer.commit_transaction(TIMEOUT)?,
                "abort" => producer.abort_transaction(TIMEOUT)?,
                _ => {}
            }
        }
        Ok(producer)
    });
    let open = open.await??;
    // Records and the markers of two transactions: 5 + 1 + 5 + 1, then 5 in the open one.
    for (isolation, end) in [
        (IsolationLevel::ReadCommitted, 12),
        (IsolationLevel::ReadUncommitted, 17),
    ] {
        let protocol = GroupProtocol::Classic;
        let facts = reader.facts(&group, &[&topic], isolation, protocol).await?;
        let lag = facts.lag.context("no lag")?;
        ensure!(lag.total == end, "{isolation:?}: {lag:?}");
        let found = facts.group.context("no group")?;
        ensure!(found.state == "Dead" && found.members.is_empty(), "{found:?}");
    }
    // A group without commits counts from the start of the log, also when records were deleted.
    kafka.delete_records(&topic, 0, 3).await?;
    let facts = reader
        .facts(
            &group,
            &[&topic],
            IsolationLevel::ReadCommitted,
            GroupProtocol::Consumer,
        )
        .await?;
    ensure!(facts.lag.as_ref().is_some_and(|lag| lag.total == 9), "{facts:?}");
    tokio::task::spawn_blocking(move || open.abort_transaction(TIMEOUT)).await??;
    Ok(())
}

fn join(env: &Env, group: &str, protocol: &str, topics: &[&str]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &env.kafka)
        .set("group.id", group)
        .set("group.protocol", protocol)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    let member: BaseConsumer = config.create()?;
    member.subscribe(topics)?;
    Ok(member)
}

/// The commonest mistakes in `spec.kafka`, and the words that lead to their correction.
#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_address_or_security_setting_is_reported_with_its_likely_cause() -> Result<()> {
    let _beside_others = beside_others().await;
    let env = Env::read()?;
    let (sasl, mtls) = (
        env.variable("KAFKA_SASL_BOOTSTRAP_SERVERS")?,
        env.variable("KAFKA_MTLS_BOOTSTRAP_SERVERS")?,
    );
    let proxied = env.variable("KAFKA_PROXIED_SERVERS")?;
    let ca = std::fs::read_to_string(env.variable("KAFKA_CA_FILE")?)?;
    let topic = format!("mistakes-{}", std::process::id());
    Kafka::new(&env.kafka).create_topic(&topic, 1).await?;
    let http = http_server().await?;
    let tls = json!({"ca": {"secretName": "ca"}});
    let login = json!({"mechanism": "PLAIN", "credentials": {"secretName": "bob"}});
    let cases = [
        (
            "no TLS at a TLS port",
            json!({"bootstrapServers": [&mtls]}),
            "the listener expects TLS",
        ),
        (
            "TLS at a port without",
            json!({"bootstrapServers": [&env.kafka], "tls": tls}),
            "is the listener without TLS?",
        ),
        (
            "no login at a SASL port",
            json!({"bootstrapServers": [&sasl], "tls": tls}),
            "expect a login by SASL",
        ),
        (
            "a login at a port without",
            json!({"bootstrapServers": [&env.kafka], "sasl": login}),
            "does not expect a login by SASL",
        ),
        (
            "no client certificate",
            json!({"bootstrapServers": [&mtls], "tls": tls}),
            "spec.kafka.tls.clientCertificate",
        ),
        (
            "an HTTP server",
            json!({"bootstrapServers": [&http]}),
            "this is an HTTP server",
        ),
        (
            "an unknown host",
            json!({"bootstrapServers": ["kafka.invalid:9092"]}),
            // "host name does not resolve", or "DNS server does not answer" where there is none.
            "kafka.invalid:9092: the ",
        ),
        (
            "a closed port",
            json!({"bootstrapServers": ["127.0.0.1:1"]}),
            "127.0.0.1:1: connection refused",
        ),
        (
            "advertised addresses without a broker",
            json!({"bootstrapServers": [&proxied]}),
            "advertised.listeners",
        ),
    ];
    let clients = KafkaClients::new(Duration::from_secs(3600));
    for (mistake, kafka, words) in cases {
        let key = GroupKey::new("mistakes", mistake);
        let kafka: crds::spec::Kafka = serde_json::from_value(kafka)?;
        let credentials = KafkaCredentials {
            ca_pem: kafka.tls.is_some().then(|| ca.clone()),
            username: kafka.sasl.is_some().then(|| "bob".into()),
            password: kafka.sasl.is_some().then(|| "bob-secret".into()),
            ..KafkaCredentials::default()
        };
        let query = FactsQuery {
            group_id: "mistakes".into(),
            topics: vec![topic.clone()],
            outputs: Vec::new(),
            isolation: IsolationLevel::ReadCommitted,
            protocol: GroupProtocol::Classic,
        };
        let facts = clients.facts(&key, &kafka, &credentials, &query, Duration::ZERO);
        let problem = facts
            .await
            .err()
            .with_context(|| format!("{mistake}: no problem"))?;
        let message = problem.to_string();
        ensure!(message.contains(words), "{mistake}: {message}");
    }
    // One dead address among others is no problem.
    let kafka = serde_json::from_value(json!({"bootstrapServers": ["127.0.0.1:1", &env.kafka]}))?;
    let reader = Reader { clients, kafka };
    let isolation = IsolationLevel::ReadCommitted;
    let facts = reader
        .facts("dead", &[&topic], isolation, GroupProtocol::Classic)
        .await?;
    ensure!(facts.lag.is_some_and(|lag| lag.total == 0));
    Kafka::new(&env.kafka).delete_topics(&[topic]).await
}

/// An address that answers as HTTP servers do.
async fn http_server() -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    Ok(address)
}
